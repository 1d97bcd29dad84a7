//! Which event met which state.

use std::collections::BTreeMap;
use std::fmt;

use supervisor_core::{AppId, Event, Order, SlotId, Supervisor};

/// How often each event met each state, over any number of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

const EVENTS: [&str; 8] =
    ["spawned", "spawn-failed", "ready", "leaving", "delayed", "drained", "memory", "exit"];
const SLOTS: [&str; 5] = ["starting", "ready", "draining", "stopping", "gone"];
const ORDERS: [&str; 6] = ["declare", "start", "stop", "restart", "scale", "delete"];
const APPS: [&str; 9] =
    ["online", "degraded", "starting", "reloading", "stopping", "stopped", "errored", "none", "ending"];

impl Coverage {
    /// Counts an event before it is handled. `place` is where the worker is
    /// that it is about, if it is alive.
    pub(crate) fn count(
        &mut self,
        supervisor: &Supervisor,
        ending: bool,
        event: &Event,
        place: Option<SlotId>,
    ) {
        let (state, event) = match event {
            Event::Ordered { app, order, .. } => (app_state(supervisor, ending, *app), order_name(order)),
            Event::WorkerSpawned(_) => (slot_state(supervisor, place), "spawned"),
            Event::SpawnFailed { .. } => (slot_state(supervisor, place), "spawn-failed"),
            Event::WorkerReady(_) => (slot_state(supervisor, place), "ready"),
            Event::WorkerLeaving(_) => (slot_state(supervisor, place), "leaving"),
            Event::WorkerDelayed { .. } => (slot_state(supervisor, place), "delayed"),
            Event::WorkerDrained(_) => (slot_state(supervisor, place), "drained"),
            Event::MemoryExceeded { .. } => (slot_state(supervisor, place), "memory"),
            Event::WorkerExited { .. } => (slot_state(supervisor, place), "exit"),
            Event::TimePassed | Event::ShutdownOrdered { .. } => return,
        };
        *self.0.entry((state, event)).or_default() += 1;
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
        pairs(&SLOTS, &EVENTS)
            .chain(pairs(&APPS, &ORDERS))
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
        write!(f, "{title:<12}")?;
        for event in events {
            write!(f, "{event:>13}")?;
        }
        for state in states {
            write!(f, "\n{state:<12}")?;
            for event in events {
                write!(f, "{:>13}", self.0.get(&(*state, *event)).copied().unwrap_or(0))?;
            }
        }
        writeln!(f)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table(f, "worker", &SLOTS, &EVENTS)?;
        writeln!(f)?;
        self.table(f, "app", &APPS, &ORDERS)
    }
}

fn slot_state(supervisor: &Supervisor, place: Option<SlotId>) -> &'static str {
    use supervisor_core::SlotState;
    let state = place
        .and_then(|place| Some((supervisor.app(place.app)?, place.index as usize)))
        .and_then(|(app, index)| app.slots.get(index).map(|slot| slot.state));
    match state {
        Some(SlotState::Starting) => "starting",
        Some(SlotState::Ready) => "ready",
        Some(SlotState::Draining) => "draining",
        Some(SlotState::Stopping) => "stopping",
        Some(SlotState::Stopped | SlotState::Backoff | SlotState::Errored) | None => "gone",
    }
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
        Order::Delete { .. } => "delete",
    }
}
