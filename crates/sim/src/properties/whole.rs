//! Apps as a whole, and the end of it all.

use std::collections::BTreeMap;

use supervisor_core::{AppId, AppState, SeatId, SlotId, SlotState, Supervisor, Timestamp};

use super::{Check, hold};
use crate::book::{AppBook, Place, Rest, Wish};
use crate::life::LifeStage;
use crate::witness::Witness;

/// An app is forgotten when a person deleted it and nothing of it is left.
pub(super) fn forget_is_ordered(witness: &Witness, app: AppId) -> Check {
    let deleted = witness.apps.get(&app).is_some_and(|book| {
        book.deleting && book.places.iter().all(|place| place.is_empty() && place.open.is_empty())
    });
    hold(deleted, "to forget is ordered", || format!("app {}", app.0))
}

/// Never more than the wanted number of slots have a worker that stays.
pub(super) fn no_more_than_instances(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let staying = book
        .slots()
        .filter_map(|(index, place)| Some((index, witness.lives.get(&place.worker?)?)))
        .filter(|(_, life)| !life.terminated && !life.killed && !life.is_leaving())
        .filter(|(index, life)| *index < book.instances || life.is_ready())
        .count();
    hold(staying <= book.instances as usize, "no more than instances", || {
        format!("app {} has {staying} workers of {}", id.0, book.instances)
    })
}

/// What people are shown is what is.
pub(super) fn snapshot_agrees(
    witness: &Witness,
    supervisor: &Supervisor,
    id: AppId,
    book: &AppBook,
) -> Check {
    let Some(app) = supervisor.app(id) else {
        return hold(false, "the snapshot agrees", || format!("app {} is missing", id.0));
    };
    let (mut wanted, mut ready, mut running) = (0, 0, 0);
    let mut agrees = app.slots.len() == book.places.len() && app.generation == book.generation;
    let maybe = book.slots().any(|(index, _)| book.wish(index) == Wish::Maybe);
    for ((index, place), slot) in book.slots().zip(&app.slots) {
        let stage = book.own(index, &witness.lives).map(|life| life.stage);
        let state = match (stage, place.wish, place.rest) {
            (Some(stage), _, _) => state_of(stage),
            (None, Wish::No, _) => SlotState::Stopped,
            (None, Wish::Yes, Rest::From(_)) => SlotState::Backoff,
            (None, Wish::Yes, Rest::Errored) => SlotState::Errored,
            (None, Wish::Maybe, _) => slot.state,
        };
        let seat = SeatId { slot: SlotId { app: id, index }, side: place.side };
        agrees &= slot.worker == place.worker && slot.state == state && slot.side == place.side;
        agrees &= slot.weight == book.weight(seat);
        let other = SeatId { side: place.side.other(), ..seat };
        agrees &= slot.beside.is_none_or(|beside| beside.weight == book.weight(other));
        agrees &= slot.beside.map(|beside| beside.worker) == place.beside();
        let life = place.beside().and_then(|worker| witness.lives.get(&worker));
        agrees &= slot.beside.map(|beside| (beside.generation, beside.state))
            == life.map(|life| (life.generation, state_of(life.stage)));
        wanted += u32::from(place.wish == Wish::Yes);
        ready += u32::from(state == SlotState::Ready);
        running += u32::from(stage.is_some_and(|stage| !matches!(stage, LifeStage::Spawning)));
    }
    // A worker that waits for its own replacement is ready but not counted.
    agrees &= (app.wanted == wanted || maybe) && app.ready <= ready && app.running == running;
    agrees &= (app.state == AppState::Online) <= (app.ready == app.wanted && app.wanted > 0);
    hold(agrees, "the snapshot agrees", || format!("app {}: {app:?}\n{book:?}", id.0))
}

const fn state_of(stage: LifeStage) -> SlotState {
    match stage {
        LifeStage::Spawning | LifeStage::Starting { .. } => SlotState::Starting,
        LifeStage::Ready { .. } => SlotState::Ready,
        LifeStage::Draining { .. } => SlotState::Draining,
        LifeStage::Ending { .. } => SlotState::Stopping,
    }
}

/// A master that takes over knows what the one before knew.
pub(crate) fn nothing_is_forgotten(witness: &Witness, before: &Supervisor, after: &Supervisor) -> Check {
    for id in witness.apps.keys() {
        let (was, is) = ((before.app(*id), before.memo(*id)), (after.app(*id), after.memo(*id)));
        let slots = before.slot_memos(*id).eq(after.slot_memos(*id));
        hold(was == is && slots, "nothing is forgotten", || format!("app {}: {was:?}, then {is:?}", id.0))?;
    }
    Ok(())
}

/// The clock is not asked for in vain: the deadline lies ahead soon after the
/// last was met. (A drain and an end that have no time are due in their own
/// moment.)
pub(crate) fn time_moves_on(supervisor: &Supervisor, now: Timestamp, ticks: u32) -> Check {
    let stuck = ticks > 4 && supervisor.next_deadline().is_some_and(|deadline| deadline <= now);
    hold(!stuck, "time moves on", || format!("{ticks} ticks at {now:?}"))
}

/// When the machine behaves and nobody gives orders, everything comes to rest
/// as it should be: operations are over, and every wanted slot is ready, or
/// errored where no try is allowed, and has nobody beside.
pub(crate) fn all_is_well(witness: &Witness, supervisor: &Supervisor) -> Check {
    for (id, book) in &witness.apps {
        let operation = book.operation.as_ref();
        hold(operation.is_none(), "operations end", || format!("app {}: {operation:?}", id.0))?;
        let Some(app) = supervisor.app(*id) else { continue };
        let states: BTreeMap<_, _> = (0_u32..).zip(app.slots.iter().map(|slot| slot.state)).collect();
        let well = |(place, state): (&Place, SlotState)| match state {
            SlotState::Ready => place.wish == Wish::Yes,
            SlotState::Stopped => place.wish == Wish::No,
            SlotState::Errored => place.wish == Wish::Yes && book.policy.breaker_retry.is_zero(),
            SlotState::Starting | SlotState::Draining | SlotState::Stopping | SlotState::Backoff => false,
        };
        let all = book.places.iter().zip(&app.slots);
        let well = all.clone().all(|(place, slot)| well((place, slot.state)))
            && all.clone().all(|(place, _)| place.beside().is_none());
        hold(well, "all is well in the end", || format!("app {}: {states:?}", id.0))?;
    }
    hold(witness.aborts.is_empty(), "aborts end", || format!("{:?}", witness.aborts))?;
    let deadline = supervisor.next_deadline();
    hold(deadline.is_none(), "rest comes in the end", || format!("{deadline:?}"))
}

/// When everything has ended, nobody lives and nothing listens.
pub(crate) fn end_comes(witness: &Witness, supervisor: &Supervisor, limit: Timestamp) -> Check {
    let listening = witness.apps.values().flat_map(|book| &book.places).any(|place| !place.open.is_empty());
    let finished = supervisor.is_finished() && witness.lives.is_empty() && !listening;
    hold(finished, "the end comes", || format!("limit {limit:?}, {witness:?}"))
}
