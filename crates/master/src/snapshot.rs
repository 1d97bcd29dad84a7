//! What people and programs are told: the core's view, with pids, samples and
//! addresses added.

use supervisor_config::{ExecMode, ListenAddress};
use supervisor_core::{
    AppSnapshot, AppState, Generation, SeatId, SlotId, SlotSnapshot, SlotState, Slots, Timestamp, WorkerId,
};
use supervisor_protocol::control::{
    self, AppStatus, Instances, LastExit, Listener, OrderOutcome, Origin, WorkerState, WorkerStatus,
};
use supervisor_sys::signal::Signal;
use tokio::sync::watch;

use crate::listeners::Listeners;
use crate::output::Output;
use crate::registry::Entry;
use crate::sampler::Samples;
use crate::settings::address_text;
use crate::workers::Workers;
use crate::{clock, words};

/// Where the facts beside the core's are.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) now: Timestamp,
    pub(crate) workers: &'a Workers,
    pub(crate) listeners: &'a Listeners,
    pub(crate) samples: watch::Ref<'a, Samples>,
    pub(crate) output: &'a Output,
}

/// An app's status, with the selected slots.
pub(crate) fn app(entry: &Entry, app: &AppSnapshot, slots: &Slots, facts: &Facts<'_>) -> AppStatus {
    let settings = &entry.settings.app;
    let workers: Vec<WorkerStatus> = (0..)
        .zip(&app.slots)
        .filter(|(index, _)| slots.contains(*index))
        .flat_map(|(index, slot)| workers(&settings.name, SlotId { app: entry.id, index }, slot, facts))
        .collect();
    AppStatus {
        name: settings.name.clone(),
        namespace: settings.namespace.clone(),
        state: app_state(app.state),
        reason: reason(app, facts.now).or_else(|| aftermath(entry)),
        exec_mode: match settings.exec_mode {
            ExecMode::Cluster => "cluster".to_owned(),
            ExecMode::Fork => "fork".to_owned(),
        },
        generation: app.generation.0,
        instances: Instances { wanted: app.wanted, ready: app.ready, running: app.running },
        restarts: app.slots.iter().map(|slot| slot.restarts).sum(),
        listeners: settings
            .listen
            .iter()
            .map(|address| (address, Origin::Declared))
            .chain(facts.listeners.captured(entry.id).into_iter().map(|address| (address, Origin::Captured)))
            .map(|(address, origin)| listener(&settings.name, address, origin, facts.listeners))
            .collect(),
        workers,
        last_order: entry.last_order.clone(),
    }
}

/// Why an app is not as it should be: the latest ending of a slot that is not
/// ready.
fn reason(app: &AppSnapshot, now: Timestamp) -> Option<String> {
    if !matches!(app.state, AppState::Errored | AppState::Degraded | AppState::Starting) {
        return None;
    }
    let endings = app
        .slots
        .iter()
        .filter(|slot| slot.state != SlotState::Ready)
        .filter_map(|slot| slot.last_ending.as_ref());
    let failures = endings.filter(|ending| ending.cause != supervisor_core::Cause::Asked);
    let latest = failures.min_by_key(|ending| now.since(ending.at))?;
    Some(words::ending(latest))
}

/// What the app's last order came to when its master had died, and nobody may
/// have heard of it.
fn aftermath(entry: &Entry) -> Option<String> {
    let last = entry.last_order.as_ref().filter(|last| last.by_next_master)?;
    let reason = last.reason.as_ref()?;
    let outcome = if last.outcome == OrderOutcome::RolledBack { "rolled back" } else { "given up" };
    let order = words::order(last.change, last.generation);
    Some(format!("{order} was {outcome} by the next master: {reason}"))
}

/// A slot's worker, or what the slot is without one; then the worker beside it,
/// if there is one.
fn workers(app: &str, slot: SlotId, snapshot: &SlotSnapshot, facts: &Facts<'_>) -> Vec<WorkerStatus> {
    let seat = SeatId { slot, side: snapshot.side };
    let worker = WorkerStatus {
        restarts: snapshot.restarts,
        in_rotation: snapshot.weight.is_some(),
        next_start_s: snapshot.next_start.map(|at| seconds(at.since(facts.now))),
        last_exit: snapshot.last_ending.as_ref().map(|ending| {
            let (code, signal) = match ending.exit {
                Some(supervisor_core::Exit::Code(code)) => (Some(code), None),
                Some(supervisor_core::Exit::Signal(number)) => (None, Some(words::signal(number))),
                Some(supervisor_core::Exit::OutOfMemory { .. }) => (None, Some(Signal::KILL.to_string())),
                Some(supervisor_core::Exit::Unknown) | None => (None, None),
            };
            LastExit { code, signal, reason: words::ending(ending), at: clock::rfc3339(ending.at, facts.now) }
        }),
        weight: facts.listeners.weight(app, seat),
        ..occupant(seat, snapshot.worker, snapshot.generation, snapshot.state, snapshot.since, facts)
    };
    let beside = snapshot.beside.map(|beside| {
        let seat = SeatId { slot, side: beside.side };
        WorkerStatus {
            in_rotation: beside.weight.is_some(),
            weight: facts.listeners.weight(app, seat),
            ..occupant(seat, Some(beside.worker), beside.generation, beside.state, beside.since, facts)
        }
    });
    [Some(worker), beside].into_iter().flatten().collect()
}

/// Who is in a seat.
fn occupant(
    seat: SeatId,
    worker: Option<WorkerId>,
    generation: Generation,
    state: SlotState,
    since: Option<Timestamp>,
    facts: &Facts<'_>,
) -> WorkerStatus {
    let process = worker.and_then(|id| facts.workers.get(id));
    let sample = worker.and_then(|id| facts.samples.get(&id)).copied().unwrap_or_default();
    WorkerStatus {
        slot: seat.slot.index,
        id: worker.map(|id| id.0),
        pid: process.map(|process| process.pid.as_raw_pid().unsigned_abs()),
        generation: generation.0,
        state: worker_state(state),
        uptime_s: since.map(|since| seconds(facts.now.since(since))),
        restarts: 0,
        cpu_percent: sample.cpu_percent,
        memory_bytes: sample.memory,
        pss_bytes: sample.pss,
        queue: facts.listeners.queue(seat),
        in_rotation: false,
        weight: None,
        dropped_log_bytes: worker.map_or(0, |id| facts.output.dropped(id)),
        channel: process.and_then(|process| process.channel.as_ref()).map(|figures| figures.status()),
        cgroup: process.and_then(|process| process.cgroup.as_ref()).map(|own| own.path()),
        message: process.and_then(|process| process.message.clone()),
        next_start_s: None,
        last_exit: None,
    }
}

/// Milliseconds are enough for people and keep the JSON short.
fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn listener(app: &str, address: &ListenAddress, origin: Origin, listeners: &Listeners) -> Listener {
    let policy = listeners.policy(app, address);
    Listener { address: address_text(address), origin, policy: policy.to_owned() }
}

const fn app_state(state: AppState) -> control::AppState {
    match state {
        AppState::Online => control::AppState::Online,
        AppState::Degraded => control::AppState::Degraded,
        AppState::Starting => control::AppState::Starting,
        AppState::Reloading => control::AppState::Reloading,
        AppState::Stopping => control::AppState::Stopping,
        AppState::Stopped => control::AppState::Stopped,
        AppState::Errored => control::AppState::Errored,
    }
}

const fn worker_state(state: SlotState) -> WorkerState {
    match state {
        SlotState::Starting => WorkerState::Starting,
        SlotState::Ready => WorkerState::Ready,
        SlotState::Draining => WorkerState::Draining,
        SlotState::Stopping => WorkerState::Stopping,
        SlotState::Stopped => WorkerState::Stopped,
        SlotState::Backoff => WorkerState::Backoff,
        SlotState::Errored => WorkerState::Errored,
    }
}
