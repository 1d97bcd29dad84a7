//! The fake machine: processes that misbehave, and news of them that is late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use supervisor_core::{Action, AppId, Event, Exit, Generation, Hang, Timestamp, WorkerId};

use crate::agenda::Agenda;

/// Processes, and what is known of them only later.
#[derive(Debug)]
pub(crate) struct Machine {
    seed: u64,
    /// Faults happen.
    pub(crate) chaotic: bool,
    living: BTreeMap<WorkerId, Process>,
    /// Workers that were begun so far. Orders that are repeated come slot by slot,
    /// and not in the order in which they were given.
    begun: BTreeSet<WorkerId>,
    agenda: Agenda<Happening>,
    /// Lives of each app so far: what a life is like depends on the app and on
    /// its number alone, so that a run without another app tells the same.
    lives: BTreeMap<AppId, u64>,
    rng: Rng,
}

#[derive(Debug)]
struct Process {
    /// How long it takes to end when asked; `None` if it does not listen.
    obeys_after: Option<Duration>,
}

#[derive(Debug)]
enum Happening {
    /// The supervisor hears of something.
    News(Event),
    /// A process speaks, if it lives.
    Says(WorkerId, Event),
    /// A process ends, if it lives.
    Dies(WorkerId, Exit),
}

/// How one life goes, times counted from its begin.
#[derive(Debug)]
struct Fate {
    ready: Option<Duration>,
    wants_more: Option<(Duration, Duration)>,
    leaves: Option<Duration>,
    dies: Option<(Duration, Exit)>,
    obeys_after: Option<Duration>,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            chaotic: true,
            living: BTreeMap::new(),
            begun: BTreeSet::new(),
            agenda: Agenda::new(),
            lives: BTreeMap::new(),
            rng: Rng::with_seed(seed ^ 0x6d61_6368_696e_6500),
        }
    }

    /// When something happens next.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.agenda.next_at()
    }

    /// Lets the next thing happen. Returns what the supervisor hears of it.
    pub(crate) fn happen(&mut self, now: Timestamp) -> Option<Event> {
        match self.agenda.take()? {
            Happening::News(event) => Some(event),
            Happening::Says(worker, event) => {
                if self.living.contains_key(&worker) {
                    self.report(now, event);
                }
                None
            }
            Happening::Dies(worker, exit) => {
                if self.living.remove(&worker).is_some() {
                    self.report(now, Event::WorkerExited { worker, exit });
                }
                None
            }
        }
    }

    /// Somebody uses too much memory, or by far too much.
    pub(crate) fn outgrow(&mut self, now: Timestamp) {
        let hard = self.rng.u8(..8) == 0;
        if let Some(worker) = self.anybody() {
            let (used, limit) = if hard { (900, 500) } else { (300, 200) };
            self.report(now, Event::MemoryExceeded { worker, used, limit, hard });
        }
    }

    /// Somebody seems to do nothing any more.
    pub(crate) fn hang(&mut self, now: Timestamp) {
        if let Some(worker) = self.anybody() {
            let time = Duration::from_secs(10);
            let hang = if self.rng.bool() { Hang::Queue(time) } else { Hang::Watchdog(time) };
            self.report(now, Event::WorkerHung { worker, hang });
        }
    }

    /// A stranger kills somebody.
    pub(crate) fn strike(&mut self, now: Timestamp) {
        if let Some(worker) = self.anybody() {
            self.agenda.note(now, Happening::Dies(worker, Exit::Signal(9)));
        }
    }

    fn anybody(&mut self) -> Option<WorkerId> {
        if self.living.is_empty() {
            return None;
        }
        let chosen = self.rng.usize(..self.living.len());
        self.living.keys().nth(chosen).copied()
    }

    /// Performs an action that may have been performed before another master
    /// came: what was begun is known by what it left behind.
    pub(crate) fn perform_again(&mut self, now: Timestamp, action: &Action) {
        if let Action::Spawn { worker, .. } = action
            && self.begun.contains(worker)
        {
            return;
        }
        self.perform(now, action);
    }

    /// Performs an action, as the shell would.
    pub(crate) fn perform(&mut self, now: Timestamp, action: &Action) {
        match action {
            Action::Spawn { worker, seat, generation } => {
                self.begun.insert(*worker);
                self.spawn(now, *worker, seat.slot.app, *generation);
            }
            Action::Drain(worker) => self.drain(now, *worker),
            Action::Terminate(worker) => {
                if let Some(after) = self.living.get(worker).and_then(|process| process.obeys_after) {
                    let exit = if after.is_zero() { Exit::Signal(15) } else { Exit::Code(0) };
                    self.agenda.note(now + after, Happening::Dies(*worker, exit));
                }
            }
            // A program may handle the signal; one that is stopped does not see it.
            Action::Abort(worker) => {
                if self.rng.bool() {
                    let after = Duration::from_millis(self.rng.u64(..3_000));
                    self.agenda.note(now + after, Happening::Dies(*worker, Exit::Signal(6)));
                }
            }
            Action::Kill(worker) => {
                let after = Duration::from_millis(self.rng.u64(0..50));
                self.agenda.note(now + after, Happening::Dies(*worker, Exit::Signal(9)));
            }
            Action::Open(_)
            | Action::Close(_)
            | Action::Rotate(..)
            | Action::Revert(_)
            | Action::Forget(_)
            | Action::Announce(_)
            | Action::Report(..)
            | Action::Finish(..) => {}
        }
    }

    /// Connections are taken soon, late, or never.
    fn drain(&mut self, now: Timestamp, worker: WorkerId) {
        let after = match self.rng.u8(..8) {
            0..=4 => self.rng.u64(..100),
            5..=6 => self.rng.u64(..20_000),
            _ if !self.chaotic => 0,
            _ => return,
        };
        let event = Event::WorkerDrained(worker);
        self.agenda.note(now + Duration::from_millis(after), Happening::Says(worker, event));
    }

    fn spawn(&mut self, now: Timestamp, worker: WorkerId, app: AppId, generation: Generation) {
        let life = self.lives.entry(app).or_default();
        *life += 1;
        let mut rng = Rng::with_seed(self.seed ^ (u64::from(app.0) << 48) ^ life.wrapping_mul(0x9e37_79b9));
        let begin = now + Duration::from_millis(rng.u64(0..20));
        let health = self.health(app, generation);
        let good = !self.chaotic || rng.u8(..) < health;
        if !good && rng.u8(..) < 20 {
            let detail = "exec: no such file".to_owned();
            self.report(begin, Event::SpawnFailed { worker, detail });
            return;
        }
        let fate = if good { Fate::good(&mut rng) } else { Fate::bad(&mut rng) };
        self.living.insert(worker, Process { obeys_after: fate.obeys_after });
        self.report(begin, Event::WorkerSpawned(worker));
        // A word may overtake the news of the spawn by a hair.
        let early = if self.chaotic && rng.u8(..) < 10 { now } else { begin };
        if let Some(after) = fate.ready {
            if worker.0.is_multiple_of(8) {
                let unready = Event::WorkerUnready { worker, lacks: "no answer".to_owned() };
                self.agenda.note(begin + after / 2, Happening::Says(worker, unready));
            }
            self.agenda.note(early + after, Happening::Says(worker, Event::WorkerReady(worker)));
        }
        if let Some((after, by)) = fate.wants_more {
            self.agenda.note(begin + after, Happening::Says(worker, Event::WorkerDelayed { worker, by }));
        }
        if let Some(after) = fate.leaves {
            self.agenda.note(early + after, Happening::Says(worker, Event::WorkerLeaving(worker)));
        }
        if let Some((after, exit)) = fate.dies {
            self.agenda.note(begin + after, Happening::Dies(worker, exit));
        }
    }

    /// How many of 256 lives go well with these settings: there are good releases
    /// and bad ones.
    fn health(&self, app: AppId, generation: Generation) -> u8 {
        let mut rng = Rng::with_seed(self.seed ^ (u64::from(app.0) << 48) ^ (generation.0 << 32));
        [0, 60, 200, 240][rng.usize(..4)]
    }

    /// Sends news on its way: mostly at once, sometimes late, sometimes twice.
    fn report(&mut self, at: Timestamp, event: Event) {
        if self.chaotic && self.rng.u8(..) < 8 {
            let again = at + self.lateness() + Duration::from_millis(self.rng.u64(0..5000));
            self.agenda.note(again, Happening::News(event.clone()));
        }
        let lateness = self.lateness();
        self.agenda.note(at + lateness, Happening::News(event));
    }

    fn lateness(&mut self) -> Duration {
        match self.rng.u8(..) {
            _ if !self.chaotic => Duration::ZERO,
            0..=199 => Duration::ZERO,
            200..=249 => Duration::from_millis(self.rng.u64(0..20)),
            250..=255 => Duration::from_millis(self.rng.u64(0..2000)),
        }
    }
}

impl Fate {
    /// A worker as it should be.
    fn good(rng: &mut Rng) -> Self {
        Self {
            ready: Some(Duration::from_millis(rng.u64(1..100))),
            wants_more: None,
            leaves: None,
            dies: None,
            obeys_after: Some(Duration::from_millis(rng.u64(0..50))),
        }
    }

    fn bad(rng: &mut Rng) -> Self {
        let mut fate = Self::good(rng);
        let early = Duration::from_millis(rng.u64(1..500));
        let late = Duration::from_millis(rng.u64(500..20_000));
        match rng.u8(..16) {
            0..=3 => {}
            4..=6 => fate.dies = Some((early, Self::exit(rng))),
            7..=8 => fate.dies = Some((late, Self::exit(rng))),
            9 => fate.ready = None,
            10 => fate.ready = Some(late),
            11 => fate.obeys_after = None,
            12 => fate.obeys_after = Some(late),
            13 => {
                fate.leaves = Some(late);
                fate.dies = rng.bool().then(|| (late + early, Self::exit(rng)));
            }
            14 => {
                fate.ready = Some(late);
                fate.wants_more = Some((early, late));
            }
            _ => {
                fate.obeys_after = Some(late);
                fate.wants_more = Some((late, early));
            }
        }
        fate
    }

    fn exit(rng: &mut Rng) -> Exit {
        match rng.u8(..9) {
            0..=3 => Exit::Code(1),
            4 => Exit::Code(0),
            5 => Exit::Code(3),
            6 => Exit::Signal(11),
            7 => Exit::OutOfMemory { limit: None },
            _ => Exit::Unknown,
        }
    }
}
