//! What must hold, whatever the machine does. One function each, and why.
//!
//! Those about one action are checked before the witness takes note of it, the
//! others when the whole turn was noted.

use std::collections::BTreeMap;

use supervisor_core::{
    Action, AppId, AppState, Cause, Ending, Event, Exit, Generation, Next, Notice, OperationId, Outcome,
    ReadyWhen, Refusal, SlotId, SlotState, Supervisor, Timestamp, WorkerId,
};

use crate::book::{AppBook, Kind, LifeStage, Rest, Wish, pause};
use crate::witness::Witness;

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
        Action::Spawn { worker, slot, generation } => {
            spawn_is_new(witness, *worker)?;
            spawn_is_wanted(witness, *slot, *generation)?;
            spawn_is_alone(witness, *slot)?;
            spawn_is_open(witness, *slot)?;
            spawn_is_due(witness, now, *slot)
        }
        Action::Terminate(worker) => {
            order_names_the_living(witness, *worker)?;
            end_has_a_reason(witness, now, *worker)
        }
        Action::Kill(worker) => {
            order_names_the_living(witness, *worker)?;
            kill_is_patient(witness, now, *worker)
        }
        Action::Open(slot) => sockets_change(witness, *slot, true),
        Action::Close(slot) => sockets_change(witness, *slot, false),
        Action::Forget(app) => forget_is_ordered(witness, *app),
        Action::Announce(Notice::Ready { worker, .. }) => ready_is_true(witness, now, event, *worker),
        Action::Announce(Notice::Ended { slot, worker, ending, next }) => {
            end_is_told(witness, event, *worker, ending)?;
            end_is_judged(witness, now, *slot, *worker, ending, *next)
        }
        Action::Announce(Notice::Starting(..) | Notice::Stopping(..) | Notice::Killing(..)) => Ok(()),
        Action::Finish(id, outcome) => {
            operation_finishes_once(witness, event, *id)?;
            outcome_is_true(witness, event, *id, outcome)
        }
    }
}

/// Checks the whole after an event.
pub(crate) fn check_turn(witness: &Witness, supervisor: &Supervisor, now: Timestamp) -> Check {
    for (id, book) in &witness.apps {
        no_more_than_instances(witness, *id, book)?;
        sockets_fit(*id, book)?;
        snapshot_agrees(witness, supervisor, *id, book)?;
    }
    superseded_are_told(witness)?;
    lives_are_limited(witness, now)?;
    unwanted_lives_end(witness)
}

/// A life's id is its identity: news of an earlier life must not meet it.
fn spawn_is_new(witness: &Witness, worker: WorkerId) -> Check {
    let known = witness.lives.contains_key(&worker) || witness.gone.contains(&worker);
    hold(!known, "spawn is new", || format!("worker {} was there before", worker.0))
}

/// Nothing runs that nobody asked for, or with settings of yesterday.
fn spawn_is_wanted(witness: &Witness, slot: SlotId, generation: Generation) -> Check {
    let wanted = witness.shutdown.is_none()
        && witness.apps.get(&slot.app).is_some_and(|book| {
            slot.index < book.instances && !book.deleting && generation == book.generation
        })
        && witness.place(slot).is_some_and(|place| place.wish != Wish::No);
    hold(wanted, "spawn is wanted", || format!("slot {slot} generation {}", generation.0))
}

/// Two processes in one slot would answer for the same sockets.
fn spawn_is_alone(witness: &Witness, slot: SlotId) -> Check {
    let other = witness.place(slot).and_then(|place| place.worker);
    hold(other.is_none(), "spawn is alone", || format!("slot {slot} has {other:?}"))
}

/// A worker's sockets are there before it is.
fn spawn_is_open(witness: &Witness, slot: SlotId) -> Check {
    let open = witness.place(slot).is_some_and(|place| place.open);
    hold(open, "spawn is open", || format!("slot {slot} is closed"))
}

/// Restarts never outrun the backoff, nor tries the breaker: a broken program
/// must not eat the machine.
fn spawn_is_due(witness: &Witness, now: Timestamp, slot: SlotId) -> Check {
    let (Some(book), Some(place)) = (witness.apps.get(&slot.app), witness.place(slot)) else { return Ok(()) };
    let due = match place.rest {
        Rest::From(at) => at <= now,
        Rest::Errored => {
            let retry = book.policy.breaker_retry;
            let others = book.places.iter().zip(0..).filter(|(_, index)| *index != slot.index);
            let trying = others
                .filter(|(other, _)| {
                    other.wish == Wish::Yes && other.streak.0 >= book.policy.max_restarts.max(1)
                })
                .any(|(other, _)| other.worker.is_some());
            !retry.is_zero() && !trying && book.tried_at.is_none_or(|at| at + retry <= now)
        }
    };
    hold(due || book.may_renew(slot.index), "spawn is due", || format!("slot {slot} rests: {:?}", place.rest))
}

/// A signal to somebody who is gone could reach somebody else.
fn order_names_the_living(witness: &Witness, worker: WorkerId) -> Check {
    let running = witness.lives.get(&worker).is_some_and(|life| !matches!(life.stage, LifeStage::Spawning));
    hold(running, "orders name the living", || format!("worker {} does not run", worker.0))
}

/// A worker is asked to end once, and because it is unwanted, outdated or late.
fn end_has_a_reason(witness: &Witness, now: Timestamp, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else { return Ok(()) };
    let Some(book) = witness.apps.get(&life.place.app) else { return Ok(()) };
    let unwanted = witness.shutdown.is_some()
        || witness.place(life.place).is_some_and(|place| place.wish == Wish::No)
        || witness.place(life.place).is_some_and(|place| place.outdated)
        || book.may_renew(life.place.index);
    let late = book.policy.ready == ReadyWhen::Reported
        && matches!(life.stage, LifeStage::Starting { ready_by, .. } if ready_by <= now);
    hold(!life.terminated && (unwanted || late), "an end has a reason", || format!("worker {}", worker.0))
}

/// A worker has the time to end that it was promised.
fn kill_is_patient(witness: &Witness, now: Timestamp, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else { return Ok(()) };
    let hurry = witness.shutdown.is_some_and(|shutdown| shutdown.hurry)
        || witness.place(life.place).is_some_and(|place| place.hurry);
    let late = matches!(life.stage, LifeStage::Ending { kill_at, .. } if kill_at <= now);
    hold(hurry || (late && !life.killed), "a kill is patient", || format!("worker {}", worker.0))
}

/// Opening what is open, or closing what is closed, is a sign of lost count.
fn sockets_change(witness: &Witness, slot: SlotId, open: bool) -> Check {
    let before = witness.place(slot).map(|place| place.open);
    hold(before == Some(!open), "sockets change", || format!("slot {slot} was open: {before:?}"))
}

/// An app is forgotten when a person deleted it and nothing of it is left.
fn forget_is_ordered(witness: &Witness, app: AppId) -> Check {
    let deleted = witness.apps.get(&app).is_some_and(|book| {
        book.deleting && book.places.iter().all(|place| place.worker.is_none() && !place.open)
    });
    hold(deleted, "to forget is ordered", || format!("app {}", app.0))
}

/// Ready means that the worker said so, or lived for `min_uptime`.
fn ready_is_true(witness: &Witness, now: Timestamp, event: &Event, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else {
        return hold(false, "ready is true", || format!("worker {} is gone", worker.0));
    };
    let by_itself = *event == Event::WorkerReady(worker);
    let by_time = matches!(life.stage, LifeStage::Starting { ready_by, .. } if ready_by <= now);
    let policy = witness.apps.get(&life.place.app).map(|book| book.policy.ready);
    let ready = match policy {
        Some(ReadyWhen::Reported) => by_itself && matches!(life.stage, LifeStage::Starting { .. }),
        Some(ReadyWhen::Started) => by_time,
        None => false,
    };
    hold(ready, "ready is true", || format!("worker {} is {:?}", worker.0, life.stage))
}

/// Each life ends exactly once, when it is told so, and the cause is the true
/// one.
fn end_is_told(witness: &Witness, event: &Event, worker: WorkerId, ending: &Ending) -> Check {
    let told = match event {
        Event::WorkerExited { worker: told, exit } => *told == worker && ending.exit == Some(*exit),
        Event::SpawnFailed { worker: told, .. } => *told == worker && ending.exit.is_none(),
        Event::Ordered { .. }
        | Event::WorkerSpawned(_)
        | Event::WorkerReady(_)
        | Event::WorkerLeaving(_)
        | Event::WorkerDelayed { .. }
        | Event::TimePassed
        | Event::ShutdownOrdered { .. } => false,
    };
    let Some(over) = witness.over(ending.at, worker, ending.exit) else {
        return hold(false, "an end is told", || format!("worker {} was not there", worker.0));
    };
    let asked = over.terminated || over.killed;
    let cause = match &ending.cause {
        Cause::Itself => !over.terminated,
        Cause::Asked => asked,
        Cause::NotReady(_) => asked && !over.ready,
        Cause::NotStarted(_) => ending.exit.is_none(),
    };
    hold(told && cause, "an end is told", || format!("worker {} {ending:?}, {over:?}", worker.0))
}

/// Stable lives are followed at once, unstable ones after the pause, too many
/// open the breaker, and what is to stay stopped does.
fn end_is_judged(
    witness: &Witness,
    now: Timestamp,
    slot: SlotId,
    worker: WorkerId,
    ending: &Ending,
    next: Next,
) -> Check {
    let (Some(book), Some(place), Some(over)) =
        (witness.apps.get(&slot.app), witness.place(slot), witness.over(now, worker, ending.exit))
    else {
        return Ok(());
    };
    let policy = &book.policy;
    let limit = policy.max_restarts.max(1);
    let own_code = match ending.exit {
        Some(Exit::Code(code)) => ending.cause == Cause::Itself && policy.stop_exit_codes.contains(&code),
        Some(Exit::Signal(_) | Exit::Unknown) | None => false,
    };
    let for_good = over.exit.is_some() && ending.cause != Cause::Asked && (!policy.autorestart || own_code);
    let unwanted = witness.shutdown.is_some() || place.wish == Wish::No;
    let least = if book.may_renew(slot.index) { 1 } else { place.streak.0 + 1 };
    let most = place.streak.1 + 1;
    let outdated = place.outdated || book.may_renew(slot.index);
    let judged = match next {
        Next::Stopped => unwanted || for_good,
        Next::AtOnce if outdated && !unwanted => true,
        _ if unwanted || for_good => false,
        Next::AtOnce => ending.cause == Cause::Asked || over.stable,
        _ if ending.cause == Cause::Asked || over.stable => false,
        Next::After(after) => {
            least < limit
                && after >= pause(policy, least).mul_f64(0.7999)
                && after <= pause(policy, most).mul_f64(1.2001)
        }
        Next::Errored(retry) => {
            most >= limit && retry == (!policy.breaker_retry.is_zero()).then_some(policy.breaker_retry)
        }
    };
    hold(judged, "an end is judged", || {
        format!("slot {slot} {next:?} after {over:?}, streak {:?}", place.streak)
    })
}

/// A person waits for one answer.
fn operation_finishes_once(witness: &Witness, event: &Event, id: OperationId) -> Check {
    let given = matches!(event, Event::Ordered { operation, .. } if *operation == id);
    let under_way = witness.superseded.contains(&id)
        || witness
            .apps
            .values()
            .any(|book| book.operation.as_ref().is_some_and(|operation| operation.id == id));
    let once = !witness.finished.contains(&id) && (given || under_way);
    hold(once, "an operation finishes once", || format!("operation {}", id.0))
}

/// An answer says what is so.
fn outcome_is_true(witness: &Witness, event: &Event, id: OperationId, outcome: &Outcome) -> Check {
    let found = witness
        .apps
        .values()
        .find_map(|book| Some((book, book.operation.as_ref().filter(|operation| operation.id == id)?)));
    let holds = match (outcome, found) {
        // Checked where the order is given.
        (Outcome::Refused(_), None) => true,
        (Outcome::Refused(_), Some(_)) | (Outcome::Failed { .. } | Outcome::Done, None) => false,
        (Outcome::Superseded, None) => witness.superseded.contains(&id),
        (Outcome::Superseded, Some(_)) => matches!(event, Event::ShutdownOrdered { .. }),
        (Outcome::Failed { slot, worker, .. }, Some((_, operation))) => {
            operation.slots.contains(&slot.index) && witness.gone.contains(worker)
        }
        (Outcome::Done, Some((book, operation))) => operation.slots.iter().all(|index| {
            let Some(place) = book.places.get(*index as usize) else { return operation.kind == Kind::Empty };
            let mut served = [place.last_ready, place.last_done].into_iter().flatten();
            match operation.kind {
                Kind::Empty => place.worker.is_none(),
                Kind::Renewed if operation.renews(*index) => {
                    served.any(|(worker, _)| worker >= operation.first_worker)
                }
                Kind::Ready | Kind::Renewed => {
                    operation.already.contains(index) || served.any(|(_, at)| at >= operation.begun)
                }
            }
        }),
    };
    hold(holds, "an outcome is true", || format!("operation {}: {outcome:?}, {found:?}", id.0))
}

/// Who is pushed aside hears of it at once.
fn superseded_are_told(witness: &Witness) -> Check {
    let left = &witness.superseded;
    let under_way = witness.apps.values().any(|book| book.operation.is_some());
    hold(left.is_empty() && !(under_way && witness.shutdown.is_some()), "superseded are told", || {
        format!("{left:?}")
    })
}

/// Orders are refused when they must be, and only then.
pub(crate) fn refusal_is_right(expected: Option<Refusal>, id: OperationId, actions: &[Action]) -> Check {
    let actual = actions.iter().find_map(|action| match action {
        Action::Finish(other, Outcome::Refused(refusal)) if *other == id => Some(*refusal),
        Action::Finish(..)
        | Action::Open(_)
        | Action::Close(_)
        | Action::Spawn { .. }
        | Action::Terminate(_)
        | Action::Kill(_)
        | Action::Forget(_)
        | Action::Announce(_) => None,
    });
    hold(actual == expected, "a refusal is right", || format!("expected {expected:?}, was {actual:?}"))
}

/// Never more than the wanted number of workers live; those beyond are ending.
fn no_more_than_instances(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let staying = witness
        .lives
        .values()
        .filter(|life| life.place.app == id && !life.terminated && !life.killed)
        .filter(|life| life.place.index < book.instances || matches!(life.stage, LifeStage::Ready { .. }))
        .count();
    hold(staying <= book.instances as usize, "no more than instances", || {
        format!("app {} has {staying} workers of {}", id.0, book.instances)
    })
}

/// Sockets listen while a wanted worker lives or is expected back; nobody is
/// left waiting in a queue that nobody will answer.
fn sockets_fit(id: AppId, book: &AppBook) -> Check {
    for (index, place) in (0..).zip(&book.places) {
        let slot = SlotId { app: id, index };
        let expected = match (place.wish, place.worker, place.rest) {
            (Wish::No, _, _) | (Wish::Yes, None, Rest::Errored) => false,
            (Wish::Yes, _, _) => true,
            (Wish::Maybe, _, _) => continue,
        };
        hold(place.open == expected, "sockets fit", || format!("slot {slot} is open: {}", place.open))?;
    }
    Ok(())
}

/// A worker that is to be ready by some moment is ready or asked to end; one
/// that is to end is killed in time.
fn lives_are_limited(witness: &Witness, now: Timestamp) -> Check {
    for (worker, life) in &witness.lives {
        let in_time = match life.stage {
            LifeStage::Spawning | LifeStage::Ready { .. } => true,
            LifeStage::Starting { ready_by, .. } => now < ready_by,
            LifeStage::Ending { kill_at, .. } => life.killed || now <= kill_at,
        };
        hold(in_time, "lives are limited", || format!("worker {} at {now:?}: {:?}", worker.0, life.stage))?;
    }
    Ok(())
}

/// Who is not wanted was asked to end, and who is to be killed was killed.
fn unwanted_lives_end(witness: &Witness) -> Check {
    for (worker, life) in &witness.lives {
        let Some(place) = witness.place(life.place) else {
            return hold(false, "unwanted lives end", || format!("worker {} has no place", worker.0));
        };
        let right = match life.stage {
            LifeStage::Spawning => true,
            LifeStage::Starting { .. } | LifeStage::Ready { .. } => place.wish != Wish::No,
            LifeStage::Ending { .. } => !place.hurry || life.killed,
        };
        hold(right, "unwanted lives end", || format!("worker {} {:?}", worker.0, life.stage))?;
    }
    Ok(())
}

/// What people are shown is what is.
fn snapshot_agrees(witness: &Witness, supervisor: &Supervisor, id: AppId, book: &AppBook) -> Check {
    let Some(app) = supervisor.app(id) else {
        return hold(false, "the snapshot agrees", || format!("app {} is missing", id.0));
    };
    let (mut wanted, mut ready, mut running) = (0, 0, 0);
    let mut agrees = app.slots.len() == book.places.len() && app.generation == book.generation;
    let maybe = book.places.iter().any(|place| place.wish == Wish::Maybe);
    for (place, slot) in book.places.iter().zip(&app.slots) {
        let stage = place.worker.and_then(|worker| witness.lives.get(&worker)).map(|life| life.stage);
        let state = match (stage, place.wish, place.rest) {
            (Some(LifeStage::Spawning | LifeStage::Starting { .. }), _, _) => SlotState::Starting,
            (Some(LifeStage::Ready { .. }), _, _) => SlotState::Ready,
            (Some(LifeStage::Ending { .. }), _, _) => SlotState::Stopping,
            (None, Wish::No, _) => SlotState::Stopped,
            (None, Wish::Yes, Rest::From(_)) => SlotState::Backoff,
            (None, Wish::Yes, Rest::Errored) => SlotState::Errored,
            (None, Wish::Maybe, _) => slot.state,
        };
        agrees &= slot.worker == place.worker && slot.state == state;
        wanted += u32::from(place.wish == Wish::Yes);
        ready += u32::from(state == SlotState::Ready);
        running += u32::from(stage.is_some_and(|stage| !matches!(stage, LifeStage::Spawning)));
    }
    // A worker that waits for its own replacement is ready but not counted.
    agrees &= (app.wanted == wanted || maybe) && app.ready <= ready && app.running == running;
    agrees &= (app.state == AppState::Online) <= (app.ready == app.wanted && app.wanted > 0);
    hold(agrees, "the snapshot agrees", || format!("app {}: {app:?}\n{book:?}", id.0))
}

/// The clock is not asked for in vain: the deadline lies ahead soon after the
/// last was met. (An end with `kill_timeout` 0 is due in its own moment.)
pub(crate) fn time_moves_on(supervisor: &Supervisor, now: Timestamp, ticks: u32) -> Check {
    let stuck = ticks > 3 && supervisor.next_deadline().is_some_and(|deadline| deadline <= now);
    hold(!stuck, "time moves on", || format!("{ticks} ticks at {now:?}"))
}

/// When the machine behaves and nobody gives orders, everything comes to rest
/// as it should be: operations are over, and every wanted slot is ready, or
/// errored where no try is allowed.
pub(crate) fn all_is_well(witness: &Witness, supervisor: &Supervisor) -> Check {
    for (id, book) in &witness.apps {
        let operation = book.operation.as_ref();
        hold(operation.is_none(), "operations end", || format!("app {}: {operation:?}", id.0))?;
        let Some(app) = supervisor.app(*id) else { continue };
        let states: BTreeMap<_, _> = (0_u32..).zip(app.slots.iter().map(|slot| slot.state)).collect();
        let well = book.places.iter().zip(&app.slots).all(|(place, slot)| match slot.state {
            SlotState::Ready => place.wish == Wish::Yes,
            SlotState::Stopped => place.wish == Wish::No,
            SlotState::Errored => place.wish == Wish::Yes && book.policy.breaker_retry.is_zero(),
            SlotState::Starting | SlotState::Stopping | SlotState::Backoff => false,
        });
        hold(well, "all is well in the end", || format!("app {}: {states:?}", id.0))?;
    }
    let deadline = supervisor.next_deadline();
    hold(deadline.is_none(), "rest comes in the end", || format!("{deadline:?}"))
}
