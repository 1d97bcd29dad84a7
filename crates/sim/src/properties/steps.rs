//! Reloads whose workers take over together.

use std::collections::BTreeSet;

use supervisor_core::{AppId, Event, Portion, SeatId, SlotId, Step, Timestamp};

use super::replacing::Serving;
use super::{Check, hold};
use crate::book::{AppBook, StepsBook};
use crate::witness::Witness;

/// A step comes in its order: when the one before was held as long as was
/// promised, and all of its workers have proved themselves.
pub(super) fn step_is_due(witness: &Witness, now: Timestamp, app: AppId, step: Step) -> Check {
    let due = witness.apps.get(&app).is_some_and(|book| match (book.steps(), step) {
        (_, Step::Returning) => book.operation.as_ref().is_some_and(|operation| operation.reverted.is_some()),
        (None, _) => false,
        (Some(steps), Step::Introduced(portion)) => {
            let begins =
                steps.held.is_some() || (steps.at == 0 && steps.introduced.is_subset(&steps.admitted));
            begins && is_next(steps, now, portion)
        }
        (Some(steps), Step::Held(portion, time)) => {
            let last = steps.next() + 1 == steps.shares.len();
            !last && time == steps.hold && is_next(steps, now, portion) && has_proved(witness, book, steps)
        }
        (Some(steps), Step::Switched(portion)) => {
            let last = steps.next() + 1 == steps.shares.len();
            last && is_next(steps, now, portion) && has_proved(witness, book, steps)
        }
    });
    hold(due, "a step is due", || {
        format!("app {}: {step:?}, {:?}", app.0, witness.apps.get(&app).map(|book| &book.operation))
    })
}

fn is_next(steps: &StepsBook, now: Timestamp, portion: Portion) -> bool {
    let next = steps.next();
    steps.held.is_none_or(|held| held + steps.hold <= now)
        && steps.shares.get(next) == Some(&portion.share)
        && (portion.workers, portion.of) == (steps.needed(next), steps.of)
}

/// Whether as many new workers are stable as the next step needs.
fn has_proved(witness: &Witness, book: &AppBook, steps: &StepsBook) -> bool {
    let is_new = |index: &&u32| {
        let workers = book.place(**index).into_iter().flat_map(|place| [place.worker, place.successor]);
        let mut lives = workers.flatten().filter_map(|worker| witness.lives.get(&worker));
        lives.any(|life| life.has_proved() && life.generation == book.generation)
    };
    let proved = steps.introduced.iter().filter(is_new).count();
    proved == steps.introduced.len() && proved >= steps.needed(steps.next()) as usize
}

/// No more slots get a new worker than the step says.
pub(super) fn introduced_in_turn(witness: &Witness, slot: SlotId) -> Check {
    let Some(steps) = witness.apps.get(&slot.app).and_then(AppBook::steps) else { return Ok(()) };
    let others = steps.introduced.iter().filter(|index| **index != slot.index).count();
    let room = steps.held.is_none() && others < steps.needed(steps.at) as usize;
    hold(room, "workers are introduced in turn", || format!("slot {slot}: {steps:?}"))
}

/// New workers get the share of the connections that their step says: none
/// before they are admitted.
pub(super) fn share_is_right(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let Some(steps) = book.steps() else {
        let equal = book.rotation.iter().all(|(_, weight)| *weight == 1);
        return hold(equal, "a share is right", || format!("app {}: {:?}", id.0, book.rotation));
    };
    let is_new = |seat: SeatId| {
        // While nobody is ready, connections wait for those who may be soon.
        let ready = witness.lives.values().find(|life| life.seat == seat && life.is_ready());
        ready.map(|life| life.generation == book.generation)
    };
    let weights = |new: bool| {
        let of = book.rotation.iter().filter(move |(seat, _)| is_new(*seat) == Some(new));
        of.map(|(_, weight)| *weight).collect::<Vec<u32>>()
    };
    let (old, new) = (weights(false), weights(true));
    let equal = |weights: &[u32]| weights.iter().collect::<BTreeSet<_>>().len() <= 1;
    let (of_old, of_new): (u32, u32) = (old.iter().sum(), new.iter().sum());
    let share = of_new * (100 - steps.share) == of_old * steps.share;
    let alone = old.is_empty() || new.is_empty() || steps.share == 0;
    let right = equal(&old) && equal(&new) && (share || alone);
    hold(right, "a share is right", || format!("app {}: {:?}, {steps:?}", id.0, book.rotation))
}

/// Who takes over together does so in one turn.
pub(super) fn all_switch_at_once(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let Some(operation) = book.operation.as_ref().filter(|operation| operation.reverted.is_none()) else {
        return Ok(());
    };
    let left = operation.switched.iter().find(|index| {
        let successor = book.place(**index).and_then(|place| witness.lives.get(&place.successor?));
        successor.is_some_and(|life| !life.vain)
    });
    hold(left.is_none(), "all switch at once", || format!("app {} slot {left:?}", id.0))
}

/// A new worker that ends before it has taken over, whatever the cause, takes
/// the reload back.
pub(super) fn no_canary_dies_unheard(witness: &Witness, event: &Event, before: &Serving) -> Check {
    let (Event::WorkerExited { worker, .. } | Event::SpawnFailed { worker, .. }) = event else {
        return Ok(());
    };
    let Some(app) = before.canaries.get(worker) else { return Ok(()) };
    let goes_on =
        witness.shutdown.is_none() && witness.apps.get(app).is_some_and(|book| book.steps().is_some());
    hold(!goes_on, "no canary dies unheard", || format!("worker {}", worker.0))
}
