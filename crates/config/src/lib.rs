//! Ecosystem files to checked apps.
//!
//! ```text
//! Source::read ─ text ─▶ tree::parse ─ positioned values ─▶ file ─▶ entry ─▶ App
//!                             │                               │        │
//!                             └───────── Report: mistakes ◀───┴────────┘
//! ```
//!
//! Every format becomes one tree of values with their places ([`load`]). The
//! readers walk it, note each mistake in a report and go on with a stand-in, so
//! that a person sees all mistakes of a file at once. A command line becomes
//! such a tree too ([`app_from_command`]), and passes the same readers. Names,
//! defaults and documentation of all keys are one table, in `keys`.
//!
//! Secrets: files hold them, so a message shows the one line that it is about
//! and on it no value of a variable.
//!
//! Hostile input: depth, number of values, text, apps and messages are bounded,
//! and the work is linear in the file's length.

mod app;
mod balance;
mod channel;
mod command_line;
mod cpu_affinity;
mod cron;
mod daemon;
mod diagnostic;
mod duration;
mod entry;
mod env_file;
mod environment;
mod fields;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod import;
mod keys;
mod limits;
mod listen;
mod logs;
mod memory;
mod path;
mod program;
mod ready;
mod reference;
mod reload;
mod report;
mod schema;
mod signal;
mod size;
mod source;
mod suggestion;
mod tree;
mod value;
mod watch;
mod words;

pub use app::{App, ExecMode, Inherit, Limit, ListenAddress, LogTarget};
pub use balance::Balance;
pub use channel::{ChannelOptions, speaks_node};
pub use command_line::{CommandOptions, app_from_command};
pub use cpu_affinity::{CpuAffinity, ranges};
pub use cron::{CronRestart, parse_cron};
pub use daemon::{DaemonSettings, LogLevel};
pub use diagnostic::{Diagnostic, Errors, Severity, SourceLine};
pub use import::{ImportOptions, import};
pub use logs::{LogOptions, LogPeriod};
pub use ready::{Attempt, Ready, ReadyCheck};
pub use reference::update_reference;
pub use reload::Reload;
pub use schema::schema;
pub use source::{Format, ReadError, Source};
pub use suggestion::closest;
pub use watch::Watch;

use std::collections::BTreeMap;
use std::path::PathBuf;

use report::Report;

/// A commented ecosystem file, as `supervisor init` writes it.
pub const EXAMPLE: &str = include_str!("../../../ecosystem.example.yaml");

/// What a file's meaning depends on besides its text.
#[derive(Debug, Clone)]
pub struct Context {
    /// The folder that relative paths start from; absolute.
    pub base_dir: PathBuf,
    /// The environment of the person who loads the file. Scripts that no
    /// interpreter is named for are looked up in its `PATH`.
    pub caller_env: BTreeMap<String, String>,
    /// The `NAME` of `--env NAME`, which adds each app's `env_NAME`.
    pub env_name: Option<String>,
    /// The CPUs usable here, which `instances: max` means; at least 1.
    pub usable_cpus: u32,
}

/// A file's apps.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The apps, in the file's order.
    pub apps: Vec<App>,
    /// What it says of the daemon; `None` when it says nothing.
    pub daemon: Option<DaemonSettings>,
    /// What is worth saying although the file is right.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a file's text into checked apps. Other files are read only where it
/// names them: each `env_file`.
///
/// # Errors
/// All of the file's mistakes at once, in the order of their position; only the
/// first where the text is not well-formed.
pub fn load(source: &Source, context: &Context) -> Result<Loaded, Errors> {
    let mut report = Report::of_file(source);
    let (apps, daemon) = tree::parse(source, &mut report)
        .map(|root| file::read(&root, source, context, &mut report))
        .unwrap_or_default();
    let (warnings, errors) = report.finish();
    match Errors::new(errors) {
        None => Ok(Loaded { apps, daemon, warnings }),
        Some(errors) => Err(errors),
    }
}
