//! What a new master finds: the keeper's table, as the master before left it.
//!
//! The sockets are kept, so nobody is refused. The workers are ended, each by
//! its pidfd, and the apps start anew.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use supervisor_config::{App, DaemonSettings};
use supervisor_core::WorkerId;
use supervisor_protocol::control::Apply;
use supervisor_protocol::keeper::{FdRole, FromKeeper, LOCK_KEY};
use supervisor_sys::limits::Limit;
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, pidfd};

use crate::cgroups::Cgroups;
use crate::family::Processes;
use crate::link::Link;
use crate::listeners;
use crate::master::{Beginning, Master};
use crate::records::{self, AppRecord, WorkerRecord};

/// How long the workers of an earlier master may take to die.
const DEATH: Duration = Duration::from_secs(2);
/// Worker ids that one master may use.
const IDS: u64 = 1 << 32;

/// A master, and what it is to begin with.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) master: Master,
    pub(crate) apps: Apps,
}

/// The apps to begin with.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    /// Those that an earlier master or daemon had.
    pub(crate) known: Vec<(App, AppRecord)>,
    /// Those that `run` was given and no master has taken yet.
    pub(crate) new: Option<Apply>,
    /// The settings that the daemon had.
    pub(crate) daemon: Option<DaemonSettings>,
}

/// A worker of the master before, as its record names it.
struct Leftover {
    pid: Pid,
    pidfd: OwnedFd,
    /// When its process started, clock ticks since the boot; `None` for one
    /// that only its introduction names.
    start_time: Option<u64>,
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
    let mut leftovers = Vec::new();
    let mut gone = Vec::new();
    let mut first_worker = 1;
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
            FromKeeper::Entry { key, record, roles } => {
                let entry = Entry { key, record, roles, fds };
                if entry.key == LOCK_KEY {
                    link.hold_lock(entry.fds);
                } else if entry.key == records::APPLY {
                    apps.new = entry.apply();
                } else if entry.key == records::DAEMON {
                    apps.daemon = records::read(&entry.record).ok();
                } else if entry.key == records::IDS {
                    first_worker = records::read(&entry.record).unwrap_or(first_worker);
                } else if entry.key.starts_with(records::APP) {
                    apps.known.extend(entry.app());
                } else if listeners::is_member(&entry.key) {
                    members
                        .extend(entry.fds.into_iter().next().map(|socket| (entry.key, entry.record, socket)));
                } else if entry.key.starts_with(records::PASSED) {
                    passed.extend(entry.fds.into_iter().next().map(|socket| (entry.key, socket)));
                } else if entry.key.starts_with(records::WORKER) {
                    gone.push(entry.key.clone());
                    leftovers.extend(entry.worker());
                } else if [records::CHANNEL, records::LINE].iter().any(|kind| entry.key.starts_with(kind)) {
                    gone.push(entry.key);
                }
            }
            // Statuses of workers that are ended here anyway.
            FromKeeper::Orphan(_) => {}
            FromKeeper::TableEnd => break,
            FromKeeper::Hello(_) | FromKeeper::Signal { .. } => bail!("{lost}: an unexpected message"),
        }
    }
    link.put(records::IDS, &crate::control::to_json(&(first_worker + IDS)), &[]);
    let count = leftovers.len();
    end_all(&leftovers, keeper);
    // Only now: until they are ended, a third master must find them, too.
    for key in gone {
        link.delete(&key);
    }
    if count > 0 {
        tracing::warn!("the master before has died; its {count} workers are ended and started anew");
    }

    let mut master = Master::new(Beginning {
        link,
        // After that: workers that have no cgroup are no strangers in ours.
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
    Ok(Inheritance { master, apps })
}

/// An entry of the keeper's table.
struct Entry {
    key: String,
    record: Vec<u8>,
    roles: Vec<FdRole>,
    fds: Vec<OwnedFd>,
}

impl Entry {
    fn apply(self) -> Option<Apply> {
        let fd = self.fds.into_iter().next()?;
        records::load(fd).inspect_err(|error| tracing::error!("cannot read the apps to run: {error}")).ok()
    }

    fn app(self) -> Option<(App, AppRecord)> {
        let read = || records::load(self.fds.into_iter().next().ok_or(io::ErrorKind::NotFound)?);
        read().inspect_err(|error| tracing::error!("{}: cannot read the record: {error}", self.key)).ok()
    }

    /// The worker of a record, or of the introduction to an intent. None of
    /// the latter means that nothing was executed.
    fn worker(self) -> Option<Leftover> {
        let record: WorkerRecord = records::read(&self.record).ok()?;
        let first = self.fds.into_iter().next()?;
        if self.roles.first() == Some(&FdRole::Process) {
            let known = record.process?;
            let pid = Pid::from_raw(known.pid)?;
            return Some(Leftover { pid, pidfd: first, start_time: Some(known.start_time) });
        }
        let mut introduction = [0; 4];
        // A child that has not come so far yet finds the way shut, and ends.
        shutdown(&first, Shutdown::Read).ok()?;
        // Only looked at: until it is ended, a third master must find it, too.
        let (len, _) = recv(&first, &mut introduction, RecvFlags::PEEK).ok()?;
        if len != introduction.len() {
            return None;
        }
        let pid = Pid::from_raw(i32::from_ne_bytes(introduction))?;
        Some(Leftover { pid, pidfd: pidfd::open(pid).ok()?, start_time: None })
    }
}

impl Leftover {
    /// Whether its number still means it or its session, and nobody who came
    /// later: a child whose master has died is a child of the keeper.
    fn is_certain(&self, processes: &Processes, keeper: Pid) -> bool {
        match self.start_time {
            Some(start) => processes.session(self.pid).any(|entry| entry.start_time >= start),
            None => {
                processes.session(self.pid).any(|entry| entry.pid == self.pid && entry.parent == Some(keeper))
            }
        }
    }
}

/// Kills what is left of an earlier master's workers, and waits until it is
/// gone.
fn end_all(leftovers: &[Leftover], keeper: Pid) {
    if leftovers.is_empty() {
        return;
    }
    let processes = Processes::look();
    for leftover in leftovers {
        let certain = processes.as_ref().is_ok_and(|processes| leftover.is_certain(processes, keeper));
        if let Ok(processes) = &processes
            && certain
        {
            processes.kill_family(leftover.pid);
            let _ = pidfd::signal_group(leftover.pid, Signal::KILL);
        }
        if certain || leftover.start_time.is_some() {
            let _ = pidfd::send_signal(&leftover.pidfd, Signal::KILL);
        }
    }
    let deadline = Instant::now() + DEATH;
    for leftover in leftovers {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(leftover.pidfd.as_fd(), PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    }
}
