//! What must hold, whatever the machine does. One function each, and why.
//!
//! Those about one action are checked before the witness takes note of it, those
//! about a new master when it has taken over, the others when the whole turn was
//! noted.

mod ends;
mod operations;
mod replacing;
mod seats;
mod spawns;
mod steps;
mod takeovers;
mod whole;

use supervisor_core::{Action, Event, Notice, Supervisor, Timestamp};

use crate::witness::Witness;

pub(crate) use operations::refusal_is_right;
pub(crate) use replacing::Serving;
pub(crate) use spawns::are_told_at_once;
pub(crate) use takeovers::orders_are_repeated;
pub(crate) use whole::{all_is_well, end_comes, nothing_is_forgotten, time_moves_on};

/// A property that does not hold.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) property: &'static str,
    pub(crate) detail: String,
}

pub(crate) type Check = Result<(), Broken>;

fn hold(holds: bool, property: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Broken { property, detail: detail() }) }
}

/// Checks an action against what was known before it.
pub(crate) fn check_action(witness: &Witness, now: Timestamp, event: &Event, action: &Action) -> Check {
    match action {
        Action::Spawn { worker, seat, generation } => {
            spawns::is_new(witness, *worker)?;
            spawns::is_alone(witness, *seat)?;
            spawns::is_open(witness, *seat)?;
            if spawns::relieves(witness, *seat, *generation) {
                return Ok(());
            }
            spawns::is_wanted(witness, *seat, *generation)?;
            spawns::is_due(witness, now, *seat)?;
            replacing::successor_has_a_reason(witness, event, *seat, *generation)?;
            replacing::spawns_in_turn(witness, *seat, *generation)?;
            replacing::old_settings_stay(witness, *seat, *generation)?;
            replacing::queue_is_for_the_proved(witness, *seat, *generation)
        }
        Action::Drain(worker) => {
            ends::order_names_the_living(witness, *worker)?;
            ends::has_a_reason(witness, now, event, *worker)?;
            ends::drain_is_of_use(witness, *worker)?;
            replacing::ends_in_turn(witness, *worker)
        }
        Action::Terminate(worker) => {
            ends::order_names_the_living(witness, *worker)?;
            ends::has_a_reason(witness, now, event, *worker)?;
            ends::drain_is_patient(witness, now, event, *worker)?;
            ends::drain_comes_first(witness, *worker)?;
            replacing::ends_in_turn(witness, *worker)
        }
        Action::Abort(worker) => {
            ends::order_names_the_living(witness, *worker)?;
            ends::abort_has_a_reason(witness, event, *worker)
        }
        Action::Kill(worker) => {
            ends::order_names_the_living(witness, *worker)?;
            ends::kill_is_patient(witness, now, event, *worker)
        }
        Action::Open(seat) => seats::change(witness, *seat, true),
        Action::Close(seat) => {
            seats::change(witness, *seat, false)?;
            seats::close_is_harmless(witness, *seat)
        }
        Action::Rotate(app, seats) => seats::rotation_names_no_one_beside(witness, *app, seats),
        Action::Revert(app) => replacing::revert_has_a_reason(witness, event, *app),
        Action::Report(app, step) => steps::step_is_due(witness, now, *app, *step),
        Action::Forget(app) => whole::forget_is_ordered(witness, *app),
        Action::Announce(Notice::Ready { worker, .. }) => ends::ready_is_true(witness, now, event, *worker),
        Action::Announce(Notice::Switched(slot, worker)) => {
            replacing::switch_is_proved(witness, now, *slot, *worker)
        }
        Action::Announce(Notice::Ended { slot, worker, ending, next }) => {
            ends::is_told(witness, event, *worker, ending)?;
            ends::is_judged(witness, now, *slot, *worker, ending, *next)
        }
        Action::Announce(Notice::Hung { slot, worker, hang, next: Some(next) }) => {
            ends::hang_is_judged(witness, now, (*slot, *worker, *hang, *next))
        }
        Action::Announce(
            Notice::Starting(..)
            | Notice::Draining(..)
            | Notice::Stopping(..)
            | Notice::Hung { next: None, .. }
            | Notice::Killing(..),
        ) => Ok(()),
        Action::Finish(id, outcome) => {
            operations::finish_once(witness, event, *id)?;
            operations::outcome_is_true(witness, event, *id, outcome)
        }
    }
}

/// Checks the whole after an event. `before` is what was known before it.
pub(crate) fn check_turn(
    witness: &Witness,
    supervisor: &Supervisor,
    now: Timestamp,
    event: &Event,
    before: &Serving,
) -> Check {
    for (id, book) in &witness.apps {
        whole::no_more_than_instances(witness, *id, book)?;
        replacing::no_more_than_surge(witness, *id, book)?;
        spawns::relief_comes(*id, book)?;
        seats::fit(witness, *id, book)?;
        seats::rotation_is_right(witness, *id, book)?;
        steps::share_is_right(witness, *id, book)?;
        steps::all_switch_at_once(witness, *id, book)?;
        replacing::unproved_goes(*id, book)?;
        whole::snapshot_agrees(witness, supervisor, *id, book)?;
    }
    replacing::reload_keeps_the_ready(witness, event, before)?;
    steps::no_canary_dies_unheard(witness, event, before)?;
    operations::superseded_are_told(witness)?;
    ends::lives_are_limited(witness, now)?;
    ends::drained_are_asked(witness, event)?;
    ends::unwanted_lives_end(witness)
}
