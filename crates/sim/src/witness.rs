//! What happened, kept as a book from events and actions alone. It shares no
//! code with the core, so that the two can disagree.

mod actions;
mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use supervisor_core::{
    AppId, Event, Exit, Generation, OperationId, Order, ReadyWhen, Refusal, SlotId, SlotState, Slots,
    Supervisor, Timestamp, WorkerId,
};

use crate::book::{AppBook, OperationBook, Place, Rest, Wish};
use crate::life::{Life, LifeStage, Over, Role};

/// All that a bystander can know.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    pub(crate) apps: BTreeMap<AppId, AppBook>,
    pub(crate) lives: BTreeMap<WorkerId, Life>,
    /// Lives that are over, and their settings. Their news means nothing.
    pub(crate) gone: BTreeMap<WorkerId, Generation>,
    /// Operations that are over.
    pub(crate) finished: BTreeSet<OperationId>,
    /// Operations whose place another took, until they are told so.
    pub(crate) superseded: BTreeSet<OperationId>,
    /// Orders that take a reload back, and are not over.
    pub(crate) aborts: BTreeMap<OperationId, AppId>,
    pub(crate) shutdown: Option<Shutdown>,
    /// The slots whose worker got new connections because it is ready, when the
    /// turn began.
    pub(crate) served: BTreeMap<SlotId, WorkerId>,
}

/// The order to end everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shutdown {
    /// Kill instead of asking.
    pub(crate) hurry: bool,
}

impl Witness {
    /// Where the worker is, if it is alive as far as the supervisor was told.
    pub(crate) fn slot_of(&self, worker: WorkerId) -> Option<SlotId> {
        self.lives.get(&worker).map(|life| life.seat.slot)
    }

    /// The life, and the book of its app.
    pub(crate) fn life(&self, worker: WorkerId) -> Option<(&Life, &AppBook)> {
        let life = self.lives.get(&worker)?;
        Some((life, self.apps.get(&life.seat.slot.app)?))
    }

    pub(crate) fn role(&self, worker: WorkerId) -> Option<Role> {
        self.place(self.slot_of(worker)?)?.role(worker)
    }

    /// The settings of a worker that is gone, hangs or has used too much memory.
    pub(crate) fn failed(&self, worker: WorkerId) -> Option<Generation> {
        let life = self.lives.get(&worker).filter(|life| life.hangs || life.outgrown);
        life.map(|life| life.generation).or_else(|| self.gone.get(&worker).copied())
    }

    pub(crate) fn place(&self, slot: SlotId) -> Option<&Place> {
        self.apps.get(&slot.app)?.place(slot.index)
    }

    pub(crate) fn place_mut(&mut self, slot: SlotId) -> Option<&mut Place> {
        self.apps.get_mut(&slot.app)?.places.get_mut(slot.index as usize)
    }

    /// Whether the slot should run.
    pub(crate) fn wish(&self, slot: SlotId) -> Wish {
        match self.apps.get(&slot.app) {
            Some(book) if self.shutdown.is_none() => book.wish(slot.index),
            Some(_) | None => Wish::No,
        }
    }

    /// How an order must be refused, if it must. When an app shrinks by and by,
    /// it may have done so or not.
    pub(crate) fn refusals(&self, app: AppId, order: &Order) -> [Option<Refusal>; 2] {
        let book = self.apps.get(&app);
        let instances = book.map_or(0, |book| book.instances);
        let shrink = book.and_then(|book| book.operation.as_ref()?.shrink);
        [instances, shrink.unwrap_or(instances)].map(|instances| self.refusal(app, order, instances))
    }

    fn refusal(&self, app: AppId, order: &Order, instances: u32) -> Option<Refusal> {
        if self.shutdown.is_some() {
            return Some(Refusal::ShuttingDown);
        }
        let Some(book) = self.apps.get(&app) else {
            return (!matches!(order, Order::Declare { .. })).then_some(Refusal::NoSuchApp);
        };
        if let Order::Start(Slots::Only(slots))
        | Order::Stop { slots: Slots::Only(slots), .. }
        | Order::Restart { slots: Slots::Only(slots), .. } = order
            && !slots.iter().any(|index| *index < instances)
        {
            return Some(Refusal::NoSuchSlot);
        }
        let Some(operation) = &book.operation else {
            return (*order == Order::Abort).then_some(Refusal::NoReload);
        };
        let reload = operation.before.is_some();
        let supersedes = match order {
            Order::Abort if operation.reverted.is_some() => return Some(Refusal::Returning),
            Order::Abort if !reload => return Some(Refusal::NoReload),
            Order::Abort => true,
            Order::Delete { .. } => true,
            Order::Stop { slots, .. } => !book.deleting && (*slots == Slots::All || !reload),
            Order::Declare { .. } | Order::Start(_) | Order::Restart { .. } | Order::Scale { .. } => false,
        };
        (!supersedes).then_some(Refusal::Busy)
    }

    /// Takes note of an event, after it was handled and before the actions are
    /// looked at. `next_worker` is the id of the next life.
    pub(crate) fn note_event(&mut self, now: Timestamp, event: &Event, next_worker: WorkerId) {
        self.apps.values_mut().for_each(|book| book.proved = false);
        match event {
            Event::Ordered { operation, app, order } => {
                if self.refusals(*app, order).contains(&None) {
                    self.note_order(now, *operation, *app, order, next_worker);
                }
            }
            Event::WorkerSpawned(worker) => self.runs(now, *worker),
            Event::WorkerReady(worker) => self.runs(now, *worker),
            Event::WorkerLeaving(worker) => {
                self.runs(now, *worker);
                if let Some(life) = self.lives.get_mut(worker) {
                    life.begin_ending(now);
                }
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
            Event::MemoryExceeded { worker, .. } => {
                if let Some(life) = self.lives.get_mut(worker) {
                    life.outgrown = true;
                }
            }
            Event::WorkerHung { worker, .. } => {
                if let Some(life) = self.lives.get_mut(worker).filter(|life| life.is_ready()) {
                    life.hangs = true;
                }
            }
            Event::ShutdownOrdered { now: hurry } => {
                let before = self.shutdown.is_some_and(|shutdown| shutdown.hurry);
                self.shutdown = Some(Shutdown { hurry: *hurry || before });
                for book in self.apps.values_mut() {
                    book.unproved = book.operation.as_ref().and_then(OperationBook::unproved);
                }
                self.lives.values_mut().for_each(|life| life.hurry |= *hurry);
            }
            // The ends of lives are noted with the notice that tells of them, and
            // what a worker lacks decides nothing.
            Event::SpawnFailed { .. }
            | Event::WorkerUnready { .. }
            | Event::WorkerExited { .. }
            | Event::WorkerDrained(_)
            | Event::TimePassed => {}
        }
    }

    fn runs(&mut self, now: Timestamp, worker: WorkerId) {
        let Some(life) = self.lives.get_mut(&worker) else { return };
        let patience = match life.policy.ready {
            ReadyWhen::Started => life.policy.min_uptime,
            ReadyWhen::Reported => life.policy.listen_timeout,
        };
        if let LifeStage::Spawning = life.stage {
            life.stage = LifeStage::Starting { ready_by: now + patience };
        }
    }

    /// Takes note of moments that have come. A life that ends in this turn is
    /// no longer there to prove anything to the others.
    pub(crate) fn note_time(&mut self, now: Timestamp, ends: Option<WorkerId>) {
        let proved: Vec<(WorkerId, Generation, SlotId)> = self
            .lives
            .iter_mut()
            .filter(|(worker, _)| Some(**worker) != ends)
            .filter_map(|(worker, life)| match &mut life.stage {
                LifeStage::Ready { stable_at, proved, .. } if *stable_at <= now && !*proved => {
                    *proved = true;
                    Some((*worker, life.generation, life.seat.slot))
                }
                LifeStage::Spawning
                | LifeStage::Starting { .. }
                | LifeStage::Ready { .. }
                | LifeStage::Draining { .. }
                | LifeStage::Ending { .. } => None,
            })
            .collect();
        for (worker, generation, slot) in proved {
            let Some(book) = self.apps.get_mut(&slot.app) else { continue };
            book.proved = true;
            for place in &mut book.places {
                if place.worker == Some(worker) {
                    place.last_stable = Some((worker, generation));
                }
                if place.worker == Some(worker) || place.rest == Rest::Errored {
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
        let timeouts = self.lives.values().map(|life| life.policy.kill_timeout);
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
        Some(Over { exit, stable, ready })
    }

    /// Learns from the supervisor's own account what nobody else can tell.
    pub(crate) fn settle(&mut self, supervisor: &Supervisor) {
        for (id, book) in &mut self.apps {
            if self.shutdown.is_some() {
                book.places.iter_mut().for_each(|place| place.wish = Wish::No);
            }
            let Some(app) = supervisor.app(*id) else { continue };
            let shrink = book.operation.as_ref().and_then(|operation| operation.shrink);
            let gives_up = |instances: u32| {
                let mut beyond = book.places.iter().zip(&app.slots).skip(instances as usize);
                app.slots.len() < book.instances as usize
                    || beyond.any(|(place, slot)| slot.state == SlotState::Stopped && place.wish == Wish::Yes)
            };
            if let Some(instances) = shrink.filter(|instances| gives_up(*instances)) {
                book.shrink(instances);
            }
            // An operation that the end cut short may have got that far.
            if self.shutdown.is_some() {
                book.instances = book.instances.min(u32::try_from(app.slots.len()).unwrap_or(u32::MAX));
            }
            while book.places.len() > book.instances as usize
                && book.places.last().is_some_and(Place::is_empty)
            {
                book.places.pop();
            }
            if book.operation.is_some() {
                continue;
            }
            for (place, slot) in book.places.iter_mut().zip(&app.slots) {
                if place.wish == Wish::Maybe {
                    place.wish = if slot.state == SlotState::Stopped { Wish::No } else { Wish::Yes };
                }
            }
        }
        self.note_who_serves();
    }

    fn note_who_serves(&mut self) {
        self.served.clear();
        for (id, book) in &mut self.apps {
            for (index, place) in (0..).zip(&mut book.places) {
                let slot = SlotId { app: *id, index };
                if let Some(worker) = place.worker
                    && let Some(life) = self.lives.get_mut(&worker)
                    && life.is_ready()
                {
                    life.served = true;
                    // It would have been asked to make room by now.
                    place.outdated &= place.successor.is_some();
                    self.served.insert(slot, worker);
                }
            }
        }
    }
}
