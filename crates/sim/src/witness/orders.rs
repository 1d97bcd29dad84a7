//! What people want.

use std::collections::BTreeSet;
use std::rc::Rc;

use supervisor_core::{AppId, OperationId, Order, Policy, Reload, Slots, Timestamp, WorkerId};

use super::Witness;
use crate::book::{AppBook, Before, Kind, OperationBook, Place, Rest, StepsBook, Wish};
use crate::life::Life;

impl Witness {
    pub(super) fn note_order(
        &mut self,
        now: Timestamp,
        id: OperationId,
        app: AppId,
        order: &Order,
        first_worker: WorkerId,
    ) {
        let lives = &self.lives;
        if let Order::Declare { generation, policy, .. } = order {
            let book = || AppBook::new(*generation, Rc::new(policy.clone()));
            self.apps.entry(app).or_insert_with(book);
        }
        let Some(book) = self.apps.get_mut(&app) else { return };
        if *order == Order::Abort {
            if let Some(operation) = &mut book.operation {
                operation.aborted_by = Some(id);
                self.aborts.insert(id, app);
            }
            return;
        }
        if let Some(operation) = book.end_operation(lives) {
            let abort = operation.aborted_by.filter(|id| self.aborts.contains_key(id));
            self.superseded.extend([Some(operation.id), abort].into_iter().flatten());
            book.unproved = operation.unproved();
            if let Some(instances) = operation.shrink.filter(|_| book.unproved.is_none()) {
                book.resize(instances);
            }
        }
        let mut operation = OperationBook {
            id,
            kind: Kind::Ready,
            declares: false,
            slots: BTreeSet::new(),
            begun: now,
            first_worker,
            adopted: BTreeSet::new(),
            already: BTreeSet::new(),
            current: BTreeSet::new(),
            before: None,
            shrink: None,
            at_once: usize::MAX,
            touched: BTreeSet::new(),
            reverted: None,
            aborted_by: None,
            steps: None,
            switched: BTreeSet::new(),
            fresh: BTreeSet::new(),
        };
        let mut hurries = false;
        match order {
            Order::Declare { generation, policy, instances, start } => {
                let serves = book.slots().any(|(index, _)| book.is_ready(index, lives));
                let changed = *generation != book.generation;
                operation.before = (changed && serves).then(|| Before {
                    generation: book.generation,
                    instances: book.instances,
                    wished: wished(book),
                });
                if *policy != *book.policy {
                    book.tried_at = None;
                }
                let policy = Rc::new(policy.clone());
                book.policies.insert(*generation, Rc::clone(&policy));
                (book.generation, book.policy) = (*generation, policy);
                if operation.before.is_some() && *instances < book.instances {
                    operation.shrink = Some(*instances);
                } else {
                    book.resize(*instances);
                }
                operation.kind = Kind::Renewed;
                operation.declares = true;
                operation.at_once = book.policy.max_surge.max(1) as usize;
                operation.adopted = book.places.iter().filter_map(|place| place.successor).collect();
                let careful = operation.before.is_some() && book.policy.max_surge > 0;
                // Somebody may wait in the queue of the one before.
                let awaited = |place: &Place| place.wish == Wish::Yes && place.open.contains(&place.side);
                let is_current = |index: &u32| match book.own(*index, lives) {
                    Some(life) => life.generation == *generation,
                    None => !(careful && book.place(*index).is_some_and(awaited)),
                };
                operation.current = book.slots().map(|(index, _)| index).filter(is_current).collect();
                let staying: BTreeSet<u32> = (0..*instances).filter(|index| start.contains(*index)).collect();
                let of = (0..).take_while(|index| *index < book.instances);
                let of = of.filter(|index| staying.contains(index)).count();
                if operation.before.is_some() {
                    operation.steps = steps(&book.policy, u32::try_from(of).unwrap_or(u32::MAX));
                }
                let idle = |index: &u32| book.place(*index).is_some_and(|place| place.wish != Wish::Yes);
                let idle: Vec<u32> = staying.iter().copied().filter(idle).collect();
                operation.slots = book.want(now, &Slots::Only(staying));
                if careful && operation.steps.is_none() {
                    let is_empty = |index: &&u32| {
                        operation.current.contains(index) && book.own(**index, lives).is_none()
                    };
                    operation.fresh = operation.slots.iter().filter(is_empty).copied().collect();
                }
                if let Some(steps) = &mut operation.steps {
                    let is_new = |index: &u32| {
                        book.own(*index, lives).is_some_and(|life| life.generation == *generation)
                    };
                    operation.current = operation.slots.iter().copied().filter(is_new).collect();
                    steps.introduced.clone_from(&operation.current);
                    steps.admitted = book.slots().map(|(index, _)| index).filter(is_new).collect();
                    // They begin when it is their turn.
                    for index in idle.into_iter().filter(|index| !operation.current.contains(index)) {
                        book.places[index as usize].wish = Wish::Maybe;
                    }
                }
            }
            Order::Start(slots) => operation.slots = book.want(now, slots),
            Order::Restart { slots, now: hurry } => {
                operation.at_once = if *hurry { usize::MAX } else { 1 };
                operation.kind = Kind::Renewed;
                operation.slots = book.want(now, slots);
            }
            Order::Stop { slots, now: hurry } => {
                hurries = *hurry;
                operation.kind = Kind::Empty;
                operation.slots = book.unwant(slots);
            }
            Order::Delete { now: hurry } => {
                book.deleting = true;
                hurries = *hurry;
                operation.kind = Kind::Empty;
                operation.slots = book.unwant(&Slots::All);
            }
            Order::Scale { instances, start } => {
                let added = (book.instances..*instances).filter(|index| start.contains(*index)).collect();
                book.resize(*instances);
                operation.slots = book.want(now, &Slots::Only(added));
                if operation.slots.is_empty() {
                    operation.kind = Kind::Empty;
                    operation.slots = (*instances..).take_while(|index| book.has(*index)).collect();
                }
            }
            Order::Abort => {}
        }
        let is_ready = |index: &u32| book.is_ready(*index, lives);
        operation.already = operation.slots.iter().copied().filter(is_ready).collect();
        for place in &mut book.places {
            // What was to take the place of a ready worker is of no use now.
            let ready = place.worker.and_then(|worker| self.lives.get(&worker)).is_some_and(Life::is_ready);
            place.outdated &= !ready;
            if let Some(life) = place.successor.and_then(|worker| self.lives.get_mut(&worker)) {
                life.vain = true;
            }
        }
        if hurries {
            let named = |life: &&mut Life| {
                life.seat.slot.app == app && operation.slots.contains(&life.seat.slot.index)
            };
            self.lives.values_mut().filter(named).for_each(|life| life.hurry = true);
        }
        book.operation = Some(operation);
    }

    /// Takes note that an app is what it was before its operation.
    pub(super) fn note_revert(&mut self, now: Timestamp, app: AppId) {
        let Some(book) = self.apps.get_mut(&app) else { return };
        if let Some(before) = book.unproved.take() {
            book.return_to(&before);
            return;
        }
        let Some(mut operation) = book.operation.take() else { return };
        let Some(before) = operation.before.clone() else { return };
        let is_unproved =
            |index: &u32| book.own(*index, &self.lives).is_some() && !book.has_proved(*index, &operation);
        operation.fresh = operation.fresh.iter().copied().filter(is_unproved).collect();
        operation.reverted = Some(book.generation);
        operation.shrink = None;
        operation.steps = None;
        book.return_to(&before);
        for (index, place) in (0..).zip(&mut book.places).take(before.instances as usize) {
            place.stuck = false;
            place.wish = if before.wished.contains(&index) { Wish::Yes } else { Wish::No };
            place.streak.0 = 0;
            if place.worker.is_none() {
                place.streak = (0, 0);
                place.rest = Rest::From(now);
            }
            if let Some(life) = place.successor.and_then(|worker| self.lives.get_mut(&worker)) {
                life.vain = true;
            }
        }
        let lives = &self.lives;
        let is_current = |index: &u32| match book.own(*index, lives) {
            Some(life) => life.generation == before.generation && life.is_ready(),
            None => true,
        };
        operation.current = (0..before.instances).filter(is_current).collect();
        operation.slots = before.wished.iter().copied().filter(|index| *index < before.instances).collect();
        book.operation = Some(operation);
    }
}

fn wished(book: &AppBook) -> BTreeSet<u32> {
    book.slots().filter(|(_, place)| place.wish == Wish::Yes).map(|(index, _)| index).collect()
}

/// The steps of a reload of so many slots; `None` where workers take over one by
/// one.
fn steps(policy: &Policy, of: u32) -> Option<StepsBook> {
    let Reload::Steps { shares, hold } = &policy.reload else { return None };
    (policy.max_surge > 0 && of > 0).then(|| StepsBook {
        shares: shares.clone(),
        hold: *hold,
        of,
        at: 0,
        held: None,
        introduced: BTreeSet::new(),
        admitted: BTreeSet::new(),
        share: 0,
    })
}

impl AppBook {
    /// Takes the settings that it had.
    fn return_to(&mut self, before: &Before) {
        self.tried_at = None;
        self.generation = before.generation;
        if let Some(policy) = self.policies.get(&before.generation) {
            self.policy = Rc::clone(policy);
        }
        self.resize(before.instances);
    }
}
