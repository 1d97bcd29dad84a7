//! What a new master finds: the keeper's table, as the master before left it.
//!
//! Everything is taken over by `adopt`: sockets, so that nobody is refused, and
//! workers, which notice nothing. Those that nothing names are ended, each by
//! its pidfd.

mod aside;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use supervisor_config::{App, DaemonSettings};
use supervisor_core::WorkerId;
use supervisor_protocol::control::Apply;
use supervisor_protocol::keeper::{FromKeeper, Hello, LOCK_KEY, Orphan, Upgrade};
use supervisor_sys::diag::inodes_of;
use supervisor_sys::limits::Limit;
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, fdpass, pidfd, process};

use crate::capture::CallsRecord;
use crate::cgroups::Cgroups;
use crate::channel::Left;
use crate::control;
use crate::family::Processes;
use crate::link::Link;
use crate::listeners;
use crate::master::{Beginning, Master};
use crate::memory::Memories;
use crate::operations::{ORDER, OrderRecord};
use crate::records::{self, AppRecord, Held, ProcessRecord, WorkerRecord};
use crate::recovery;

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
    /// Its control socket.
    pub(crate) control: Option<control::Held>,
    /// The orders that it had, by their numbers.
    pub(crate) orders: BTreeMap<u64, OrderRecord>,
    /// Those that `run` was given and no master has taken yet.
    pub(crate) new: Option<Apply>,
    /// The settings that the daemon had.
    pub(crate) daemon: Option<DaemonSettings>,
    /// Everything is to end; at once, if it is true.
    pub(crate) ending: Option<bool>,
    /// An earlier daemon has left this, in whole or in part.
    pub(crate) recovered: bool,
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

/// The keeper's table, as it was read. Nothing has been done with it yet.
#[derive(Debug)]
pub(crate) struct Table {
    hello: Hello,
    pub(crate) apps: Apps,
    members: Vec<(String, Vec<u8>, OwnedFd)>,
    passed: Vec<(String, OwnedFd)>,
    /// `None` for the first master of a daemon.
    first_worker: Option<u64>,
    /// How far the last upgrade has come.
    upgrade: Option<Upgrade>,
    /// The keys whose records were not understood, and why.
    pub(crate) unreadable: Vec<(String, String)>,
    /// The keys that another version uses.
    pub(crate) unknown: Vec<String>,
}

/// Reads the keeper's table.
///
/// # Errors
///
/// When the keeper breaks off.
pub(crate) fn read(link: &mut Link) -> anyhow::Result<Table> {
    let lost = "cannot read the keeper's table";
    let (FromKeeper::Hello(hello), _) = link.receive().context(lost)? else { bail!("{lost}: no hello") };
    let mut table = Table::new(hello);
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
            FromKeeper::Entry { key, record, .. } => table.take(Entry { key, record, fds }),
            FromKeeper::Orphan(orphan) => table.apps.leftovers.orphans.push(orphan),
            FromKeeper::Upgrade(upgrade) => table.upgrade = Some(upgrade),
            FromKeeper::TableEnd => break,
            FromKeeper::Hello(_)
            | FromKeeper::Signal { .. }
            | FromKeeper::Refused { .. }
            | FromKeeper::Lost { .. } => bail!("{lost}: an unexpected message"),
        }
    }
    crate::next::stage("restore");
    Ok(table)
}

impl Table {
    pub(crate) fn new(hello: Hello) -> Self {
        Self {
            hello,
            apps: Apps::default(),
            members: Vec::new(),
            passed: Vec::new(),
            first_worker: None,
            upgrade: None,
            unreadable: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Takes an entry. One that is not understood stays with the keeper.
    pub(crate) fn take(&mut self, entry: Entry) {
        let key = entry.key.clone();
        if let Err(error) = self.try_take(entry) {
            tracing::error!("{key}: cannot read the record: {error}");
            self.unreadable.push((key, error.to_string()));
        }
    }

    fn try_take(&mut self, entry: Entry) -> io::Result<()> {
        let apps = &mut self.apps;
        let Entry { key, record, mut fds } = entry;
        if apps.memories.take(&key, &record, &mut fds)? {
            // It is looked at when the whole table is there.
        } else if [LOCK_KEY, records::FORMER, records::UPGRADED].contains(&key.as_str()) {
            // The mirror holds it.
        } else if key == records::APPLY {
            apps.new = Some(records::load(only(fds)?)?);
        } else if key == records::DAEMON {
            apps.daemon = Some(records::read(&record)?);
        } else if key == records::IDS {
            self.first_worker = Some(records::read(&record)?);
        } else if key == records::CONTROL {
            apps.control = Some((records::read(&record)?, only(fds)?));
        } else if key == records::ENDING {
            apps.ending = Some(records::read(&record)?);
        } else if key.starts_with(records::APP) {
            apps.known.push(records::load_app(only(fds)?)?);
        } else if let Some(name) = key.strip_prefix(records::NEXT) {
            apps.next.insert(name.to_owned(), records::load_app(only(fds)?)?);
        } else if let Some(number) = key.strip_prefix(ORDER).and_then(|number| number.parse().ok()) {
            let order = fds.pop().map_or_else(|| records::read(&record), records::load)?;
            apps.orders.insert(number, order);
        } else if listeners::is_member(&key) {
            self.members.push((key, record, only(fds)?));
        } else if key.starts_with(records::PASSED) {
            self.passed.push((key, only(fds)?));
        } else if !apps.leftovers.take(&key, &record, fds)? {
            self.unknown.push(key);
        }
        Ok(())
    }
}

/// The one descriptor of an entry.
pub(crate) fn only(fds: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "its descriptor is missing");
    fds.into_iter().next().ok_or_else(missing)
}

/// Takes the keeper's table over; the first master of a daemon what the one
/// before has left in the runtime folder.
///
/// # Errors
///
/// When the keeper breaks off, or a thread cannot be started.
pub(crate) fn take_over(mut link: Link, log_dir: PathBuf, runtime_dir: &Path) -> anyhow::Result<Inheritance> {
    let mut table = read(&mut link)?;
    link.meet(table.hello);
    let mut notices = Vec::new();
    let is_first = table.first_worker.is_none();
    if is_first {
        let recovered = recovery::recover(runtime_dir);
        for entry in recovered.entries {
            let fds: Vec<_> = entry.fds.iter().map(|(role, fd)| (*role, fd.as_fd())).collect();
            link.put(&entry.key, &entry.record, &fds);
            let fds = entry.fds.into_iter().map(|(_, fd)| fd).collect();
            table.take(Entry { key: entry.key, record: entry.record, fds });
        }
        notices = recovered.notices;
        for notice in &notices {
            tracing::warn!("{notice}");
        }
    }
    table.apps.recovered = !notices.is_empty();
    let aside = table.set_aside();
    for name in &aside {
        tracing::error!(
            "{name}: its records are of a later version; it is left alone and runs on, for that version to look after"
        );
    }
    let Table { hello, mut apps, members, passed, first_worker, upgrade, unreadable: _, unknown } = table;
    if !unknown.is_empty() {
        let (count, keys) = (unknown.len(), shortened(&unknown));
        tracing::warn!("{count} entries of another version are left with the keeper: {keys}");
    }
    let first_worker = first_worker.unwrap_or(1);
    let keeper =
        i32::try_from(hello.keeper_pid).ok().and_then(Pid::from_raw).context("the keeper has no pid")?;
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
        notices,
    })?;
    master.operations.count_from(first_worker);
    master.upgrade.found(upgrade);
    master.aside = aside;
    for (key, record, socket) in members {
        master.listeners.inherit(key, &record, socket);
    }
    for (key, socket) in passed {
        master.listeners.pass(key, socket);
    }
    Ok(Inheritance { master, apps, is_first })
}

/// The first few of these, for a message.
pub(crate) fn shortened(list: &[String]) -> String {
    const FEW: usize = 3;
    let more = if list.len() > FEW { ", …" } else { "" };
    list.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ") + more
}

/// An entry of the keeper's table.
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) record: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Leftovers {
    /// Takes what is about a worker. Returns whether it was.
    pub(crate) fn take(&mut self, key: &str, record: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<bool> {
        let Some((kind, id)) = key.split_once(':') else { return Ok(false) };
        let Ok(id) = id.parse().map(WorkerId) else { return Ok(false) };
        let is = |of: &str| of.strip_suffix(':') == Some(kind);
        if is(records::TOLD) {
            self.told.insert(id);
        } else if is(records::CALLS) {
            self.calls.insert(id, records::read(record)?);
        } else if is(records::CHANNEL) {
            self.channels.entry(id).or_default().within_a_line = true;
        } else if is(records::LINE) {
            self.channels.entry(id).or_default().line = fds.pop();
        } else if is(records::TOPICS) {
            self.channels.entry(id).or_default().topics = Some(records::load(only(fds)?)?);
        } else if is(records::WORKER) {
            let record: WorkerRecord = records::read(record)?;
            let fds = record.fds.iter().copied().zip(fds).collect();
            let process = record.process.and_then(|process| Pid::from_raw(process.pid));
            self.workers.insert(id, Leftover { record, fds, process });
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Forgets what is about workers of these apps, who are left alone.
    fn set_aside(&mut self, names: &BTreeSet<String>) {
        let theirs: BTreeSet<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, left)| names.contains(&left.record.app))
            .map(|(id, _)| *id)
            .collect();
        self.workers.retain(|id, _| !theirs.contains(id));
        self.told.retain(|id| !theirs.contains(id));
        self.calls.retain(|id, _| !theirs.contains(id));
        self.channels.retain(|id, _| !theirs.contains(id));
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
