//! Workers that are replaced by others beside them.

use std::collections::BTreeMap;

use supervisor_core::{AppId, Event, Generation, Order, SeatId, SlotId, Timestamp, WorkerId};

use super::{Check, hold};
use crate::book::{AppBook, Place, Wish};
use crate::life::{Life, Role};
use crate::witness::Witness;

/// What served before an event.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The slots whose worker got new connections because it was ready.
    pub(crate) slots: BTreeMap<SlotId, WorkerId>,
    /// The apps whose operation starts successors beside ready workers.
    pub(crate) surging: Vec<AppId>,
    /// New workers that have not taken over yet, and that nobody wants to end.
    pub(crate) canaries: BTreeMap<WorkerId, AppId>,
}

impl Serving {
    pub(crate) fn of(witness: &Witness) -> Self {
        let surging = witness.apps.iter().filter(|(_, book)| book.surges()).map(|(id, _)| *id).collect();
        let lives = witness.lives.iter().filter(|(_, life)| !life.terminated && !life.drained);
        let is_canary = |life: &Life| {
            let book = witness.apps.get(&life.seat.slot.app);
            book.is_some_and(|book| {
                let introduced =
                    book.steps().is_some_and(|steps| steps.introduced.contains(&life.seat.slot.index));
                introduced && life.generation == book.generation
            })
        };
        let canaries = lives.filter(|(_, life)| is_canary(life) && !life.vain);
        let canaries = canaries.map(|(worker, life)| (*worker, life.seat.slot.app)).collect();
        Self { slots: witness.served.clone(), surging, canaries }
    }
}

/// A successor starts because a person ordered other settings, or because of
/// its worker's memory, and then one at a time; never beside another.
pub(super) fn successor_has_a_reason(
    witness: &Witness,
    event: &Event,
    seat: SeatId,
    generation: Generation,
) -> Check {
    let (Some(book), Some(place)) = (witness.apps.get(&seat.slot.app), witness.place(seat.slot)) else {
        return Ok(());
    };
    if seat.side == place.side {
        return Ok(());
    }
    let outgrown = matches!(event, Event::MemoryExceeded { worker, hard: false, .. }
        if Some(*worker) == place.worker)
        && book.operation.is_none()
        && book.places.iter().all(|other| other.beside().is_none());
    let renewed = book.surges() && book.may_renew(seat.slot.index);
    let reason = (outgrown || renewed || place.outdated) && book.policy.max_surge > 0;
    hold(reason && generation == book.generation, "a successor has a reason", || {
        format!("{seat:?} generation {}, {place:?}", generation.0)
    })
}

/// A reload touches slots in turn: before that, no successor starts in a slot,
/// and its own worker is started with the settings that it had.
pub(super) fn spawns_in_turn(witness: &Witness, seat: SeatId, generation: Generation) -> Check {
    let slot = seat.slot;
    let together = witness.apps.get(&slot.app).is_some_and(|book| {
        book.steps().is_some_and(|steps| !steps.introduced.contains(&slot.index))
            && generation == book.generation
            && book.may_renew(slot.index)
    });
    if together {
        return super::steps::introduced_in_turn(witness, slot);
    }
    let beside = witness.place(slot).is_some_and(|place| place.side != seat.side);
    let operation = witness.apps.get(&slot.app).and_then(|book| book.operation.as_ref());
    let introduces = operation.is_some_and(|operation| operation.introduces(slot.index, generation));
    if beside || introduces { one_after_another(witness, slot) } else { Ok(()) }
}

/// Nor is a worker that serves asked to make room before its turn.
pub(super) fn ends_in_turn(witness: &Witness, worker: WorkerId) -> Check {
    let Some((life, _)) = witness.life(worker) else { return Ok(()) };
    let serves = life.is_ready() && witness.role(worker) == Some(Role::Own);
    if serves { one_after_another(witness, life.seat.slot) } else { Ok(()) }
}

/// Slots are renewed one after another, `max_surge` at a time: the next one when
/// those before have proved themselves and their old workers are gone.
fn one_after_another(witness: &Witness, slot: SlotId) -> Check {
    let Some(book) = witness.apps.get(&slot.app) else { return Ok(()) };
    let operation = book.operation.as_ref();
    let Some(operation) = operation.filter(|operation| {
        let in_turn =
            operation.reverted.is_none() && operation.steps.is_none() && operation.switched.is_empty();
        in_turn && operation.renews(slot.index) && witness.wish(slot) == Wish::Yes
    }) else {
        return Ok(());
    };
    let open = |index: &&u32| {
        // One that hangs keeps nobody waiting.
        let hangs = |worker| witness.lives.get(&worker).is_some_and(|life| life.hangs);
        let settled = |place: &Place| place.wish != Wish::Yes || place.retired.is_none_or(hangs);
        let proved = book.has_proved(**index, operation) && book.place(**index).is_none_or(settled);
        **index != slot.index && !proved && book.wish(**index) == Wish::Yes
    };
    let others = operation.touched.iter().filter(open).count();
    hold(others < operation.at_once, "one after another", || format!("slot {slot}: {operation:?}"))
}

/// A worker that ends while its successor proves itself is started with the
/// settings that it had: a release replaces nobody by being there.
pub(super) fn old_settings_stay(witness: &Witness, seat: SeatId, generation: Generation) -> Check {
    let (Some(book), Some(place)) = (witness.apps.get(&seat.slot.app), witness.place(seat.slot)) else {
        return Ok(());
    };
    let successor = place.successor.and_then(|worker| witness.lives.get(&worker));
    let before = book.operation.as_ref().filter(|operation| operation.reverted.is_none());
    let before = before.and_then(|operation| operation.before.as_ref());
    let right = match (before, successor) {
        (Some(before), Some(successor)) if !successor.vain => generation == before.generation,
        (Some(_) | None, _) => true,
    };
    hold(right, "old settings stay", || format!("{seat:?} generation {}", generation.0))
}

/// Settings that have to prove themselves beside those before answer nobody who
/// waits for these.
pub(super) fn queue_is_for_the_proved(witness: &Witness, seat: SeatId, generation: Generation) -> Check {
    let (Some(book), Some(place)) = (witness.apps.get(&seat.slot.app), witness.place(seat.slot)) else {
        return Ok(());
    };
    let operation = book.operation.as_ref().filter(|operation| operation.reverted.is_none());
    let before = operation.and_then(|operation| operation.before.as_ref());
    let proves = before.is_some_and(|before| before.generation != generation) && book.surges();
    let left = place.queue_of.filter(|_| place.side == seat.side);
    let right = !proves || left.is_none_or(|left| left == generation);
    hold(right, "a queue is for the proved", || format!("{seat:?} generation {}", generation.0))
}

/// A bad release never replaces a good one: a successor takes over when it is
/// ready and stable, with the settings that are declared; together with all
/// others where they take over together.
pub(super) fn switch_is_proved(witness: &Witness, now: Timestamp, slot: SlotId, worker: WorkerId) -> Check {
    let proved = witness.life(worker).is_some_and(|(life, book)| {
        let in_turn = book.steps().is_none();
        in_turn && life.seat.slot == slot && life.is_stable(now) && life.generation == book.generation
    });
    let expected = witness.place(slot).is_some_and(|place| {
        place.successor == Some(worker) && place.retired.is_none() && witness.wish(slot) != Wish::No
    });
    hold(proved && expected, "a switch is proved", || format!("slot {slot} worker {}", worker.0))
}

/// An app goes back once, when a worker of the new settings has failed or uses
/// too much memory.
pub(super) fn revert_has_a_reason(witness: &Witness, event: &Event, app: AppId) -> Check {
    if witness.apps.get(&app).is_some_and(|book| book.unproved.is_some()) {
        return Ok(());
    }
    let ordered = matches!(event, Event::Ordered { app: of, order: Order::Abort, .. } if *of == app);
    let failed = match event {
        Event::WorkerExited { worker, .. }
        | Event::SpawnFailed { worker, .. }
        | Event::WorkerHung { worker, .. }
        | Event::MemoryExceeded { worker, hard: false, .. } => witness.failed(*worker),
        Event::Ordered { .. }
        | Event::WorkerSpawned(_)
        | Event::WorkerReady(_)
        | Event::WorkerUnready { .. }
        | Event::WorkerLeaving(_)
        | Event::WorkerDelayed { .. }
        | Event::WorkerDrained(_)
        | Event::MemoryExceeded { hard: true, .. }
        | Event::TimePassed
        | Event::ShutdownOrdered { .. } => None,
    };
    let reason = witness.apps.get(&app).is_some_and(|book| {
        let operation = book.operation.as_ref();
        operation.is_some_and(|operation| operation.before.is_some() && operation.reverted.is_none())
            && (ordered || failed == Some(book.generation))
    });
    hold(reason, "a revert has a reason", || format!("app {}: {failed:?}", app.0))
}

/// Settings that were given up before they had proved themselves are those of
/// nobody, not even of an app that is stopped.
pub(super) fn unproved_goes(id: AppId, book: &AppBook) -> Check {
    hold(book.unproved.is_none(), "what is unproved goes", || format!("app {}: {book:?}", id.0))
}

/// Never more successors than `max_surge`, unless all take over together; those that are of no use any more
/// are ending.
pub(super) fn no_more_than_surge(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let successors = book.places.iter().filter_map(|place| witness.lives.get(&place.successor?));
    let proving = successors.filter(|life| !life.vain && !life.is_leaving()).count();
    let together = book.steps().map(|steps| steps.needed(steps.at) as usize);
    let most = match &book.operation {
        Some(_) => together.unwrap_or(book.policy.max_surge as usize),
        None => usize::MAX,
    };
    hold(proving <= most, "no more than surge", || format!("app {} has {proving} successors", id.0))
}

/// While successors start beside them, workers that serve do so until they are
/// replaced: only a crash, a hang, a stop or their memory may end that.
pub(super) fn reload_keeps_the_ready(witness: &Witness, event: &Event, before: &Serving) -> Check {
    let subject = match event {
        Event::WorkerExited { worker, .. } | Event::MemoryExceeded { worker, hard: true, .. } => {
            Some(*worker)
        }
        Event::WorkerLeaving(worker) | Event::WorkerHung { worker, .. } => Some(*worker),
        Event::Ordered { .. }
        | Event::WorkerSpawned(_)
        | Event::SpawnFailed { .. }
        | Event::WorkerReady(_)
        | Event::WorkerUnready { .. }
        | Event::WorkerDelayed { .. }
        | Event::WorkerDrained(_)
        | Event::MemoryExceeded { hard: false, .. }
        | Event::TimePassed
        | Event::ShutdownOrdered { .. } => None,
    };
    for (slot, worker) in &before.slots {
        let Some(book) = witness.apps.get(&slot.app) else { continue };
        let surging = before.surging.contains(&slot.app) && (book.operation.is_none() || book.surges());
        let excused = !surging || subject == Some(*worker) || witness.wish(*slot) == Wish::No;
        let serves = witness.served.contains_key(slot);
        hold(serves || excused, "a reload keeps the ready", || format!("slot {slot} worker {}", worker.0))?;
    }
    Ok(())
}
