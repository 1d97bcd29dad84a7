//! What a new master finds: the keeper's table, as the master before left it.
//!
//! Everything is taken over by `adopt`: sockets, so that nobody is refused, and
//! workers, which notice nothing. Those that nothing names are ended, each by
//! its pidfd.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use supervisor_config::{App, DaemonSettings};
use supervisor_core::WorkerId;
use supervisor_protocol::control::Apply;
use supervisor_protocol::keeper::{FromKeeper, LOCK_KEY, Orphan};
use supervisor_sys::diag::inodes_of;
use supervisor_sys::limits::Limit;
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, fdpass, pidfd, process};

use crate::capture::CallsRecord;
use crate::cgroups::Cgroups;
use crate::channel::Left;
use crate::family::Processes;
use crate::link::Link;
use crate::listeners;
use crate::master::{Beginning, Master};
use crate::memory::Memories;
use crate::records::{self, AppRecord, Held, ProcessRecord, WorkerRecord};

/// How long workers that nothing names may take to die.
const DEATH: Duration = Duration::from_secs(2);
/// Worker ids that one master may use.
const IDS: u64 = 1 << 32;

/// A master, and what it is to begin with.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) master: Master,
    pub(crate) apps: Apps,
    /// There was none before.
    pub(crate) is_first: bool,
}

/// The apps to begin with.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    /// Those that an earlier master or daemon had.
    pub(crate) known: Vec<(App, AppRecord)>,
    /// Settings of theirs that have not proved themselves yet, by name.
    pub(crate) next: BTreeMap<String, (App, AppRecord)>,
    /// All that the earlier master knew of them.
    pub(crate) memories: Memories,
    /// Its workers.
    pub(crate) leftovers: Leftovers,
    /// Those that `run` was given and no master has taken yet.
    pub(crate) new: Option<Apply>,
    /// The settings that the daemon had.
    pub(crate) daemon: Option<DaemonSettings>,
    /// Everything is to end; at once, if it is true.
    pub(crate) ending: Option<bool>,
}

/// The workers of an earlier master, and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) workers: BTreeMap<WorkerId, Leftover>,
    /// Those that know that they are to end.
    pub(crate) told: BTreeSet<WorkerId>,
    pub(crate) calls: BTreeMap<WorkerId, CallsRecord>,
    /// What was under way on their channels.
    pub(crate) channels: BTreeMap<WorkerId, Left>,
    /// The processes that the keeper has reaped.
    pub(crate) orphans: Vec<Orphan>,
    /// All that run, if somebody has asked.
    processes: OnceCell<Option<Processes>>,
}

/// A worker of the master before, as its record names it.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) record: WorkerRecord,
    pub(crate) fds: BTreeMap<Held, OwnedFd>,
    /// `None` for one that was never executed, or of which only the number is
    /// left.
    pub(crate) process: Option<Pid>,
}

/// Takes the keeper's table over.
///
/// # Errors
///
/// When the keeper breaks off, or a thread cannot be started.
pub(crate) fn take_over(keeper: OwnedFd, log_dir: PathBuf) -> anyhow::Result<Inheritance> {
    let mut link = Link::new(keeper);
    let lost = "cannot read the keeper's table";
    let (FromKeeper::Hello(hello), _) = link.receive().context(lost)? else { bail!("{lost}: no hello") };
    link.meet(hello.keeper_pid);
    let keeper =
        i32::try_from(hello.keeper_pid).ok().and_then(Pid::from_raw).context("the keeper has no pid")?;

    let mut apps = Apps::default();
    let mut members = Vec::new();
    let mut passed = Vec::new();
    let mut first_worker = 1;
    let mut is_first = true;
    loop {
        let (message, fds) = match link.receive() {
            // Of another version, or cut: it stays with the keeper.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!("passed over in the keeper's table: {error}");
                continue;
            }
            received => received.context(lost)?,
        };
        match message {
            FromKeeper::Entry { key, record, .. } => {
                let mut entry = Entry { key, record, fds };
                if apps.memories.take(&entry.key, &entry.record, &mut entry.fds) {
                    // It is read when the whole table is there.
                } else if entry.key == LOCK_KEY {
                    link.hold_lock(entry.fds);
                } else if entry.key == records::APPLY {
                    apps.new = entry.apply();
                } else if entry.key == records::DAEMON {
                    apps.daemon = records::read(&entry.record).ok();
                } else if entry.key == records::IDS {
                    is_first = false;
                    first_worker = records::read(&entry.record).unwrap_or(first_worker);
                } else if entry.key == records::ENDING {
                    apps.ending = records::read(&entry.record).ok();
                } else if entry.key.starts_with(records::APP) {
                    apps.known.extend(entry.app());
                } else if let Some(name) = entry.key.strip_prefix(records::NEXT).map(str::to_owned) {
                    apps.next.extend(entry.app().map(|app| (name, app)));
                } else if listeners::is_member(&entry.key) {
                    members
                        .extend(entry.fds.into_iter().next().map(|socket| (entry.key, entry.record, socket)));
                } else if entry.key.starts_with(records::PASSED) {
                    passed.extend(entry.fds.into_iter().next().map(|socket| (entry.key, socket)));
                } else {
                    apps.leftovers.take(entry);
                }
            }
            FromKeeper::Orphan(orphan) => apps.leftovers.orphans.push(orphan),
            FromKeeper::TableEnd => break,
            FromKeeper::Hello(_)
            | FromKeeper::Signal { .. }
            | FromKeeper::Refused { .. }
            | FromKeeper::Lost { .. } => bail!("{lost}: an unexpected message"),
        }
    }
    link.put(records::IDS, &crate::control::to_json(&(first_worker + IDS)), &[]);
    apps.leftovers.meet(keeper);

    let mut master = Master::new(Beginning {
        link,
        cgroups: Cgroups::begin(keeper),
        log_dir,
        first_worker: WorkerId(first_worker),
        open_files: Limit { soft: hello.nofile_soft, hard: hello.nofile_hard },
        oom_score_adj: hello.oom_score_adj,
        service_manager: hello.service_manager,
    })?;
    for (key, record, socket) in members {
        master.listeners.inherit(key, &record, socket);
    }
    for (key, socket) in passed {
        master.listeners.pass(key, socket);
    }
    Ok(Inheritance { master, apps, is_first })
}

/// An entry of the keeper's table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) record: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Entry {
    fn apply(self) -> Option<Apply> {
        let fd = self.fds.into_iter().next()?;
        records::load(fd).inspect_err(|error| tracing::error!("cannot read the apps to run: {error}")).ok()
    }

    /// An app's settings, if they are understood.
    pub(crate) fn app(self) -> Option<(App, AppRecord)> {
        let read = || records::load(self.fds.into_iter().next().ok_or(io::ErrorKind::NotFound)?);
        read().inspect_err(|error| tracing::error!("{}: cannot read the record: {error}", self.key)).ok()
    }
}

impl Leftovers {
    /// Takes what is about a worker.
    pub(crate) fn take(&mut self, entry: Entry) {
        let Entry { key, record, mut fds } = entry;
        let Some((kind, id)) = key.split_once(':') else { return };
        let Ok(id) = id.parse().map(WorkerId) else { return };
        if records::TOLD.starts_with(kind) {
            self.told.insert(id);
        } else if records::CALLS.starts_with(kind) {
            self.calls.extend(records::read(&record).map(|record| (id, record)));
        } else if records::CHANNEL.starts_with(kind) {
            self.channels.entry(id).or_default().within_a_line = true;
        } else if records::LINE.starts_with(kind) {
            self.channels.entry(id).or_default().line = fds.pop();
        } else if records::TOPICS.starts_with(kind) {
            let topics = fds.pop().and_then(|fd| records::load(fd).ok());
            self.channels.entry(id).or_default().topics = topics;
        } else if records::WORKER.starts_with(kind)
            && let Ok(record) = records::read::<WorkerRecord>(&record)
        {
            let fds = record.fds.iter().copied().zip(fds).collect();
            let process = record.process.and_then(|process| Pid::from_raw(process.pid));
            self.workers.insert(id, Leftover { record, fds, process });
        }
    }

    /// Looks who has come to be of those that were only intended.
    pub(crate) fn meet(&mut self, keeper: Pid) {
        for leftover in self.workers.values_mut().filter(|leftover| leftover.record.process.is_none()) {
            leftover.meet(keeper, &self.orphans);
        }
    }

    /// The sockets that a worker and its descendants have.
    pub(crate) fn inodes(&self, pid: Pid) -> HashSet<u64> {
        let processes = self.processes.get_or_init(|| Processes::look().ok());
        processes.as_ref().and_then(|all| inodes_of(all.family(pid)).ok()).unwrap_or_default()
    }

    /// Takes out how a process has ended, if the keeper knows.
    pub(crate) fn orphan(&self, record: &WorkerRecord) -> Option<&Orphan> {
        let process = record.process?;
        self.orphans.iter().find(|orphan| process.is(orphan))
    }

    /// Ends those that nobody has adopted, and forgets them.
    pub(crate) fn end(self, link: &Link) {
        let strangers: Vec<&Leftover> = self.workers.values().filter(|leftover| leftover.runs()).collect();
        if !strangers.is_empty() {
            tracing::warn!("{} workers are ended that no app knows", strangers.len());
            end_all(&strangers);
        }
        let named = self.workers.keys().chain(&self.told).chain(self.calls.keys());
        for id in named.chain(self.channels.keys()) {
            for key in records::worker_keys(*id) {
                link.delete(&key);
            }
        }
    }
}

impl Leftover {
    /// Reads the introduction to an intent. None means that nothing was
    /// executed.
    fn meet(&mut self, keeper: Pid, orphans: &[Orphan]) {
        let Some(introduction) = self.fds.remove(&Held::Introduction) else { return };
        self.fds.remove(&Held::Introducer);
        // A child that has not come so far yet finds the way shut, and ends.
        let _ = shutdown(&introduction, Shutdown::Read);
        let mut number = [0; 4];
        // Only looked at: until another record is stored, a third master must
        // find it, too.
        let Ok(mut received) = fdpass::peek(&introduction, &mut number) else { return };
        let Some(pid) = Pid::from_raw(i32::from_ne_bytes(number)).filter(|_| received.len == number.len())
        else {
            return;
        };
        self.fds.extend(received.fds.pop().map(|calls| (Held::Calls, calls)));
        let is_its = |orphan: &&Orphan| i32::try_from(orphan.pid) == Ok(pid.as_raw_pid());
        let start_time = match pidfd::open(pid) {
            // A child whose master has died is a child of the keeper.
            Ok(pidfd) if process::parent(pid).is_ok_and(|parent| parent == Some(keeper)) => {
                self.fds.insert(Held::Process, pidfd);
                process::start_time(pid).ok()
            }
            Ok(_) | Err(_) => orphans.iter().rfind(is_its).map(|orphan| orphan.start_time),
        };
        self.process = Some(pid);
        self.record.process =
            Some(ProcessRecord { pid: pid.as_raw_pid(), start_time: start_time.unwrap_or(0) });
    }

    /// Whether its process has not ended.
    pub(crate) fn runs(&self) -> bool {
        self.fds.get(&Held::Process).is_some_and(|pidfd| {
            let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())) == Ok(0)
        })
    }

    /// Whether its number still means it or its session, and nobody who came
    /// later.
    pub(crate) fn is_certain(&self, processes: &Processes) -> bool {
        let (Some(pid), Some(known)) = (self.process, self.record.process) else { return false };
        processes.session(pid).any(|entry| entry.start_time >= known.start_time)
    }
}

/// Kills workers that nobody has adopted, and waits until they are gone.
fn end_all(leftovers: &[&Leftover]) {
    let processes = Processes::look();
    for leftover in leftovers {
        if let (Ok(processes), Some(pid)) = (&processes, leftover.process)
            && leftover.is_certain(processes)
        {
            processes.kill_family(pid);
            let _ = pidfd::signal_group(pid, Signal::KILL);
        }
        if let Some(pidfd) = leftover.fds.get(&Held::Process) {
            let _ = pidfd::send_signal(pidfd, Signal::KILL);
        }
    }
    let deadline = Instant::now() + DEATH;
    for pidfd in leftovers.iter().filter_map(|leftover| leftover.fds.get(&Held::Process)) {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    }
}
