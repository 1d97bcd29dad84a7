//! Which event met which state.

use std::collections::BTreeMap;
use std::fmt;

use supervisor_core::{
    Action, AppId, AppSnapshot, AppState, Event, Notice, Order, Outcome, SlotId, SlotState, Step, Supervisor,
    WorkerId,
};

use crate::witness::Witness;

/// How often each event met each state, over any number of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

const WORKER_EVENTS: [&str; 10] = [
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
const APP_EVENTS: [&str; 9] =
    ["declare", "start", "stop", "restart", "scale", "abort", "delete", "shutdown", "replaced"];
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

/// Pairs that cannot meet, each with the reason.
const NEVER: [(&str, &str, &str); 9] = [
    ("starting", "drained", NOT_DRAINING),
    ("starting beside", "drained", NOT_DRAINING),
    ("ready", "drained", NOT_DRAINING),
    ("ready beside", "drained", NOT_DRAINING),
    ("ready", "spawn-failed", IT_RUNS),
    ("draining", "spawn-failed", IT_RUNS),
    ("stopping", "spawn-failed", IT_RUNS),
    ("ready beside", "spawn-failed", IT_RUNS),
    ("ending beside", "spawn-failed", IT_RUNS),
];
const NOT_DRAINING: &str = "a drain is ordered of who is ready, and who drains is never ready again";
const IT_RUNS: &str = "a process that got that far is not one that could not be started";

fn why_never(state: &str, event: &str) -> Option<&'static str> {
    NEVER.iter().find(|pair| (pair.0, pair.1) == (state, event)).map(|(_, _, why)| *why)
}

impl Coverage {
    /// Counts an event before it is handled.
    pub(crate) fn count(&mut self, supervisor: &Supervisor, witness: &Witness, event: &Event) {
        let worker = |worker: WorkerId| worker_state(supervisor, witness, worker);
        let (state, event) = match event {
            Event::Ordered { app, order, .. } => (app_state(supervisor, witness, *app), order_name(order)),
            Event::WorkerSpawned(id) => (worker(*id), "spawned"),
            Event::SpawnFailed { worker: id, .. } => (worker(*id), "spawn-failed"),
            Event::WorkerReady(id) => (worker(*id), "ready"),
            Event::WorkerUnready { worker: id, .. } => (worker(*id), "unready"),
            Event::WorkerLeaving(id) => (worker(*id), "leaving"),
            Event::WorkerDelayed { worker: id, .. } => (worker(*id), "delayed"),
            Event::WorkerDrained(id) => (worker(*id), "drained"),
            Event::MemoryExceeded { worker: id, .. } => (worker(*id), "memory"),
            Event::WorkerHung { worker: id, .. } => (worker(*id), "hung"),
            Event::WorkerExited { worker: id, .. } => (worker(*id), "exit"),
            Event::ShutdownOrdered { .. } => return self.count_all(supervisor, witness, "shutdown"),
            // It meets every state there is, hundreds of times in a run.
            Event::TimePassed => return,
        };
        *self.0.entry((state, event)).or_default() += 1;
    }

    /// Counts that another master takes over.
    pub(crate) fn count_replaced(&mut self, supervisor: &Supervisor, witness: &Witness) {
        self.count_all(supervisor, witness, "replaced");
    }

    /// Counts what all apps meet.
    fn count_all(&mut self, supervisor: &Supervisor, witness: &Witness, event: &'static str) {
        for app in witness.apps.keys() {
            *self.0.entry((app_state(supervisor, witness, *app), event)).or_default() += 1;
        }
        if witness.apps.is_empty() {
            *self.0.entry(("none", event)).or_default() += 1;
        }
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

    /// Pairs that never met though nothing is known against it, as
    /// `state × event`. Over few runs there are always some.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.pairs(|met, possible| possible && !met)
    }

    /// Pairs that met though that is held to be impossible.
    #[must_use]
    pub fn surprising(&self) -> Vec<String> {
        self.pairs(|met, possible| met && !possible)
    }

    fn pairs(&self, wanted: impl Fn(bool, bool) -> bool) -> Vec<String> {
        let pairs = |states: &'static [&'static str], events: &'static [&'static str]| {
            states.iter().flat_map(|state| events.iter().map(|event| (*state, *event)))
        };
        pairs(&WORKERS, &WORKER_EVENTS)
            .chain(pairs(&APPS, &APP_EVENTS))
            .chain(pairs(&[""], &ENDS))
            .filter(|(state, event)| {
                wanted(self.0.contains_key(&(*state, *event)), why_never(state, event).is_none())
            })
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
        self.table(f, "worker", &WORKERS, &WORKER_EVENTS)?;
        writeln!(f)?;
        self.table(f, "app", &APPS, &APP_EVENTS)?;
        writeln!(f)?;
        self.table(f, "end", &[""], &ENDS)?;
        writeln!(f)?;
        for (state, event, why) in NEVER {
            writeln!(f, "never: {state} × {event}: {why}")?;
        }
        self.missing().iter().try_for_each(|pair| writeln!(f, "missing: {pair}"))
    }
}

fn worker_state(supervisor: &Supervisor, witness: &Witness, worker: WorkerId) -> &'static str {
    let slot = witness.slot_of(worker);
    let known = slot.and_then(|slot| Some((slot, supervisor.app(slot.app)?)));
    known.and_then(|(slot, app)| state_in(&app, worker, slot)).unwrap_or("gone")
}

fn state_in(app: &AppSnapshot, worker: WorkerId, slot: SlotId) -> Option<&'static str> {
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

fn app_state(supervisor: &Supervisor, witness: &Witness, app: AppId) -> &'static str {
    if witness.shutdown.is_some() {
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
