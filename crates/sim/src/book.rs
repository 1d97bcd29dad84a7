//! The pages of the witness's book: apps, their slots and operations.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use supervisor_core::{Generation, OperationId, Policy, SeatId, Side, SlotId, Slots, Timestamp, WorkerId};

use crate::life::{Life, Role};

/// One app.
#[derive(Debug)]
pub(crate) struct AppBook {
    pub(crate) policy: Rc<Policy>,
    pub(crate) generation: Generation,
    /// The settings of each generation.
    pub(crate) policies: BTreeMap<Generation, Rc<Policy>>,
    pub(crate) instances: u32,
    pub(crate) places: Vec<Place>,
    pub(crate) deleting: bool,
    pub(crate) operation: Option<OperationBook>,
    /// The seats that get new connections, and their weights.
    pub(crate) rotation: Vec<(SeatId, u32)>,
    /// What it must be again in this turn: what took the place of these settings
    /// was given up before it had proved itself.
    pub(crate) unproved: Option<Before>,
    /// When an errored slot was last tried, under these settings.
    pub(crate) tried_at: Option<Timestamp>,
    /// A life proved stable in this turn: all errored slots return.
    pub(crate) proved: bool,
}

/// An operation that is under way.
#[derive(Debug, Clone)]
pub(crate) struct OperationBook {
    pub(crate) id: OperationId,
    pub(crate) kind: Kind,
    /// It is about settings, so that successors may start beside workers.
    pub(crate) declares: bool,
    /// The slots that it is about.
    pub(crate) slots: BTreeSet<u32>,
    pub(crate) begun: Timestamp,
    /// Lives from this one on began after it.
    pub(crate) first_worker: WorkerId,
    /// Successors that an earlier one left behind and this one may use.
    pub(crate) adopted: BTreeSet<WorkerId>,
    /// The slots that were ready when it began.
    pub(crate) already: BTreeSet<u32>,
    /// The slots whose life it may not renew: it has the declared generation.
    pub(crate) current: BTreeSet<u32>,
    /// What it goes back to when it fails, if it replaces a generation that
    /// serves.
    pub(crate) before: Option<Before>,
    /// The number of slots that the app shrinks to when the others have proved
    /// the new settings.
    pub(crate) shrink: Option<u32>,
    /// How many slots it may renew at a time.
    pub(crate) at_once: usize,
    /// The slots that it has begun to renew.
    pub(crate) touched: BTreeSet<u32>,
    /// It has gone back because this generation failed, or a person wanted it.
    pub(crate) reverted: Option<Generation>,
    /// The order that wants it to go back.
    pub(crate) aborted_by: Option<OperationId>,
    /// How its workers get connections until they take over together.
    pub(crate) steps: Option<StepsBook>,
    /// The slots whose workers have taken over together.
    pub(crate) switched: BTreeSet<u32>,
    /// Slots that had nobody to start beside: their worker is to prove itself before
    /// it gets connections.
    pub(crate) fresh: BTreeSet<u32>,
}

/// A reload in steps.
#[derive(Debug, Clone)]
pub(crate) struct StepsBook {
    pub(crate) shares: Vec<u32>,
    pub(crate) hold: Duration,
    /// How many slots it is about.
    pub(crate) of: u32,
    /// Which share is worked on, and since when it is held.
    pub(crate) at: usize,
    pub(crate) held: Option<Timestamp>,
    /// The slots that have been given a new worker.
    pub(crate) introduced: BTreeSet<u32>,
    /// Those whose new worker gets connections, and how many in percent.
    pub(crate) admitted: BTreeSet<u32>,
    pub(crate) share: u32,
}

impl StepsBook {
    /// The step whose workers are introduced, or would be now.
    pub(crate) const fn next(&self) -> usize {
        if self.held.is_some() { self.at + 1 } else { self.at }
    }

    /// How many slots have a new worker at a step.
    pub(crate) fn needed(&self, at: usize) -> u32 {
        let share = self.shares.get(at).copied().unwrap_or(100);
        (self.of * share).div_ceil(100).max(1)
    }

    pub(crate) fn move_on(&mut self) {
        self.at = self.next();
        self.held = None;
    }
}

/// What an app was before it was declared anew.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    pub(crate) generation: Generation,
    pub(crate) instances: u32,
    pub(crate) wished: BTreeSet<u32>,
}

impl OperationBook {
    /// Whether the slot is to be ready with a new life.
    pub(crate) fn renews(&self, index: u32) -> bool {
        self.kind == Kind::Renewed && self.slots.contains(&index) && !self.current.contains(&index)
    }

    /// Whether the worker is one of those that it replaces others by.
    pub(crate) fn brought(&self, worker: WorkerId) -> bool {
        worker >= self.first_worker || self.adopted.contains(&worker)
    }

    /// Whether a life with these settings is the slot's first with new ones.
    pub(crate) fn introduces(&self, index: u32, generation: Generation) -> bool {
        let before = self.before.as_ref().filter(|_| self.reverted.is_none());
        before.is_some_and(|before| before.generation != generation)
            && self.renews(index)
            && !self.touched.contains(&index)
    }

    /// What the app is again when it is given up for another one.
    pub(crate) fn unproved(&self) -> Option<Before> {
        self.before.clone().filter(|_| self.reverted.is_none())
    }

    /// Whether the slot goes when the others have proved the new settings.
    pub(crate) fn gives_up(&self, index: u32) -> bool {
        self.shrink.is_some_and(|instances| index >= instances)
    }
}

/// What an operation promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its slots have been ready.
    Ready,
    /// Its slots have been stable with a new life.
    Renewed,
    /// Its slots are empty.
    Empty,
}

/// Whether a slot should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Yes,
    No,
    /// Its life ended for good while an operation may want it back, or it goes
    /// at the end of an operation.
    Maybe,
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) wish: Wish,
    /// The seats that listen.
    pub(crate) open: BTreeSet<Side>,
    /// Where its own worker's sockets are.
    pub(crate) side: Side,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) successor: Option<WorkerId>,
    pub(crate) retired: Option<WorkerId>,
    /// Its worker is to make room for a new one, even if the operation that
    /// said so is over.
    pub(crate) outdated: bool,
    /// Not even the settings from before got it going.
    pub(crate) stuck: bool,
    /// Unstable lives in a row: at least, and at most. They differ when an
    /// operation may have forgiven some.
    pub(crate) streak: (u32, u32),
    pub(crate) rest: Rest,
    /// The last life of its own that was ready.
    pub(crate) last_ready: Option<(WorkerId, Timestamp)>,
    /// The last life of its own that was stable, and its settings.
    pub(crate) last_stable: Option<(WorkerId, Generation)>,
    /// The last life that ended for good, by its own right.
    pub(crate) last_done: Option<(WorkerId, Timestamp)>,
    /// Whose settings those had who may have left something in the queue of its
    /// own seat.
    pub(crate) queue_of: Option<Generation>,
    /// Somebody is to answer the queue of one that crashed while it was drained.
    pub(crate) relief: Option<Relief>,
}

/// Who is to follow one that crashed while it was drained, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relief {
    pub(crate) role: Role,
    pub(crate) side: Side,
    pub(crate) generation: Generation,
    pub(crate) until: Timestamp,
}

/// When a slot may start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    From(Timestamp),
    /// Only as a try, or when another slot proved stable.
    Errored,
}

impl Place {
    const fn new() -> Self {
        Self {
            wish: Wish::No,
            open: BTreeSet::new(),
            side: Side::A,
            worker: None,
            successor: None,
            retired: None,
            outdated: false,
            stuck: false,
            streak: (0, 0),
            rest: Rest::From(Timestamp::new(Duration::ZERO)),
            last_ready: None,
            last_stable: None,
            last_done: None,
            queue_of: None,
            relief: None,
        }
    }

    /// Whoever is in it answers its queue before it ends.
    const fn unwant(&mut self) {
        self.wish = Wish::No;
        self.queue_of = None;
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        [self.worker, self.successor, self.retired].into_iter().flatten()
    }

    /// Who is in it beside its own worker.
    pub(crate) fn beside(&self) -> Option<WorkerId> {
        self.successor.or(self.retired)
    }

    /// Whether a replacement is under way, which one that hangs is not part of.
    pub(crate) fn is_replaced(&self, lives: &BTreeMap<WorkerId, Life>) -> bool {
        let hangs = |worker: &WorkerId| lives.get(worker).is_some_and(|life| life.hangs);
        self.successor.is_some() || self.retired.is_some_and(|worker| !hangs(&worker))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workers().next().is_none()
    }

    pub(crate) const fn of(&mut self, role: Role) -> &mut Option<WorkerId> {
        match role {
            Role::Own => &mut self.worker,
            Role::Successor => &mut self.successor,
            Role::Retired => &mut self.retired,
        }
    }

    pub(crate) fn role(&self, worker: WorkerId) -> Option<Role> {
        let is = |other: Option<WorkerId>| other == Some(worker);
        [(self.worker, Role::Own), (self.successor, Role::Successor), (self.retired, Role::Retired)]
            .into_iter()
            .find_map(|(other, role)| is(other).then_some(role))
    }
}

impl AppBook {
    pub(crate) fn new(generation: Generation, policy: Rc<Policy>) -> Self {
        Self {
            policies: BTreeMap::from([(generation, Rc::clone(&policy))]),
            policy,
            generation,
            instances: 0,
            places: Vec::new(),
            deleting: false,
            operation: None,
            rotation: Vec::new(),
            unproved: None,
            tried_at: None,
            proved: false,
        }
    }

    pub(crate) fn has(&self, index: u32) -> bool {
        (index as usize) < self.places.len()
    }

    pub(crate) fn place(&self, index: u32) -> Option<&Place> {
        self.places.get(index as usize)
    }

    /// The slots and their places.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &Place)> {
        (0..).zip(&self.places)
    }

    /// Whether the slot should run.
    pub(crate) fn wish(&self, index: u32) -> Wish {
        let gives_up = self.operation.as_ref().is_some_and(|operation| operation.gives_up(index));
        match self.place(index).map_or(Wish::No, |place| place.wish) {
            Wish::Yes if gives_up => Wish::Maybe,
            wish @ (Wish::Yes | Wish::No | Wish::Maybe) => wish,
        }
    }

    /// The slot's own worker.
    pub(crate) fn own<'a>(&self, index: u32, lives: &'a BTreeMap<WorkerId, Life>) -> Option<&'a Life> {
        lives.get(&self.place(index)?.worker?)
    }

    /// Whether the slot's worker may take connections.
    pub(crate) fn is_ready(&self, index: u32, lives: &BTreeMap<WorkerId, Life>) -> bool {
        self.own(index, lives).is_some_and(Life::is_ready)
    }

    /// The weight of a seat that gets new connections.
    pub(crate) fn weight(&self, seat: SeatId) -> Option<u32> {
        self.rotation.iter().find(|(known, _)| *known == seat).map(|(_, weight)| *weight)
    }

    /// The reload in steps that is under way.
    pub(crate) fn steps(&self) -> Option<&StepsBook> {
        self.operation.as_ref()?.steps.as_ref()
    }

    /// Whether a slot's new worker gets connections before it has taken over.
    pub(crate) fn admits(&self, index: u32) -> bool {
        self.steps().is_some_and(|steps| steps.admitted.contains(&index))
    }

    /// The seat of a slot's own worker.
    pub(crate) fn seat(&self, slot: SlotId) -> Option<SeatId> {
        Some(SeatId { slot, side: self.place(slot.index)?.side })
    }

    /// Drops the operation. What it may have begun goes on: failures are
    /// forgiven, and a worker that could not be asked to make room still does.
    pub(crate) fn end_operation(&mut self, lives: &BTreeMap<WorkerId, Life>) -> Option<OperationBook> {
        let operation = self.operation.take()?;
        if operation.kind == Kind::Renewed {
            for index in &operation.slots {
                let ends = self.own(*index, lives).is_some_and(|life| !life.is_ready());
                let Some(place) = self.places.get_mut(*index as usize) else { continue };
                place.streak.0 = 0;
                place.outdated |= ends || place.is_replaced(lives);
            }
        }
        Some(operation)
    }

    /// Whether an operation may make room in this slot and forgive its failures.
    pub(crate) fn may_renew(&self, index: u32) -> bool {
        self.operation.as_ref().is_some_and(|operation| operation.renews(index))
    }

    /// Whether the operation has given the slot a stable life.
    pub(crate) fn has_proved(&self, index: u32, operation: &OperationBook) -> bool {
        let proved = self.place(index).and_then(|place| place.last_stable);
        proved.is_some_and(|(worker, generation)| operation.brought(worker) && generation == self.generation)
    }

    /// Whether the operation starts successors beside ready workers.
    pub(crate) fn surges(&self) -> bool {
        self.operation.as_ref().is_some_and(|operation| operation.declares) && self.policy.max_surge > 0
    }

    pub(crate) fn resize(&mut self, instances: u32) {
        while self.places.len() < instances as usize {
            self.places.push(Place::new());
        }
        self.instances = instances;
        for place in self.places.iter_mut().skip(instances as usize) {
            place.unwant();
        }
    }

    pub(crate) fn want(&mut self, now: Timestamp, slots: &Slots) -> BTreeSet<u32> {
        let mut named = BTreeSet::new();
        for (index, place) in (0..).zip(&mut self.places).take(self.instances as usize) {
            if slots.contains(index) {
                place.wish = Wish::Yes;
                place.streak = (0, 0);
                place.rest = Rest::From(now);
                named.insert(index);
            }
        }
        named
    }

    pub(crate) fn unwant(&mut self, slots: &Slots) -> BTreeSet<u32> {
        let mut named = BTreeSet::new();
        for (index, place) in (0..).zip(&mut self.places) {
            if slots.contains(index) {
                place.unwant();
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
