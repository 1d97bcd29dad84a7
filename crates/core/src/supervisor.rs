//! The whole: all apps, one entry point.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::action::{Action, Outcome, Refusal};
use crate::app::{App, Turn};
use crate::event::{Event, Order, Slots};
use crate::id::{AppId, Generation, OperationId, SlotId, WorkerId};
use crate::jitter::Jitter;
use crate::memo::{AppMemo, SlotMemo};
use crate::policy::{Policy, Version};
use crate::slot::Cause;
use crate::status::AppSnapshot;
use crate::time::Timestamp;

/// Everything that is known and wanted. See the crate's documentation.
#[derive(Debug, Clone)]
pub struct Supervisor {
    apps: BTreeMap<AppId, App>,
    /// Where each living worker is.
    places: BTreeMap<WorkerId, SlotId>,
    next_worker: WorkerId,
    jitter: Jitter,
    ending: bool,
    /// The apps that may have changed since somebody asked.
    touched: BTreeSet<AppId>,
}

impl Supervisor {
    /// A supervisor without apps. Jitter is drawn from `seed`; workers are
    /// numbered from `first_worker`.
    #[must_use]
    pub const fn new(seed: u64, first_worker: WorkerId) -> Self {
        Self {
            apps: BTreeMap::new(),
            places: BTreeMap::new(),
            next_worker: first_worker,
            jitter: Jitter::new(seed),
            ending: false,
            touched: BTreeSet::new(),
        }
    }

    /// Adds an app that was declared earlier: before a boot, or to another
    /// master. Nobody waits for its workers, so orders may follow at once.
    /// [`Event::TimePassed`] is due now. A known app stays as it is.
    pub fn restore(
        &mut self,
        now: Timestamp,
        id: AppId,
        generation: Generation,
        policy: Policy,
        instances: u32,
        start: &Slots,
    ) {
        self.touched.insert(id);
        let app = || App::new(id, Version::new(generation, policy)).restored(now, instances, start);
        self.apps.entry(id).or_insert_with(app);
    }

    /// Takes an app over from a supervisor that is no more, as its memo says.
    /// Returns the orders that were given and that may not have been performed,
    /// and one to end for each worker that said it would: each must be performed,
    /// unless it is known to have been. What has happened meanwhile
    /// is told by events, as ever; [`Event::TimePassed`] is due now.
    ///
    /// `None` for a memo that no app can have left, and for a known app.
    #[must_use]
    pub fn adopt(
        &mut self,
        now: Timestamp,
        id: AppId,
        memo: AppMemo,
        slots: Vec<SlotMemo>,
    ) -> Option<Vec<Action>> {
        if self.apps.contains_key(&id) {
            return None;
        }
        let mut actions = Vec::new();
        let mut turn = Turn {
            now,
            ending: self.ending,
            jitter: &mut self.jitter,
            next_worker: &mut self.next_worker,
            places: &mut self.places,
            actions: &mut actions,
        };
        self.apps.insert(id, App::adopted(id, memo, slots, &mut turn)?);
        self.touched.insert(id);
        Some(actions)
    }

    /// The apps whose memos may have changed since this was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<AppId> {
        core::mem::take(&mut self.touched)
    }

    /// What there is to remember of an app, apart from its slots, so that
    /// another supervisor can [`adopt`](Self::adopt) it.
    #[must_use]
    pub fn memo(&self, id: AppId) -> Option<AppMemo> {
        self.apps.get(&id).map(App::memo)
    }

    /// What there is to remember of an app's slots, in order.
    pub fn slot_memos(&self, id: AppId) -> impl Iterator<Item = SlotMemo> {
        self.apps.get(&id).into_iter().flat_map(App::slot_memos)
    }

    /// The slots of an app that differ from what was remembered of them, in order;
    /// `None` when their number does.
    #[must_use]
    pub fn changed_slots(&self, id: AppId, known: &[SlotMemo]) -> Option<Vec<(u32, SlotMemo)>> {
        self.apps.get(&id)?.changed_slots(known)
    }

    /// Takes note of an event and tells what to do about it. More events may be
    /// handled before the actions are performed. Those that change the world
    /// (open, close, spawn, terminate, abort, kill) must be performed in order, and so
    /// must the others, which may wait for the former.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.handle_all(now, [event])
    }

    /// The same of several events, in order: what to do is decided once, with all of
    /// them known, which takes as long as for one. [`Event::WorkerSpawned`] of several
    /// workers comes to the same as one after another.
    #[must_use]
    pub fn handle_all(&mut self, now: Timestamp, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut turn = Turn {
            now,
            ending: self.ending,
            jitter: &mut self.jitter,
            next_worker: &mut self.next_worker,
            places: &mut self.places,
            actions: &mut actions,
        };
        let mut concerned = BTreeSet::new();
        for event in events {
            concerned.extend(note(&mut self.apps, event, &mut turn));
        }
        self.ending = turn.ending;
        let touched = &mut self.touched;
        self.apps.retain(|id, app| {
            let due = app.deadline.is_some_and(|deadline| deadline <= now);
            if !due && !concerned.contains(id) && !turn.ending {
                return true;
            }
            touched.insert(*id);
            let forget = app.reconcile(&mut turn);
            if forget {
                turn.actions.push(Action::Forget(*id));
            }
            !forget
        });
        actions
    }

    /// When [`Event::TimePassed`] is due, unless another event comes first.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.apps.values().filter_map(|app| app.deadline).min()
    }

    /// Whether everything has ended after [`Event::ShutdownOrdered`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ending && self.places.is_empty()
    }

    /// Counts the automatic restarts of these slots from 0 again. Returns how many
    /// slots these are. What is decided does not depend on the count.
    pub fn reset_restarts(&mut self, id: AppId, slots: &Slots) -> u32 {
        self.touched.insert(id);
        let selected = self.apps.get_mut(&id).into_iter().flat_map(|app| app.select(slots));
        selected.map(|(_, slot)| slot.restarts = 0).fold(0, |count, ()| count + 1)
    }

    /// Why an order for an app would not be begun now; `None` if it would be.
    #[must_use]
    pub fn refusal(&self, id: AppId, order: &Order) -> Option<Refusal> {
        if self.ending {
            return Some(Refusal::ShuttingDown);
        }
        match (self.apps.get(&id), order) {
            (Some(app), _) => app.refusal(order),
            (None, Order::Declare { .. }) => None,
            (None, _) => Some(Refusal::NoSuchApp),
        }
    }

    /// What is known of one app now.
    #[must_use]
    pub fn app(&self, id: AppId) -> Option<AppSnapshot> {
        self.apps.get(&id).map(AppSnapshot::of)
    }
}

/// Notes an event. Returns the app that it is about.
fn note(apps: &mut BTreeMap<AppId, App>, event: Event, turn: &mut Turn<'_>) -> Option<AppId> {
    match event {
        Event::Ordered { operation, app, order } => {
            take_order(apps, operation, app, order, turn);
            Some(app)
        }
        Event::WorkerSpawned(worker) => tell(apps, worker, turn, |app, index, turn| {
            app.spawned(index, worker, turn);
        }),
        Event::SpawnFailed { worker, detail } => tell(apps, worker, turn, |app, index, turn| {
            app.ended(index, worker, None, Some(Cause::NotStarted(detail)), turn);
        }),
        Event::WorkerReady(worker) => tell(apps, worker, turn, |app, index, turn| {
            app.ready(index, worker, turn);
        }),
        Event::WorkerUnready { worker, lacks } => tell(apps, worker, turn, |app, index, _| {
            app.lacking(index, worker, lacks);
        }),
        Event::WorkerLeaving(worker) => tell(apps, worker, turn, |app, index, turn| {
            app.leaving(index, worker, turn);
        }),
        Event::WorkerDrained(worker) => tell(apps, worker, turn, |app, index, turn| {
            app.drained(index, worker, turn);
        }),
        Event::MemoryExceeded { worker, used, limit, hard } => {
            tell(apps, worker, turn, |app, index, turn| {
                app.outgrown(index, worker, (used, limit, hard), turn);
            })
        }
        Event::WorkerDelayed { worker, by } => tell(apps, worker, turn, |app, index, turn| {
            app.delayed(index, worker, turn.now + by);
        }),
        Event::WorkerHung { worker, hang } => tell(apps, worker, turn, |app, index, turn| {
            app.hung(index, worker, hang, turn);
        }),
        Event::WorkerExited { worker, exit } => tell(apps, worker, turn, |app, index, turn| {
            app.ended(index, worker, Some(exit), None, turn);
        }),
        Event::TimePassed => None,
        Event::ShutdownOrdered { now: kill } => {
            turn.ending = true;
            for app in apps.values_mut() {
                app.abandon(kill, turn);
            }
            None
        }
    }
}

/// Gives an order to its app, which `Declare` makes when it is new.
fn take_order(
    apps: &mut BTreeMap<AppId, App>,
    operation: OperationId,
    id: AppId,
    order: Order,
    turn: &mut Turn<'_>,
) {
    let refuse = |refusal| Action::Finish(operation, Outcome::Refused(refusal));
    if turn.ending {
        turn.actions.push(refuse(Refusal::ShuttingDown));
        return;
    }
    if let Order::Declare { generation, policy, .. } = &order {
        let version = || Version::new(*generation, policy.clone());
        apps.entry(id).or_insert_with(|| App::new(id, version()));
    }
    match apps.get_mut(&id) {
        Some(app) => app.order(operation, order, turn),
        None => turn.actions.push(refuse(Refusal::NoSuchApp)),
    }
}

/// Tells a living worker's app what happened to it. Returns the app.
fn tell<'a, 'b>(
    apps: &mut BTreeMap<AppId, App>,
    worker: WorkerId,
    turn: &'a mut Turn<'b>,
    news: impl FnOnce(&mut App, u32, &'a mut Turn<'b>),
) -> Option<AppId> {
    let place = *turn.places.get(&worker)?;
    news(apps.get_mut(&place.app)?, place.index, turn);
    Some(place.app)
}
