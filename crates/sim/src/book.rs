//! The pages of the witness's book: apps, their slots, lives and operations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use supervisor_core::{
    Exit, Generation, OperationId, Policy, SeatId, Side, SlotId, Slots, Timestamp, WorkerId,
};

/// One app.
#[derive(Debug)]
pub(crate) struct AppBook {
    pub(crate) policy: Policy,
    pub(crate) generation: Generation,
    pub(crate) instances: u32,
    /// How many slots it is to have when its new settings have proved
    /// themselves.
    pub(crate) shrink: Option<u32>,
    /// What it goes back to when they do not.
    pub(crate) before: Option<Before>,
    /// Which seats get new connections.
    pub(crate) rotation: Vec<SeatId>,
    pub(crate) places: Vec<Place>,
    pub(crate) deleting: bool,
    pub(crate) operation: Option<OperationBook>,
    /// When an errored slot was last tried, under these settings.
    pub(crate) tried_at: Option<Timestamp>,
    /// A life proved stable in this turn: all errored slots return.
    pub(crate) proved: bool,
}

/// What an app was before it was declared anew.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    pub(crate) policy: Policy,
    pub(crate) generation: Generation,
    pub(crate) instances: u32,
    pub(crate) wished: BTreeSet<u32>,
}

/// An operation that is under way.
#[derive(Debug, Clone)]
pub(crate) struct OperationBook {
    pub(crate) id: OperationId,
    pub(crate) kind: Kind,
    /// The slots that it is about.
    pub(crate) slots: BTreeSet<u32>,
    pub(crate) begun: Timestamp,
    /// Lives from this one on began after it.
    pub(crate) first_worker: WorkerId,
    /// The slots that were ready when it began.
    pub(crate) already: BTreeSet<u32>,
    /// The slots whose life it may not renew: it has the declared generation.
    pub(crate) current: BTreeSet<u32>,
    /// It is about settings, not about new lives.
    pub(crate) declares: bool,
    /// It replaces a generation by another.
    pub(crate) reload: bool,
    /// It is going back.
    pub(crate) reverted: bool,
    /// Even the settings from before failed then.
    pub(crate) gave_up: bool,
}

impl OperationBook {
    /// Whether the slot is to be ready with a new life.
    pub(crate) fn renews(&self, index: u32) -> bool {
        self.kind == Kind::Renewed && self.slots.contains(&index) && !self.current.contains(&index)
    }
}

/// What an operation promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its slots have been ready.
    Ready,
    /// Its slots have been ready with a new life.
    Renewed,
    /// Its slots are empty.
    Empty,
}

/// Whether a slot should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Yes,
    No,
    /// Its life ended for good while an operation may want it back.
    Maybe,
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) wish: Wish,
    /// The worker's seat.
    pub(crate) side: Side,
    pub(crate) open: BTreeSet<Side>,
    pub(crate) worker: Option<WorkerId>,
    /// The successor, or the retired one.
    pub(crate) beside: Option<WorkerId>,
    /// Its worker used too much memory, and may be replaced for it.
    pub(crate) outgrown: bool,
    /// Its worker may be killed at once.
    pub(crate) hurry: bool,
    /// Its worker is to make room for a new one, even if the operation that
    /// said so is over.
    pub(crate) outdated: bool,
    /// Unstable lives in a row: at least, and at most. They differ when an
    /// operation may have forgiven some.
    pub(crate) streak: (u32, u32),
    pub(crate) rest: Rest,
    /// The newest life that was ready, and when one became so last.
    pub(crate) last_ready: Option<(WorkerId, Timestamp)>,
    /// The last life that ended for good, by its own right.
    pub(crate) last_done: Option<(WorkerId, Timestamp)>,
}

/// When a slot may start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    From(Timestamp),
    /// Only as a try, or when another slot proved stable.
    Errored,
}

/// A life that is not over, as far as the supervisor was told.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) place: SlotId,
    pub(crate) side: Side,
    pub(crate) role: Role,
    pub(crate) generation: Generation,
    pub(crate) policy: Policy,
    /// It used far too much memory.
    pub(crate) excessive: bool,
    pub(crate) stage: LifeStage,
    /// Its end was ordered by Terminate.
    pub(crate) terminated: bool,
    pub(crate) killed: bool,
    /// It was taken out of the rotation.
    pub(crate) drained: bool,
}

/// What a life is to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    Successor,
    Retired,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum LifeStage {
    Spawning,
    Starting { since: Timestamp, ready_by: Timestamp },
    Ready { stable_at: Timestamp, proved: bool },
    Draining { until: Timestamp, stable: bool },
    Ending { kill_at: Timestamp, stable: bool, was_ready: bool },
}

/// How a life ended, as the event says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over {
    pub(crate) exit: Option<Exit>,
    pub(crate) stable: bool,
    pub(crate) ready: bool,
    pub(crate) terminated: bool,
    pub(crate) killed: bool,
    pub(crate) drained: bool,
}

impl AppBook {
    pub(crate) const fn new(generation: Generation, policy: Policy) -> Self {
        Self {
            policy,
            generation,
            instances: 0,
            shrink: None,
            before: None,
            rotation: Vec::new(),
            places: Vec::new(),
            deleting: false,
            operation: None,
            tried_at: None,
            proved: false,
        }
    }

    pub(crate) fn has(&self, index: u32) -> bool {
        (index as usize) < self.places.len()
    }

    /// Whether the slot's worker may take connections.
    pub(crate) fn is_ready(&self, index: u32, lives: &BTreeMap<WorkerId, Life>) -> bool {
        let worker = self.places.get(index as usize).and_then(|place| place.worker);
        let life = worker.and_then(|worker| lives.get(&worker));
        life.is_some_and(|life| matches!(life.stage, LifeStage::Ready { .. }))
    }

    /// Drops the operation. What it may have begun goes on: failures are
    /// forgiven, and a worker that could not be asked to make room still does.
    pub(crate) fn end_operation(&mut self, lives: &BTreeMap<WorkerId, Life>) -> Option<OperationBook> {
        let operation = self.operation.take()?;
        self.before = None;
        if operation.kind == Kind::Renewed {
            for index in &operation.slots {
                let Some(place) = self.places.get_mut(*index as usize) else { continue };
                place.streak.0 = 0;
                place.outdated |= place.worker.and_then(|worker| lives.get(&worker)).is_some_and(|life| {
                    matches!(
                        life.stage,
                        LifeStage::Spawning | LifeStage::Draining { .. } | LifeStage::Ending { .. }
                    )
                });
            }
        }
        Some(operation)
    }

    /// Whether an operation may make room in this slot and forgive its failures.
    pub(crate) fn may_renew(&self, index: u32) -> bool {
        self.operation.as_ref().is_some_and(|operation| operation.renews(index))
    }

    pub(crate) fn resize(&mut self, instances: u32) {
        while self.places.len() < instances as usize {
            self.places.push(Place {
                wish: Wish::No,
                side: Side::A,
                open: BTreeSet::new(),
                worker: None,
                beside: None,
                outgrown: false,
                hurry: false,
                outdated: false,
                streak: (0, 0),
                rest: Rest::From(Timestamp::default()),
                last_ready: None,
                last_done: None,
            });
        }
        self.instances = instances;
        for place in self.places.iter_mut().skip(instances as usize) {
            place.wish = Wish::No;
        }
    }

    /// Whether it is not known if the slot is to stay.
    pub(crate) fn is_unsure(&self, index: u32) -> bool {
        let maybe = self.places.get(index as usize).is_some_and(|place| place.wish == Wish::Maybe);
        maybe || self.shrink.is_some_and(|instances| index >= instances)
    }

    /// The policy of a generation.
    pub(crate) fn policy_of(&self, generation: Generation) -> &Policy {
        match &self.before {
            Some(before) if before.generation == generation => &before.policy,
            Some(_) | None => &self.policy,
        }
    }

    /// Makes it what it was before.
    pub(crate) fn revert(&mut self, now: Timestamp) {
        let Some(before) = self.before.take() else { return };
        self.generation = before.generation;
        if self.policy != before.policy {
            self.tried_at = None;
        }
        self.policy = before.policy;
        self.shrink = None;
        self.resize(before.instances);
        for (index, place) in (0..).zip(&mut self.places) {
            place.wish = if before.wished.contains(&index) { Wish::Yes } else { Wish::No };
            if place.wish == Wish::Yes && place.worker.is_none() {
                place.streak = (0, 0);
                place.rest = Rest::From(now);
            }
        }
        if let Some(operation) = &mut self.operation {
            operation.slots = before.wished;
            operation.current.clear();
            operation.reverted = true;
        }
    }

    pub(crate) fn want(&mut self, now: Timestamp, slots: &Slots) -> BTreeSet<u32> {
        let mut named = BTreeSet::new();
        let instances = self.shrink.unwrap_or(self.instances) as usize;
        for (index, place) in (0..).zip(&mut self.places).take(instances) {
            if slots.contains(index) {
                place.wish = Wish::Yes;
                place.streak = (0, 0);
                place.rest = Rest::From(now);
                named.insert(index);
            }
        }
        named
    }

    pub(crate) fn unwant(&mut self, slots: &Slots, hurry: bool) -> BTreeSet<u32> {
        let mut named = BTreeSet::new();
        for (index, place) in (0..).zip(&mut self.places) {
            if slots.contains(index) {
                place.wish = Wish::No;
                place.hurry |= hurry && (place.worker.is_some() || place.beside.is_some());
                named.insert(index);
            }
        }
        named
    }
}

/// The pause after so many unstable lives in a row, before jitter.
pub(crate) fn pause(policy: &Policy, streak: u32) -> Duration {
    let cap = Duration::from_secs(15).max(policy.restart_delay);
    let factor = f64::from(policy.restart_backoff_percent) / 100.0;
    let longer = policy.restart_delay.as_secs_f64() * factor.powf(f64::from(streak.max(1)) - 1.0);
    cap.min(Duration::from_secs_f64(longer.min(1e6)))
}

/// The shortest pause after so many unstable lives in a row.
pub(crate) fn least_pause(policy: &Policy, streak: u32) -> Duration {
    pause(policy, streak).mul_f64(0.7999)
}
