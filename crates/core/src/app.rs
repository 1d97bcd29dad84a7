//! An app: what a person wants of it, what is, and what is missing between.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::action::{Action, Next, Notice, Outcome, Refusal};
use crate::backoff;
use crate::event::{Exit, Order, Slots};
use crate::id::{AppId, Generation, OperationId, SlotId, WorkerId};
use crate::jitter::Jitter;
use crate::operation::Operation;
use crate::policy::{Policy, ReadyWhen};
use crate::slot::{Cause, Ending, Rest, Slot, Stage, Worker};
use crate::time::Timestamp;

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
#[derive(Debug)]
pub(crate) struct App {
    id: AppId,
    policy: Policy,
    pub(crate) generation: Generation,
    /// Slots from here on are to go.
    pub(crate) instances: u32,
    pub(crate) slots: Vec<Slot>,
    pub(crate) operation: Option<Operation>,
    /// It is to be forgotten.
    deleting: bool,
    /// When an errored slot is tried next.
    pub(crate) probe_at: Option<Timestamp>,
    /// When it must be looked at again though nothing happened.
    pub(crate) deadline: Option<Timestamp>,
}

impl App {
    pub(crate) const fn new(id: AppId, generation: Generation, policy: Policy) -> Self {
        Self {
            id,
            policy,
            generation,
            instances: 0,
            slots: Vec::new(),
            operation: None,
            deleting: false,
            probe_at: None,
            deadline: None,
        }
    }

    /// An app that was declared earlier. It has no operation, as nobody waits,
    /// and is looked at as soon as possible.
    pub(crate) fn restored(mut self, now: Timestamp, instances: u32, start: &Slots) -> Self {
        self.slots = (0..instances).map(|_| Slot::new(self.generation)).collect();
        self.instances = instances;
        for (_, slot) in self.select(start) {
            slot.want_now(now);
        }
        self.deadline = Some(now);
        self
    }

    /// Records what a person wants.
    pub(crate) fn order(&mut self, id: OperationId, order: Order, turn: &mut Turn<'_>) {
        let deletes = matches!(order, Order::Delete { .. });
        let ends = deletes || (matches!(order, Order::Stop { .. }) && !self.deleting);
        if let Some(running) = &self.operation {
            if !ends {
                turn.actions.push(Action::Finish(id, Outcome::Refused(Refusal::Busy)));
                return;
            }
            turn.actions.push(Action::Finish(running.id, Outcome::Superseded));
            self.operation = None;
        }
        let mut operation = Operation::new(id);
        match order {
            Order::Declare { generation, policy, instances, start } => {
                self.generation = generation;
                self.policy = policy;
                self.resize(instances, &mut operation);
                for (index, slot) in self.select(&start) {
                    slot.want_now(turn.now);
                    if slot.worker.is_some() && slot.generation != generation {
                        operation.waiting.insert(index);
                    } else {
                        operation.ready.insert(index);
                    }
                }
                operation.stable = !operation.waiting.is_empty();
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
                        slot.recycle = true;
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
            Order::Scale(instances) => {
                let running = self.slots.is_empty() || self.slots.iter().any(|slot| slot.wanted);
                let added = self.instances..instances;
                self.resize(instances, &mut operation);
                if running {
                    for (index, slot) in (0..).zip(&mut self.slots).filter(|(index, _)| added.contains(index))
                    {
                        slot.want_now(turn.now);
                        operation.ready.insert(index);
                    }
                }
            }
        }
        self.operation = Some(operation);
    }

    /// The slots of a selection that are there to stay.
    fn select(&mut self, slots: &Slots) -> impl Iterator<Item = (u32, &mut Slot)> {
        (0..).zip(&mut self.slots).take(self.instances as usize).filter(|(index, _)| slots.contains(*index))
    }

    /// Whether a selection names any slot that is there to stay.
    pub(crate) fn has_any(&self, slots: &Slots) -> bool {
        match slots {
            Slots::All => true,
            Slots::Only(indexes) => indexes.iter().any(|index| *index < self.instances),
        }
    }

    fn stop(&mut self, slots: &Slots, now: bool, operation: &mut Operation) {
        for (index, slot) in (0..).zip(&mut self.slots).filter(|(index, _)| slots.contains(*index)) {
            slot.wanted = false;
            slot.hurry |= now && slot.worker.is_some();
            operation.gone.insert(index);
        }
    }

    /// Makes room for this many slots; the operation waits for the ones beyond
    /// to be gone.
    fn resize(&mut self, instances: u32, operation: &mut Operation) {
        while self.slots.len() < instances as usize {
            self.slots.push(Slot::new(self.generation));
        }
        self.instances = instances;
        for (index, slot) in (0..).zip(&mut self.slots).skip(instances as usize) {
            slot.wanted = false;
            operation.gone.insert(index);
        }
    }

    /// Wants nothing any more and drops the operation: the supervisor is ending.
    pub(crate) fn abandon(&mut self, now: bool, turn: &mut Turn<'_>) {
        if let Some(operation) = self.operation.take() {
            turn.actions.push(Action::Finish(operation.id, Outcome::Superseded));
        }
        for slot in &mut self.slots {
            slot.wanted = false;
            slot.hurry |= now && slot.worker.is_some();
        }
    }

    /// Records that a worker's process runs.
    pub(crate) fn spawned(&mut self, index: u32, now: Timestamp) {
        let patience = match self.policy.ready {
            ReadyWhen::Started => self.policy.min_uptime,
            ReadyWhen::Reported => self.policy.listen_timeout,
        };
        if let Some(worker) = self.worker(index)
            && worker.stage == Stage::Spawning
        {
            worker.since = now;
            worker.stage = Stage::Starting { deadline: now + patience };
        }
    }

    /// Records that a worker says it is ready. Who speaks runs, even if the word
    /// of its spawn comes later.
    pub(crate) fn ready(&mut self, index: u32, turn: &mut Turn<'_>) {
        let min_uptime = self.policy.min_uptime;
        let reported = self.policy.ready == ReadyWhen::Reported;
        let slot = SlotId { app: self.id, index };
        self.spawned(index, turn.now);
        if let Some(worker) = self.worker(index)
            && reported
            && matches!(worker.stage, Stage::Starting { .. })
        {
            worker.stage = Stage::Ready { stable_at: Some(worker.since + min_uptime) };
            turn.announce_ready(slot, worker);
        }
    }

    /// Records that a worker says it is about to end.
    pub(crate) fn leaving(&mut self, index: u32, turn: &mut Turn<'_>) {
        let kill_at = turn.now + self.policy.kill_timeout;
        let slot = SlotId { app: self.id, index };
        self.spawned(index, turn.now);
        if let Some(worker) = self.worker(index)
            && matches!(worker.stage, Stage::Starting { .. } | Stage::Ready { .. })
        {
            let stable = worker.was_stable(turn.now);
            worker.stage = Stage::Stopping { cause: Cause::Itself, kill_at: Some(kill_at), stable };
            turn.actions.push(Action::Announce(Notice::Stopping(slot, worker.id)));
        }
    }

    /// Records that a worker needs more time.
    pub(crate) fn delayed(&mut self, index: u32, until: Timestamp) {
        let reported = self.policy.ready == ReadyWhen::Reported;
        if let Some(worker) = self.worker(index) {
            match &mut worker.stage {
                Stage::Starting { deadline } if reported => *deadline = until.max(*deadline),
                Stage::Stopping { kill_at: Some(kill_at), .. } => *kill_at = until.max(*kill_at),
                Stage::Spawning | Stage::Starting { .. } | Stage::Ready { .. } | Stage::Stopping { .. } => {}
            }
        }
    }

    fn worker(&mut self, index: u32) -> Option<&mut Worker> {
        self.slots.get_mut(index as usize)?.worker.as_mut()
    }

    /// Records that a worker's life is over, and decides what becomes of its
    /// slot. `not_started` tells why there was no process at all.
    pub(crate) fn ended(
        &mut self,
        index: u32,
        exit: Option<Exit>,
        not_started: Option<Cause>,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now;
        let staying = !turn.ending && !self.deleting && index < self.instances;
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(worker) = slot.worker.take() else { return };
        // The clock may be late: what made it ready was living that long.
        let ripe = self.policy.ready == ReadyWhen::Started
            && matches!(worker.stage, Stage::Starting { deadline } if deadline <= now);
        let stable = ripe || worker.was_stable(now);
        let cause = match (not_started, worker.stage) {
            (Some(cause), _) | (None, Stage::Stopping { cause, .. }) => cause,
            (None, Stage::Spawning | Stage::Starting { .. } | Stage::Ready { .. }) => Cause::Itself,
        };
        let uptime = exit.map_or_else(Default::default, |_| now.since(worker.since));
        let ending = Ending { exit, cause, at: now, uptime };
        let outdated = core::mem::take(&mut slot.recycle);
        slot.hurry = false;

        let finished = match ending.exit {
            Some(Exit::Code(code)) if ending.cause == Cause::Itself => {
                !self.policy.autorestart || self.policy.stop_exit_codes.contains(&code)
            }
            Some(Exit::Code(_) | Exit::Signal(_) | Exit::Unknown) => !self.policy.autorestart,
            None => false,
        };
        let next = if !slot.wanted || !staying {
            Next::Stopped
        } else if outdated || ending.cause == Cause::Asked {
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
            if slot.streak >= self.policy.max_restarts.max(1) {
                Next::Errored((!self.policy.breaker_retry.is_zero()).then_some(self.policy.breaker_retry))
            } else {
                slot.restarts += 1;
                Next::After(backoff::pause(&self.policy, slot.streak, turn.jitter.next()))
            }
        };
        slot.rest = match next {
            Next::AtOnce => Rest::Due(now),
            Next::After(pause) => Rest::Due(now + pause),
            Next::Stopped => Rest::Stopped,
            Next::Errored(_) => Rest::Errored,
        };
        slot.last_ending = Some(ending.clone());
        let slot = SlotId { app: self.id, index };
        turn.places.remove(&worker.id);
        turn.actions.push(Action::Announce(Notice::Ended {
            slot,
            worker: worker.id,
            ending: ending.clone(),
            next,
        }));
        self.tell_operation(slot, worker.id, ending, next, turn);
    }

    /// A life that ends unasked and unstable fails the operation that waits for
    /// it, unless the worker's job was done.
    fn tell_operation(
        &mut self,
        slot: SlotId,
        worker: WorkerId,
        ending: Ending,
        next: Next,
        turn: &mut Turn<'_>,
    ) {
        let Some(operation) = &mut self.operation else { return };
        if next == Next::AtOnce || !operation.ready.contains(&slot.index) {
            return;
        }
        let done = next == Next::Stopped
            && ending.cause == Cause::Itself
            && matches!(ending.exit, Some(Exit::Code(code)) if code == 0 || self.policy.stop_exit_codes.contains(&code));
        if done {
            operation.ready.remove(&slot.index);
        } else {
            turn.actions.push(Action::Finish(operation.id, Outcome::Failed { slot, worker, ending }));
            self.operation = None;
        }
    }

    /// Compares what is wanted with what is, and orders what is missing.
    /// Returns whether the app is to be forgotten.
    pub(crate) fn reconcile(&mut self, turn: &mut Turn<'_>) -> bool {
        self.pass_time(turn);
        self.probe(turn.now);
        self.roll(turn.now);
        self.end_unwanted(turn);
        self.open(turn);
        self.spawn_due(turn);
        self.shrink();
        self.finish_operation(turn);
        self.deadline = self.next_deadline();
        self.deleting && self.slots.iter().all(|slot| slot.worker.is_none())
    }

    /// Whether a slot should have a worker.
    fn wants(&self, index: u32, turn: &Turn<'_>) -> bool {
        let wanted = self.slots.get(index as usize).is_some_and(|slot| slot.wanted);
        wanted && index < self.instances && !self.deleting && !turn.ending
    }

    fn indexes(&self) -> core::ops::Range<u32> {
        // `instances` is a u32 and slots never outnumber the largest one.
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Lets the operation's next slot make room for a new worker, or start if
    /// its worker has ended for good meanwhile.
    fn roll(&mut self, now: Timestamp) {
        let Some(operation) = &mut self.operation else { return };
        let (slots, stable) = (&self.slots, operation.stable);
        operation.ready.retain(|index| {
            slots
                .get(*index as usize)
                .is_some_and(|slot| if stable { !slot.is_stable() } else { !slot.is_ready() })
        });
        if operation.ready.is_empty()
            && let Some(index) = operation.waiting.pop_first()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.want_now(now);
            slot.recycle = slot.worker.is_some();
            operation.ready.insert(index);
        }
    }

    /// Acts on the deadlines of workers that have come.
    fn pass_time(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let mut proved = false;
        for (index, slot) in (0..).zip(&mut self.slots) {
            let Some(worker) = &mut slot.worker else { continue };
            let place = SlotId { app: self.id, index };
            match &mut worker.stage {
                Stage::Starting { deadline } if *deadline <= now => match self.policy.ready {
                    ReadyWhen::Started => {
                        worker.stage = Stage::Ready { stable_at: Some(now) };
                        turn.announce_ready(place, worker);
                    }
                    ReadyWhen::Reported => {
                        let cause = Cause::NotReady(self.policy.listen_timeout);
                        turn.terminate(place, worker, cause, now + self.policy.kill_timeout);
                    }
                },
                Stage::Stopping { kill_at, .. } if kill_at.is_some_and(|at| at <= now) => {
                    *kill_at = None;
                    turn.actions.push(Action::Announce(Notice::Killing(place, worker.id)));
                    turn.actions.push(Action::Kill(worker.id));
                }
                Stage::Spawning | Stage::Starting { .. } | Stage::Ready { .. } | Stage::Stopping { .. } => {}
            }
            if let Stage::Ready { stable_at } = &mut worker.stage
                && stable_at.is_some_and(|at| at <= now)
            {
                *stable_at = None;
                slot.streak = 0;
                proved = true;
            }
        }
        if proved {
            for slot in self.slots.iter_mut().filter(|slot| slot.rest == Rest::Errored) {
                slot.streak = 0;
                slot.restarts += 1;
                slot.rest = Rest::Due(now);
            }
        }
    }

    /// The breaker: one errored slot is tried at a time, every `breaker_retry`.
    /// They take turns, in case one of them fails for a reason of its own.
    fn probe(&mut self, now: Timestamp) {
        let errored = |slot: &Slot| slot.wanted && slot.worker.is_none() && slot.rest == Rest::Errored;
        let probing =
            |slot: &Slot| slot.wanted && slot.streak >= self.policy.max_restarts.max(1) && !errored(slot);
        if self.policy.breaker_retry.is_zero()
            || !self.slots.iter().any(errored)
            || self.slots.iter().any(probing)
        {
            self.probe_at = None;
            return;
        }
        let at = *self.probe_at.get_or_insert(now + self.policy.breaker_retry);
        if at <= now
            && let Some(slot) = self
                .slots
                .iter_mut()
                .filter(|slot| errored(slot))
                .min_by_key(|slot| slot.last_ending.as_ref().map(|ending| ending.at))
        {
            slot.restarts += 1;
            slot.rest = Rest::Due(now);
            self.probe_at = None;
        }
    }

    /// Ends workers that are not wanted or must make room, and closes the
    /// sockets that nobody is expected to serve.
    fn end_unwanted(&mut self, turn: &mut Turn<'_>) {
        for index in self.indexes() {
            let wanted = self.wants(index, turn);
            let place = SlotId { app: self.id, index };
            let kill_at = turn.now + self.policy.kill_timeout;
            let slot = &mut self.slots[index as usize];
            if !wanted && slot.worker.is_none() {
                slot.rest = Rest::Stopped;
            }
            let serving = wanted && (slot.worker.is_some() || slot.rest != Rest::Errored);
            if slot.open && !serving {
                slot.open = false;
                turn.actions.push(Action::Close(place));
            }
            let Some(worker) = &mut slot.worker else { continue };
            match &mut worker.stage {
                Stage::Starting { .. } | Stage::Ready { .. } if slot.hurry => {
                    let stable = worker.was_stable(turn.now);
                    worker.stage = Stage::Stopping { cause: Cause::Asked, kill_at: None, stable };
                    turn.actions.push(Action::Kill(worker.id));
                }
                Stage::Stopping { kill_at, .. } if slot.hurry => {
                    *kill_at = None;
                    turn.actions.push(Action::Kill(worker.id));
                }
                Stage::Starting { .. } | Stage::Ready { .. } if !wanted || slot.recycle => {
                    turn.terminate(place, worker, Cause::Asked, kill_at);
                }
                // The outcome of an order to spawn is waited for.
                Stage::Spawning => continue,
                Stage::Starting { .. } | Stage::Ready { .. } | Stage::Stopping { .. } => {}
            }
            slot.hurry = false;
        }
    }

    /// Opens the sockets of every slot that is to run, before any is spawned.
    fn open(&mut self, turn: &mut Turn<'_>) {
        for index in self.indexes() {
            let wanted = self.wants(index, turn);
            let slot = &mut self.slots[index as usize];
            if wanted && !slot.open && (slot.worker.is_some() || slot.rest != Rest::Errored) {
                slot.open = true;
                turn.actions.push(Action::Open(SlotId { app: self.id, index }));
            }
        }
    }

    /// Starts what is due.
    fn spawn_due(&mut self, turn: &mut Turn<'_>) {
        for index in self.indexes() {
            if !self.wants(index, turn) {
                continue;
            }
            let slot = &mut self.slots[index as usize];
            if slot.worker.is_some() {
                continue;
            }
            if slot.rest == Rest::Stopped {
                slot.rest = Rest::Due(turn.now);
            }
            if !matches!(slot.rest, Rest::Due(at) if at <= turn.now) {
                continue;
            }
            let place = SlotId { app: self.id, index };
            let id = turn.new_worker(place);
            slot.generation = self.generation;
            slot.worker = Some(Worker { id, since: turn.now, stage: Stage::Spawning });
            turn.actions.push(Action::Announce(Notice::Starting(place, id)));
            turn.actions.push(Action::Spawn { worker: id, slot: place, generation: self.generation });
        }
    }

    /// Drops slots beyond the wanted number whose worker is gone.
    fn shrink(&mut self) {
        let instances = self.instances as usize;
        while self.slots.len() > instances && self.slots.last().is_some_and(|slot| slot.worker.is_none()) {
            self.slots.pop();
        }
    }

    fn finish_operation(&mut self, turn: &mut Turn<'_>) {
        let Some(operation) = &mut self.operation else { return };
        let slots = &self.slots;
        operation.gone.retain(|index| slots.get(*index as usize).is_some_and(|slot| slot.worker.is_some()));
        if operation.is_done() {
            turn.actions.push(Action::Finish(operation.id, Outcome::Done));
            self.operation = None;
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let slots = self.slots.iter().filter_map(|slot| match (&slot.worker, slot.rest) {
            (Some(worker), _) => match &worker.stage {
                Stage::Spawning => None,
                Stage::Starting { deadline } => Some(*deadline),
                Stage::Ready { stable_at } => *stable_at,
                Stage::Stopping { kill_at, .. } => *kill_at,
            },
            (None, Rest::Due(at)) => Some(at),
            (None, Rest::Stopped | Rest::Errored) => None,
        });
        slots.chain(self.probe_at).min()
    }
}

impl Turn<'_> {
    fn new_worker(&mut self, place: SlotId) -> WorkerId {
        let id = *self.next_worker;
        self.next_worker.0 += 1;
        self.places.insert(id, place);
        id
    }

    fn announce_ready(&mut self, slot: SlotId, worker: &Worker) {
        let after = self.now.since(worker.since);
        self.actions.push(Action::Announce(Notice::Ready { slot, worker: worker.id, after }));
    }

    fn terminate(&mut self, slot: SlotId, worker: &mut Worker, cause: Cause, kill_at: Timestamp) {
        let stable = worker.was_stable(self.now);
        worker.stage = Stage::Stopping { cause, kill_at: Some(kill_at), stable };
        self.actions.push(Action::Announce(Notice::Stopping(slot, worker.id)));
        self.actions.push(Action::Terminate(worker.id));
    }
}
