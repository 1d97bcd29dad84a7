//! Replacing workers: by one beside them or after them, one slot after another,
//! and back when it fails. Where they take over together, `steps` says when.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use crate::action::{Action, Failure, Notice, Outcome, Step};
use crate::app::{App, Turn};
use crate::backoff;
use crate::id::{Generation, SeatId, SlotId, WorkerId};
use crate::operation::{Operation, Returning};
use crate::policy::Version;
use crate::slot::{Cause, Ending, Slot, Stage};
use crate::time::Timestamp;

impl App {
    /// The settings that a worker in the slot's own seat is started with. While
    /// others have to prove themselves, a slot lives by the ones before, unless it
    /// has taken over or began without a worker.
    pub(crate) fn version_of(&self, index: u32) -> &Version {
        let before = self.operation.as_ref().and_then(|operation| {
            let before = operation.before.as_ref()?;
            let slot = self.slots.get(index as usize)?;
            let begun = match &operation.steps {
                Some(steps) => steps.introduced.contains(&index),
                None if operation.waiting.contains(&index) => false,
                None => operation.ready.contains(&index) || slot.generation == self.version.generation,
            };
            (!begun || slot.replace.is_some()).then_some(&before.version)
        });
        before.unwrap_or(&self.version)
    }

    /// Puts successors that have proved themselves in their slots' place, one by
    /// one.
    pub(crate) fn switch(&mut self, turn: &mut Turn<'_>) {
        if self.operation.as_ref().is_some_and(|operation| operation.steps.is_some()) {
            return;
        }
        for index in self.indexes() {
            let slot = &self.slots[index as usize];
            let proved = slot.successor.as_ref().is_some_and(|successor| {
                successor.is_stable() && successor.version.generation == self.version.generation
            });
            if proved && slot.may_switch() {
                self.switch_slot(index, turn);
            }
        }
    }

    /// Puts a slot's successor in its worker's place.
    pub(crate) fn switch_slot(&mut self, index: u32, turn: &mut Turn<'_>) {
        let place = SlotId { app: self.id, index };
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(cause) = slot.replace.take() else { return };
        let Some(successor) = slot.successor.take() else { return };
        turn.actions.push(Action::Announce(Notice::Switched(place, successor.id)));
        slot.generation = successor.version.generation;
        slot.restarts += u64::from(matches!(cause, Cause::Memory { .. }));
        let (side, left) = (slot.side, slot.worker.is_none() && slot.open.is(slot.side));
        let version = successor.version.clone();
        slot.retired = slot.worker.replace(successor);
        slot.side = side.other();
        slot.streak = 0;
        self.vain.0 = 0;
        if let Some(retired) = &mut slot.retired {
            retired.end(place, Some(cause), true, turn);
        } else if left && version.policy.listens {
            // Somebody may wait for one of the settings before that did not come.
            let until = turn.now + version.policy.drain_timeout;
            slot.retired = Some(Box::new(turn.relieve(SeatId { slot: place, side }, version, until)));
        }
    }

    /// Lets the operation's next slots get a new worker, or start if their
    /// worker has ended for good meanwhile.
    pub(crate) fn roll(&mut self, now: Timestamp) {
        let Some(mut operation) = self.operation.take() else { return };
        let (slots, stable, together) = (&self.slots, operation.stable, operation.steps.is_some());
        if operation.returning.is_none() {
            operation.fresh.retain(|index| slots.get(*index as usize).is_some_and(|slot| !slot.is_stable()));
        }
        operation.ready.retain(|index| {
            let is_so =
                |slot: &Slot| if stable { slot.is_stable() && slot.is_settled() } else { slot.is_ready() };
            together || slots.get(*index as usize).is_some_and(|slot| !is_so(slot))
        });
        // One that was given up may still have two workers.
        let busy = |slots: &[Slot], ready: &BTreeSet<u32>| {
            let unsettled = |(index, slot): (u32, &Slot)| !slot.is_settled() && !ready.contains(&index);
            ready.len() + (0..).zip(slots).filter(|one| unsettled(*one)).count()
        };
        let has_room = |slots: &[Slot], operation: &Operation| match &operation.steps {
            Some(steps) => steps.has_room(),
            None => busy(slots, &operation.ready) < operation.at_once,
        };
        while has_room(&self.slots, &operation)
            && let Some(index) = operation.waiting.pop_first()
        {
            if let Some(steps) = &mut operation.steps {
                steps.introduced.insert(index);
            }
            let Some(slot) = self.slots.get_mut(index as usize) else { continue };
            let (wanted, awaited) = (slot.wanted, slot.is_awaited());
            slot.want_now(now);
            let beside = if together {
                wanted
            } else if operation.is_careful() {
                // What waits for the worker before is none of the business of one
                // that has to prove its settings first.
                slot.worker.is_some() || awaited
            } else {
                // Who is not ready yet, or no more, makes room: its successor
                // answers the queue. One that cannot be asked to end now may be
                // ready by the time it can.
                let spawning = slot.worker.as_ref().is_some_and(|worker| worker.stage == Stage::Spawning);
                operation.beside && (slot.is_ready() || spawning)
            };
            if beside {
                slot.replace = Some(Cause::Asked);
            } else {
                slot.recycle = slot.worker.is_some().then_some(Cause::Asked);
                if operation.is_careful() && !together {
                    operation.fresh.insert(index);
                }
            }
            operation.ready.insert(index);
        }
        if operation.ready.is_empty()
            && operation.waiting.is_empty()
            && let Some(instances) = operation.shrink.take()
        {
            operation.gone.extend(self.resize(instances));
        }
        self.operation = Some(operation);
    }

    /// Records that a successor is gone before it served. One that nobody waits
    /// for any more proves nothing.
    pub(crate) fn successor_ended(&mut self, failure: Failure, generation: Generation, turn: &mut Turn<'_>) {
        let index = failure.slot.index;
        if failure.ending.cause == Cause::Asked || generation != self.version.generation {
            return;
        }
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        if slot.replace.take().is_none() {
            return;
        }
        if self.operation.as_ref().is_some_and(|operation| operation.ready.contains(&index)) {
            self.fail_operation(failure, turn);
        } else {
            self.vain.0 = self.vain.0.saturating_add(1);
            let pause = backoff::pause(&self.version.policy, self.vain.0, turn.jitter.next());
            self.vain.1 = turn.now + pause;
        }
    }

    /// A worker failed that the operation waits for: it fails, or goes back.
    pub(crate) fn fail_operation(&mut self, failure: Failure, turn: &mut Turn<'_>) {
        let Some(operation) = &mut self.operation else { return };
        if operation.before.is_some() {
            self.go_back(Returning::Failed(failure), turn);
        } else if let Some(returning) = &mut operation.returning {
            // Even the settings from before fail. What runs stays.
            operation.ready.remove(&failure.slot.index);
            if let Returning::Ordered(by) = returning
                && let Some(by) = by.take()
            {
                turn.actions.push(Action::Finish(by, Outcome::Failed(failure)));
            }
        } else {
            turn.actions.push(Action::Finish(operation.id, Outcome::Failed(failure)));
            self.operation = None;
            // What has begun goes on, as all that is tried again does.
            for slot in self.slots.iter_mut().filter(|slot| slot.successor.is_none()) {
                slot.replace = None;
            }
        }
    }

    /// Makes the app what it was: workers that serve with the new settings are
    /// replaced as carefully as those before them were.
    pub(crate) fn go_back(&mut self, why: Returning, turn: &mut Turn<'_>) {
        let Some(mut operation) = self.operation.take_if(|operation| operation.before.is_some()) else {
            return;
        };
        let Some(before) = operation.before.take() else { return };
        operation.returning = Some(why);
        operation.steps = None;
        operation.stable = true;
        operation.ready.clear();
        operation.waiting.clear();
        operation.fresh.retain(|index| {
            let worker = self.slots.get(*index as usize).and_then(|slot| slot.worker.as_ref());
            worker.is_some_and(|worker| !worker.was_stable(turn.now))
        });
        operation.gone.clear();
        operation.shrink = None;
        self.version = before.version;
        turn.actions.push(Action::Revert(self.id));
        turn.actions.push(Action::Report(self.id, Step::Returning));
        operation.gone.extend(self.resize(before.instances));
        operation.beside = self.version.policy.max_surge > 0;
        operation.at_once = self.version.policy.max_surge.max(1) as usize;
        for (index, slot) in (0..).zip(&mut self.slots).take(before.instances as usize) {
            slot.replace = None;
            slot.wanted = before.wanted.contains(&index);
            let Some(worker) = &slot.worker else {
                if slot.wanted {
                    slot.want_now(turn.now);
                    operation.ready.insert(index);
                }
                continue;
            };
            if !slot.wanted {
                operation.gone.insert(index);
            } else if slot.recycle.is_some() || worker.version.generation != self.version.generation {
                operation.waiting.insert(index);
            }
        }
        self.operation = Some(operation);
    }

    /// Records that a worker uses more memory than it may.
    pub(crate) fn outgrown(
        &mut self,
        index: u32,
        id: WorkerId,
        (used, limit, hard): (u64, u64, bool),
        turn: &mut Turn<'_>,
    ) {
        let cause = Cause::Memory { used, limit };
        if !hard && let Some(failure) = self.release_outgrown(index, id, &cause, turn.now) {
            self.fail_operation(failure, turn);
            return;
        }
        let calm = |slot: &Slot| slot.is_settled() && (slot.worker.is_none() || slot.is_ready());
        let quiet = self.operation.is_none() && self.slots.iter().all(calm);
        let patient = turn.now < self.vain.1;
        let wanted = self.wants(index, turn);
        let beside = self.version.policy.max_surge > 0;
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        if hard {
            if let Some(worker) = slot.workers_mut().find(|worker| worker.id == id)
                && !matches!(worker.stage, Stage::Spawning | Stage::Stopping { kill_at: None, .. })
            {
                worker.kill(cause, turn);
            }
            return;
        }
        let current = slot.worker.as_ref().is_some_and(|worker| worker.id == id && worker.is_ready());
        if !current || !wanted || !quiet || patient {
            return;
        }
        if beside {
            slot.replace = Some(cause);
        } else {
            slot.recycle = Some(cause);
        }
    }

    /// What speaks against a release of which a worker uses more memory than it
    /// may, before all workers are of it: replacing it by its like would help
    /// nobody.
    fn release_outgrown(&self, index: u32, id: WorkerId, cause: &Cause, now: Timestamp) -> Option<Failure> {
        self.operation.as_ref()?.before.as_ref()?;
        let worker = self.slots.get(index as usize)?.workers().find(|worker| worker.id == id)?;
        let at_work = matches!(worker.stage, Stage::Starting { .. } | Stage::Ready { .. });
        if !at_work || worker.version.generation != self.version.generation {
            return None;
        }
        let uptime = now.since(worker.since);
        let ending = Ending { exit: None, cause: cause.clone(), at: now, uptime };
        Some(Failure { slot: SlotId { app: self.id, index }, worker: id, ending })
    }
}
