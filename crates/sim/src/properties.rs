//! What must hold, whatever the machine does. One function each, and why.
//!
//! Those about one action are checked before the witness takes note of it, the
//! others when the whole turn was noted.

use std::collections::BTreeMap;

use supervisor_core::{
    Action, AppId, AppState, Cause, Ending, Event, Exit, Generation, Next, Notice, OperationId, Outcome,
    ReadyWhen, Refusal, SeatId, SlotId, SlotState, Supervisor, Timestamp, WorkerId,
};

use crate::book::{AppBook, Kind, Life, LifeStage, Rest, Role, Wish, pause};
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
        Action::Spawn { worker, seat, generation } => {
            spawn_is_new(witness, *worker)?;
            spawn_is_wanted(witness, *seat, *generation)?;
            spawn_is_alone(witness, *seat)?;
            spawn_is_open(witness, *seat)?;
            if is_own_seat(witness, *seat) {
                spawn_is_due(witness, now, seat.slot)
            } else {
                successor_is_asked_for(witness, seat.slot)
            }
        }
        Action::Drain(worker) => {
            order_names_the_living(witness, *worker)?;
            end_has_a_reason(witness, now, *worker)?;
            drain_leaves_others(witness, *worker)
        }
        Action::Revert(app) => revert_has_a_reason(witness, *app),
        Action::Terminate(worker) => {
            order_names_the_living(witness, *worker)?;
            end_has_a_reason(witness, now, *worker)
        }
        Action::Kill(worker) => {
            order_names_the_living(witness, *worker)?;
            kill_is_patient(witness, now, *worker)
        }
        Action::Open(seat) => sockets_change(witness, *seat, true),
        Action::Close(seat) => {
            sockets_change(witness, *seat, false)?;
            close_is_last(witness, *seat)
        }
        // Compared as a whole.
        Action::Rotate(..) => Ok(()),
        Action::Forget(app) => forget_is_ordered(witness, *app),
        Action::Announce(Notice::Ready { worker, .. }) => ready_is_true(witness, now, event, *worker),
        Action::Announce(Notice::Ended { slot, worker, ending, next }) => {
            end_is_told(witness, event, *worker, ending)?;
            end_is_judged(witness, now, *slot, *worker, ending, *next)
        }
        Action::Announce(Notice::Switched(slot, worker)) => switch_is_proved(witness, now, *slot, *worker),
        Action::Announce(
            Notice::Starting(..) | Notice::Draining(..) | Notice::Stopping(..) | Notice::Killing(..),
        ) => Ok(()),
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
        rotation_fits(witness, *id, book)?;
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
fn spawn_is_wanted(witness: &Witness, seat: SeatId, generation: Generation) -> Check {
    let slot = seat.slot;
    // Until its successor serves, a slot lives by the settings from before.
    let before = |book: &AppBook| {
        let before = book.before.as_ref().is_some_and(|before| before.generation == generation);
        before && book.may_renew(slot.index) && is_own_seat(witness, seat)
    };
    let wanted = witness.shutdown.is_none()
        && witness.apps.get(&slot.app).is_some_and(|book| {
            slot.index < book.instances && !book.deleting && (generation == book.generation || before(book))
        })
        && witness.place(slot).is_some_and(|place| place.wish != Wish::No);
    hold(wanted, "spawn is wanted", || format!("slot {slot} generation {}", generation.0))
}

/// Two processes in one seat would answer for the same sockets.
fn spawn_is_alone(witness: &Witness, seat: SeatId) -> Check {
    let mut lives = witness.lives.values();
    let other = lives.find(|life| life.place == seat.slot && life.side == seat.side);
    hold(other.is_none(), "spawn is alone", || format!("{seat:?} has {other:?}"))
}

/// A worker's sockets are there before it is.
fn spawn_is_open(witness: &Witness, seat: SeatId) -> Check {
    let open = witness.place(seat.slot).is_some_and(|place| place.open.contains(&seat.side));
    hold(open, "spawn is open", || format!("{seat:?} is closed"))
}

fn is_own_seat(witness: &Witness, seat: SeatId) -> bool {
    witness.place(seat.slot).is_some_and(|place| place.side == seat.side)
}

/// Nobody is replaced for nothing: by a reload, or because of its memory, and
/// then one at a time.
fn successor_is_asked_for(witness: &Witness, slot: SlotId) -> Check {
    let (Some(book), Some(place)) = (witness.apps.get(&slot.app), witness.place(slot)) else { return Ok(()) };
    let beside = book.places.iter().filter(|place| place.beside.is_some()).count();
    // A successor that is not needed any more may still be ending.
    let reloads = book.may_renew(slot.index) && beside <= book.policy.max_surge as usize;
    let outgrown = place.outgrown && book.operation.is_none() && beside == 0;
    hold(book.policy.max_surge > 0 && (reloads || outgrown), "a successor is asked for", || {
        format!("slot {slot}: {beside} beside, {:?}", book.operation)
    })
}

/// A bad release never replaces a good one.
fn switch_is_proved(witness: &Witness, now: Timestamp, slot: SlotId, worker: WorkerId) -> Check {
    let life = witness.lives.get(&worker);
    let proved = life.is_some_and(|life| {
        life.place == slot
            && life.role == Role::Successor
            && matches!(life.stage, LifeStage::Ready { stable_at, .. } if stable_at <= now)
            && witness.apps.get(&slot.app).is_some_and(|book| book.generation == life.generation)
    });
    hold(proved, "a switch is proved", || format!("worker {} {life:?}", worker.0))
}

/// Who is taken out of the rotation leaves others there.
fn drain_leaves_others(witness: &Witness, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else { return Ok(()) };
    let mut lives = witness.lives.iter();
    let others = lives.any(|(other, one)| {
        *other != worker
            && one.place.app == life.place.app
            && one.role == Role::Worker
            && matches!(one.stage, LifeStage::Ready { .. })
    });
    let ready = matches!(life.stage, LifeStage::Ready { .. });
    hold(others && ready && life.policy.listens, "a drain leaves others", || format!("worker {}", worker.0))
}

/// Going back is for a reload whose new generation failed.
fn revert_has_a_reason(witness: &Witness, app: AppId) -> Check {
    let book = witness.apps.get(&app);
    let reload = book.is_some_and(|book| {
        book.before.is_some() && book.operation.as_ref().is_some_and(|one| one.reload && !one.reverted)
    });
    hold(reload, "a revert has a reason", || format!("app {}", app.0))
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
                .filter(|(other, index)| {
                    // An operation may have forgiven its failures.
                    let failing = other.streak.0 >= book.policy.max_restarts.max(1);
                    other.wish == Wish::Yes && failing && !book.may_renew(*index)
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
        || life.role != Role::Worker
        // The reason was looked at when it began.
        || matches!(life.stage, LifeStage::Draining { .. })
        || witness.place(life.place).is_some_and(|place| place.outgrown && book.policy.max_surge == 0)
        || (book.may_renew(life.place.index) && !serves_until_replaced(book, life))
        || book.is_unsure(life.place.index);
    let late = life.policy.ready == ReadyWhen::Reported
        && matches!(life.stage, LifeStage::Starting { ready_by, .. } if ready_by <= now);
    hold(!life.terminated && (unwanted || late), "an end has a reason", || format!("worker {}", worker.0))
}

/// Whether a reload must not touch a life before its successor has proved
/// itself: ready workers never fall below their number.
fn serves_until_replaced(book: &AppBook, life: &Life) -> bool {
    let reloads = book.operation.as_ref().is_some_and(|operation| operation.reload);
    reloads && book.policy.max_surge > 0 && matches!(life.stage, LifeStage::Ready { .. })
}

/// A worker has the time to end that it was promised.
fn kill_is_patient(witness: &Witness, now: Timestamp, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else { return Ok(()) };
    let hurry = witness.shutdown.is_some_and(|shutdown| shutdown.hurry)
        || witness.place(life.place).is_some_and(|place| place.hurry);
    let late = matches!(life.stage, LifeStage::Ending { kill_at, .. } if kill_at <= now);
    hold(hurry || life.excessive || (late && !life.killed), "a kill is patient", || {
        format!("worker {}", worker.0)
    })
}

/// Opening what is open, or closing what is closed, is a sign of lost count.
fn sockets_change(witness: &Witness, seat: SeatId, open: bool) -> Check {
    let before = witness.place(seat.slot).map(|place| place.open.contains(&seat.side));
    hold(before == Some(!open), "sockets change", || format!("{seat:?} was open: {before:?}"))
}

/// A worker's sockets are there for as long as it is.
fn close_is_last(witness: &Witness, seat: SeatId) -> Check {
    let mut lives = witness.lives.values();
    let there = lives.any(|life| life.place == seat.slot && life.side == seat.side);
    hold(!there, "a close is last", || format!("{seat:?}"))
}

/// An app is forgotten when a person deleted it and nothing of it is left.
fn forget_is_ordered(witness: &Witness, app: AppId) -> Check {
    let deleted = witness.apps.get(&app).is_some_and(|book| {
        book.deleting && book.places.iter().all(|place| place.worker.is_none() && place.open.is_empty())
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
    let ready = match life.policy.ready {
        ReadyWhen::Reported => by_itself && matches!(life.stage, LifeStage::Starting { .. }),
        ReadyWhen::Started => by_time,
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
        | Event::WorkerDrained(_)
        | Event::MemoryExceeded { .. }
        | Event::TimePassed
        | Event::ShutdownOrdered { .. } => false,
    };
    let Some(over) = witness.over(ending.at, worker, ending.exit) else {
        return hold(false, "an end is told", || format!("worker {} was not there", worker.0));
    };
    let asked = over.terminated || over.killed;
    let cause = match &ending.cause {
        Cause::Itself => !over.terminated,
        Cause::Asked | Cause::Memory { .. } => asked || over.drained,
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
    let Some(life) = witness.lives.get(&worker) else { return Ok(()) };
    let expected = match life.role {
        Role::Worker => None,
        Role::Successor => Some(Next::Kept),
        Role::Retired => Some(Next::Replaced),
    };
    if let Some(expected) = expected {
        return hold(next == expected, "an end is judged", || format!("slot {slot} {next:?}"));
    }
    let policy = &life.policy;
    let limit = policy.max_restarts.max(1);
    let own_code = match ending.exit {
        Some(Exit::Code(code)) => ending.cause == Cause::Itself && policy.stop_exit_codes.contains(&code),
        Some(Exit::Signal(_) | Exit::Unknown) | None => false,
    };
    let for_good = over.exit.is_some() && ending.cause != Cause::Asked && (!policy.autorestart || own_code);
    let unwanted = witness.shutdown.is_some() || place.wish == Wish::No;
    let least = if book.may_renew(slot.index) { 1 } else { place.streak.0 + 1 };
    let most = place.streak.1 + 1;
    let outdated = place.outdated || place.outgrown || book.may_renew(slot.index);
    let unsure = book.is_unsure(slot.index);
    let judged = match next {
        Next::Kept | Next::Replaced => false,
        Next::Stopped => unwanted || for_good || unsure,
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
        (Outcome::Refused(_), Some(_))
        | (Outcome::Failed(_) | Outcome::RolledBack(_) | Outcome::Done, None) => false,
        (Outcome::Superseded, None) => witness.superseded.contains(&id),
        (Outcome::Superseded, Some(_)) => matches!(event, Event::ShutdownOrdered { .. }),
        (Outcome::Failed(failure), Some((_, operation))) => {
            operation.slots.contains(&failure.slot.index)
                && witness.gone.contains(&failure.worker)
                && !operation.reload
        }
        (Outcome::RolledBack(failure), Some((book, operation))) => {
            witness.gone.contains(&failure.worker)
                && operation.reverted
                && (operation.gave_up || all_live_by_it(witness, book))
        }
        (Outcome::Done, Some((book, operation)))
            if operation.reload && (operation.reverted || !all_live_by_it(witness, book)) =>
        {
            false
        }
        (Outcome::Done, Some((book, operation))) => operation.slots.iter().all(|index| {
            let Some(place) = book.places.get(*index as usize) else { return operation.kind == Kind::Empty };
            let empty = place.worker.is_none() && place.beside.is_none();
            let mut served = [place.last_ready, place.last_done].into_iter().flatten();
            match operation.kind {
                Kind::Empty => empty,
                Kind::Renewed if operation.renews(*index) => {
                    let done = place.last_done.is_some_and(|(_, at)| at >= operation.begun);
                    let life = place.worker.and_then(|worker| witness.lives.get(&worker));
                    // A successor may have been there already.
                    let lives_by_it = life.is_some_and(|life| life.generation == book.generation);
                    (operation.declares && lives_by_it)
                        || served.any(|(worker, _)| worker >= operation.first_worker)
                        || (book.policy.max_surge > 0 && done)
                }
                Kind::Ready | Kind::Renewed => {
                    operation.already.contains(index) || served.any(|(_, at)| at >= operation.begun)
                }
            }
        }),
    };
    hold(holds, "an outcome is true", || format!("operation {}: {outcome:?}, {found:?}", id.0))
}

/// Whether every slot that runs and was selected lives by the declared
/// settings.
fn all_live_by_it(witness: &Witness, book: &AppBook) -> bool {
    let slots = book.operation.as_ref().map(|operation| &operation.slots);
    let workers =
        (0..).zip(&book.places).filter(|(index, _)| slots.is_some_and(|slots| slots.contains(index)));
    let lives = workers.filter_map(|(_, place)| witness.lives.get(&place.worker?));
    lives.into_iter().all(|life| life.generation == book.generation)
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
        | Action::Rotate(..)
        | Action::Drain(_)
        | Action::Revert(_)
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
        .filter(|life| life.place.app == id && life.role == Role::Worker && !life.terminated && !life.killed)
        .filter(|life| !matches!(life.stage, LifeStage::Draining { .. }))
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
        let other = place.open.contains(&place.side.other());
        hold(other == place.beside.is_some(), "sockets fit", || format!("slot {slot}: {place:?}"))?;
        let expected = match (place.wish, place.worker, place.rest) {
            (_, Some(_), _) => true,
            (Wish::No, None, _) | (Wish::Yes, None, Rest::Errored) => false,
            (Wish::Yes, None, Rest::From(_)) => true,
            (Wish::Maybe, None, _) => continue,
        };
        hold(place.open.contains(&place.side) == expected, "sockets fit", || {
            format!("slot {slot}: {place:?}")
        })?;
    }
    Ok(())
}

/// New connections go to all that are ready and stay, and to nobody else; while
/// there is none, to the queues of those that are expected.
fn rotation_fits(witness: &Witness, id: AppId, book: &AppBook) -> Check {
    let unsure = (0..).zip(&book.places).any(|(index, _)| book.is_unsure(index));
    if !book.policy.listens || unsure {
        return Ok(());
    }
    let wished = (0..).zip(&book.places).filter(|(_, place)| place.wish == Wish::Yes);
    let seat = |index, side| SeatId { slot: SlotId { app: id, index }, side };
    let ready: Vec<SeatId> = wished
        .clone()
        .filter(|(index, _)| book.is_ready(*index, &witness.lives))
        .map(|(index, place)| seat(index, place.side))
        .collect();
    let open = wished.filter(|(_, place)| place.open.contains(&place.side));
    let expected =
        if ready.is_empty() { open.map(|(index, place)| seat(index, place.side)).collect() } else { ready };
    hold(book.rotation == expected, "the rotation fits", || {
        format!("expected {expected:?}, is {:?}", book.rotation)
    })
}

/// A worker that is to be ready by some moment is ready or asked to end; one
/// that is to end is killed in time.
fn lives_are_limited(witness: &Witness, now: Timestamp) -> Check {
    for (worker, life) in &witness.lives {
        let in_time = match life.stage {
            LifeStage::Spawning | LifeStage::Ready { .. } => true,
            LifeStage::Starting { ready_by, .. } => now < ready_by,
            LifeStage::Draining { until, .. } => now <= until,
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
            LifeStage::Draining { .. } => !place.hurry,
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
            (Some(LifeStage::Draining { .. }), _, _) => SlotState::Draining,
            (Some(LifeStage::Ending { .. }), _, _) => SlotState::Stopping,
            (None, Wish::No, _) => SlotState::Stopped,
            (None, Wish::Yes, Rest::From(_)) => SlotState::Backoff,
            (None, Wish::Yes, Rest::Errored) => SlotState::Errored,
            (None, Wish::Maybe, _) => slot.state,
        };
        agrees &= slot.worker == place.worker && slot.state == state;
        agrees &= slot.beside.map(|beside| beside.worker) == place.beside && slot.side == place.side;
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
/// last was met. (A drain and an end without any time are due in their own moment.)
pub(crate) fn time_moves_on(supervisor: &Supervisor, now: Timestamp, ticks: u32) -> Check {
    let stuck = ticks > 8 && supervisor.next_deadline().is_some_and(|deadline| deadline <= now);
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
            SlotState::Starting | SlotState::Draining | SlotState::Stopping | SlotState::Backoff => false,
        });
        hold(well, "all is well in the end", || format!("app {}: {states:?}", id.0))?;
    }
    let deadline = supervisor.next_deadline();
    hold(deadline.is_none(), "rest comes in the end", || format!("{deadline:?}"))
}
