//! What the keeper holds for the next master: the keys and the small records.
//!
//! | key | record | fds |
//! | --- | --- | --- |
//! | `apply` | empty | the JSON of the apps that `run` was given |
//! | `upgraded` | the number of the last upgrade whose end was told | |
//! | `former` | empty | the binary of the version before, while an upgrade is under way |
//! | `lock` | empty | the daemon's lock, put there by the keeper |
//! | `daemon` | the settings of the daemon itself | |
//! | `passed:N` | empty | a socket that the service manager gave `run` |
//! | `ids` | the first worker id of the next master, and its first number for orders | |
//! | `control` | which file it is bound to | the control socket |
//! | `ending` | whether everything is to end at once | |
//! | `app:NAME` | empty | the JSON of its settings and its [`AppRecord`] |
//! | `next:NAME` | empty | the same of settings that have not proved themselves yet |
//! | `memo:NAME` | empty | the JSON of all that the core knows of it: `memory` |
//! | `slot:NAME:INDEX` | what has changed in one slot since | |
//! | `order:NUMBER` | what has become of an order so far, and what it waits for | or the same in a file, if it is long |
//! | `member:…` | its number in its group and its holder, empty for a shared one | a listening socket |
//! | `worker:ID` | [`WorkerRecord`] | see [`WorkerRecord`] |
//! | `told:ID` | empty: the worker knows that it is to end | |
//! | `calls:ID` | what the worker has bound, and whether a call is being answered | |
//! | `channel:ID` | empty: the worker's stream is in the middle of a line | |
//! | `topics:ID` | empty | a file with what the worker has subscribed to |
//! | `line:ID` | empty | a file with lines for the worker, read as far as they have left: a long one, and what else waited when another version took over |

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, IntoInnerError, Read, Seek, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use supervisor_config::App;
use supervisor_core::{MAX_SLOTS, WorkerId};
use supervisor_protocol::keeper::{FdRole, Orphan};

use crate::control::to_json;
use crate::link::Link;
use crate::memory::ExitText;

/// The binary of the version before, while an upgrade is under way.
pub(crate) const FORMER: &str = "former";
/// The last upgrade whose end was told.
pub(crate) const UPGRADED: &str = "upgraded";
pub(crate) const APPLY: &str = "apply";
pub(crate) const DAEMON: &str = "daemon";
pub(crate) const IDS: &str = "ids";
pub(crate) const CONTROL: &str = "control";
pub(crate) const PASSED: &str = "passed:";
pub(crate) const APP: &str = "app:";
pub(crate) const NEXT: &str = "next:";
pub(crate) const MEMO: &str = "memo:";
pub(crate) const SLOT: &str = "slot:";
pub(crate) const WORKER: &str = "worker:";
pub(crate) const TOLD: &str = "told:";
pub(crate) const CALLS: &str = "calls:";
pub(crate) const ENDING: &str = "ending";
pub(crate) const CHANNEL: &str = "channel:";
pub(crate) const LINE: &str = "line:";
pub(crate) const TOPICS: &str = "topics:";

/// The largest JSON that is read from a descriptor, bytes.
pub(crate) const MAX_JSON: usize = 16 * 1024 * 1024;

/// What is known of an app beside its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    pub(crate) generation: u64,
    #[serde(deserialize_with = "bounded")]
    pub(crate) instances: u32,
    #[serde(default)]
    pub(crate) stopped: BTreeSet<u32>,
    #[serde(flatten)]
    pub(crate) origin: Origin,
}

/// A number of slots that an app can have: memory is set aside for all of them.
fn bounded<'de, D: Deserializer<'de>>(number: D) -> Result<u32, D::Error> {
    let instances = u32::deserialize(number)?;
    if instances > MAX_SLOTS {
        let message = format!("{instances} instances are more than the {MAX_SLOTS} that an app can have");
        return Err(D::Error::custom(message));
    }
    Ok(instances)
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
    /// What a later version has noted of it, which is given back to that.
    #[serde(flatten)]
    pub(crate) later: Map<String, Value>,
    /// The same of its settings, among which it is kept.
    #[serde(skip)]
    pub(crate) later_settings: Map<String, Value>,
}

/// A worker: first the intent, before its process exists; then the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    pub(crate) app: String,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    /// `None` while it is an intent.
    pub(crate) process: Option<ProcessRecord>,
    /// How its process ended: set before it is reaped.
    pub(crate) exit: Option<ExitText>,
    /// What its descriptors are, in their order.
    pub(crate) fds: Vec<Held>,
    /// Where its calls come is lost: they fail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut_off: bool,
}

/// What a descriptor of a worker's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Held {
    /// Where its introduction is read: while it is an intent.
    Introduction,
    /// Where the child sends it.
    Introducer,
    /// Its pidfd.
    Process,
    /// The read end of its standard output.
    Out,
    /// The read end of its standard error.
    Error,
    /// Where it sends `sd_notify(3)` messages.
    Notify,
    /// Where its calls come.
    Calls,
    /// Our end of its channel.
    Channel,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

impl Held {
    /// What it is to the keeper.
    pub(crate) const fn role(self) -> FdRole {
        match self {
            Self::Process => FdRole::Process,
            Self::Out | Self::Error => FdRole::Drain,
            Self::Introduction
            | Self::Introducer
            | Self::Notify
            | Self::Calls
            | Self::Channel
            | Self::Unknown => FdRole::Hold,
        }
    }
}

/// A process, told from the next owner of its pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: i32,
    /// Clock ticks since the boot.
    pub(crate) start_time: u64,
}

impl ProcessRecord {
    /// Whether the keeper speaks of it.
    pub(crate) fn is(&self, orphan: &Orphan) -> bool {
        i32::try_from(orphan.pid) == Ok(self.pid) && orphan.start_time == self.start_time
    }
}

impl WorkerRecord {
    /// Lets the keeper have it, with these descriptors.
    ///
    /// # Errors
    ///
    /// When there are no descriptors to spare for more than there were: then it
    /// is not stored.
    pub(crate) fn store(
        &mut self,
        worker: WorkerId,
        fds: &[(Held, BorrowedFd<'_>)],
        link: &Link,
    ) -> io::Result<()> {
        let fds = self.note(fds);
        link.put_or_fail(&worker_key(worker), &to_json(self), &fds)
    }

    /// Lets the keeper have it in place of what it has, with no more descriptors.
    pub(crate) fn replace(&mut self, worker: WorkerId, fds: &[(Held, BorrowedFd<'_>)], link: &Link) {
        let fds = self.note(fds);
        link.put(&worker_key(worker), &to_json(self), &fds);
    }

    fn note<'a>(&mut self, fds: &[(Held, BorrowedFd<'a>)]) -> Vec<(FdRole, BorrowedFd<'a>)> {
        self.fds = fds.iter().map(|(held, _)| *held).collect();
        fds.iter().map(|(held, fd)| (held.role(), *fd)).collect()
    }
}

pub(crate) fn worker_key(worker: WorkerId) -> String {
    format!("{WORKER}{}", worker.0)
}

pub(crate) fn told_key(worker: WorkerId) -> String {
    format!("{TOLD}{}", worker.0)
}

pub(crate) fn calls_key(worker: WorkerId) -> String {
    format!("{CALLS}{}", worker.0)
}

/// Says that a worker's stream is in the middle of a line.
pub(crate) fn channel_key(worker: supervisor_core::WorkerId) -> String {
    format!("{CHANNEL}{}", worker.0)
}

/// Holds what a worker has subscribed to, once it has used the envelope.
pub(crate) fn topics_key(worker: supervisor_core::WorkerId) -> String {
    format!("{TOPICS}{}", worker.0)
}

/// Holds the long line that is leaving for a worker.
pub(crate) fn line_key(worker: supervisor_core::WorkerId) -> String {
    format!("{LINE}{}", worker.0)
}

/// The keys of all that is about a worker.
pub(crate) fn worker_keys(worker: WorkerId) -> [String; 6] {
    [WORKER, TOLD, CALLS, CHANNEL, LINE, TOPICS].map(|kind| format!("{kind}{}", worker.0))
}

pub(crate) fn app_key(name: &str) -> String {
    format!("{APP}{name}")
}

pub(crate) fn next_key(name: &str) -> String {
    format!("{NEXT}{name}")
}

pub(crate) fn memo_key(name: &str) -> String {
    format!("{MEMO}{name}")
}

pub(crate) fn slot_key(name: &str, index: u32) -> String {
    format!("{SLOT}{name}:{index}")
}

/// Whether the ledger has what is under a key: it is worth knowing when the
/// keeper is dead, too.
pub(crate) fn is_in_ledger(key: &str) -> bool {
    let whole = [DAEMON, IDS];
    let kinds = [APP, NEXT, MEMO, SLOT, WORKER, TOLD, CHANNEL, TOPICS, LINE];
    whole.contains(&key) || kinds.iter().any(|kind| key.starts_with(kind)) || crate::listeners::is_member(key)
}

/// An app's settings and record in a file of memory, which the keeper can hold.
pub(crate) fn store_app(app: &App, record: &AppRecord) -> io::Result<OwnedFd> {
    let mut settings = serde_json::to_value(app)?;
    if let Some(settings) = settings.as_object_mut() {
        settings.extend(record.origin.later_settings.clone());
    }
    store_json(&(settings, record))
}

/// What [`store_app`] has stored, of whichever version.
pub(crate) fn load_app(fd: OwnedFd) -> io::Result<(App, AppRecord)> {
    let (settings, mut record): (Value, AppRecord) = load(fd)?;
    let later = &mut record.origin.later_settings;
    let app = serde_ignored::deserialize(&settings, |path| {
        let key = path.to_string();
        later.extend(settings.get(&key).map(|value| (key, value.clone())));
    })?;
    Ok((app, record))
}

/// Any value in a file of memory.
pub(crate) fn store_json(value: &impl Serialize) -> io::Result<OwnedFd> {
    let mut file = BufWriter::new(File::from(memfd_create("record", MemfdFlags::CLOEXEC)?));
    #[cfg(feature = "next-version")]
    let value = &crate::next::file(value)?;
    serde_json::to_writer(&mut file, value)?;
    Ok(file.into_inner().map_err(IntoInnerError::into_error)?.into())
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
    file.take(MAX_JSON as u64).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state;

    #[test]
    fn no_record_has_more_slots_than_an_app_can_have() {
        let check = |instances: u32| {
            let record: io::Result<AppRecord> =
                read(format!(r#"{{"generation": 1, "instances": {instances}}}"#).as_bytes());
            record.map(|record| record.instances).map_err(|error| error.to_string())
        };
        assert_eq!(check(10_000), Ok(10_000));
        let refused = check(u32::MAX).unwrap_err();
        assert!(refused.contains("more than the 10000 that an app can have"), "{refused}");
    }

    #[test]
    fn what_a_later_version_has_noted_is_kept() {
        let text = br#"{"schema": 1, "apps": [{"generation": 2, "instances": 3,
            "settings": {"name": "web", "command": ["true"], "cwd": "/"}}]}"#;
        let (app, record) = state::decode(text).unwrap().apps.remove(0);
        let (mut settings, mut fields) = (json!(app), json!(record));
        settings["colour"] = json!({"of": "doors"});
        fields["mood"] = json!("good");
        let later = store_json(&(settings.clone(), fields.clone())).unwrap();

        let (app, record) = load_app(later).unwrap();
        assert_eq!((app.name.as_str(), record.generation), ("web", 2));
        let again: (Value, Value) = load(store_app(&app, &record).unwrap()).unwrap();
        assert_eq!(again, (settings, fields));
    }
}
