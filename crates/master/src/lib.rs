//! The master: the shell around [`supervisor_core`].
//!
//! It is a child of the keeper and the parent of the workers. One thread
//! decides (`run`): it waits for news, turns it into events, lets
//! the core handle them, and performs the actions. Helpers have threads of
//! their own because they must never make it wait: workers' output (`output`),
//! messages between them (`channel`),
//! the reading of `/proc` (`sampler`) and watched files (`watcher`).
//!
//! It is crash-only: everything that must outlive it is with the keeper
//! (`link`, `records`), and a master that starts looks there first
//! (`inherit`). What outlives the daemon is on disk (`state`, `store`).

mod adopt;
mod automatic;
mod budget;
mod capture;
mod cgroups;
mod channel;
mod checks;
mod clock;
mod control;
mod drains;
mod elsewhere;
mod events;
mod family;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
mod hangs;
mod inherit;
mod lacks;
mod last_words;
mod ledger;
mod link;
mod listeners;
mod log;
mod master;
mod memory;
mod mirror;
pub mod next;
mod notify;
mod operations;
mod output;
mod own;
mod passed;
mod problems;
mod queues;
mod records;
mod recovery;
mod registry;
mod rehearsal;
mod requests;
mod run;
mod safe;
mod sampler;
mod schedule;
mod second_name;
mod service;
mod settings;
mod sight;
mod snapshot;
mod spread;
mod state;
mod store;
mod succession;
mod upgrade;
mod watcher;
mod words;
mod workers;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use output::EchoForm;
pub use recovery::{Orphan, forget_orphans, orphans};
pub use rehearsal::rehearse;
pub use run::run;

/// What a master is started with.
#[derive(Debug)]
pub struct Options {
    /// Its end of the socket pair with the keeper; closed when it ends.
    pub keeper: OwnedFd,
    /// Where the control socket is made. It must exist.
    pub runtime_dir: PathBuf,
    /// Where output and the daemon's own log go. It is made when needed.
    pub log_dir: PathBuf,
    /// Where what is declared is kept over the daemon's end, in
    /// [`STATE_FILE`]; `None` keeps nothing. It is made when needed.
    pub state_dir: Option<PathBuf>,
    /// The whole argument vector of a keeper of this daemon, whose place this
    /// process takes when the keeper dies; `--state-fd N` is added.
    pub succession: Vec<OsString>,
    /// Write the daemon's log to standard error as well.
    pub foreground: bool,
    /// Show workers' output on standard output and error, besides its files.
    pub echo: Option<EchoForm>,
    /// Only stand in for those that die before they serve.
    pub safe_mode: Option<SafeMode>,
}

/// Why there is nobody better, and for how long this is to go on.
#[derive(Debug)]
pub struct SafeMode {
    /// In words.
    pub reason: String,
    /// When to make room for an ordinary master.
    pub leave_after: Duration,
}

/// The name of the control socket in the runtime folder.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The name of the socket in the runtime folder where a master whose keeper has
/// died waits for the next one.
pub const HANDOVER_SOCKET: &str = "handover.sock";

/// The name of the file in the runtime folder by which the workers are found
/// again when keeper and master have died together.
pub const LEDGER_FILE: &str = "workers.ledger";

/// The name of the file in the state folder that has what is declared.
pub const STATE_FILE: &str = "state.json";
