//! Workers that do nothing any more.
//!
//! A worker in rotation whose queue is never shorter from one look to the next
//! is in doubt. After half of its `hang_timeout` it is noted what its processes
//! have: if that changes, it takes connections, however long its queue is. One
//! that stands for the whole time hangs, if a sibling gets on: where all stand,
//! they wait for somebody else. One without siblings must be idle, too.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use supervisor_core::{AppId, Event, Hang, WorkerId};
use supervisor_sys::Pid;
use supervisor_sys::diag::inodes_of;
use supervisor_sys::process::{StatFile, clock_ticks};

use crate::family::Processes;
use crate::master::Master;

/// How often they are looked at. What a look comes later is time in which this process stood itself: it counts
/// for nobody.
const EVERY: Duration = Duration::from_secs(1);
/// A process that uses less than one in so many parts of a core is idle.
const IDLE_SHARE: u32 = 100;

/// What is known of workers in rotation, and of those that say they are alive.
#[derive(Debug, Default)]
pub(crate) struct Hangs {
    queues: BTreeMap<WorkerId, Queue>,
    looked: Option<Instant>,
    watchdogs: BTreeMap<WorkerId, Watchdog>,
}

/// A worker's queue.
#[derive(Debug)]
struct Queue {
    length: u64,
    /// When it moved last, as far as was seen.
    moved: Instant,
    /// What the worker had when it came into doubt.
    before: Option<(Instant, Evidence)>,
    /// Whether it has used the CPU since.
    busy: bool,
}

/// What a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Evidence {
    /// The inodes of its sockets, accepted connections among them.
    sockets: HashSet<u64>,
    /// The CPU time that it has used.
    cpu: Duration,
    /// The connections to its ports that nobody has accepted; `None` if that cannot be seen.
    waiting: Option<HashSet<u64>>,
}

impl Evidence {
    /// Whether it has taken connections since this was seen. A busy server may have none at both looks, and
    /// as many that wait; but then they are others. Its queue was not empty: where nobody waits a moment later,
    /// it has taken them.
    fn has_moved_since(&self, before: &Self) -> bool {
        let others = match (&before.waiting, &self.waiting) {
            (Some(before), Some(now)) => before.is_disjoint(now),
            _ => false,
        };
        others || before.sockets != self.sockets
    }
}

/// A worker that promised to say that it is alive.
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    heard: Instant,
}

/// One look at a worker in rotation.
struct Seen {
    worker: WorkerId,
    app: AppId,
    queue: u64,
    limit: Duration,
}

impl Queue {
    const fn new(length: u64, now: Instant) -> Self {
        Self { length, moved: now, before: None, busy: false }
    }

    /// Notes what is seen now. `evidence` is asked for only in doubt.
    fn look(
        &mut self,
        length: u64,
        limit: Duration,
        now: Instant,
        evidence: impl FnOnce() -> Option<Evidence>,
    ) {
        if length == 0 || length < self.length {
            *self = Self::new(length, now);
            return;
        }
        self.length = length;
        if now.duration_since(self.moved) < limit / 2 {
            return;
        }
        match (&self.before, evidence()) {
            // Of whom nothing can be seen, nothing is said.
            (_, None) => *self = Self::new(length, now),
            (None, Some(evidence)) => self.before = Some((now, evidence)),
            (Some((_, before)), Some(evidence)) if evidence.has_moved_since(before) => {
                *self = Self::new(length, now);
            }
            (Some((since, before)), Some(evidence)) => {
                let used = evidence.cpu.saturating_sub(before.cpu);
                self.busy = used > now.duration_since(*since) / IDLE_SHARE;
            }
        }
    }

    /// Whether it has stood for so long, and was looked at closely meanwhile.
    fn stands_for(&self, limit: Duration, now: Instant) -> bool {
        // On a busy machine two looks may follow each other at once, which shows nothing.
        let closely = |(since, _): &(Instant, Evidence)| now.duration_since(*since) >= limit / 4;
        self.stands(now) >= limit && self.before.as_ref().is_some_and(closely)
    }

    fn stands(&self, now: Instant) -> Duration {
        now.duration_since(self.moved)
    }
}

impl Hangs {
    /// A worker is ready: from now on its queue must move, and it must say that
    /// it is alive, if it is to.
    pub(crate) fn begin(&mut self, worker: WorkerId, watchdog: Option<Duration>) {
        self.queues.remove(&worker);
        if let Some(interval) = watchdog {
            self.watchdogs.insert(worker, Watchdog { interval, heard: Instant::now() });
        }
    }

    /// A worker says that it is alive.
    pub(crate) fn alive(&mut self, worker: WorkerId) {
        if let Some(watchdog) = self.watchdogs.get_mut(&worker) {
            watchdog.heard = Instant::now();
        }
    }

    pub(crate) fn forget(&mut self, worker: WorkerId) {
        self.watchdogs.remove(&worker);
        self.queues.remove(&worker);
    }

    /// Those whose queue has stood since the look before, at least.
    pub(crate) fn standing(&self) -> impl Iterator<Item = WorkerId> {
        let now = self.looked;
        let stands = move |queue: &Queue| queue.length > 0 && now.is_some_and(|now| queue.moved < now);
        self.queues.iter().filter(move |(_, queue)| stands(queue)).map(|(worker, _)| *worker)
    }

    /// Time that does not count: connections may have come and gone, and words wait to be read.
    fn pass_over(&mut self, time: Duration, now: Instant) {
        let later = |at: &mut Instant| *at = (*at + time).min(now);
        for queue in self.queues.values_mut() {
            later(&mut queue.moved);
            queue.before.iter_mut().for_each(|(since, _)| later(since));
        }
        self.watchdogs.values_mut().for_each(|watchdog| later(&mut watchdog.heard));
    }

    /// Takes a look at all workers in rotation. Returns those that hang.
    fn look(
        &mut self,
        seen: &[Seen],
        now: Instant,
        mut evidence: impl FnMut(WorkerId) -> Option<Evidence>,
    ) -> Vec<(WorkerId, Hang)> {
        let silent = |(worker, watchdog): (&WorkerId, &Watchdog)| {
            let late = now.duration_since(watchdog.heard) > watchdog.interval;
            late.then_some((*worker, Hang::Watchdog(watchdog.interval)))
        };
        let since = self.looked.replace(now).map_or(EVERY, |before| now.duration_since(before));
        self.pass_over(since.saturating_sub(EVERY), now);
        let mut hung: Vec<_> = self.watchdogs.iter().filter_map(silent).collect();

        let mut queues = std::mem::take(&mut self.queues);
        for one in seen {
            let mut queue = queues.remove(&one.worker).unwrap_or_else(|| Queue::new(one.queue, now));
            queue.look(one.queue, one.limit, now, || evidence(one.worker));
            self.queues.insert(one.worker, queue);
        }
        let stands = |one: &Seen| self.queues.get(&one.worker).map(|queue| queue.stands(now));
        for one in seen {
            let Some(queue) = self.queues.get(&one.worker).filter(|queue| queue.stands_for(one.limit, now))
            else {
                continue;
            };
            let mut siblings =
                seen.iter().filter(|other| other.app == one.app && other.worker != one.worker).peekable();
            let hangs = if siblings.peek().is_some() {
                siblings.any(|other| stands(other).is_some_and(|time| time < other.limit / 2))
            } else {
                !queue.busy
            };
            if hangs {
                hung.push((one.worker, Hang::Queue(one.limit)));
            }
        }
        // Of one that is told and stays it is told again only after as long.
        for (worker, _) in &hung {
            self.queues.remove(worker);
            self.alive(*worker);
        }
        hung
    }
}

impl Master {
    /// Looks for workers that hang. To be called once a second.
    pub(crate) fn look_after_hangs(&mut self) {
        let by_seat = self.workers.by_seat();
        let seen: Vec<Seen> = self
            .listeners
            .in_rotation()
            .filter_map(|seat| {
                let worker = *by_seat.get(&seat)?;
                let limit = self.workers.get(worker)?.settings.app.hang_timeout;
                let queue = if limit.is_zero() { None } else { self.listeners.queue(seat) };
                Some(Seen { worker, app: seat.slot.app, queue: queue?, limit })
            })
            .collect();
        let Self { hangs, workers, listeners, observer, .. } = self;
        let mut moment = observer.look();
        // One look at all processes, if it is needed.
        let processes = std::cell::LazyCell::new(Processes::look);
        let hung = hangs.look(&seen, Instant::now(), |id| {
            let worker = workers.get(id)?;
            let waiting = moment.waiting(&listeners.ports(worker.seat));
            evidence(&processes.as_ref().ok()?.family(worker.pid), waiting)
        });
        for (worker, hang) in hung {
            self.handle(Event::WorkerHung { worker, hang });
        }
    }
}

/// What these processes have now, if that can be seen.
fn evidence(family: &HashSet<Pid>, waiting: Option<HashSet<u64>>) -> Option<Evidence> {
    let ticks = |pid: &Pid| StatFile::open(*pid).and_then(|stat| stat.read()).map_or(0, |cpu| cpu.total());
    let ticks: u64 = family.iter().map(ticks).sum();
    Some(Evidence {
        sockets: inodes_of(family.iter().copied()).ok()?,
        cpu: Duration::from_millis(ticks.saturating_mul(1000) / clock_ticks().max(1)),
        waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Workers of one app that are looked at every second.
    struct Bench {
        hangs: Hangs,
        now: Instant,
        limit: Duration,
        /// Who waits at a look.
        waiting: fn(u64) -> HashSet<u64>,
        looks: u64,
    }

    impl Bench {
        fn new() -> Self {
            let waiting = |_| HashSet::from([0]);
            Self { hangs: Hangs::default(), now: Instant::now(), limit: LIMIT, waiting, looks: 0 }
        }

        /// A second later: each worker's queue, the inode of its last connection,
        /// and the CPU time it has used, in milliseconds.
        fn look(&mut self, workers: &[(u64, u64, u64)]) -> Vec<u64> {
            self.now += Duration::from_secs(1);
            self.looks += 1;
            let waiting = (self.waiting)(self.looks);
            let seen: Vec<Seen> = (1..)
                .zip(workers)
                .map(|(id, (queue, ..))| Seen {
                    worker: WorkerId(id),
                    app: AppId(0),
                    queue: *queue,
                    limit: self.limit,
                })
                .collect();
            let evidence = |WorkerId(id)| {
                let (_, inode, cpu) = workers[usize::try_from(id).unwrap() - 1];
                Some(Evidence {
                    sockets: HashSet::from([inode]),
                    cpu: Duration::from_millis(cpu),
                    waiting: Some(waiting.clone()),
                })
            };
            self.hangs.look(&seen, self.now, evidence).into_iter().map(|(worker, _)| worker.0).collect()
        }

        /// After how many looks somebody hangs, and who.
        fn looks(&mut self, mut workers: impl FnMut(u64) -> Vec<(u64, u64, u64)>) -> Option<(u64, Vec<u64>)> {
            (1..=60).find_map(|look| {
                let hung = self.look(&workers(look));
                (!hung.is_empty()).then_some((look, hung))
            })
        }
    }

    #[test]
    fn a_queue_that_stands_while_others_move() {
        assert_eq!(Bench::new().looks(|look| vec![(0, 0, 0), (look, 1, 0)]), Some((11, vec![2])));
        // Whatever it does instead.
        assert_eq!(Bench::new().looks(|look| vec![(0, 0, 0), (1, 1, look * 1000)]), Some((11, vec![2])));
    }

    #[test]
    fn a_long_queue_may_move() {
        assert_eq!(Bench::new().looks(|look| vec![(0, 0, 0), (512, look, 0)]), None);
        assert_eq!(Bench::new().looks(|look| vec![(0, 0, 0), (5 + look % 2, 1, 0)]), None);
    }

    #[test]
    fn others_wait_where_a_queue_moves() {
        let mut others = Bench { waiting: |look| HashSet::from([look]), ..Bench::new() };
        assert_eq!(others.looks(|_| vec![(0, 0, 0), (1, 1, 0)]), None);
        // Who was in the queue a moment ago has been taken.
        let mut nobody = Bench { waiting: |_| HashSet::new(), ..Bench::new() };
        assert_eq!(nobody.looks(|_| vec![(0, 0, 0), (1, 1, 0)]), None);
    }

    #[test]
    fn two_looks_at_once_prove_nothing() {
        let mut bench = Bench { limit: Duration::from_secs(2), ..Bench::new() };
        let stands = [(0, 0, 0), (1, 1, 0)];
        assert_eq!(bench.look(&stands), [] as [u64; 0]);
        // The next look is late, and the one after it is not.
        bench.now += Duration::from_millis(950);
        assert_eq!(bench.look(&stands), [] as [u64; 0]);
        bench.now -= Duration::from_millis(950);
        assert_eq!(bench.look(&stands), [] as [u64; 0]);
        assert_eq!(bench.look(&stands), [2]);
    }

    #[test]
    fn where_all_stand_nobody_hangs() {
        assert_eq!(Bench::new().looks(|_| vec![(1, 0, 0), (2, 1, 0)]), None);
    }

    #[test]
    fn one_without_siblings_must_be_idle() {
        assert_eq!(Bench::new().looks(|_| vec![(1, 0, 0)]), Some((11, vec![1])));
        assert_eq!(Bench::new().looks(|look| vec![(1, 0, look * 100)]), None);
    }

    #[test]
    fn a_pause_of_our_own_proves_nothing() {
        let mut bench = Bench::new();
        assert_eq!((1..=9).find(|_| !bench.look(&[(0, 0, 0), (1, 1, 0)]).is_empty()), None);
        bench.now += Duration::from_secs(60);
        // As if it had not been: two looks were missing.
        assert_eq!(bench.looks(|_| vec![(0, 0, 0), (1, 1, 0)]), Some((2, vec![2])));
        // What was said meanwhile waits to be read.
        let mut bench = Bench::new();
        bench.hangs.begin(WorkerId(7), Some(Duration::from_secs(2)));
        assert_eq!(bench.look(&[]), [] as [u64; 0]);
        bench.now += Duration::from_secs(2);
        assert_eq!(bench.look(&[]), [] as [u64; 0]);
    }

    #[test]
    fn who_is_silent_hangs() {
        let mut bench = Bench::new();
        bench.hangs.begin(WorkerId(7), Some(Duration::from_secs(2)));
        assert_eq!(bench.look(&[]), [] as [u64; 0]);
        bench.hangs.alive(WorkerId(7));
        assert_eq!(bench.looks(|_| Vec::new()), Some((2, vec![7])));
        bench.hangs.forget(WorkerId(7));
        assert_eq!(bench.looks(|_| Vec::new()), None);
    }
}
