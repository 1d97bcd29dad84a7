//! A supervisor under observation: the witness follows what it is told and what
//! it orders, the properties compare, and all of it is written down.

use std::collections::BTreeSet;

use supervisor_core::{Action, Event, Supervisor, Timestamp, WorkerId};

use crate::coverage::Coverage;
use crate::properties::{self, Broken, Check};
use crate::trace::Trace;
use crate::witness::{Shutdown, Witness};

/// A supervisor, and all that is known about it.
#[derive(Debug)]
pub(crate) struct Observed {
    seed: u64,
    pub(crate) supervisor: Supervisor,
    pub(crate) witness: Witness,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    /// What it was told, so that it can be told again.
    pub(crate) script: Vec<Entry>,
    pub(crate) next_worker: WorkerId,
    now: Timestamp,
    /// How often the clock was looked at since it last moved or anything happened.
    ticks: u32,
}

/// One thing that happened to the supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    pub(crate) input: Input,
    /// The workers that it ordered then.
    pub(crate) spawned: Vec<WorkerId>,
}

/// What can happen.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events")]
pub(crate) enum Input {
    Event(Event),
    /// The master dies.
    Replaced,
}

impl Observed {
    pub(crate) fn new(seed: u64, apps: &BTreeSet<u32>) -> Self {
        Self {
            seed,
            supervisor: Supervisor::new(seed, WorkerId(1)),
            witness: Witness::default(),
            trace: Trace::new(seed, apps),
            coverage: Coverage::default(),
            script: Vec::new(),
            next_worker: WorkerId(1),
            now: Timestamp::default(),
            ticks: 0,
        }
    }

    /// Hands an event to the supervisor, and what comes out of it to the witness.
    /// Returns what it orders.
    pub(crate) fn handle(&mut self, now: Timestamp, event: Event) -> Result<Vec<Action>, Broken> {
        self.script.push(Entry { at: now, input: Input::Event(event.clone()), spawned: Vec::new() });
        self.tell(now, event)
    }

    /// The master dies, and another one takes over what is remembered of it; while
    /// everything ends it is told so. Returns what it orders, some of it again:
    /// what may not have been performed.
    pub(crate) fn replace(&mut self, now: Timestamp) -> Result<Vec<Action>, Broken> {
        self.script.push(Entry { at: now, input: Input::Replaced, spawned: Vec::new() });
        self.trace.replaced(now);
        self.coverage.count_replaced(&self.supervisor, &self.witness);
        let mut next = Supervisor::new(self.seed, self.next_worker);
        let mut orders = Vec::new();
        for id in self.witness.apps.keys() {
            let Some(memo) = self.supervisor.memo(*id) else { continue };
            let slots = self.supervisor.slot_memos(*id).collect();
            orders.extend(next.adopt(now, *id, memo, slots).unwrap_or_default());
        }
        let before = std::mem::replace(&mut self.supervisor, next);
        for action in &orders {
            self.trace.action(now, action);
        }
        properties::nothing_is_forgotten(&self.witness, &before, &self.supervisor)?;
        properties::orders_are_repeated(&self.witness, &orders)?;
        if let Some(Shutdown { hurry }) = self.witness.shutdown {
            orders.extend(self.tell(now, Event::ShutdownOrdered { now: hurry })?);
        }
        Ok(orders)
    }

    fn tell(&mut self, now: Timestamp, event: Event) -> Result<Vec<Action>, Broken> {
        let tick = event == Event::TimePassed;
        self.ticks = if tick && now == self.now { self.ticks + 1 } else { u32::from(tick) };
        self.now = now;
        self.coverage.count(&self.supervisor, &self.witness, &event);
        properties::are_told_at_once(&self.witness, &self.supervisor, now, &event)?;
        let serving = properties::Serving::of(&self.witness);
        self.trace.event(now, &event);
        let actions = self.supervisor.handle(now, event.clone());
        for action in &actions {
            self.trace.action(now, action);
        }
        if let Some(entry) = self.script.last_mut() {
            entry.spawned.extend(actions.iter().filter_map(spawned));
        }
        if let Event::Ordered { operation, app, order } = &event {
            let expected = self.witness.refusals(*app, order);
            properties::refusal_is_right(expected, *operation, &actions)?;
        }
        self.note(now, &event, &actions)?;
        self.witness.settle(&self.supervisor);
        properties::check_turn(&self.witness, &self.supervisor, now, &event, &serving)?;
        if tick {
            properties::time_moves_on(&self.supervisor, now, self.ticks)?;
        }
        Ok(actions)
    }

    /// Lets the witness follow, and checks each action on the way.
    fn note(&mut self, now: Timestamp, event: &Event, actions: &[Action]) -> Check {
        self.witness.note_event(now, event, self.next_worker);
        let ends = match event {
            Event::WorkerExited { .. }
            | Event::SpawnFailed { .. }
            | Event::WorkerHung { .. }
            | Event::MemoryExceeded { hard: true, .. } => true,
            Event::Ordered { .. }
            | Event::WorkerSpawned(_)
            | Event::WorkerReady(_)
            | Event::WorkerUnready { .. }
            | Event::WorkerLeaving(_)
            | Event::WorkerDelayed { .. }
            | Event::WorkerDrained(_)
            | Event::MemoryExceeded { hard: false, .. }
            | Event::TimePassed
            | Event::ShutdownOrdered { .. } => false,
        };
        self.witness.note_time(now, subject(event).filter(|_| ends));
        for action in actions {
            properties::check_action(&self.witness, now, event, action)?;
            self.witness.note_action(now, action);
            if let Some(worker) = spawned(action) {
                self.next_worker = WorkerId(worker.0 + 1);
            }
            self.coverage.count_action(action);
        }
        Ok(())
    }
}

const fn spawned(action: &Action) -> Option<WorkerId> {
    match action {
        Action::Spawn { worker, .. } => Some(*worker),
        Action::Open(_)
        | Action::Close(_)
        | Action::Rotate(..)
        | Action::Drain(_)
        | Action::Terminate(_)
        | Action::Abort(_)
        | Action::Kill(_)
        | Action::Revert(_)
        | Action::Forget(_)
        | Action::Announce(_)
        | Action::Report(..)
        | Action::Finish(..) => None,
    }
}

/// The worker that an event is about.
const fn subject(event: &Event) -> Option<WorkerId> {
    match event {
        Event::WorkerSpawned(worker)
        | Event::WorkerReady(worker)
        | Event::WorkerUnready { worker, .. }
        | Event::WorkerLeaving(worker)
        | Event::SpawnFailed { worker, .. }
        | Event::WorkerDelayed { worker, .. }
        | Event::WorkerDrained(worker)
        | Event::MemoryExceeded { worker, .. }
        | Event::WorkerHung { worker, .. }
        | Event::WorkerExited { worker, .. } => Some(*worker),
        Event::Ordered { .. } | Event::TimePassed | Event::ShutdownOrdered { .. } => None,
    }
}
