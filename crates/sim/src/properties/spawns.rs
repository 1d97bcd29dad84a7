//! Beginnings of lives.

use supervisor_core::{Action, AppId, Event, Generation, SeatId, Supervisor, Timestamp, WorkerId};

use super::{Check, hold};
use crate::book::{AppBook, Rest, Wish};
use crate::life::{Life, LifeStage};
use crate::witness::Witness;

/// It does not matter whether the supervisor is told at once of several processes
/// that run, or of one after another.
pub(crate) fn are_told_at_once(
    witness: &Witness,
    supervisor: &Supervisor,
    now: Timestamp,
    event: &Event,
) -> Check {
    let Event::WorkerSpawned(first) = event else { return Ok(()) };
    let is_spawning = |life: &Life| matches!(life.stage, LifeStage::Spawning);
    let others = witness.lives.iter().filter(|(id, life)| *id != first && is_spawning(life));
    let told: Vec<Event> =
        [*first].into_iter().chain(others.map(|(id, _)| *id)).map(Event::WorkerSpawned).collect();
    if told.len() == 1 {
        return Ok(());
    }
    let settle = |supervisor: &mut Supervisor| {
        let mut orders = Vec::new();
        while supervisor.next_deadline().is_some_and(|at| at <= now) {
            orders.extend(supervisor.handle(now, Event::TimePassed));
        }
        orders
    };
    // What is due at this moment, too, may come before, between, or after them.
    let mut at_once = supervisor.clone();
    settle(&mut at_once);
    let mut one_by_one = at_once.clone();
    let mut ordered = at_once.handle_all(now, told.clone());
    let mut ordered_then: Vec<Action> =
        told.iter().flat_map(|event| one_by_one.handle(now, event.clone())).collect();
    for (supervisor, orders) in [(&mut at_once, &mut ordered), (&mut one_by_one, &mut ordered_then)] {
        orders.extend(settle(supervisor));
        orders.sort_by_cached_key(|order| format!("{order:?}"));
    }
    let state = |supervisor: &Supervisor| {
        let apps = witness.apps.keys();
        let apps = apps.map(|id| (supervisor.memo(*id), supervisor.slot_memos(*id).collect::<Vec<_>>()));
        (apps.collect::<Vec<_>>(), supervisor.next_deadline())
    };
    let same = ordered == ordered_then && state(&at_once) == state(&one_by_one);
    hold(same, "spawns are told at once", || format!("{told:?}: {ordered:?}, one by one {ordered_then:?}"))
}

/// A life's id is its identity: news of an earlier life must not meet it.
pub(super) fn is_new(witness: &Witness, worker: WorkerId) -> Check {
    let known = witness.lives.contains_key(&worker) || witness.gone.contains_key(&worker);
    hold(!known, "spawn is new", || format!("worker {} was there before", worker.0))
}

/// Nothing runs that nobody asked for, or with settings of yesterday.
pub(super) fn is_wanted(witness: &Witness, seat: SeatId, generation: Generation) -> Check {
    let wanted = witness.wish(seat.slot) != Wish::No
        && witness.apps.get(&seat.slot.app).is_some_and(|book| {
            let before = book.operation.as_ref().and_then(|operation| operation.before.as_ref());
            let waits = before.is_some_and(|before| before.generation == generation)
                && book.seat(seat.slot) == Some(seat);
            seat.slot.index < book.instances && !book.deleting && (generation == book.generation || waits)
        });
    hold(wanted, "spawn is wanted", || format!("{seat:?} generation {}", generation.0))
}

/// Two processes in one seat would answer for the same sockets, unless one of
/// them hangs; and a slot has no room for three.
pub(super) fn is_alone(witness: &Witness, seat: SeatId) -> Check {
    let here = |life: &&Life| life.seat.slot == seat.slot;
    let others: Vec<_> = witness.lives.values().filter(here).collect();
    let alone = others.len() < 2 && others.iter().all(|other| other.seat.side != seat.side || other.hangs);
    hold(alone, "spawn is alone", || format!("{seat:?}, others in {others:?}"))
}

/// A worker's sockets are there before it is.
pub(super) fn is_open(witness: &Witness, seat: SeatId) -> Check {
    let open = witness.place(seat.slot).is_some_and(|place| place.open.contains(&seat.side));
    hold(open, "spawn is open", || format!("{seat:?} is closed"))
}

/// Whether it answers the queue of one that crashed while it was drained: with
/// the same settings, and at once.
pub(super) fn relieves(witness: &Witness, seat: SeatId, generation: Generation) -> bool {
    let relief = witness.place(seat.slot).and_then(|place| place.relief);
    relief.is_some_and(|relief| relief.side == seat.side && relief.generation == generation)
}

/// Nobody is left waiting in the queue of one that crashed while it was drained.
pub(super) fn relief_comes(id: AppId, book: &AppBook) -> Check {
    let owed = book.places.iter().find(|place| place.relief.is_some());
    hold(owed.is_none(), "relief comes", || format!("app {}: {owed:?}", id.0))
}

/// Restarts never outrun the backoff, nor tries the breaker: a broken program
/// must not eat the machine.
pub(super) fn is_due(witness: &Witness, now: Timestamp, seat: SeatId) -> Check {
    let slot = seat.slot;
    let (Some(book), Some(place)) = (witness.apps.get(&slot.app), witness.place(slot)) else { return Ok(()) };
    if place.side != seat.side {
        return Ok(());
    }
    let due = match place.rest {
        Rest::From(at) => at <= now,
        Rest::Errored => {
            let retry = book.policy.breaker_retry;
            let trying = book
                .slots()
                .filter(|(index, other)| {
                    *index != slot.index
                        && !book.may_renew(*index)
                        && book.wish(*index) == Wish::Yes
                        && other.streak.0 >= book.policy.max_restarts.max(1)
                })
                .any(|(_, other)| other.worker.is_some());
            !retry.is_zero() && !trying && book.tried_at.is_none_or(|at| at + retry <= now)
        }
    };
    hold(due || book.may_renew(slot.index), "spawn is due", || format!("slot {slot} rests: {:?}", place.rest))
}
