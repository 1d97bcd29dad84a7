//! What the keeper holds for the next master: the keys and the small records.
//!
//! | key | record | fds |
//! | --- | --- | --- |
//! | `apply` | empty | the JSON of the apps that `run` was given |
//! | `lock` | empty | the daemon's lock, put there by the keeper |
//! | `daemon` | the settings of the daemon itself | |
//! | `passed:N` | empty | a socket that the service manager gave `run` |
//! | `ids` | the first worker id of the next master | |
//! | `app:NAME` | empty | the JSON of its settings and its [`AppRecord`] |
//! | `member:…` | its number in its group, empty for a shared one | a listening socket |
//! | `worker:ID` | [`WorkerRecord`] | see [`WorkerRecord`] |
//! | `channel:ID` | empty: the worker's stream is in the middle of a line | |
//! | `line:ID` | empty | a file with a long line for the worker, read as far as it has left |

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use supervisor_config::App;

use crate::control::to_json;

pub(crate) const APPLY: &str = "apply";
pub(crate) const DAEMON: &str = "daemon";
pub(crate) const IDS: &str = "ids";
pub(crate) const PASSED: &str = "passed:";
pub(crate) const APP: &str = "app:";
pub(crate) const WORKER: &str = "worker:";
pub(crate) const CHANNEL: &str = "channel:";
pub(crate) const LINE: &str = "line:";

/// The largest JSON that is read from a descriptor, bytes.
const MAX_JSON: u64 = 16 * 1024 * 1024;

/// What is known of an app beside its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    pub(crate) generation: u64,
    pub(crate) instances: u32,
    #[serde(default)]
    pub(crate) stopped: BTreeSet<u32>,
    #[serde(flatten)]
    pub(crate) origin: Origin,
}

/// Where a declaration comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The file; none for a command line.
    #[serde(default)]
    pub(crate) source: Option<PathBuf>,
    /// The `NAME` of `--env NAME` that it was read with.
    #[serde(default)]
    pub(crate) env_name: Option<String>,
}

/// A worker: first the intent, before its process exists; then the process.
///
/// Its fds are, while it is an intent, both ends of the introduction socket
/// pair (the child sends its pid on the second one), and afterwards its pidfd;
/// then the read ends of its pipes, its notify socket and the master's end of
/// its channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    pub(crate) app: String,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    /// `None` while it is an intent.
    pub(crate) process: Option<ProcessRecord>,
    /// How its process ended: set before it is reaped.
    pub(crate) exit: Option<String>,
}

/// A process, told from the next owner of its pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: i32,
    /// Clock ticks since the boot.
    pub(crate) start_time: u64,
}

impl WorkerRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

pub(crate) fn worker_key(worker: supervisor_core::WorkerId) -> String {
    format!("{WORKER}{}", worker.0)
}

/// Says that a worker's stream is in the middle of a line.
pub(crate) fn channel_key(worker: supervisor_core::WorkerId) -> String {
    format!("{CHANNEL}{}", worker.0)
}

/// Holds the long line that is leaving for a worker.
pub(crate) fn line_key(worker: supervisor_core::WorkerId) -> String {
    format!("{LINE}{}", worker.0)
}

pub(crate) fn app_key(name: &str) -> String {
    format!("{APP}{name}")
}

/// An app's settings and record in a file of memory, which the keeper can hold.
pub(crate) fn store_app(app: &App, record: &AppRecord) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("app", MemfdFlags::CLOEXEC)?);
    serde_json::to_writer(&mut file, &(app, record))?;
    file.flush()?;
    Ok(file.into())
}

/// A record's JSON.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(record: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(record)?)
}

/// JSON from a descriptor, from its beginning.
pub(crate) fn load<T: for<'de> Deserialize<'de>>(fd: OwnedFd) -> io::Result<T> {
    let mut file = File::from(fd);
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(MAX_JSON).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
