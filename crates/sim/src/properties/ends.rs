//! Lives and their ends.

use supervisor_core::{Cause, Ending, Event, Exit, Hang, Next, ReadyWhen, SlotId, Timestamp, WorkerId};

use super::{Check, hold};
use crate::book::{AppBook, Place, Wish, pause};
use crate::life::{Life, LifeStage, Over, Role};
use crate::witness::Witness;

/// A signal to somebody who is gone could reach somebody else.
pub(super) fn order_names_the_living(witness: &Witness, worker: WorkerId) -> Check {
    let running = witness.lives.get(&worker).is_some_and(|life| !matches!(life.stage, LifeStage::Spawning));
    hold(running, "orders name the living", || format!("worker {} does not run", worker.0))
}

/// A worker is drained once and asked to end once, and because it is unwanted,
/// replaced, outdated or late. One that serves is not asked to make room for a
/// successor that has not proved itself.
pub(super) fn has_a_reason(witness: &Witness, now: Timestamp, event: &Event, worker: WorkerId) -> Check {
    let Some((life, book)) = witness.life(worker) else { return Ok(()) };
    let index = life.seat.slot.index;
    let (wish, role) = (witness.wish(life.seat.slot), witness.role(worker));
    let fresh = match life.stage {
        LifeStage::Starting { .. } | LifeStage::Ready { .. } => true,
        LifeStage::Draining { .. } => !life.terminated,
        LifeStage::Spawning | LifeStage::Ending { .. } => false,
    };
    let unwanted = wish == Wish::No || (wish == Wish::Maybe && may_shrink(book, index));
    let late = life.policy.ready == ReadyWhen::Reported && life.is_late(now);
    let outgrown = matches!(event, Event::MemoryExceeded { worker: told, hard: false, .. } if *told == worker)
        && book.policy.max_surge == 0
        && book.slots().all(|(other, place)| {
            let own = place.worker.is_none() || book.is_ready(other, &witness.lives);
            place.beside().is_none() && own
        });
    let reason = match role {
        Some(Role::Own) => {
            let outdated = witness.place(life.seat.slot).is_some_and(|place| place.outdated);
            let renewed = book.may_renew(index) && !(book.surges() && life.served);
            outdated || renewed || outgrown || life.drained
        }
        Some(Role::Successor) => life.vain || life.generation != book.generation,
        Some(Role::Retired) => true,
        None => false,
    };
    let relieves = life.relieves.is_some();
    hold(fresh && (unwanted || late || reason || relieves), "an end has a reason", || {
        format!("worker {} {role:?} {life:?}, {wish:?}", worker.0)
    })
}

/// Slots that are too many serve until the others have proved the new settings.
fn may_shrink(book: &AppBook, index: u32) -> bool {
    let Some(operation) = book.operation.as_ref().filter(|operation| operation.gives_up(index)) else {
        return false;
    };
    operation.slots.iter().filter(|index| operation.renews(**index)).all(|index| {
        let done = book.place(*index).is_none_or(|place| place.wish != Wish::Yes);
        done || book.has_proved(*index, operation)
    })
}

/// Who drains was getting connections of ours, or came for those of another.
pub(super) fn drain_is_of_use(witness: &Witness, worker: WorkerId) -> Check {
    let gets_some = |life: &Life| life.is_ready() || life.relieves.is_some();
    let useful = witness.lives.get(&worker).is_some_and(|life| life.policy.listens && gets_some(life));
    hold(useful, "a drain is of use", || format!("worker {}", worker.0))
}

/// A worker that drains is asked to end when it is drained, when that took too
/// long, or when nobody else would serve.
pub(super) fn drain_is_patient(witness: &Witness, now: Timestamp, event: &Event, worker: WorkerId) -> Check {
    let Some((life, book)) = witness.life(worker) else { return Ok(()) };
    let LifeStage::Draining { until, .. } = life.stage else { return Ok(()) };
    let patient = *event == Event::WorkerDrained(worker) || until <= now || !others_serve(witness, book);
    hold(patient, "a drain is patient", || format!("worker {}", worker.0))
}

/// While others serve, connections that wait for a worker are not left to it
/// after it was asked to end.
pub(super) fn drain_comes_first(witness: &Witness, worker: WorkerId) -> Check {
    let Some((life, book)) = witness.life(worker) else { return Ok(()) };
    let shares = book.weight(life.seat).is_some() && witness.role(worker) == Some(Role::Successor);
    let gets_some = witness.role(worker) == Some(Role::Own) || shares;
    let serves = life.is_ready() && life.policy.listens && gets_some;
    let stays = witness.wish(life.seat.slot) == Wish::Yes && !book.may_renew(life.seat.slot.index);
    let others = others_serve(witness, book) && !stays;
    hold(!serves || !others, "a drain comes first", || format!("worker {} {life:?}", worker.0))
}

/// Whether some worker serves that nobody wants to end.
fn others_serve(witness: &Witness, book: &AppBook) -> bool {
    witness.shutdown.is_none()
        && book.slots().any(|(index, _)| {
            let life = book.own(index, &witness.lives).filter(|life| life.is_ready());
            let stays = |life: &Life| !book.may_renew(index) || (book.surges() && life.served);
            book.wish(index) == Wish::Yes && life.is_some_and(stays)
        })
}

/// A worker has the time to end that it was promised, and is killed once.
pub(super) fn kill_is_patient(witness: &Witness, now: Timestamp, event: &Event, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else { return Ok(()) };
    let by_far = matches!(event, Event::MemoryExceeded { worker: told, hard: true, .. } if *told == worker);
    let late = matches!(life.stage, LifeStage::Ending { kill_at, .. } if kill_at <= now);
    let right = !life.killed && (life.hurry || by_far || late);
    hold(right, "a kill is patient", || format!("worker {} {life:?}", worker.0))
}

/// A worker is aborted because it hangs, though it was ready, and once.
pub(super) fn abort_has_a_reason(witness: &Witness, event: &Event, worker: WorkerId) -> Check {
    let hangs = matches!(event, Event::WorkerHung { worker: told, .. } if *told == worker);
    let right = hangs && witness.lives.get(&worker).is_some_and(Life::is_ready);
    hold(right, "an abort has a reason", || format!("worker {}", worker.0))
}

/// What becomes of a slot whose worker hangs is judged as if that had ended.
pub(super) fn hang_is_judged(
    witness: &Witness,
    now: Timestamp,
    notice: (SlotId, WorkerId, Hang, Next),
) -> Check {
    let (slot, worker, hang, next) = notice;
    let alone = witness.role(worker) == Some(Role::Own)
        && witness.place(slot).is_some_and(|place| place.beside().is_none());
    hold(alone, "a hung worker makes room", || format!("slot {slot} worker {}", worker.0))?;
    let ending = Ending { exit: None, cause: Cause::Hung(hang), at: now, uptime: Default::default() };
    is_judged(witness, now, slot, worker, &ending, next)
}

/// Ready means that the worker said so, or lived for `min_uptime`.
pub(super) fn ready_is_true(witness: &Witness, now: Timestamp, event: &Event, worker: WorkerId) -> Check {
    let Some(life) = witness.lives.get(&worker) else {
        return hold(false, "ready is true", || format!("worker {} is gone", worker.0));
    };
    let ready = match life.policy.ready {
        ReadyWhen::Reported => {
            *event == Event::WorkerReady(worker) && matches!(life.stage, LifeStage::Starting { .. })
        }
        ReadyWhen::Started => life.is_late(now),
    };
    hold(ready, "ready is true", || format!("worker {} is {:?}", worker.0, life.stage))
}

/// Each life ends exactly once, when it is told so, and the cause is the true
/// one.
pub(super) fn is_told(witness: &Witness, event: &Event, worker: WorkerId, ending: &Ending) -> Check {
    let told = match event {
        Event::WorkerExited { worker: told, exit } => *told == worker && ending.exit == Some(*exit),
        Event::SpawnFailed { worker: told, .. } => *told == worker && ending.exit.is_none(),
        Event::Ordered { .. }
        | Event::WorkerSpawned(_)
        | Event::WorkerReady(_)
        | Event::WorkerUnready { .. }
        | Event::WorkerLeaving(_)
        | Event::WorkerDelayed { .. }
        | Event::WorkerDrained(_)
        | Event::MemoryExceeded { .. }
        | Event::WorkerHung { .. }
        | Event::TimePassed
        | Event::ShutdownOrdered { .. } => false,
    };
    let (Some(over), Some(life)) = (witness.over(ending.at, worker, ending.exit), witness.lives.get(&worker))
    else {
        return hold(false, "an end is told", || format!("worker {} was not there", worker.0));
    };
    let asked = life.terminated || life.killed || life.drained;
    let cause = match &ending.cause {
        Cause::Itself => !life.terminated && !life.drained,
        Cause::Asked => asked,
        Cause::NotReady { .. } => asked && !over.ready,
        Cause::Memory { .. } => asked && life.outgrown,
        Cause::Hung(_) => asked && life.hangs,
        Cause::NotStarted(_) => ending.exit.is_none(),
    };
    hold(told && cause, "an end is told", || format!("worker {} {ending:?}, {life:?}", worker.0))
}

/// Stable lives are followed at once, unstable ones after the pause, too many
/// open the breaker, and what is to stay stopped does. The ends of those beside
/// change nothing. A queue that is being drained is answered by another.
pub(super) fn is_judged(
    witness: &Witness,
    now: Timestamp,
    slot: SlotId,
    worker: WorkerId,
    ending: &Ending,
    next: Next,
) -> Check {
    let (Some((life, book)), Some(place), Some(over)) =
        (witness.life(worker), witness.place(slot), witness.over(now, worker, ending.exit))
    else {
        return Ok(());
    };
    let left = ending.exit.is_some() && life.leaves_queue(now).is_some();
    let judged = match witness.role(worker) {
        Some(role) if next == Next::Relieved => {
            left && (role != Role::Own || witness.wish(slot) != Wish::Yes)
        }
        Some(Role::Successor | Role::Retired) if left => false,
        Some(Role::Own) if left && next == Next::Stopped => false,
        Some(Role::Own) => own_is_judged((book, witness.wish(slot)), place, life, (over, ending), next),
        Some(Role::Successor) => next == Next::Kept,
        Some(Role::Retired) => next == Next::Replaced,
        None => false,
    };
    hold(judged, "an end is judged", || {
        format!("slot {slot} {next:?} after {over:?} {ending:?}, streak {:?}", place.streak)
    })
}

fn own_is_judged(
    (book, wish): (&AppBook, Wish),
    place: &Place,
    life: &Life,
    (over, ending): (Over, &Ending),
    next: Next,
) -> bool {
    let index = life.seat.slot.index;
    let policy = &life.policy;
    let limit = policy.max_restarts.max(1);
    let renewed = book.may_renew(index);
    let own_code = match ending.exit {
        Some(Exit::Code(code)) => ending.cause == Cause::Itself && policy.stop_exit_codes.contains(&code),
        Some(Exit::Signal(_) | Exit::OutOfMemory { .. } | Exit::Unknown) | None => false,
    };
    let for_good = over.exit.is_some() && ending.cause != Cause::Asked && (!policy.autorestart || own_code);
    // While a person wants it replaced by one beside it, it is to serve on.
    let needed = for_good && (renewed || place.outdated) && place.beside().is_some();
    let unwanted = wish == Wish::No;
    let least = if renewed { 1 } else { place.streak.0 + 1 };
    let most = place.streak.1 + 1;
    // It ended first because there was to be no other beside it.
    let makes_room = matches!(ending.cause, Cause::Asked) || (life.outgrown && life.drained);
    match next {
        Next::Stopped => unwanted || wish == Wish::Maybe || for_good,
        _ if unwanted => false,
        Next::AtOnce if place.outdated || renewed || makes_room => true,
        Next::AtOnce if life.outgrown && life.terminated => true,
        _ if for_good && !needed => false,
        Next::AtOnce => over.stable,
        _ if ending.cause == Cause::Asked || over.stable => false,
        Next::After(after) => {
            least < limit
                && after >= pause(policy, least).mul_f64(0.7999)
                && after <= pause(policy, most).mul_f64(1.2001)
        }
        Next::Errored(retry) => {
            most >= limit && retry == (!policy.breaker_retry.is_zero()).then_some(policy.breaker_retry)
        }
        Next::Kept | Next::Replaced | Next::Relieved => false,
    }
}

/// A worker that is to be ready by some moment is ready or asked to end, one
/// that drains has an end, and one that is to end is killed in time.
pub(super) fn lives_are_limited(witness: &Witness, now: Timestamp) -> Check {
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

/// Nobody waits longer than need be: who is drained is asked to end at once.
pub(super) fn drained_are_asked(witness: &Witness, event: &Event) -> Check {
    let waits = witness.lives.iter().find(|(worker, life)| {
        *event == Event::WorkerDrained(**worker) && matches!(life.stage, LifeStage::Draining { .. })
    });
    hold(waits.is_none(), "drained are asked", || format!("{waits:?}"))
}

/// Who is not wanted, or was replaced, was asked to end, and who is to be killed
/// was killed.
pub(super) fn unwanted_lives_end(witness: &Witness) -> Check {
    for (worker, life) in &witness.lives {
        let Some(role) = witness.role(*worker) else {
            return hold(false, "unwanted lives end", || format!("worker {} has no place", worker.0));
        };
        let wanted = role != Role::Retired && witness.wish(life.seat.slot) != Wish::No;
        let right = match life.stage {
            LifeStage::Spawning => true,
            LifeStage::Starting { .. } | LifeStage::Ready { .. } => wanted && !life.hurry,
            LifeStage::Draining { .. } => !life.hurry,
            LifeStage::Ending { .. } => !life.hurry || life.killed,
        };
        hold(right, "unwanted lives end", || format!("worker {} {role:?} {life:?}", worker.0))?;
    }
    Ok(())
}
