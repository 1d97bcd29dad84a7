//! Orders and their answers.

use supervisor_core::{Action, AppId, Event, Failure, OperationId, Outcome, Refusal};

use super::{Check, hold};
use crate::book::{AppBook, Kind, OperationBook, Wish};
use crate::witness::Witness;

/// A person waits for one answer.
pub(super) fn finish_once(witness: &Witness, event: &Event, id: OperationId) -> Check {
    let given = matches!(event, Event::Ordered { operation, .. } if *operation == id);
    let under_way = witness.superseded.contains(&id)
        || witness.aborts.contains_key(&id)
        || witness
            .apps
            .values()
            .any(|book| book.operation.as_ref().is_some_and(|operation| operation.id == id));
    let once = !witness.finished.contains(&id) && (given || under_way);
    hold(once, "an operation finishes once", || format!("operation {}", id.0))
}

/// An answer says what is so.
pub(super) fn outcome_is_true(witness: &Witness, event: &Event, id: OperationId, outcome: &Outcome) -> Check {
    let found = witness
        .apps
        .values()
        .find_map(|book| Some((book, book.operation.as_ref().filter(|operation| operation.id == id)?)));
    if let Some(app) = witness.aborts.get(&id) {
        return abort_is_true(witness, event, *app, (id, outcome));
    }
    let holds = match (outcome, found) {
        // Checked where the order is given.
        (Outcome::Refused(_), None) => true,
        (Outcome::Refused(_), Some(_))
        | (Outcome::Failed { .. } | Outcome::RolledBack { .. } | Outcome::Aborted | Outcome::Done, None) => {
            false
        }
        (Outcome::Superseded, None) => witness.superseded.contains(&id),
        (Outcome::Superseded, Some(_)) => matches!(event, Event::ShutdownOrdered { .. }),
        (Outcome::Failed(failure), Some((_, operation))) => {
            operation.before.is_none() && failure_is_true(witness, operation, failure)
        }
        (Outcome::RolledBack(failure), Some((book, operation))) => {
            operation.reverted.is_some()
                && operation.reverted == witness.failed(failure.worker)
                && is_as_before(witness, book)
        }
        (Outcome::Aborted, Some((book, operation))) => {
            operation.aborted_by.is_some() && operation.reverted.is_some() && is_as_before(witness, book)
        }
        (Outcome::Done, Some((book, operation))) => is_done(book, operation),
    };
    hold(holds, "an outcome is true", || format!("operation {}: {outcome:?}, {found:?}", id.0))
}

/// A reload that was taken back is over when the old workers serve alone.
fn abort_is_true(
    witness: &Witness,
    event: &Event,
    app: AppId,
    (id, outcome): (OperationId, &Outcome),
) -> Check {
    let book = witness.apps.get(&app);
    let holds = match outcome {
        Outcome::Done => book.is_some_and(|book| book.operation.is_none() && is_as_before(witness, book)),
        Outcome::Failed(failure) => witness.failed(failure.worker).is_some(),
        Outcome::Superseded => {
            witness.superseded.contains(&id) || matches!(event, Event::ShutdownOrdered { .. })
        }
        Outcome::RolledBack(_) | Outcome::Aborted | Outcome::Refused(_) => false,
    };
    hold(holds, "an abort is true", || format!("operation {}: {outcome:?}, {book:?}", id.0))
}

fn failure_is_true(witness: &Witness, operation: &OperationBook, failure: &Failure) -> bool {
    operation.slots.contains(&failure.slot.index) && witness.failed(failure.worker).is_some()
}

/// After going back every worker has the settings from before, unless not even
/// those got its slot going.
fn is_as_before(witness: &Witness, book: &AppBook) -> bool {
    book.slots().filter(|(_, place)| place.wish == Wish::Yes).all(|(_, place)| {
        let mut lives = place.workers().filter_map(|worker| witness.lives.get(&worker));
        place.stuck || lives.all(|life| life.generation == book.generation)
    })
}

fn is_done(book: &AppBook, operation: &OperationBook) -> bool {
    operation.reverted.is_none()
        && operation.slots.iter().all(|index| {
            let Some(place) = book.place(*index) else { return operation.kind == Kind::Empty };
            match operation.kind {
                Kind::Empty => place.is_empty(),
                Kind::Renewed if operation.renews(*index) => {
                    let done = place.last_done.is_some_and(|(worker, _)| operation.brought(worker));
                    done || book.has_proved(*index, operation)
                }
                Kind::Ready | Kind::Renewed => {
                    operation.already.contains(index)
                        || [place.last_done, place.last_ready]
                            .iter()
                            .flatten()
                            .any(|(_, at)| *at >= operation.begun)
                }
            }
        })
}

/// Who is pushed aside hears of it at once.
pub(super) fn superseded_are_told(witness: &Witness) -> Check {
    let left = &witness.superseded;
    let under_way = witness.apps.values().any(|book| book.operation.is_some());
    hold(left.is_empty() && !(under_way && witness.shutdown.is_some()), "superseded are told", || {
        format!("{left:?}")
    })
}

/// Orders are refused when they must be, and only then.
pub(crate) fn refusal_is_right(expected: [Option<Refusal>; 2], id: OperationId, actions: &[Action]) -> Check {
    let actual = actions.iter().find_map(|action| match action {
        Action::Finish(other, Outcome::Refused(refusal)) if *other == id => Some(*refusal),
        Action::Finish(..)
        | Action::Open(_)
        | Action::Close(_)
        | Action::Rotate(..)
        | Action::Spawn { .. }
        | Action::Drain(_)
        | Action::Revert(_)
        | Action::Terminate(_)
        | Action::Abort(_)
        | Action::Kill(_)
        | Action::Forget(_)
        | Action::Report(..)
        | Action::Announce(_) => None,
    });
    hold(expected.contains(&actual), "a refusal is right", || {
        format!("expected {expected:?}, was {actual:?}")
    })
}
