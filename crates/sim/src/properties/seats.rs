//! Sockets: which listen, and which get new connections.

use std::collections::BTreeSet;

use supervisor_core::{AppId, SeatId, SlotId};

use super::{Check, hold};
use crate::book::{AppBook, OperationBook, Place, Rest, Wish};
use crate::life::Life;
use crate::witness::Witness;

/// Opening what is open, or closing what is closed, is a sign of lost count.
pub(super) fn change(witness: &Witness, seat: SeatId, open: bool) -> Check {
    let before = witness.place(seat.slot).map(|place| place.open.contains(&seat.side));
    hold(before == Some(!open), "sockets change", || format!("{seat:?} was open: {before:?}"))
}

/// A worker waits in `accept(2)` on its sockets to its end.
pub(super) fn close_is_harmless(witness: &Witness, seat: SeatId) -> Check {
    let taken = witness.lives.iter().find(|(_, life)| life.seat == seat);
    hold(taken.is_none(), "a close is harmless", || format!("{seat:?} has {taken:?}"))
}

/// Sockets listen while a worker lives or is expected back; nobody is left
/// waiting in a queue that nobody will answer.
pub(super) fn fit(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    for (index, place) in book.slots() {
        let slot = SlotId { app: id, index };
        let sits = |worker, side| witness.lives.get(&worker).is_some_and(|life| life.seat.side == side);
        let taken = |side| place.workers().any(|worker| sits(worker, side));
        let own = match (taken(place.side), witness.wish(slot), place.rest) {
            (true, _, _) => Some(true),
            (false, Wish::No, _) | (false, Wish::Yes, Rest::Errored) => Some(false),
            (false, Wish::Yes, Rest::From(_)) => Some(true),
            (false, Wish::Maybe, _) => None,
        };
        let is = |side| place.open.contains(&side);
        let other = place.side.other();
        let fits = own.is_none_or(|open| open == is(place.side)) && is(other) == taken(other);
        hold(fits, "sockets fit", || format!("slot {slot}: {place:?}"))?;
    }
    Ok(())
}

/// A successor gets no connections before it has proved itself, and is to have
/// some; and a worker that was replaced gets none any more.
pub(super) fn rotation_names_no_one_beside(
    witness: &Witness,
    app: AppId,
    weighted: &[(SeatId, u32)],
) -> Check {
    let seats: Vec<SeatId> = weighted.iter().map(|(seat, _)| *seat).collect();
    let Some(book) = witness.apps.get(&app) else {
        return hold(false, "rotation names no one beside", || format!("no app {}", app.0));
    };
    let once = seats.iter().collect::<BTreeSet<_>>().len() == seats.len();
    let own = seats.iter().all(|seat| {
        seat.slot.app == app
            && (book.seat(seat.slot) == Some(*seat) || book.admits(seat.slot.index))
            && witness.place(seat.slot).is_some_and(|place| place.open.contains(&seat.side))
    });
    hold(once && own, "rotation names no one beside", || format!("{seats:?}"))
}

/// Exactly the workers that are ready and stay get new connections. While there
/// is none, connections wait for those that are expected.
pub(super) fn rotation_is_right(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let here = |life: &&Life| life.seat.slot.app == id;
    let listens = book.policy.listens || witness.lives.values().filter(here).any(|life| life.policy.listens);
    if !listens {
        return hold(book.rotation.is_empty(), "rotation is right", || format!("app {} has none", id.0));
    }
    let slots = || book.slots().map(|(index, place)| (SlotId { app: id, index }, place));
    let named = |slot: SlotId| book.seat(slot).is_some_and(|seat| book.weight(seat).is_some());
    let withheld = |life: &Life| {
        book.steps().is_some() && life.generation == book.generation && !book.admits(life.seat.slot.index)
    };
    // One that a reload starts beside nobody has to prove itself, too. One that is
    // taken back before it has does not get anything any more.
    let fresh = |slot: SlotId| {
        let is_its = |operation: &OperationBook| match operation.reverted {
            None => !book.has_proved(slot.index, operation),
            Some(_) => book.place(slot.index).is_some_and(|place| place.queue_of != Some(book.generation)),
        };
        book.operation
            .as_ref()
            .is_some_and(|operation| operation.fresh.contains(&slot.index) && is_its(operation))
    };
    // One that the reload has added gets nothing before it is admitted.
    let waits = |slot: SlotId| {
        let introduced = book.steps().is_some_and(|steps| steps.introduced.contains(&slot.index));
        introduced && book.own(slot.index, &witness.lives).is_some_and(withheld)
    };
    let ready = |slot: SlotId| {
        let own = book.own(slot.index, &witness.lives);
        own.is_some_and(|life| life.is_ready() && !withheld(life)) && !fresh(slot)
    };
    let beside = |slot: SlotId, place: &Place| {
        let successor = place.successor.and_then(|worker| witness.lives.get(&worker));
        let new = successor.filter(|life| life.is_ready() && life.generation == book.generation);
        book.admits(slot.index) && new.is_some()
    };
    let serves = |slot: SlotId| match witness.wish(slot) {
        Wish::Yes => ready(slot),
        Wish::Maybe => ready(slot) && named(slot),
        Wish::No => false,
    };
    let somebody = slots().any(|(slot, place)| serves(slot) || beside(slot, place));
    let right = slots().all(|(slot, place)| match witness.wish(slot) {
        Wish::Yes if somebody => named(slot) == ready(slot),
        Wish::Yes if waits(slot) || fresh(slot) => !named(slot),
        Wish::Yes if book.steps().is_some() => named(slot) <= place.open.contains(&place.side),
        Wish::Yes => named(slot) == place.open.contains(&place.side),
        Wish::Maybe => !somebody || named(slot) <= ready(slot),
        Wish::No => !named(slot),
    });
    let other = |slot: SlotId, place: &Place| SeatId { slot, side: place.side.other() };
    let known = slots().all(|(slot, place)| {
        let named = book.weight(other(slot, place)).is_some();
        named == (beside(slot, place) && witness.wish(slot) != Wish::No)
    });
    hold(right && known, "rotation is right", || format!("app {}: {:?}", id.0, book.rotation))
}
