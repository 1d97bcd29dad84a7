//! News of an app's workers, and what it makes of their lives.

use alloc::rc::Rc;
use alloc::string::String;

use crate::action::{Action, Failure, Next, Notice};
use crate::app::{App, Turn};
use crate::backoff;
use crate::event::{Exit, Hang};
use crate::id::{Generation, SeatId, SlotId, WorkerId};
use crate::policy::ReadyWhen;
use crate::slot::{Cause, Ending, Rest, Role, Stage, Worker};
use crate::time::Timestamp;

impl App {
    /// Records that a worker's process runs.
    pub(crate) fn spawned(&mut self, index: u32, id: WorkerId, turn: &mut Turn<'_>) {
        let (slot, now) = (SlotId { app: self.id, index }, turn.now);
        let Some(worker) = self.worker(index, id) else { return };
        let policy = &worker.version.policy;
        let patience = match policy.ready {
            ReadyWhen::Started => policy.min_uptime,
            ReadyWhen::Reported => policy.listen_timeout,
        };
        if worker.stage != Stage::Spawning {
            return;
        }
        worker.since = now;
        match worker.relieves {
            Some(deadline) => worker.drain(slot, Cause::Asked, deadline, turn),
            None => worker.stage = Stage::Starting { deadline: now + patience, lacks: None },
        }
    }

    /// Records that a worker says it is ready. Who speaks runs, even if the word
    /// of its spawn comes later.
    pub(crate) fn ready(&mut self, index: u32, id: WorkerId, turn: &mut Turn<'_>) {
        let slot = SlotId { app: self.id, index };
        self.spawned(index, id, turn);
        if let Some(worker) = self.worker(index, id)
            && worker.version.policy.ready == ReadyWhen::Reported
            && matches!(worker.stage, Stage::Starting { .. })
        {
            worker.stage = Stage::Ready { stable_at: Some(turn.now + worker.version.policy.min_uptime) };
            worker.announce_ready(slot, turn);
        }
    }

    /// Records what a worker lacks to be ready.
    pub(crate) fn lacking(&mut self, index: u32, id: WorkerId, what: String) {
        if let Some(worker) = self.worker(index, id)
            && let Stage::Starting { lacks, .. } = &mut worker.stage
        {
            *lacks = Some(what);
        }
    }

    /// Records that a worker says it is about to end.
    pub(crate) fn leaving(&mut self, index: u32, id: WorkerId, turn: &mut Turn<'_>) {
        let slot = SlotId { app: self.id, index };
        let Some(worker) = self.worker(index, id) else { return };
        let cause = match &worker.stage {
            // Who speaks runs, even if the word of its spawn comes later.
            Stage::Spawning => {
                worker.since = turn.now;
                if worker.relieves.is_some() { Cause::Asked } else { Cause::Itself }
            }
            Stage::Starting { .. } | Stage::Ready { .. } => Cause::Itself,
            Stage::Draining { cause, .. } => cause.clone(),
            Stage::Stopping { .. } => return,
        };
        let kill_at = Some(turn.now + worker.version.policy.kill_timeout);
        let stable = worker.was_stable(turn.now);
        worker.stage = Stage::Stopping { cause, kill_at, stable };
        turn.actions.push(Action::Announce(Notice::Stopping(slot, id)));
    }

    /// Records that a worker needs more time.
    pub(crate) fn delayed(&mut self, index: u32, id: WorkerId, until: Timestamp) {
        let Some(worker) = self.worker(index, id) else { return };
        let reported = worker.version.policy.ready == ReadyWhen::Reported;
        match &mut worker.stage {
            Stage::Starting { deadline, .. } if reported => *deadline = until.max(*deadline),
            Stage::Stopping { kill_at: Some(kill_at), .. } => *kill_at = until.max(*kill_at),
            Stage::Spawning
            | Stage::Starting { .. }
            | Stage::Ready { .. }
            | Stage::Draining { .. }
            | Stage::Stopping { .. } => {}
        }
    }

    /// Records that nothing waits for a worker any more.
    pub(crate) fn drained(&mut self, index: u32, id: WorkerId, turn: &mut Turn<'_>) {
        if let Some(worker) = self.worker(index, id)
            && let Stage::Draining { deadline, .. } = &mut worker.stage
        {
            *deadline = turn.now;
        }
    }

    /// Records that a worker that was ready hangs. It gets the time that a worker
    /// has to end, but its successor does not wait for that.
    pub(crate) fn hung(&mut self, index: u32, id: WorkerId, hang: Hang, turn: &mut Turn<'_>) {
        let staying = self.stays(index, turn);
        let place = SlotId { app: self.id, index };
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(worker) = slot.workers_mut().find(|worker| worker.id == id) else { return };
        if !matches!(worker.stage, Stage::Ready { .. }) {
            return;
        }
        let (policy, generation) = (Rc::clone(&worker.version.policy), worker.version.generation);
        let stable = worker.was_stable(turn.now);
        let (cause, kill_at) = (Cause::Hung(hang), Some(turn.now + policy.kill_timeout));
        worker.stage = Stage::Stopping { cause: cause.clone(), kill_at, stable };
        let uptime = turn.now.since(worker.since);
        turn.actions.push(Action::Abort(id));
        let alone = slot.successor.is_none() && slot.retired.is_none();
        let Some(worker) = slot.worker.take_if(|worker| worker.id == id && alone) else {
            turn.actions.push(Action::Announce(Notice::Hung { slot: place, worker: id, hang, next: None }));
            return;
        };
        slot.retired = Some(worker);
        let ending = Ending { exit: None, cause, at: turn.now, uptime };
        slot.last_ending = Some(ending.clone());
        let next = self.next(index, &ending, &policy, stable, staying, turn);
        let notice = Notice::Hung { slot: place, worker: id, hang, next: Some(next) };
        turn.actions.push(Action::Announce(notice));
        self.judge(Failure { slot: place, worker: id, ending }, generation, next, turn);
    }

    /// Whether a slot is there to stay.
    const fn stays(&self, index: u32, turn: &Turn<'_>) -> bool {
        !turn.ending && !self.deleting && index < self.instances
    }

    fn worker(&mut self, index: u32, id: WorkerId) -> Option<&mut Worker> {
        self.slots.get_mut(index as usize)?.workers_mut().find(|worker| worker.id == id)
    }

    /// Records that a worker's life is over, and decides what becomes of its
    /// slot. `not_started` tells why there was no process at all.
    pub(crate) fn ended(
        &mut self,
        index: u32,
        id: WorkerId,
        exit: Option<Exit>,
        not_started: Option<Cause>,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now;
        let staying = self.stays(index, turn);
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some((role, worker)) = slot.take(id) else { return };
        let policy = Rc::clone(&worker.version.policy);
        // The clock may be late: what made it ready was living that long.
        let ripe = policy.ready == ReadyWhen::Started
            && matches!(worker.stage, Stage::Starting { deadline, .. } if deadline <= now);
        let stable = ripe || worker.was_stable(now);
        let left_queue = worker.leaves_queue(now);
        let cause = match (not_started, worker.stage) {
            (Some(cause), _) | (None, Stage::Stopping { cause, .. } | Stage::Draining { cause, .. }) => cause,
            (None, Stage::Spawning | Stage::Starting { .. } | Stage::Ready { .. }) => Cause::Itself,
        };
        let uptime = exit.map_or_else(Default::default, |_| now.since(worker.since));
        let ending = Ending { exit, cause, at: now, uptime };
        let next = match role {
            Role::Worker => self.next(index, &ending, &policy, stable, staying, turn),
            Role::Successor => Next::Kept,
            Role::Retired => Next::Replaced,
        };
        // Who follows anyway answers the queue, too.
        let relief = left_queue.filter(|_| matches!(next, Next::Stopped | Next::Kept | Next::Replaced));
        let next = if relief.is_some() { Next::Relieved } else { next };
        let slot = &mut self.slots[index as usize];
        slot.last_ending = Some(ending.clone());
        turn.places.remove(&id);
        let slot = SlotId { app: self.id, index };
        let notice = Notice::Ended { slot, worker: id, ending: ending.clone(), next };
        turn.actions.push(Action::Announce(notice));
        if let Some(until) = relief {
            let seat = SeatId { slot, side: worker.side };
            let relieving = turn.relieve(seat, worker.version, until);
            self.slots[index as usize].put(role, relieving);
            return;
        }
        let failure = Failure { slot, worker: id, ending };
        match role {
            Role::Worker => self.judge(failure, worker.version.generation, next, turn),
            Role::Successor => self.successor_ended(failure, worker.version.generation, turn),
            Role::Retired => {}
        }
    }

    /// What becomes of a slot whose worker ended.
    fn next(
        &mut self,
        index: u32,
        ending: &Ending,
        policy: &crate::policy::Policy,
        stable: bool,
        staying: bool,
        turn: &mut Turn<'_>,
    ) -> Next {
        let awaited = self.operation.as_ref().is_some_and(|operation| operation.ready.contains(&index));
        let slot = &mut self.slots[index as usize];
        // What it used is free again.
        slot.replace.take_if(|cause| matches!(cause, Cause::Memory { .. }));
        let outdated = slot.recycle.take().is_some();
        // A person who has it replaced wants the slot to run.
        let replaced = awaited && slot.replace == Some(Cause::Asked);
        let finished = match ending.exit {
            _ if replaced => false,
            Some(Exit::Code(code)) if ending.cause == Cause::Itself => {
                !policy.autorestart || policy.stop_exit_codes.contains(&code)
            }
            Some(Exit::Code(_) | Exit::Signal(_) | Exit::OutOfMemory { .. } | Exit::Unknown) => {
                !policy.autorestart
            }
            None => false,
        };
        let next = if !slot.wanted || !staying {
            Next::Stopped
        } else if outdated || ending.cause == Cause::Asked {
            slot.restarts += u64::from(matches!(ending.cause, Cause::Memory { .. }));
            Next::AtOnce
        } else if finished {
            slot.wanted = false;
            Next::Stopped
        } else if stable {
            slot.streak = 0;
            slot.restarts += 1;
            Next::AtOnce
        } else {
            slot.streak = slot.streak.saturating_add(1);
            if slot.streak >= policy.max_restarts.max(1) {
                Next::Errored((!policy.breaker_retry.is_zero()).then_some(policy.breaker_retry))
            } else {
                slot.restarts += 1;
                Next::After(backoff::pause(policy, slot.streak, turn.jitter.next()))
            }
        };
        slot.rest = match next {
            Next::AtOnce => Rest::Due(turn.now),
            Next::After(pause) => Rest::Due(turn.now + pause),
            Next::Errored(_) => Rest::Errored,
            Next::Stopped | Next::Kept | Next::Replaced | Next::Relieved => Rest::Stopped,
        };
        next
    }

    /// A life that ends unasked and unstable fails the operation that waits for
    /// it, unless the worker's job was done, or the slot is about to get another
    /// worker anyway.
    fn judge(&mut self, failure: Failure, generation: Generation, next: Next, turn: &mut Turn<'_>) {
        let index = failure.slot.index;
        let Some(operation) = &mut self.operation else { return };
        let replaced = self.slots.get(index as usize).is_some_and(|slot| slot.replace.is_some());
        if replaced || !operation.ready.contains(&index) {
            return;
        }
        // Until all take over, none of the new ones may end.
        if operation.steps.is_some() {
            if generation == self.version.generation && failure.ending.cause != Cause::Asked {
                self.fail_operation(failure, turn);
            }
            return;
        }
        if next == Next::AtOnce {
            return;
        }
        let Ending { exit, cause, .. } = &failure.ending;
        let stop_exit_codes = &self.version.policy.stop_exit_codes;
        let done = next == Next::Stopped
            && *cause == Cause::Itself
            && matches!(exit, Some(Exit::Code(code)) if *code == 0 || stop_exit_codes.contains(code));
        if done {
            operation.ready.remove(&index);
        } else {
            self.fail_operation(failure, turn);
        }
    }
}

impl Worker {
    pub(crate) fn announce_ready(&self, slot: SlotId, turn: &mut Turn<'_>) {
        let after = turn.now.since(self.since);
        turn.actions.push(Action::Announce(Notice::Ready { slot, worker: self.id, after }));
    }

    /// Acts on a deadline that has come.
    pub(crate) fn pass_time(&mut self, slot: SlotId, turn: &mut Turn<'_>) {
        let now = turn.now;
        match &mut self.stage {
            Stage::Starting { deadline, lacks } if *deadline <= now => match self.version.policy.ready {
                ReadyWhen::Started => {
                    self.stage = Stage::Ready { stable_at: Some(now) };
                    self.announce_ready(slot, turn);
                }
                ReadyWhen::Reported => {
                    let (limit, lacks) = (self.version.policy.listen_timeout, lacks.take());
                    self.terminate(slot, Cause::NotReady { limit, lacks }, turn);
                }
            },
            Stage::Draining { cause, deadline, .. } if *deadline <= now => {
                let cause = cause.clone();
                self.terminate(slot, cause, turn);
            }
            Stage::Stopping { kill_at, .. } if kill_at.is_some_and(|at| at <= now) => {
                *kill_at = None;
                turn.actions.push(Action::Announce(Notice::Killing(slot, self.id)));
                turn.actions.push(Action::Kill(self.id));
            }
            Stage::Spawning
            | Stage::Starting { .. }
            | Stage::Ready { .. }
            | Stage::Draining { .. }
            | Stage::Stopping { .. } => {}
        }
    }

    /// Ends it: at once if it is to hurry; otherwise if there is a `cause` and it
    /// has not begun to end, by asking, after it was drained if others serve
    /// meanwhile.
    pub(crate) fn end(
        &mut self,
        slot: SlotId,
        cause: Option<Cause>,
        others_serve: bool,
        turn: &mut Turn<'_>,
    ) {
        let policy = Rc::clone(&self.version.policy);
        match (&mut self.stage, cause) {
            // The outcome of the order to spawn is waited for.
            (Stage::Spawning, _) => {}
            // Without a time to be killed at it has been killed.
            (Stage::Stopping { kill_at: kill_at @ Some(_), .. }, _) if self.hurry => {
                *kill_at = None;
                turn.actions.push(Action::Kill(self.id));
            }
            (Stage::Starting { .. } | Stage::Ready { .. } | Stage::Draining { .. }, cause) if self.hurry => {
                self.kill(cause.unwrap_or(Cause::Asked), turn);
            }
            (Stage::Ready { .. }, Some(cause)) if policy.listens && others_serve => {
                self.drain(slot, cause, turn.now + policy.drain_timeout, turn);
            }
            (Stage::Starting { .. } | Stage::Ready { .. }, Some(cause)) => self.terminate(slot, cause, turn),
            (Stage::Draining { cause, .. }, Some(_)) if !others_serve => {
                let cause = cause.clone();
                self.terminate(slot, cause, turn);
            }
            (
                Stage::Starting { .. }
                | Stage::Ready { .. }
                | Stage::Draining { .. }
                | Stage::Stopping { .. },
                _,
            ) => {}
        }
    }

    fn drain(&mut self, slot: SlotId, cause: Cause, deadline: Timestamp, turn: &mut Turn<'_>) {
        self.stage = Stage::Draining { cause, deadline, stable: self.was_stable(turn.now) };
        turn.actions.push(Action::Announce(Notice::Draining(slot, self.id)));
        turn.actions.push(Action::Drain(self.id));
    }

    /// Kills it because of `cause`.
    pub(crate) fn kill(&mut self, cause: Cause, turn: &mut Turn<'_>) {
        let stable = self.was_stable(turn.now);
        self.stage = Stage::Stopping { cause, kill_at: None, stable };
        turn.actions.push(Action::Kill(self.id));
    }

    fn terminate(&mut self, slot: SlotId, cause: Cause, turn: &mut Turn<'_>) {
        let stable = self.was_stable(turn.now);
        let kill_at = Some(turn.now + self.version.policy.kill_timeout);
        self.stage = Stage::Stopping { cause, kill_at, stable };
        turn.actions.push(Action::Announce(Notice::Stopping(slot, self.id)));
        turn.actions.push(Action::Terminate(self.id));
    }
}
