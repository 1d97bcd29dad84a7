//! CPU and memory of the workers' process trees, on a thread of its own.
//!
//! Each two seconds the resident memory and the CPU time of every known process,
//! through files that stay open; each five seconds one pass over `/proc` finds
//! the trees' members. Where a worker's memory has a ceiling, memory is read each
//! second, and members are looked for as often, unless such a pass is dear. The
//! proportional share (PSS) is exact but dear, so it is read for as many workers
//! as fit into a thousandth of a core.
//!
//! News of workers waits for the next second: being woken for each of them would
//! take the CPU from a storm of starts.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use supervisor_core::{Event, WorkerId};
use supervisor_sys::Pid;
use supervisor_sys::process::{self, CpuTimes, StatFile, StatmFile};
use tokio::sync::{mpsc as news, watch};

use crate::family::Processes;

const TICK: Duration = Duration::from_secs(1);
/// Every how many ticks CPU time is read, and memory that has no ceiling.
const READ_TICKS: u64 = 2;
/// Every how many ticks the trees are looked at anew.
const TREE_TICKS: u64 = 5;
/// What a pass over `/proc` may take to be made in each tick.
const TREE_BUDGET: Duration = Duration::from_millis(5);
/// Reports that wait for the loop; the others come again with the next tick.
const REPORTS: usize = 256;
/// Processes of one tree whose files stay open; the others are opened anew
/// each time.
const KEPT: usize = 2;
/// Processes of one tree that are looked at; the others are left out.
const MEMBERS: usize = 1024;
/// How long PSS is read in each tick.
const PSS_BUDGET: Duration = Duration::from_millis(1);
/// No worker's PSS is read more often.
const PSS_EVERY: Duration = Duration::from_secs(30);

/// What one worker uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// Of the whole tree; 100 is one core.
    pub(crate) cpu_percent: Option<f64>,
    /// Resident bytes of the whole tree.
    pub(crate) memory: Option<u64>,
    /// The proportional share of the main process, bytes.
    pub(crate) pss: Option<u64>,
}

/// The latest samples.
pub(crate) type Samples = HashMap<WorkerId, Sample>;

/// The memory that a worker's tree may use, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ceilings {
    /// Above it the worker is replaced.
    pub(crate) soft: Option<u64>,
    /// Above it the worker is killed.
    pub(crate) hard: Option<u64>,
}

impl Ceilings {
    const fn is_set(self) -> bool {
        self.soft.is_some() || self.hard.is_some()
    }

    /// What the core is told of a worker that uses so much.
    fn report(self, worker: WorkerId, used: u64) -> Option<Event> {
        let exceeded = |limit: Option<u64>| limit.filter(|limit| used > *limit);
        let report = |limit, hard| Event::MemoryExceeded { worker, used, limit, hard };
        exceeded(self.hard)
            .map(|limit| report(limit, true))
            .or_else(|| exceeded(self.soft).map(|limit| report(limit, false)))
    }
}

enum Command {
    Add(WorkerId, Pid, Ceilings),
    Remove(WorkerId),
}

/// The master's side.
#[derive(Debug)]
pub(crate) struct Sampler {
    commands: mpsc::Sender<Command>,
    samples: watch::Receiver<Samples>,
    reports: news::Receiver<Event>,
}

impl Sampler {
    /// Starts the thread. It ends within a second after the handle is dropped.
    pub(crate) fn start() -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (publish, samples) = watch::channel(Samples::new());
        let (report, reports) = news::channel(REPORTS);
        let reader = Reader { workers: BTreeMap::new(), ticks: 0, pass: Duration::ZERO, report };
        thread::Builder::new().name("sampler".to_owned()).spawn(move || reader.run(&inbox, &publish))?;
        Ok(Self { commands, samples, reports })
    }

    pub(crate) fn add(&self, worker: WorkerId, pid: Pid, ceilings: Ceilings) {
        // The thread lives as long as this handle.
        let _ = self.commands.send(Command::Add(worker, pid, ceilings));
    }

    /// The next worker that uses too much memory, told once a second for as long
    /// as it does. Nothing is lost when this is given up.
    pub(crate) async fn exceeded(&mut self) -> Option<Event> {
        self.reports.recv().await
    }

    pub(crate) fn remove(&self, worker: WorkerId) {
        let _ = self.commands.send(Command::Remove(worker));
    }

    pub(crate) fn samples(&self) -> watch::Ref<'_, Samples> {
        self.samples.borrow()
    }
}

/// A worker's processes, its main one first.
struct Tree {
    members: Vec<Member>,
    ceilings: Ceilings,
    sample: Sample,
    cpu_at: Option<Instant>,
    pss_at: Option<Instant>,
}

struct Member {
    pid: Pid,
    files: Option<(StatFile, StatmFile)>,
    /// CPU time at the last look, clock ticks.
    ticks: Option<u64>,
}

struct Reader {
    /// The oldest first: of workers that use too much one is replaced at a time.
    workers: BTreeMap<WorkerId, Tree>,
    ticks: u64,
    /// What the last pass over `/proc` took.
    pass: Duration,
    report: news::Sender<Event>,
}

impl Reader {
    fn run(mut self, inbox: &mpsc::Receiver<Command>, publish: &watch::Sender<Samples>) {
        loop {
            thread::sleep(TICK);
            if !self.take_commands(inbox) {
                return;
            }
            self.tick();
            publish.send_replace(self.workers.iter().map(|(id, tree)| (*id, tree.sample)).collect());
        }
    }

    /// Returns whether more commands can come.
    fn take_commands(&mut self, inbox: &mpsc::Receiver<Command>) -> bool {
        // Those that have ended meanwhile need no files.
        let mut added = HashMap::new();
        let more = loop {
            match inbox.try_recv() {
                Ok(Command::Add(worker, pid, ceilings)) => _ = added.insert(worker, (pid, ceilings)),
                Ok(Command::Remove(worker)) => {
                    self.workers.remove(&worker);
                    added.remove(&worker);
                }
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        added.into_iter().for_each(|(worker, (pid, ceilings))| self.add(worker, pid, ceilings));
        more
    }

    fn add(&mut self, worker: WorkerId, pid: Pid, ceilings: Ceilings) {
        let members = vec![Member { pid, files: open(pid), ticks: None }];
        let tree = Tree { members, ceilings, sample: Sample::default(), cpu_at: None, pss_at: None };
        self.workers.insert(worker, tree);
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let often = self.pass <= TREE_BUDGET && self.workers.values().any(|tree| tree.ceilings.is_set());
        if often || self.ticks % TREE_TICKS == 1 {
            let begin = Instant::now();
            self.find_members();
            self.pass = begin.elapsed();
        }
        let read_all = self.ticks.is_multiple_of(READ_TICKS);
        let now = Instant::now();
        for (worker, tree) in &mut self.workers {
            if read_all || tree.ceilings.is_set() || tree.sample.memory.is_none() {
                tree.read_memory();
            }
            if let Some(report) = tree.sample.memory.and_then(|used| tree.ceilings.report(*worker, used)) {
                // Without room for it, it comes again.
                let _ = self.report.try_send(report);
            }
            if read_all {
                tree.read_cpu(now);
            }
        }
        self.read_pss();
    }

    /// One pass over `/proc`: which processes descend from which worker.
    fn find_members(&mut self) {
        let Ok(processes) = Processes::look() else { return };
        for tree in self.workers.values_mut() {
            tree.set_members(&processes);
        }
    }

    /// Reads the workers whose reading is the oldest, as many as the time that
    /// is set aside for it allows.
    fn read_pss(&mut self) {
        let begin = Instant::now();
        while begin.elapsed() < PSS_BUDGET {
            let oldest = self.workers.values_mut().min_by_key(|tree| tree.pss_at);
            let due = oldest.filter(|tree| tree.pss_at.is_none_or(|at| at.elapsed() >= PSS_EVERY));
            let Some(tree) = due else { return };
            tree.sample.pss = tree.members.first().and_then(|main| process::pss(main.pid).ok());
            tree.pss_at = Some(Instant::now());
        }
    }
}

impl Tree {
    fn set_members(&mut self, processes: &Processes) {
        let Some(main) = self.members.first().map(|member| member.pid) else { return };
        let descendants = processes.descendants(main, MEMBERS);
        let pids: Vec<Pid> = std::iter::once(main).chain(descendants.iter().map(|entry| entry.pid)).collect();
        self.members.retain(|member| pids.contains(&member.pid));
        for pid in pids {
            if !self.members.iter().any(|member| member.pid == pid) {
                let files = if self.members.len() < KEPT { open(pid) } else { None };
                self.members.push(Member { pid, files, ticks: None });
            }
        }
    }

    fn read_memory(&mut self) {
        let sizes = self.members.iter().filter_map(|member| match &member.files {
            Some((_, statm)) => statm.read().ok(),
            None => StatmFile::open(member.pid).and_then(|statm| statm.read()).ok(),
        });
        self.sample.memory = sizes.reduce(u64::saturating_add);
    }

    fn read_cpu(&mut self, now: Instant) {
        let mut used = 0;
        for member in &mut self.members {
            let ticks = match &member.files {
                Some((stat, _)) => stat.read().map(CpuTimes::total).ok(),
                None => StatFile::open(member.pid).and_then(|stat| stat.read()).map(CpuTimes::total).ok(),
            };
            if let (Some(ticks), Some(before)) = (ticks, member.ticks) {
                used += ticks.saturating_sub(before);
            }
            member.ticks = ticks;
        }
        if let Some(before) = self.cpu_at.replace(now) {
            let seconds = now.duration_since(before).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a few hundred ticks at most")]
            let cores = used as f64 / process::clock_ticks() as f64 / seconds;
            self.sample.cpu_percent = Some((cores * 1000.0).round() / 10.0);
        }
    }
}

fn open(pid: Pid) -> Option<(StatFile, StatmFile)> {
    Some((StatFile::open(pid).ok()?, StatmFile::open(pid).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_ceiling_counts() {
        let worker = WorkerId(1);
        let check = |soft, hard, used, expected: Option<(u64, bool)>| {
            let report = Ceilings { soft, hard }.report(worker, used);
            let expected = expected.map(|(limit, hard)| Event::MemoryExceeded { worker, used, limit, hard });
            assert_eq!(report, expected, "{soft:?} {hard:?} {used}");
        };
        check(None, None, u64::MAX, None);
        check(Some(100), None, 100, None);
        check(Some(100), None, 101, Some((100, false)));
        check(Some(100), Some(200), 200, Some((100, false)));
        check(Some(100), Some(200), 201, Some((200, true)));
        check(None, Some(200), 201, Some((200, true)));
    }
}
