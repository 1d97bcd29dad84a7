//! Which event met which state.

use std::collections::BTreeMap;
use std::fmt;

use supervisor_core::{
    Action, AppId, AppSnapshot, Event, Notice, Order, Outcome, SlotId, Step, Supervisor, WorkerId,
};

/// How often each event met each state, over any number of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

const EVENTS: [&str; 10] = [
    "spawned",
    "spawn-failed",
    "ready",
    "unready",
    "leaving",
    "delayed",
    "drained",
    "memory",
    "hung",
    "exit",
];
const WORKERS: [&str; 8] =
    ["starting", "ready", "draining", "stopping", "starting beside", "ready beside", "ending beside", "gone"];
const ORDERS: [&str; 7] = ["declare", "start", "stop", "restart", "scale", "abort", "delete"];
const ENDS: [&str; 10] = [
    "done",
    "failed",
    "rolled-back",
    "aborted",
    "superseded",
    "refused",
    "switched",
    "reverted",
    "held",
    "all-switched",
];
const APPS: [&str; 9] =
    ["online", "degraded", "starting", "reloading", "stopping", "stopped", "errored", "none", "ending"];

impl Coverage {
    /// Counts an event before it is handled. `place` is the worker that it is
    /// about, and where it is, if it is alive.
    pub(crate) fn count(
        &mut self,
        supervisor: &Supervisor,
        ending: bool,
        event: &Event,
        place: Option<(WorkerId, SlotId)>,
    ) {
        let (state, event) = match event {
            Event::Ordered { app, order, .. } => (app_state(supervisor, ending, *app), order_name(order)),
            Event::WorkerSpawned(_) => (worker_state(supervisor, place), "spawned"),
            Event::SpawnFailed { .. } => (worker_state(supervisor, place), "spawn-failed"),
            Event::WorkerReady(_) => (worker_state(supervisor, place), "ready"),
            Event::WorkerUnready { .. } => (worker_state(supervisor, place), "unready"),
            Event::WorkerLeaving(_) => (worker_state(supervisor, place), "leaving"),
            Event::WorkerDelayed { .. } => (worker_state(supervisor, place), "delayed"),
            Event::WorkerDrained(_) => (worker_state(supervisor, place), "drained"),
            Event::MemoryExceeded { .. } => (worker_state(supervisor, place), "memory"),
            Event::WorkerHung { .. } => (worker_state(supervisor, place), "hung"),
            Event::WorkerExited { .. } => (worker_state(supervisor, place), "exit"),
            Event::TimePassed | Event::ShutdownOrdered { .. } => return,
        };
        *self.0.entry((state, event)).or_default() += 1;
    }

    /// Counts how operations end and what becomes of successors.
    pub(crate) fn count_action(&mut self, action: &Action) {
        let end = match action {
            Action::Finish(_, Outcome::Done) => "done",
            Action::Finish(_, Outcome::Failed(_)) => "failed",
            Action::Finish(_, Outcome::RolledBack(_)) => "rolled-back",
            Action::Finish(_, Outcome::Aborted) => "aborted",
            Action::Report(_, Step::Held(..)) => "held",
            Action::Report(_, Step::Switched(_)) => "all-switched",
            Action::Finish(_, Outcome::Superseded) => "superseded",
            Action::Finish(_, Outcome::Refused(_)) => "refused",
            Action::Announce(Notice::Switched(..)) => "switched",
            Action::Revert(_) => "reverted",
            Action::Open(_)
            | Action::Close(_)
            | Action::Rotate(..)
            | Action::Spawn { .. }
            | Action::Drain(_)
            | Action::Terminate(_)
            | Action::Abort(_)
            | Action::Kill(_)
            | Action::Forget(_)
            | Action::Report(_, Step::Introduced(_) | Step::Returning)
            | Action::Announce(_) => return,
        };
        *self.0.entry(("", end)).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (met, count) in &other.0 {
            *self.0.entry(*met).or_default() += count;
        }
    }

    /// Pairs that never met, as `state × event`.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let pairs = |states: &'static [&'static str], events: &'static [&'static str]| {
            states.iter().flat_map(|state| events.iter().map(|event| (*state, *event)))
        };
        pairs(&WORKERS, &EVENTS)
            .chain(pairs(&APPS, &ORDERS))
            .chain(pairs(&[""], &ENDS))
            .filter(|met| !self.0.contains_key(met))
            .map(|(state, event)| format!("{state} × {event}"))
            .collect()
    }

    fn table(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        states: &[&'static str],
        events: &[&'static str],
    ) -> fmt::Result {
        write!(f, "{title:<16}")?;
        for event in events {
            write!(f, "{event:>13}")?;
        }
        for state in states {
            write!(f, "\n{state:<16}")?;
            for event in events {
                write!(f, "{:>13}", self.0.get(&(*state, *event)).copied().unwrap_or(0))?;
            }
        }
        writeln!(f)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table(f, "worker", &WORKERS, &EVENTS)?;
        writeln!(f)?;
        self.table(f, "app", &APPS, &ORDERS)?;
        writeln!(f)?;
        self.table(f, "end", &[""], &ENDS)
    }
}

fn worker_state(supervisor: &Supervisor, place: Option<(WorkerId, SlotId)>) -> &'static str {
    let known = place.and_then(|(worker, slot)| Some((worker, slot, supervisor.app(slot.app)?)));
    known.and_then(|(worker, slot, app)| state_in(&app, worker, slot)).unwrap_or("gone")
}

fn state_in(app: &AppSnapshot, worker: WorkerId, slot: SlotId) -> Option<&'static str> {
    use supervisor_core::SlotState;
    let slot = app.slots.get(slot.index as usize)?;
    let own = slot.worker == Some(worker);
    let beside = slot.beside.filter(|beside| beside.worker == worker);
    let state = if own { Some(slot.state) } else { beside.map(|beside| beside.state) };
    Some(match (state?, own) {
        (SlotState::Starting, true) => "starting",
        (SlotState::Ready, true) => "ready",
        (SlotState::Draining, true) => "draining",
        (SlotState::Stopping, true) => "stopping",
        (SlotState::Starting, false) => "starting beside",
        (SlotState::Ready, false) => "ready beside",
        (SlotState::Draining | SlotState::Stopping, false) => "ending beside",
        (SlotState::Stopped | SlotState::Backoff | SlotState::Errored, _) => return None,
    })
}

fn app_state(supervisor: &Supervisor, ending: bool, app: AppId) -> &'static str {
    use supervisor_core::AppState;
    if ending {
        return "ending";
    }
    match supervisor.app(app).map(|app| app.state) {
        Some(AppState::Online) => "online",
        Some(AppState::Degraded) => "degraded",
        Some(AppState::Starting) => "starting",
        Some(AppState::Reloading) => "reloading",
        Some(AppState::Stopping) => "stopping",
        Some(AppState::Stopped) => "stopped",
        Some(AppState::Errored) => "errored",
        None => "none",
    }
}

const fn order_name(order: &Order) -> &'static str {
    match order {
        Order::Declare { .. } => "declare",
        Order::Start(_) => "start",
        Order::Stop { .. } => "stop",
        Order::Restart { .. } => "restart",
        Order::Scale { .. } => "scale",
        Order::Abort => "abort",
        Order::Delete { .. } => "delete",
    }
}
