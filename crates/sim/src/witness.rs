//! What happened, kept as a book from events and actions alone. It shares no
//! code with the core, so that the two can disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use supervisor_core::{
    Action, AppId, Cause, Ending, Event, Exit, Next, Notice, OperationId, Order, Outcome, ReadyWhen, Refusal,
    SlotId, SlotState, Slots, Supervisor, Timestamp, WorkerId,
};

use crate::book::{AppBook, Kind, Life, LifeStage, OperationBook, Over, Place, Rest, Wish, least_pause};

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
        book.operation.as_ref()?;
        let supersedes = match order {
            Order::Delete { .. } => true,
            Order::Stop { .. } => !book.deleting,
            Order::Declare { .. } | Order::Start(_) | Order::Restart { .. } | Order::Scale(_) => false,
        };
        (!supersedes).then_some(Refusal::Busy)
    }

    /// Takes note of an event, after it was handled and before the actions are
    /// looked at. `next_worker` is the id of the next life.
    pub(crate) fn note_event(&mut self, now: Timestamp, event: &Event, next_worker: WorkerId) {
        self.apps.values_mut().for_each(|book| book.proved = false);
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
                let reported = self.apps[&life.place.app].policy.ready == ReadyWhen::Reported;
                match &mut life.stage {
                    LifeStage::Starting { ready_by, .. } if reported => {
                        *ready_by = (*ready_by).max(now + *by)
                    }
                    LifeStage::Ending { kill_at, .. } => *kill_at = (*kill_at).max(now + *by),
                    LifeStage::Spawning | LifeStage::Starting { .. } | LifeStage::Ready { .. } => {}
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
        let policy = &self.apps[&life.place.app].policy;
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
        let kill_at = now + self.apps[&life.place.app].policy.kill_timeout;
        life.stage = match life.stage {
            LifeStage::Starting { .. } => LifeStage::Ending { kill_at, stable: false, was_ready: false },
            LifeStage::Ready { stable_at, .. } => {
                LifeStage::Ending { kill_at, stable: stable_at <= now, was_ready: true }
            }
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
            | Order::Scale(_)
            | Order::Delete { .. } => match self.apps.get_mut(&app) {
                Some(book) => book,
                None => return,
            },
        };
        if let Some(operation) = book.end_operation(&self.lives) {
            self.superseded.insert(operation.id);
        }
        let mut current = BTreeSet::new();
        let (kind, slots) = match order {
            Order::Declare { generation, policy, instances, start } => {
                if *policy != book.policy {
                    book.tried_at = None;
                }
                book.generation = *generation;
                book.policy = policy.clone();
                book.resize(*instances);
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
            Order::Scale(instances) => {
                let runs = book.instances == 0 || book.places.iter().any(|place| place.wish != Wish::No);
                let added: BTreeSet<u32> = (book.instances..*instances).collect();
                book.resize(*instances);
                if !added.is_empty() && runs {
                    (Kind::Ready, book.want(now, &Slots::Only(added)))
                } else {
                    (Kind::Empty, (*instances..).take_while(|index| book.has(*index)).collect())
                }
            }
        };
        let already = slots.iter().copied().filter(|index| book.is_ready(*index, &self.lives)).collect();
        book.operation = Some(OperationBook { id, kind, slots, begun: now, first_worker, already, current });
    }

    /// Takes note of moments that have come. A life that ends in this turn is
    /// no longer there to prove anything to the others.
    pub(crate) fn note_time(&mut self, now: Timestamp, ends: Option<WorkerId>) {
        let proved: Vec<SlotId> = self
            .lives
            .iter_mut()
            .filter(|(worker, _)| Some(**worker) != ends)
            .filter_map(|(_, life)| match &mut life.stage {
                LifeStage::Ready { stable_at, proved, .. } if *stable_at <= now && !*proved => {
                    *proved = true;
                    Some(life.place)
                }
                LifeStage::Spawning
                | LifeStage::Starting { .. }
                | LifeStage::Ready { .. }
                | LifeStage::Ending { .. } => None,
            })
            .collect();
        for slot in proved {
            let Some(book) = self.apps.get_mut(&slot.app) else { continue };
            book.proved = true;
            for (index, place) in (0..).zip(&mut book.places) {
                if index == slot.index || place.rest == Rest::Errored {
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
        let timeouts = self.apps.values().map(|book| book.policy.kill_timeout);
        let ending = self.lives.values().filter_map(|life| match life.stage {
            LifeStage::Ending { kill_at, .. } => Some(kill_at.since(now)),
            LifeStage::Spawning | LifeStage::Starting { .. } | LifeStage::Ready { .. } => None,
        });
        timeouts.chain(ending).max().unwrap_or_default()
    }

    /// How the life ends that the event is about.
    pub(crate) fn over(&self, now: Timestamp, worker: WorkerId, exit: Option<Exit>) -> Option<Over> {
        let life = self.lives.get(&worker)?;
        let started = self.apps.get(&life.place.app)?.policy.ready == ReadyWhen::Started;
        let (stable, ready) = match life.stage {
            LifeStage::Spawning => (false, false),
            LifeStage::Starting { ready_by, .. } => (started && ready_by <= now, false),
            LifeStage::Ready { stable_at, .. } => (stable_at <= now, true),
            LifeStage::Ending { stable, was_ready, .. } => (stable, was_ready),
        };
        Some(Over { exit, stable, ready, terminated: life.terminated, killed: life.killed })
    }

    /// Takes note of an action, after it was looked at.
    pub(crate) fn note_action(&mut self, now: Timestamp, action: &Action) {
        match action {
            Action::Open(slot) | Action::Close(slot) => {
                if let Some(place) = self.place_mut(*slot) {
                    place.open = matches!(action, Action::Open(_));
                }
            }
            Action::Spawn { worker, slot, .. } => self.note_spawn(now, *worker, *slot),
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
            Action::Announce(Notice::Starting(..) | Notice::Stopping(..) | Notice::Killing(..)) => {}
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

    fn note_spawn(&mut self, now: Timestamp, worker: WorkerId, slot: SlotId) {
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        let Some(place) = book.places.get_mut(slot.index as usize) else { return };
        if place.rest == Rest::Errored {
            book.tried_at = Some(now);
        }
        place.rest = Rest::From(now);
        place.worker = Some(worker);
        place.wish = Wish::Yes;
        let generation = book.generation;
        let life =
            Life { place: slot, generation, stage: LifeStage::Spawning, terminated: false, killed: false };
        self.lives.insert(worker, life);
    }

    fn note_ready(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get_mut(&worker) else { return };
        let slot = life.place;
        let policy = &self.apps[&slot.app].policy;
        if let LifeStage::Starting { since, .. } = life.stage {
            let stable_at = match policy.ready {
                ReadyWhen::Started => now,
                ReadyWhen::Reported => since + policy.min_uptime,
            };
            life.stage = LifeStage::Ready { stable_at, proved: false };
        }
        if let Some(place) = self.place_mut(slot) {
            place.last_ready = Some((worker, now));
        }
        self.note_time(now, None);
    }

    fn note_end(&mut self, now: Timestamp, slot: SlotId, worker: WorkerId, ending: &Ending, next: Next) {
        let over = self.over(now, worker, ending.exit);
        self.lives.remove(&worker);
        self.gone.insert(worker);
        let Some(book) = self.apps.get_mut(&slot.app) else { return };
        let forgiving = book.may_renew(slot.index);
        let Some(place) = book.places.get_mut(slot.index as usize) else { return };
        place.worker = None;
        place.hurry = false;
        place.outdated = false;
        let stable = over.is_some_and(|over| over.stable);
        match next {
            Next::AtOnce => place.rest = Rest::From(now),
            Next::After(_) | Next::Errored(_) => {
                let least = if forgiving { 0 } else { place.streak.0 };
                place.streak = (least + 1, place.streak.1 + 1);
                place.rest = match next {
                    Next::Errored(_) if book.proved => Rest::From(now),
                    Next::Errored(_) => Rest::Errored,
                    Next::AtOnce | Next::After(_) | Next::Stopped => {
                        Rest::From(now + least_pause(&book.policy, place.streak.0))
                    }
                };
                if matches!(next, Next::Errored(_)) && book.proved {
                    place.streak = (0, 0);
                }
            }
            Next::Stopped => {
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
                    place.hurry |= shutdown.hurry && place.worker.is_some();
                }
            }
            while book.places.len() > book.instances as usize
                && book.places.last().is_some_and(|place| place.worker.is_none())
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
