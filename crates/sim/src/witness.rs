//! What happened, kept as a book from events and actions alone. It shares no
//! code with the core, so that the two can disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use supervisor_core::{
    Action, AppId, Cause, Ending, Event, Exit, Generation, Next, Notice, OperationId, Order, Outcome,
    ReadyWhen, Refusal, SeatId, SlotId, SlotState, Slots, Supervisor, Timestamp, WorkerId,
};

use crate::book::{
    AppBook, Before, Kind, Life, LifeStage, OperationBook, Over, Place, Rest, Role, Wish, least_pause,
};

/// All that a bystander can know.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    pub(crate) apps: BTreeMap<AppId, AppBook>,
    pub(crate) lives: BTreeMap<WorkerId, Life>,
    /// Lives that are over. Their news means nothing.
    pub(crate) gone: BTreeSet<WorkerId>,
    /// Operations that are over.
    pub(crate) finished: BTreeSet<OperationId>,
    /// Operations whose place another took, until they are told so.
    pub(crate) superseded: BTreeSet<OperationId>,
    pub(crate) shutdown: Option<Shutdown>,
}

/// The order to end everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shutdown {
    /// Kill instead of asking.
    pub(crate) hurry: bool,
}

impl Witness {
    /// Whether the worker is alive, as far as the supervisor was told.
    pub(crate) fn place_of(&self, worker: WorkerId) -> Option<SlotId> {
        self.lives.get(&worker).map(|life| life.place)
    }

    pub(crate) fn place(&self, slot: SlotId) -> Option<&Place> {
        self.apps.get(&slot.app)?.places.get(slot.index as usize)
    }

    pub(crate) fn place_mut(&mut self, slot: SlotId) -> Option<&mut Place> {
        self.apps.get_mut(&slot.app)?.places.get_mut(slot.index as usize)
    }

    /// How an order must be refused, if it must.
    pub(crate) fn refusal(&self, app: AppId, order: &Order) -> Option<Refusal> {
        if self.shutdown.is_some() {
            return Some(Refusal::ShuttingDown);
        }
        let Some(book) = self.apps.get(&app) else {
            return (!matches!(order, Order::Declare { .. })).then_some(Refusal::NoSuchApp);
        };
        if let Order::Start(Slots::Only(slots))
        | Order::Stop { slots: Slots::Only(slots), .. }
        | Order::Restart { slots: Slots::Only(slots), .. } = order
            && !slots.iter().any(|index| *index < book.instances)
        {
            return Some(Refusal::NoSuchSlot);
        }
        let operation = book.operation.as_ref()?;
        let supersedes = match order {
            Order::Delete { .. } => true,
            Order::Stop { slots, .. } => !book.deleting && (*slots == Slots::All || !operation.reload),
            Order::Declare { .. } | Order::Start(_) | Order::Restart { .. } | Order::Scale { .. } => false,
        };
        (!supersedes).then_some(Refusal::Busy)
    }

    /// Takes note of an event, after it was handled and before the actions are
    /// looked at. `next_worker` is the id of the next life.
    pub(crate) fn note_event(&mut self, now: Timestamp, event: &Event, next_worker: WorkerId) {
        for (app, book) in &mut self.apps {
            book.proved = false;
            // An order to kill is carried out, but for those that cannot be yet.
            for (index, place) in (0..).zip(&mut book.places).filter(|(_, place)| place.hurry) {
                let slot = SlotId { app: *app, index };
                let mut lives = self.lives.values().filter(|life| life.place == slot);
                place.hurry = lives.any(|life| matches!(life.stage, LifeStage::Spawning));
            }
        }
        match event {
            Event::Ordered { operation, app, order } => {
                if self.refusal(*app, order).is_none() {
                    self.note_order(now, *operation, *app, order, next_worker);
                }
            }
            Event::WorkerSpawned(worker) => self.runs(now, *worker),
            Event::WorkerReady(worker) => self.runs(now, *worker),
            Event::WorkerLeaving(worker) => {
                self.runs(now, *worker);
                self.begin_ending(now, *worker);
            }
            Event::WorkerDelayed { worker, by } => {
                let Some(life) = self.lives.get_mut(worker) else { return };
                let reported = life.policy.ready == ReadyWhen::Reported;
                match &mut life.stage {
                    LifeStage::Starting { ready_by, .. } if reported => {
                        *ready_by = (*ready_by).max(now + *by)
                    }
                    LifeStage::Ending { kill_at, .. } => *kill_at = (*kill_at).max(now + *by),
                    LifeStage::Spawning
                    | LifeStage::Starting { .. }
                    | LifeStage::Ready { .. }
                    | LifeStage::Draining { .. } => {}
                }
            }
            Event::WorkerDrained(worker) => {
                if let Some(Life { stage: LifeStage::Draining { until, .. }, .. }) =
                    self.lives.get_mut(worker)
                {
                    *until = now;
                }
            }
            Event::MemoryExceeded { worker, hard, .. } => {
                let Some(life) = self.lives.get_mut(worker) else { return };
                life.excessive |= *hard;
                let (slot, role) = (life.place, life.role);
                if let Some(place) = self.place_mut(slot).filter(|_| role == Role::Worker) {
                    place.outgrown = true;
                }
            }
            Event::ShutdownOrdered { now: hurry } => {
                let before = self.shutdown.is_some_and(|shutdown| shutdown.hurry);
                self.shutdown = Some(Shutdown { hurry: *hurry || before });
            }
            // The ends of lives are noted with the notice that tells of them.
            Event::SpawnFailed { .. } | Event::WorkerExited { .. } | Event::TimePassed => {}
        }
    }

    fn runs(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get_mut(&worker) else { return };
        let policy = &life.policy;
        let patience = match policy.ready {
            ReadyWhen::Started => policy.min_uptime,
            ReadyWhen::Reported => policy.listen_timeout,
        };
        if let LifeStage::Spawning = life.stage {
            life.stage = LifeStage::Starting { since: now, ready_by: now + patience };
        }
    }

    /// From now on the life must end within `kill_timeout`.
    fn begin_ending(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get_mut(&worker) else { return };
        let kill_at = now + life.policy.kill_timeout;
        life.stage = match life.stage {
            LifeStage::Starting { .. } => LifeStage::Ending { kill_at, stable: false, was_ready: false },
            LifeStage::Ready { stable_at, .. } => {
                LifeStage::Ending { kill_at, stable: stable_at <= now, was_ready: true }
            }
            LifeStage::Draining { stable, .. } => LifeStage::Ending { kill_at, stable, was_ready: true },
            stage @ (LifeStage::Spawning | LifeStage::Ending { .. }) => stage,
        };
    }

    fn note_order(
        &mut self,
        now: Timestamp,
        id: OperationId,
        app: AppId,
        order: &Order,
        first_worker: WorkerId,
    ) {
        let book = match order {
            Order::Declare { generation, policy, .. } => {
                self.apps.entry(app).or_insert_with(|| AppBook::new(*generation, policy.clone()))
            }
            Order::Start(_)
            | Order::Stop { .. }
            | Order::Restart { .. }
            | Order::Scale { .. }
            | Order::Delete { .. } => match self.apps.get_mut(&app) {
                Some(book) => book,
                None => return,
            },
        };
        if let Some(operation) = book.end_operation(&self.lives) {
            self.superseded.insert(operation.id);
        }
        let mut current = BTreeSet::new();
        let mut reload = false;
        book.shrink = None;
        let (kind, slots) = match order {
            Order::Declare { generation, policy, instances, start } => {
                let serves = self.lives.values().any(|life| {
                    life.place.app == app
                        && life.role == Role::Worker
                        && matches!(life.stage, LifeStage::Ready { .. })
                });
                reload = *generation != book.generation && serves;
                if reload {
                    let wished = (0..).zip(&book.places).filter(|(_, place)| place.wish != Wish::No);
                    book.before = Some(Before {
                        policy: book.policy.clone(),
                        generation: book.generation,
                        instances: book.instances,
                        wished: wished.map(|(index, _)| index).collect(),
                    });
                }
                if *policy != book.policy {
                    book.tried_at = None;
                }
                book.generation = *generation;
                book.policy = policy.clone();
                if reload && *instances < book.instances {
                    book.shrink = Some(*instances);
                } else {
                    book.resize(*instances);
                }
                let lives = &self.lives;
                let place_is_current = |place: &Place| {
                    let life = place.worker.and_then(|worker| lives.get(&worker));
                    life.is_none_or(|life| life.generation == *generation)
                };
                current.extend(
                    (0..)
                        .zip(&book.places)
                        .filter(|(_, place)| place_is_current(place))
                        .map(|(index, _)| index),
                );
                (Kind::Renewed, book.want(now, start))
            }
            Order::Start(slots) => (Kind::Ready, book.want(now, slots)),
            Order::Restart { slots, .. } => (Kind::Renewed, book.want(now, slots)),
            Order::Stop { slots, now: hurry } => (Kind::Empty, book.unwant(slots, *hurry)),
            Order::Delete { now: hurry } => {
                book.deleting = true;
                (Kind::Empty, book.unwant(&Slots::All, *hurry))
            }
            Order::Scale { instances, start } => {
                let added: BTreeSet<u32> =
                    (book.instances..*instances).filter(|index| start.contains(*index)).collect();
                book.resize(*instances);
                if !added.is_empty() {
                    (Kind::Ready, book.want(now, &Slots::Only(added)))
                } else {
                    (Kind::Empty, (*instances..).take_while(|index| book.has(*index)).collect())
                }
            }
        };
        let already = slots.iter().copied().filter(|index| book.is_ready(*index, &self.lives)).collect();
        book.operation = Some(OperationBook {
            id,
            kind,
            slots,
            begun: now,
            first_worker,
            already,
            current,
            declares: matches!(order, Order::Declare { .. }),
            reload,
            reverted: false,
            gave_up: false,
        });
    }

    /// Takes note of moments that have come. A life that ends in this turn is
    /// no longer there to prove anything to the others.
    pub(crate) fn note_time(&mut self, now: Timestamp, ends: Option<WorkerId>) {
        let proved: Vec<(SlotId, Role)> = self
            .lives
            .iter_mut()
            .filter(|(worker, _)| Some(**worker) != ends)
            .filter_map(|(_, life)| match &mut life.stage {
                LifeStage::Ready { stable_at, proved, .. } if *stable_at <= now && !*proved => {
                    *proved = true;
                    Some((life.place, life.role))
                }
                LifeStage::Spawning
                | LifeStage::Starting { .. }
                | LifeStage::Ready { .. }
                | LifeStage::Draining { .. }
                | LifeStage::Ending { .. } => None,
            })
            .collect();
        for (slot, role) in proved {
            let Some(book) = self.apps.get_mut(&slot.app) else { continue };
            book.proved = true;
            for (index, place) in (0..).zip(&mut book.places) {
                if (index == slot.index && role == Role::Worker) || place.rest == Rest::Errored {
                    place.streak = (0, 0);
                }
                if place.rest == Rest::Errored {
                    place.rest = Rest::From(now);
                }
            }
        }
    }

    /// The longest that any life may take to end, if it is asked now.
    pub(crate) fn longest_end(&self, now: Timestamp) -> Duration {
        let apps = self.apps.values().map(|book| book.policy.kill_timeout);
        let timeouts = apps.chain(self.lives.values().map(|life| life.policy.kill_timeout));
        let ending = self.lives.values().filter_map(|life| match life.stage {
            LifeStage::Ending { kill_at, .. } => Some(kill_at.since(now)),
            LifeStage::Spawning
            | LifeStage::Starting { .. }
            | LifeStage::Ready { .. }
            | LifeStage::Draining { .. } => None,
        });
        timeouts.chain(ending).max().unwrap_or_default()
    }

    /// How the life ends that the event is about.
    pub(crate) fn over(&self, now: Timestamp, worker: WorkerId, exit: Option<Exit>) -> Option<Over> {
        let life = self.lives.get(&worker)?;
        let started = life.policy.ready == ReadyWhen::Started;
        let (stable, ready) = match life.stage {
            LifeStage::Spawning => (false, false),
            LifeStage::Starting { ready_by, .. } => (started && ready_by <= now, false),
            LifeStage::Ready { stable_at, .. } => (stable_at <= now, true),
            LifeStage::Draining { stable, .. } => (stable, true),
            LifeStage::Ending { stable, was_ready, .. } => (stable, was_ready),
        };
        Some(Over {
            exit,
            stable,
            ready,
            terminated: life.terminated,
            killed: life.killed,
            drained: life.drained,
        })
    }

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
                }
            }
            Action::Rotate(app, seats) => {
                if let Some(book) = self.apps.get_mut(app) {
                    book.rotation.clone_from(seats);
                }
            }
            Action::Revert(app) => {
                if let Some(book) = self.apps.get_mut(app) {
                    book.revert(now);
                }
            }
            Action::Drain(worker) => {
                let Some(life) = self.lives.get_mut(worker) else { return };
                if let LifeStage::Ready { stable_at, .. } = life.stage {
                    let until = now + life.policy.drain_timeout;
                    life.stage = LifeStage::Draining { until, stable: stable_at <= now };
                    life.drained = true;
                }
            }
            Action::Spawn { worker, seat, generation } => self.note_spawn(now, *worker, *seat, *generation),
            Action::Terminate(worker) => {
                self.begin_ending(now, *worker);
                let Some(life) = self.lives.get_mut(worker) else { return };
                life.terminated = true;
            }
            Action::Kill(worker) => {
                self.begin_ending(now, *worker);
                let Some(life) = self.lives.get_mut(worker) else { return };
                life.killed = true;
            }
            Action::Forget(app) => {
                self.apps.remove(app);
            }
            Action::Announce(Notice::Ready { worker, .. }) => self.note_ready(now, *worker),
            Action::Announce(Notice::Ended { slot, worker, ending, next }) => {
                self.note_end(now, *slot, *worker, ending, *next);
            }
            Action::Announce(Notice::Switched(slot, worker)) => self.note_switch(*slot, *worker),
            Action::Announce(
                Notice::Starting(..) | Notice::Draining(..) | Notice::Stopping(..) | Notice::Killing(..),
            ) => {}
            Action::Finish(id, outcome) => {
                self.finished.insert(*id);
                if !matches!(outcome, Outcome::Refused(_)) {
                    self.superseded.remove(id);
                    for book in self.apps.values_mut() {
                        if book.operation.as_ref().is_some_and(|operation| operation.id == *id) {
                            book.end_operation(&self.lives);
                        }
                    }
                }
            }
        }
    }

    fn note_spawn(&mut self, now: Timestamp, worker: WorkerId, seat: SeatId, generation: Generation) {
        let SeatId { slot, side } = seat;
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        let policy = book.policy_of(generation).clone();
        // What an operation starts is no try of the breaker's.
        let renews = book.may_renew(slot.index);
        let Some(place) = book.places.get_mut(slot.index as usize) else { return };
        let role = if side == place.side { Role::Worker } else { Role::Successor };
        if role == Role::Worker {
            if place.rest == Rest::Errored && !renews {
                book.tried_at = Some(now);
            }
            place.rest = Rest::From(now);
            place.worker = Some(worker);
            place.wish = Wish::Yes;
        } else {
            place.beside = Some(worker);
        }
        let life = Life {
            place: slot,
            side,
            role,
            generation,
            policy,
            excessive: false,
            stage: LifeStage::Spawning,
            terminated: false,
            killed: false,
            drained: false,
        };
        self.lives.insert(worker, life);
    }

    /// A successor serves in place of the slot's worker.
    fn note_switch(&mut self, slot: SlotId, worker: WorkerId) {
        let Some(place) = self.place_mut(slot) else { return };
        let retired = place.worker.replace(worker);
        place.beside = retired;
        place.side = place.side.other();
        place.streak = (0, 0);
        place.outgrown = false;
        for (id, role) in [(Some(worker), Role::Worker), (retired, Role::Retired)] {
            if let Some(life) = id.and_then(|id| self.lives.get_mut(&id)) {
                life.role = role;
            }
        }
    }

    fn note_ready(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get_mut(&worker) else { return };
        let slot = life.place;
        let policy = &life.policy;
        if let LifeStage::Starting { since, .. } = life.stage {
            let stable_at = match policy.ready {
                ReadyWhen::Started => now,
                ReadyWhen::Reported => since + policy.min_uptime,
            };
            life.stage = LifeStage::Ready { stable_at, proved: false };
        }
        if let Some(place) = self.place_mut(slot) {
            let newest = place.last_ready.map_or(worker, |(before, _)| before.max(worker));
            place.last_ready = Some((newest, now));
        }
        self.note_time(now, None);
    }

    fn note_end(&mut self, now: Timestamp, slot: SlotId, worker: WorkerId, ending: &Ending, next: Next) {
        let over = self.over(now, worker, ending.exit);
        let Some(life) = self.lives.remove(&worker) else { return };
        self.gone.insert(worker);
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        if let Some(operation) = &mut book.operation
            && operation.reverted
            && ending.cause != Cause::Asked
        {
            operation.gave_up = true;
        }
        let forgiving = book.may_renew(slot.index);
        let Some(place) = book.places.get_mut(slot.index as usize) else { return };
        if life.role != Role::Worker {
            place.beside = None;
            return;
        }
        place.worker = None;
        place.outdated = false;
        place.outgrown = false;
        let stable = over.is_some_and(|over| over.stable);
        match next {
            Next::AtOnce => place.rest = Rest::From(now),
            Next::After(_) | Next::Errored(_) => {
                let least = if forgiving { 0 } else { place.streak.0 };
                place.streak = (least + 1, place.streak.1 + 1);
                place.rest = match next {
                    Next::Errored(_) if book.proved => Rest::From(now),
                    Next::Errored(_) => Rest::Errored,
                    Next::AtOnce | Next::After(_) | Next::Stopped | Next::Kept | Next::Replaced => {
                        Rest::From(now + least_pause(&life.policy, place.streak.0))
                    }
                };
                if matches!(next, Next::Errored(_)) && book.proved {
                    place.streak = (0, 0);
                }
            }
            Next::Stopped | Next::Kept | Next::Replaced => {
                place.rest = Rest::From(now);
                if place.wish == Wish::Yes {
                    place.last_done = Some((worker, now));
                    place.wish = if forgiving { Wish::Maybe } else { Wish::No };
                }
            }
        }
        if stable && ending.cause != Cause::Asked {
            place.streak = (0, 0);
        }
    }

    /// Learns from the supervisor's own account what nobody else can tell.
    pub(crate) fn settle(&mut self, supervisor: &Supervisor) {
        let ending = self.shutdown;
        for (id, book) in &mut self.apps {
            if let Some(shutdown) = ending {
                for place in &mut book.places {
                    place.wish = Wish::No;
                    place.hurry |= shutdown.hurry && (place.worker.is_some() || place.beside.is_some());
                }
            }
            if let Some(instances) = book.shrink
                && supervisor.app(*id).is_some_and(|app| app.instances == instances)
            {
                book.resize(instances);
                book.shrink = None;
            }
            while book.places.len() > book.instances as usize
                && book.places.last().is_some_and(|place| place.worker.is_none() && place.beside.is_none())
            {
                book.places.pop();
            }
            if book.operation.is_some() || book.places.iter().all(|place| place.wish != Wish::Maybe) {
                continue;
            }
            let Some(app) = supervisor.app(*id) else { continue };
            for (place, slot) in book.places.iter_mut().zip(&app.slots) {
                if place.wish == Wish::Maybe {
                    place.wish = if slot.state == SlotState::Stopped { Wish::No } else { Wish::Yes };
                }
            }
        }
    }
}
