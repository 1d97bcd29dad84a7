//! An app: what a person wants of it, what is, and what is missing between.
//!
//! News of its workers is in `life`, replacing them in `replace` and `steps`,
//! their sockets in `sockets` and the breaker in `breaker`.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::action::{Action, Notice, Outcome, Refusal, Step};
use crate::event::{Order, Slots};
use crate::id::{AppId, OperationId, SeatId, SlotId, WorkerId};
use crate::jitter::Jitter;
use crate::operation::{Before, Operation, Returning};
use crate::policy::Version;
use crate::slot::{Cause, Rest, Slot, Stage, Worker};
use crate::steps::Steps;
use crate::time::Timestamp;

/// The most slots of an app: more than the keeper's table has room for workers.
/// Whoever orders or remembers has to keep to it.
pub const MAX_SLOTS: u32 = 10_000;

/// What one call of `handle` shares: the time, and where results go.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    /// The supervisor is ending: nothing is wanted any more.
    pub(crate) ending: bool,
    pub(crate) jitter: &'a mut Jitter,
    pub(crate) next_worker: &'a mut WorkerId,
    /// Where each living worker is.
    pub(crate) places: &'a mut BTreeMap<WorkerId, SlotId>,
    pub(crate) actions: &'a mut Vec<Action>,
}

/// A named program with its settings and its slots.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) id: AppId,
    /// The settings that it is declared with.
    pub(crate) version: Version,
    /// Slots from here on are to go.
    pub(crate) instances: u32,
    pub(crate) slots: Vec<Slot>,
    pub(crate) operation: Option<Operation>,
    /// It is to be forgotten.
    pub(crate) deleting: bool,
    /// The seats that get new connections and their weights, as far as orders
    /// were given; sorted.
    pub(crate) rotation: Vec<(SeatId, u32)>,
    /// When an errored slot is tried next.
    pub(crate) probe_at: Option<Timestamp>,
    /// Successors in a row that failed without an operation, and until when
    /// there are no more.
    pub(crate) vain: (u32, Timestamp),
    /// When it must be looked at again though nothing happened.
    pub(crate) deadline: Option<Timestamp>,
}

impl App {
    pub(crate) const fn new(id: AppId, version: Version) -> Self {
        Self {
            id,
            version,
            instances: 0,
            slots: Vec::new(),
            operation: None,
            deleting: false,
            rotation: Vec::new(),
            probe_at: None,
            vain: (0, Timestamp::new(Duration::ZERO)),
            deadline: None,
        }
    }

    /// An app that was declared earlier. It has no operation, as nobody waits,
    /// and is looked at as soon as possible.
    pub(crate) fn restored(mut self, now: Timestamp, instances: u32, start: &Slots) -> Self {
        self.slots = (0..instances).map(|_| Slot::new(self.version.generation)).collect();
        self.instances = instances;
        for (_, slot) in self.select(start) {
            slot.want_now(now);
        }
        self.deadline = Some(now);
        self
    }

    /// Why an order would not be begun now. Ending all of an app takes the place
    /// of whatever is under way; ending some of it only that of a start.
    pub(crate) fn refusal(&self, order: &Order) -> Option<Refusal> {
        if let Order::Start(slots) | Order::Stop { slots, .. } | Order::Restart { slots, .. } = order
            && let Slots::Only(indexes) = slots
            && !indexes.iter().any(|index| *index < self.instances)
        {
            return Some(Refusal::NoSuchSlot);
        }
        let Some(running) = &self.operation else {
            return (*order == Order::Abort).then_some(Refusal::NoReload);
        };
        let ends = match order {
            Order::Abort if running.returning.is_some() => return Some(Refusal::Returning),
            Order::Abort if running.before.is_none() => return Some(Refusal::NoReload),
            Order::Abort | Order::Delete { .. } => true,
            Order::Stop { slots, .. } => !self.deleting && (*slots == Slots::All || !running.is_reload()),
            Order::Declare { .. } | Order::Start(_) | Order::Restart { .. } | Order::Scale { .. } => false,
        };
        (!ends).then_some(Refusal::Busy)
    }

    /// Records what a person wants.
    pub(crate) fn order(&mut self, id: OperationId, order: Order, turn: &mut Turn<'_>) {
        if let Some(refusal) = self.refusal(&order) {
            turn.actions.push(Action::Finish(id, Outcome::Refused(refusal)));
            return;
        }
        if order == Order::Abort {
            self.go_back(Returning::Ordered(Some(id)), turn);
            return;
        }
        let mut operation = Operation::new(id);
        operation.gone.extend(self.supersede(turn));
        // What the supervisor began by itself makes room for what a person wants.
        for slot in &mut self.slots {
            slot.replace = None;
        }
        match order {
            Order::Declare { generation, policy, instances, start } => {
                self.declare(Version::new(generation, policy), instances, &start, &mut operation, turn);
            }
            Order::Start(slots) => {
                for (index, slot) in self.select(&slots) {
                    slot.want_now(turn.now);
                    operation.ready.insert(index);
                }
            }
            Order::Restart { slots, now } => {
                operation.stable = true;
                for (index, slot) in self.select(&slots) {
                    slot.want_now(turn.now);
                    if slot.worker.is_none() {
                        operation.ready.insert(index);
                    } else if now {
                        slot.recycle = Some(Cause::Asked);
                        operation.ready.insert(index);
                    } else {
                        operation.waiting.insert(index);
                    }
                }
            }
            Order::Stop { slots, now } => self.stop(&slots, now, &mut operation),
            Order::Delete { now } => {
                self.deleting = true;
                self.stop(&Slots::All, now, &mut operation);
            }
            Order::Scale { instances, start } => {
                let added = self.instances..instances;
                operation.gone.extend(self.resize(instances));
                for (index, slot) in self.select(&start).filter(|(index, _)| added.contains(index)) {
                    slot.want_now(turn.now);
                    operation.ready.insert(index);
                }
            }
            Order::Abort => {}
        }
        self.operation = Some(operation);
    }

    /// Drops the operation that is under way, for another one. Settings that no
    /// worker has proved yet are dropped with it. Returns the slots that are to
    /// go.
    fn supersede(&mut self, turn: &mut Turn<'_>) -> core::ops::Range<u32> {
        let Some(running) = self.operation.take() else { return 0..0 };
        let instances = match running.before {
            Some(before) => {
                self.version = before.version;
                turn.actions.push(Action::Revert(self.id));
                before.instances
            }
            None => running.shrink.unwrap_or(self.instances),
        };
        let ordered = match running.returning {
            Some(Returning::Ordered(by)) => by,
            Some(Returning::Failed(_)) | None => None,
        };
        let both = [Some(running.id), ordered].into_iter().flatten();
        turn.actions.extend(both.map(|id| Action::Finish(id, Outcome::Superseded)));
        self.resize(instances)
    }

    /// Takes the app's settings. Workers of other ones are replaced one after
    /// another, once those that do not run yet have proved the new ones.
    fn declare(
        &mut self,
        version: Version,
        instances: u32,
        start: &Slots,
        operation: &mut Operation,
        turn: &mut Turn<'_>,
    ) {
        let wanted = |(index, slot): (u32, &Slot)| slot.wanted.then_some(index);
        let before = Before {
            version: self.version.clone(),
            instances: self.instances,
            wanted: Rc::new((0..).zip(&self.slots).filter_map(wanted).collect()),
        };
        let changed = version.generation != self.version.generation;
        let serves = self.slots.iter().any(Slot::is_ready);
        self.version = version;
        if changed && serves && instances < self.instances {
            operation.shrink = Some(instances);
        } else {
            operation.gone.extend(self.resize(instances));
        }
        operation.before = (changed && serves).then_some(before);
        operation.beside = self.version.policy.max_surge > 0;
        operation.at_once = self.version.policy.max_surge.max(1) as usize;
        if operation.before.is_some() && self.declare_in_steps(instances, start, operation, turn) {
            return;
        }
        let generation = self.version.generation;
        let careful = operation.is_careful();
        for (index, slot) in self.select(start).take_while(|(index, _)| *index < instances) {
            let awaited = careful && slot.is_awaited();
            slot.want_now(turn.now);
            if awaited || slot.worker.as_ref().is_some_and(|worker| worker.version.generation != generation) {
                operation.waiting.insert(index);
            } else {
                if careful && slot.worker.is_none() {
                    operation.fresh.insert(index);
                }
                operation.ready.insert(index);
            }
        }
        operation.stable = !operation.waiting.is_empty() || !operation.fresh.is_empty();
    }

    /// Lets all slots wait for their turn, if the app is reloaded in steps.
    fn declare_in_steps(
        &mut self,
        instances: u32,
        start: &Slots,
        operation: &mut Operation,
        turn: &mut Turn<'_>,
    ) -> bool {
        let generation = self.version.generation;
        let is_new =
            |slot: &Slot| slot.worker.as_ref().is_some_and(|worker| worker.version.generation == generation);
        let admitted = (0..).zip(&self.slots).filter(|(_, slot)| is_new(slot)).map(|(index, _)| index);
        let admitted = admitted.collect();
        let (mut current, mut others) = (BTreeSet::new(), BTreeSet::new());
        for (index, slot) in self.select(start).take_while(|(index, _)| *index < instances) {
            let new = is_new(slot);
            // The others begin when it is their turn.
            if slot.wanted || new {
                slot.want_now(turn.now);
            }
            if new { &mut current } else { &mut others }.insert(index);
        }
        // Slots are counted by a u32.
        let of = u32::try_from(current.len() + others.len()).unwrap_or(u32::MAX);
        let policy = &self.version.policy;
        let Some(steps) = Steps::new(policy, of, current.clone(), admitted) else { return false };
        turn.actions.push(Action::Report(self.id, Step::Introduced(steps.portion())));
        (operation.ready, operation.waiting) = (current, others);
        operation.stable = true;
        operation.steps = Some(steps);
        true
    }

    /// The slots of a selection that are there to stay.
    pub(crate) fn select(&mut self, slots: &Slots) -> impl Iterator<Item = (u32, &mut Slot)> {
        (0..).zip(&mut self.slots).take(self.instances as usize).filter(|(index, _)| slots.contains(*index))
    }

    fn stop(&mut self, slots: &Slots, now: bool, operation: &mut Operation) {
        for (index, slot) in (0..).zip(&mut self.slots).filter(|(index, _)| slots.contains(*index)) {
            slot.wanted = false;
            if now {
                slot.hurry();
            }
            operation.gone.insert(index);
        }
    }

    /// Makes room for this many slots. Returns the ones beyond, which are to go.
    pub(crate) fn resize(&mut self, instances: u32) -> core::ops::Range<u32> {
        while self.slots.len() < instances as usize {
            self.slots.push(Slot::new(self.version.generation));
        }
        self.instances = instances;
        for slot in self.slots.iter_mut().skip(instances as usize) {
            slot.wanted = false;
        }
        instances..self.indexes().end
    }

    /// Wants nothing any more and drops the operation: the supervisor is ending.
    pub(crate) fn abandon(&mut self, now: bool, turn: &mut Turn<'_>) {
        self.supersede(turn);
        for slot in &mut self.slots {
            slot.wanted = false;
            if now {
                slot.hurry();
            }
        }
    }

    /// Compares what is wanted with what is, and orders what is missing.
    /// Returns whether the app is to be forgotten.
    pub(crate) fn reconcile(&mut self, turn: &mut Turn<'_>) -> bool {
        self.pass_time(turn);
        self.probe(turn.now);
        self.step(turn);
        self.switch(turn);
        self.roll(turn.now);
        self.end_unwanted(turn);
        self.open_and_close(turn);
        self.spawn_due(turn);
        self.rotate(turn);
        self.shrink();
        self.finish_operation(turn);
        self.deadline = self.next_deadline();
        self.deleting && self.slots.iter().all(Slot::is_empty)
    }

    /// Whether a slot should have a worker.
    pub(crate) fn wants(&self, index: u32, turn: &Turn<'_>) -> bool {
        let wanted = self.slots.get(index as usize).is_some_and(|slot| slot.wanted);
        wanted && index < self.instances && !self.deleting && !turn.ending
    }

    /// How many slots serve and are to go on.
    fn count_serving(&self, turn: &Turn<'_>) -> usize {
        self.indexes()
            .filter(|index| self.wants(*index, turn) && self.slots[*index as usize].is_ready())
            .count()
    }

    /// Whether a slot is to go on, and serves or is expected back: connections wait for it.
    fn is_awaited(&self, index: u32, turn: &Turn<'_>) -> bool {
        self.wants(index, turn) && self.slots[index as usize].rest != Rest::Errored
    }

    pub(crate) fn indexes(&self) -> core::ops::Range<u32> {
        // `instances` is a u32 and slots never outnumber the largest one.
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Acts on the deadlines of workers that have come.
    fn pass_time(&mut self, turn: &mut Turn<'_>) {
        let mut proved = false;
        for (index, slot) in (0..).zip(&mut self.slots) {
            let place = SlotId { app: self.id, index };
            for worker in slot.workers_mut() {
                worker.pass_time(place, turn);
            }
            if slot.worker.as_mut().is_some_and(|worker| worker.prove(turn.now)) {
                slot.streak = 0;
                proved = true;
            }
            proved |= slot.successor.as_mut().is_some_and(|worker| worker.prove(turn.now));
        }
        if proved {
            for slot in self.slots.iter_mut().filter(|slot| slot.rest == Rest::Errored) {
                slot.streak = 0;
                slot.restarts += 1;
                slot.rest = Rest::Due(turn.now);
            }
        }
    }

    /// Ends workers that are not wanted or must make room.
    fn end_unwanted(&mut self, turn: &mut Turn<'_>) {
        let serving = self.count_serving(turn);
        let awaited = self.indexes().filter(|index| self.is_awaited(*index, turn)).count();
        let generation = self.version.generation;
        for index in self.indexes() {
            let wanted = self.wants(index, turn);
            let place = SlotId { app: self.id, index };
            let shares = self.weight(self.seat(index, self.slots[index as usize].side.other())).is_some();
            let others = serving > 0 || awaited > usize::from(self.is_awaited(index, turn));
            let slot = &mut self.slots[index as usize];
            if !wanted {
                slot.replace = None;
                if slot.worker.is_none() {
                    slot.rest = Rest::Stopped;
                }
            }
            let leaves = if wanted { slot.recycle.clone() } else { Some(Cause::Asked) };
            if let Some(worker) = &mut slot.worker {
                worker.end(place, leaves, others, turn);
            }
            if let Some(worker) = &mut slot.successor {
                let vain = slot.replace.is_none() || worker.version.generation != generation;
                // One that has had connections is drained of them.
                let drains = shares || matches!(worker.stage, Stage::Draining { .. });
                worker.end(place, vain.then_some(Cause::Asked), drains && others, turn);
            }
            if let Some(worker) = &mut slot.retired {
                worker.end(place, Some(Cause::Asked), wanted || others, turn);
            }
        }
    }

    /// Starts what is due.
    fn spawn_due(&mut self, turn: &mut Turn<'_>) {
        for index in self.indexes().filter(|index| self.wants(*index, turn)).collect::<Vec<_>>() {
            let current = self.version_of(index).clone();
            let place = SlotId { app: self.id, index };
            let slot = &mut self.slots[index as usize];
            if slot.worker.is_none() {
                if slot.rest == Rest::Stopped {
                    slot.rest = Rest::Due(turn.now);
                }
                if matches!(slot.rest, Rest::Due(at) if at <= turn.now) {
                    slot.generation = current.generation;
                    let seat = SeatId { slot: place, side: slot.side };
                    slot.worker = Some(Box::new(turn.spawn(seat, current)));
                }
            }
            if slot.replace.is_some() && slot.successor.is_none() && slot.retired.is_none() {
                let seat = SeatId { slot: place, side: slot.side.other() };
                slot.successor = Some(Box::new(turn.spawn(seat, self.version.clone())));
            }
        }
    }

    /// Drops slots beyond the wanted number that are empty.
    fn shrink(&mut self) {
        let instances = self.instances as usize;
        while self.slots.len() > instances && self.slots.last().is_some_and(Slot::is_empty) {
            self.slots.pop();
        }
    }

    fn finish_operation(&mut self, turn: &mut Turn<'_>) {
        let Some(mut operation) = self.operation.take() else { return };
        let slots = &self.slots;
        operation.gone.retain(|index| slots.get(*index as usize).is_some_and(|slot| !slot.is_empty()));
        // It has gone back when nobody is left who is to go.
        let left = operation.returning.is_some() && slots.iter().any(|slot| !slot.is_settled());
        if operation.is_done() && !left {
            if !operation.fresh.is_empty() {
                // Whoever could not be taken back serves.
                self.rotate(turn);
            }
            let (outcome, ordered) = match operation.returning.take() {
                None => (Outcome::Done, None),
                Some(Returning::Failed(failure)) => (Outcome::RolledBack(failure), None),
                Some(Returning::Ordered(by)) => (Outcome::Aborted, by),
            };
            turn.actions.push(Action::Finish(operation.id, outcome));
            turn.actions.extend(ordered.map(|id| Action::Finish(id, Outcome::Done)));
        } else {
            self.operation = Some(operation);
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let workers = self.slots.iter().flat_map(Slot::workers).filter_map(Worker::deadline);
        let rests = self.slots.iter().filter_map(|slot| match slot.rest {
            Rest::Due(at) if slot.worker.is_none() => Some(at),
            Rest::Due(_) | Rest::Stopped | Rest::Errored => None,
        });
        let steps = self.operation.as_ref().and_then(|operation| operation.steps.as_ref()?.deadline());
        workers.chain(rests).chain(self.probe_at).chain(steps).min()
    }
}

impl Turn<'_> {
    pub(crate) fn spawn(&mut self, seat: SeatId, version: Version) -> Worker {
        let id = *self.next_worker;
        self.next_worker.0 += 1;
        self.places.insert(id, seat.slot);
        self.actions.push(Action::Announce(Notice::Starting(seat.slot, id)));
        self.actions.push(Action::Spawn { worker: id, seat, generation: version.generation });
        let (side, since, stage) = (seat.side, self.now, Stage::Spawning);
        Worker { id, side, version, since, stage, hurry: false, relieves: None }
    }

    /// Starts a worker that only answers what waits in a seat, until then at most.
    pub(crate) fn relieve(&mut self, seat: SeatId, version: Version, until: Timestamp) -> Worker {
        Worker { relieves: Some(until), ..self.spawn(seat, version) }
    }
}
