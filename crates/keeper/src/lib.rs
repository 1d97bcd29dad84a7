//! The keeper: the stable process of the daemon.
//!
//! It holds what must outlive a master, and decides nothing:
//!
//! - It is the first process of the daemon and keeps its pid. Terminals,
//!   service managers and containers see only this one.
//! - It starts the master, from the binary that it was started from itself
//!   (an open descriptor, so that a package update is no upgrade), and another
//!   one when that dies. A master that had served is replaced at once, however
//!   often; after three in a row that never served there are pauses.
//! - It keeps a table, key → (small record, descriptors), that the master
//!   writes over a `SOCK_SEQPACKET` pair. Stored means sent: a packet in the
//!   keeper's socket survives its sender. The next master gets the whole table
//!   first, in the order of the keys and at the pace at which it reads. The old
//!   master's packets are read to the end before that, and during the hand-over
//!   only the new one writes, so both see the same; what it stores before the
//!   end of the table may come back to it.
//! - It is the child subreaper: workers whose master died, and descendants that
//!   lost their parent, become its children. It reaps them, and tells the
//!   master how they ended.
//! - It passes signals on to the master. TERM and INT wait for one that serves;
//!   asked again while there is none, the keeper kills all workers itself.
//! - A master that says nothing for ten seconds is killed, and so replaced.
//! - When no master reads the workers' output for a second, it drains the
//!   pipes that fill: workers must not block.
//!
//! It is one thread in one loop, without an async runtime, and never waits for
//! anything but the next event: not for a master that does not read, an empty
//! pipe or a terminal. What others can fill is bounded: the table and its
//! descriptors, the ends of orphans, the signals that wait. A lack of
//! descriptors, memory or processes delays the next master; it does not end the
//! keeper.
//!
//! A keeper can begin with the table of another (`state`): that is how a program
//! becomes the keeper by `exec`.
//!
//! The loop is in `keeper`; what it decides by is in small parts without system
//! calls: `table`, `news`, `restarts`, `silence`, `ending`.

mod drain;
mod ending;
mod error;
pub mod handover;
mod keeper;
mod log;
mod lull;
mod master;
mod news;
mod notify;
mod restarts;
mod signals;
mod silence;
mod start;
mod state;
mod table;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use error::Error;
pub use lull::Lull;
pub use start::run;
pub use state::{Saved, State, StateError, check, restore, save};
pub use table::{Entry, Table};

/// What a keeper is started with.
///
/// Its environment goes on to the master, but for `NOTIFY_SOCKET`. What else it
/// has open is the caller's to close before: the keeper lives long.
#[derive(Debug)]
pub struct Options {
    /// The file whose lock makes the daemon the only one of its home.
    pub lock: PathBuf,
    /// The master's whole argument vector. Its end of the pair is descriptor
    /// [`MASTER_FD`].
    pub master: Vec<OsString>,
    /// The argument vector of another keeper in place of this one, to which the
    /// number of the descriptor with its state is added.
    pub keeper: Vec<OsString>,
    /// Entries that the first master finds: key and descriptor.
    pub initial: Vec<(String, OwnedFd)>,
    /// What another keeper had, whose place this one takes.
    pub state: Option<State>,
}

/// The number of the descriptor on which a master finds its keeper.
pub const MASTER_FD: i32 = 3;

/// That of the keeper's state, for a master that rehearses.
pub const STATE_FD: i32 = 4;
