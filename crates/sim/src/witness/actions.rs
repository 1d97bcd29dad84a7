//! What the supervisor does.

use std::rc::Rc;

use supervisor_core::{
    Action, AppId, Cause, Ending, Generation, Next, Notice, OperationId, Outcome, ReadyWhen, SeatId, SlotId,
    Step, Timestamp, WorkerId,
};

use super::Witness;
use crate::book::{AppBook, OperationBook, Relief, Rest, Wish, least_pause};
use crate::life::{Life, LifeStage, Role};

impl Witness {
    /// Takes note of an action, after it was looked at.
    pub(crate) fn note_action(&mut self, now: Timestamp, action: &Action) {
        match action {
            Action::Open(seat) => {
                if let Some(place) = self.place_mut(seat.slot) {
                    place.open.insert(seat.side);
                }
            }
            Action::Close(seat) => {
                if let Some(place) = self.place_mut(seat.slot) {
                    place.open.remove(&seat.side);
                    place.queue_of.take_if(|_| place.side == seat.side);
                }
            }
            Action::Rotate(app, seats) => {
                if let Some(book) = self.apps.get_mut(app) {
                    book.rotation.clone_from(seats);
                }
            }
            Action::Spawn { worker, seat, generation } => self.note_spawn(now, *worker, *seat, *generation),
            Action::Drain(worker) => {
                self.note_touched(*worker);
                self.note_given_up(now, *worker);
                if let Some(life) = self.lives.get_mut(worker) {
                    life.begin_draining(now);
                }
            }
            Action::Terminate(worker) => {
                self.note_touched(*worker);
                self.note_given_up(now, *worker);
                if let Some(life) = self.lives.get_mut(worker) {
                    life.begin_ending(now);
                    life.terminated = true;
                }
            }
            Action::Abort(worker) => {
                if let Some(life) = self.lives.get_mut(worker) {
                    life.begin_ending(now);
                    life.terminated = true;
                }
            }
            Action::Kill(worker) => {
                if let Some(life) = self.lives.get_mut(worker) {
                    life.begin_ending(now);
                    life.killed = true;
                }
            }
            Action::Revert(app) => self.note_revert(now, *app),
            Action::Forget(app) => {
                self.apps.remove(app);
            }
            Action::Announce(Notice::Ready { worker, .. }) => self.note_ready(now, *worker),
            Action::Announce(Notice::Switched(slot, worker)) => self.note_switch(now, *slot, *worker),
            Action::Announce(Notice::Hung { slot, worker, next: Some(next), .. }) => {
                self.note_aside(now, *slot, *worker, *next);
            }
            Action::Announce(Notice::Ended { slot, worker, ending, next }) => {
                self.note_end(now, *slot, *worker, ending, *next);
            }
            Action::Announce(
                Notice::Starting(..)
                | Notice::Draining(..)
                | Notice::Stopping(..)
                | Notice::Hung { next: None, .. }
                | Notice::Killing(..),
            ) => {}
            Action::Report(app, step) => self.note_step(now, *app, *step),
            Action::Finish(id, outcome) => {
                self.finished.insert(*id);
                self.aborts.remove(id);
                if !matches!(outcome, Outcome::Refused(_)) {
                    self.superseded.remove(id);
                    self.note_finish(*id);
                }
            }
        }
    }

    fn note_finish(&mut self, id: OperationId) {
        let is = |operation: &OperationBook| operation.id == id;
        let mut books = self.apps.values_mut();
        if let Some(book) = books.find(|book| book.operation.as_ref().is_some_and(is))
            && let Some(operation) = book.end_operation(&self.lives)
            && self.shutdown.is_none()
            && let Some(instances) = operation.shrink
        {
            book.resize(instances);
        }
    }

    fn note_step(&mut self, now: Timestamp, app: AppId, step: Step) {
        let operation = self.apps.get_mut(&app).and_then(|book| book.operation.as_mut());
        let Some(operation) = operation else { return };
        let Some(steps) = &mut operation.steps else { return };
        match step {
            Step::Introduced(_) => steps.move_on(),
            Step::Held(portion, _) => {
                steps.move_on();
                steps.held = Some(now);
                steps.admitted.extend(&steps.introduced);
                steps.share = portion.share;
            }
            Step::Switched(_) => {
                operation.switched.clone_from(&steps.introduced);
                operation.steps = None;
            }
            Step::Returning => {}
        }
    }

    /// A worker that served is to make room.
    fn note_touched(&mut self, worker: WorkerId) {
        let Some(life) = self.lives.get(&worker) else { return };
        let (slot, touched) = (life.seat.slot, life.is_ready() && self.role(worker) == Some(Role::Own));
        let operation = self.apps.get_mut(&slot.app).and_then(|book| book.operation.as_mut());
        if let Some(operation) = operation.filter(|operation| touched && operation.renews(slot.index)) {
            operation.touched.insert(slot.index);
        }
    }

    /// The first slot that is given up says that the app shrinks now.
    fn note_given_up(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get(&worker) else { return };
        let slot = life.seat.slot;
        let own = self.role(worker) == Some(Role::Own) && self.wish(slot) == Wish::Maybe;
        let outdated = self.place(slot).is_some_and(|place| place.outdated);
        let given_up = own && !outdated && !life.is_late(now) && !life.is_leaving();
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        let operation = book.operation.as_ref().filter(|operation| operation.gives_up(slot.index));
        if let Some(instances) = operation.and_then(|operation| operation.shrink)
            && given_up
        {
            book.shrink(instances);
        }
    }

    fn note_spawn(&mut self, now: Timestamp, worker: WorkerId, seat: SeatId, generation: Generation) {
        let Some(book) = self.apps.get_mut(&seat.slot.app) else { return };
        let Some(policy) = book.policies.get(&generation).cloned() else { return };
        let ordered = book.may_renew(seat.slot.index);
        if let Some(place) = book.places.get_mut(seat.slot.index as usize)
            && let Some(Relief { role, until, .. }) = place.relief.take()
        {
            *place.of(role) = Some(worker);
            let life = Life { relieves: Some(until), vain: true, ..Life::new(seat, generation, policy) };
            self.lives.insert(worker, life);
            return;
        }
        if generation == book.generation
            && let Some(operation) = &mut book.operation
            && operation.slots.contains(&seat.slot.index)
            && let Some(steps) = &mut operation.steps
        {
            steps.introduced.insert(seat.slot.index);
        }
        let Some(place) = book.places.get_mut(seat.slot.index as usize) else { return };
        if place.side == seat.side {
            if place.rest == Rest::Errored && !ordered {
                book.tried_at = Some(now);
            }
            place.rest = Rest::From(now);
            place.worker = Some(worker);
            place.queue_of = Some(generation);
            place.wish = Wish::Yes;
            let (index, surges) = (seat.slot.index, book.surges());
            if let Some(operation) = &mut book.operation
                && operation.introduces(index, generation)
            {
                operation.touched.insert(index);
                if surges && operation.steps.is_none() && operation.switched.is_empty() {
                    operation.fresh.insert(index);
                }
            }
        } else {
            place.successor = Some(worker);
            if let Some(operation) = &mut book.operation {
                operation.touched.insert(seat.slot.index);
            }
        }
        self.lives.insert(worker, Life::new(seat, generation, policy));
    }

    fn note_ready(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get_mut(&worker) else { return };
        let slot = life.seat.slot;
        if let LifeStage::Starting { .. } = life.stage {
            let stable_at = match life.policy.ready {
                ReadyWhen::Started => now,
                ReadyWhen::Reported => now + life.policy.min_uptime,
            };
            life.stage = LifeStage::Ready { stable_at, proved: false };
        }
        if let Some(place) = self.place_mut(slot)
            && place.role(worker) == Some(Role::Own)
        {
            place.last_ready = Some((worker, now));
        }
        self.note_time(now, None);
    }

    fn note_switch(&mut self, now: Timestamp, slot: SlotId, worker: WorkerId) {
        let Some(life) = self.lives.get(&worker) else { return };
        let (generation, policy) = (life.generation, Rc::clone(&life.policy));
        let Some(place) = self.place_mut(slot) else { return };
        // Nobody of the settings before has come to answer its queue.
        let left = place.worker.is_none() && place.open.contains(&place.side) && policy.listens;
        let (role, side, until) = (Role::Retired, place.side, now + policy.drain_timeout);
        place.relief = left.then_some(Relief { role, side, generation, until });
        place.retired = place.worker.replace(worker);
        place.successor = None;
        place.queue_of = Some(generation);
        place.side = place.side.other();
        place.streak = (0, 0);
        place.rest = Rest::From(now);
        place.outdated = false;
        place.last_ready = Some((worker, now));
        place.last_stable = Some((worker, generation));
    }

    /// A worker that hangs makes room before it has ended.
    fn note_aside(&mut self, now: Timestamp, slot: SlotId, worker: WorkerId, next: Next) {
        let over = self.over(now, worker, None);
        if let Some(place) = self.place_mut(slot) {
            place.retired = place.worker.take();
            place.outdated = false;
        }
        let Some(life) = self.lives.remove(&worker) else { return };
        self.note_rest(now, (slot, worker), &life, next);
        self.lives.insert(worker, life);
        if over.is_some_and(|over| over.stable)
            && let Some(place) = self.place_mut(slot)
        {
            place.streak = (0, 0);
        }
    }

    fn note_end(&mut self, now: Timestamp, slot: SlotId, worker: WorkerId, ending: &Ending, next: Next) {
        let over = self.over(now, worker, ending.exit);
        let Some(life) = self.lives.remove(&worker) else { return };
        self.gone.insert(worker, life.generation);
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        let reverted = book.operation.as_ref().is_some_and(|operation| operation.reverted.is_some());
        let Some(place) = book.places.get_mut(slot.index as usize) else { return };
        if let (Next::Relieved, Some(role), Some(until)) = (next, place.role(worker), life.leaves_queue(now))
        {
            place.relief = Some(Relief { role, side: life.seat.side, generation: life.generation, until });
        }
        match place.role(worker) {
            Some(Role::Own) => {
                place.worker = None;
                place.outdated &= place.beside().is_some();
            }
            Some(Role::Successor) => {
                place.successor = None;
                place.stuck |= reverted && ending.cause != Cause::Asked;
                return;
            }
            Some(Role::Retired) => {
                place.retired = None;
                return;
            }
            None => return,
        }
        self.note_rest(now, (slot, worker), &life, next);
        let stable = over.is_some_and(|over| over.stable);
        if let Some(place) = self.place_mut(slot)
            && stable
            && ending.cause != Cause::Asked
        {
            place.streak = (0, 0);
        }
    }

    /// Takes note of what becomes of a slot whose own worker ended.
    fn note_rest(&mut self, now: Timestamp, (slot, worker): (SlotId, WorkerId), life: &Life, next: Next) {
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        let forgiving = book.may_renew(slot.index);
        let proved = book.proved;
        let Some(place) = book.places.get_mut(slot.index as usize) else { return };
        match next {
            Next::AtOnce => place.rest = Rest::From(now),
            Next::After(_) => {
                let least = if forgiving { 0 } else { place.streak.0 };
                place.streak = (least + 1, place.streak.1 + 1);
                place.rest = Rest::From(now + least_pause(&life.policy, place.streak.0));
            }
            Next::Errored(_) if proved => {
                place.streak = (0, 0);
                place.rest = Rest::From(now);
            }
            Next::Errored(_) => {
                let least = if forgiving { 0 } else { place.streak.0 };
                place.streak = (least + 1, place.streak.1 + 1);
                place.rest = Rest::Errored;
            }
            Next::Stopped => {
                place.rest = Rest::From(now);
                if place.wish == Wish::Yes {
                    place.last_done = Some((worker, now));
                    // A job that is done leaves nobody waiting.
                    place.queue_of = None;
                    place.wish = if forgiving { Wish::Maybe } else { Wish::No };
                }
            }
            Next::Kept | Next::Replaced | Next::Relieved => {}
        }
        // What was begun for a worker's memory ends with the worker.
        if let Some(successor) = place.successor.and_then(|worker| self.lives.get_mut(&worker)) {
            successor.vain |= life.outgrown;
        }
    }
}

impl AppBook {
    /// Gives up the slots that are too many.
    pub(super) fn shrink(&mut self, instances: u32) {
        self.resize(instances);
        if let Some(operation) = &mut self.operation {
            operation.shrink = None;
        }
    }
}
