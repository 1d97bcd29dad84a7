//! What is needed to find the workers again when keeper and master have died
//! together: the records that the keeper held, in a file of the runtime folder.
//!
//! ```text
//! {"version":1,"boot":"…","pid_namespace":4026531836}
//! {"key":"worker:7","record":"{…}","fds":["process",{"pipe":123},{"name":"000a1"}]}
//! {"key":"told:6"}                                              it is gone
//! ```
//!
//! A descriptor cannot be written down, but how to find it again can. Lines are
//! appended, by a thread of its own, and nobody waits for them: what has
//! happened in the last [`PAUSE`] may be missing. The file is not synced: it
//! must outlive processes, not the machine, for no worker does either. When it
//! has grown, it is replaced by a new one. `recovery` reads it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use serde::{Deserialize, Serialize};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::{own, process, socket};

use crate::mirror::{Changed, Mirror};
use crate::records;

/// The version of the file. It changes when an older program could not read on.
pub(crate) const VERSION: u32 = 1;
/// How long changes are collected.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// What may be appended in any case before the file is replaced, bytes.
const LEAST: usize = 1 << 20;
/// How long the end waits for the file to be removed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first line: where the pids and inodes of the others mean something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: u32,
    /// The boot of the machine.
    pub(crate) boot: String,
    /// The inode of the namespace of the pids.
    pub(crate) pid_namespace: u64,
}

/// Another line: an entry of the keeper's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) key: String,
    /// `None` when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fds: Vec<Trace>,
}

/// How a descriptor is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Trace {
    /// By the pid in the record.
    Process,
    /// The read end of a pipe, whose other end has the same inode.
    Pipe(u64),
    /// A socket that a worker has, too: a listening one, or our end of its channel.
    Socket(u64),
    /// A datagram socket that can be bound to its abstract name again.
    Name(String),
    /// A file in memory, by what is in it.
    Contents(String),
    /// It cannot be found.
    Lost,
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Ledger {
    mirror: Mirror,
    done: Receiver<()>,
}

impl Header {
    /// That of this moment.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub(crate) fn now() -> io::Result<Self> {
        let boot = process::boot_id()?;
        let pid_namespace = rustix::fs::stat("/proc/self/ns/pid")?.st_ino;
        Ok(Self { version: VERSION, boot, pid_namespace })
    }
}

impl Ledger {
    /// Begins to write what the mirror shows.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(path: PathBuf, mirror: &Mirror) -> io::Result<Self> {
        let (finished, done) = sync_channel(1);
        let shown = mirror.clone();
        thread::Builder::new().name("sup-ledger".to_owned()).spawn(move || {
            // What has changed is written down some time. Without it works as well.
            let _ = own::yield_to_wakers();
            keep(&path, &shown);
            let _ = fs::remove_file(&path);
            let _ = finished.send(());
        })?;
        Ok(Self { mirror: mirror.clone(), done })
    }

    /// Removes the file: there is nothing left to be found.
    pub(crate) fn finish(self) {
        self.mirror.close();
        let _ = self.done.recv_timeout(PATIENCE);
    }
}

/// Writes changes until there are no more.
fn keep(path: &Path, mirror: &Mirror) {
    let mut file: Option<Appended> = None;
    let mut failed = false;
    while let Some(changed) = mirror.changed() {
        let result = match (&mut file, changed) {
            (Some(file), Changed::Keys(keys)) if file.has_room() => {
                file.append(&keys.iter().flat_map(|key| line(mirror, key)).collect::<Vec<u8>>())
            }
            _ => Appended::replace(path, mirror).map(|whole| file = Some(whole)),
        };
        match result {
            Ok(()) => failed = false,
            Err(error) => {
                if !failed {
                    tracing::error!("cannot write {}: {error}", path.display());
                }
                failed = true;
                file = None;
            }
        }
        thread::sleep(if failed { AGAIN } else { PAUSE });
        if failed {
            mirror.tell_all();
        }
    }
}

/// The file.
#[derive(Debug)]
struct Appended {
    file: File,
    /// What a whole one takes, bytes.
    whole: usize,
    appended: usize,
}

impl Appended {
    /// Puts a whole file in place of the one that is there.
    fn replace(path: &Path, mirror: &Mirror) -> io::Result<Self> {
        let mut text = serde_json::to_vec(&Header::now()?)?;
        text.push(b'\n');
        let mut last = None;
        loop {
            let next = mirror.lock().table.after(last.as_deref()).map(|(key, _)| key.to_owned());
            let Some(key) = next else { break };
            text.extend(line(mirror, &key));
            last = Some(key);
        }
        let temporary = path.with_extension("new");
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        fs::rename(&temporary, path)?;
        Ok(Self { file, whole: text.len(), appended: 0 })
    }

    fn has_room(&self) -> bool {
        self.appended < self.whole.max(LEAST)
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        self.appended += text.len();
        self.file.write_all(text)
    }
}

/// The line about an entry, as it is now.
fn line(mirror: &Mirror, key: &str) -> Vec<u8> {
    if !records::is_in_ledger(key) {
        return Vec::new();
    }
    let found = {
        let held = mirror.lock();
        held.table.get(key).map(|entry| {
            let fds = entry.fds.iter().map(|(role, fd)| (*role, fd.try_clone())).collect::<Vec<_>>();
            (String::from_utf8_lossy(&entry.record).into_owned(), fds)
        })
    };
    let (record, fds) = found.unzip();
    // That a long line has begun is all that can be of use: where it is, is lost.
    let fds = fds.filter(|_| !key.starts_with(records::LINE));
    // Outside of the lock: the file of an account may be large.
    let trace = |(role, fd): (FdRole, io::Result<OwnedFd>)| fd.and_then(|fd| Trace::of(role, fd));
    let fds = fds.into_iter().flatten().map(|one| trace(one).unwrap_or(Trace::Lost)).collect();
    let mut text = serde_json::to_vec(&Line { key: key.to_owned(), record, fds }).unwrap_or_default();
    text.push(b'\n');
    text
}

impl Trace {
    fn of(role: FdRole, fd: OwnedFd) -> io::Result<Self> {
        if role == FdRole::Process {
            return Ok(Self::Process);
        }
        let found = fstat(&fd)?;
        Ok(match FileType::from_raw_mode(found.st_mode) {
            FileType::Fifo => Self::Pipe(found.st_ino),
            FileType::Socket => match socket::abstract_name(fd.as_fd()) {
                Some(name) => Self::Name(name),
                None => Self::Socket(found.st_ino),
            },
            FileType::RegularFile => {
                // Its offset is shared with the keeper: it stays where it is.
                let length = usize::try_from(found.st_size).unwrap_or(usize::MAX).min(records::MAX_JSON);
                let mut text = vec![0; length];
                File::from(fd).read_exact_at(&mut text, 0)?;
                Self::Contents(String::from_utf8_lossy(&text).into_owned())
            }
            FileType::Directory
            | FileType::Symlink
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Self::Lost,
        })
    }
}
