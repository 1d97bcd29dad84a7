//! What is known, as plain values for people and programs.

use alloc::vec::Vec;

use crate::app::App;
use crate::id::{Generation, Side, WorkerId};
use crate::slot::{Ending, Rest, Slot, Stage, Worker};
use crate::time::Timestamp;

/// One app at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSnapshot {
    /// What the app is doing.
    pub state: AppState,
    /// The generation of its settings.
    pub generation: Generation,
    /// Slots that should run.
    pub wanted: u32,
    /// Slots whose worker may take connections.
    pub ready: u32,
    /// Slots whose worker has a process.
    pub running: u32,
    /// Its slots, in order.
    pub slots: Vec<SlotSnapshot>,
}

/// What an app is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppState {
    /// Every wanted worker is ready.
    Online,
    /// Some wanted workers are ready, others are not.
    Degraded,
    /// None is ready yet.
    Starting,
    /// Workers are being replaced one after another.
    Reloading,
    /// Its workers are ending.
    Stopping,
    /// It has no worker and wants none.
    Stopped,
    /// None is ready, and at least one failed too often in a row.
    Errored,
}

/// One slot at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSnapshot {
    /// Who is in it.
    pub worker: Option<WorkerId>,
    /// The generation of its worker, or of the last one.
    pub generation: Generation,
    /// What it is doing.
    pub state: SlotState,
    /// When its worker's process was started.
    pub since: Option<Timestamp>,
    /// Automatic restarts since the app was declared, or since a person began to
    /// count anew.
    pub restarts: u64,
    /// When it is started next, if that is planned.
    pub next_start: Option<Timestamp>,
    /// How its last life ended.
    pub last_ending: Option<Ending>,
    /// Where its worker's sockets are.
    pub side: Side,
    /// How many new connections they get in relation to the others; `None`
    /// means none.
    pub weight: Option<u32>,
    /// Who is in it beside the worker.
    pub beside: Option<Beside>,
}

/// A successor that has to prove itself, or a retired worker that ends.
///
/// It sits in the other seat, unless it hangs and whoever comes next has its
/// sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// Who it is.
    pub worker: WorkerId,
    /// Where its sockets are.
    pub side: Side,
    /// The generation of its settings.
    pub generation: Generation,
    /// What it is doing.
    pub state: SlotState,
    /// When its process was started.
    pub since: Option<Timestamp>,
    /// As [`SlotSnapshot::weight`].
    pub weight: Option<u32>,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Its process is being started, or is not ready yet.
    Starting,
    /// It may take connections.
    Ready,
    /// It gets no new connections and takes those that wait for it.
    Draining,
    /// It was asked to end, or is ending.
    Stopping,
    /// No process, and none is wanted.
    Stopped,
    /// No process; the next start waits.
    Backoff,
    /// No process; it failed too often in a row.
    Errored,
}

impl AppSnapshot {
    pub(crate) fn of(app: &App) -> Self {
        let slots: Vec<_> =
            (0..).zip(&app.slots).map(|(index, slot)| SlotSnapshot::of(app, index, slot)).collect();
        // Slots are counted by a u32 (`App::instances`), so counts of them fit.
        let count = |what: &dyn Fn(&Slot) -> bool| {
            u32::try_from(app.slots.iter().filter(|s| what(s)).count()).unwrap_or(u32::MAX)
        };
        let wanted = count(&|slot| slot.wanted);
        let running =
            count(&|slot| slot.worker.as_ref().is_some_and(|worker| worker.stage != Stage::Spawning));
        let ready = count(&|slot| slot.wanted && slot.is_ready());
        let replacing = app.operation.as_ref().is_some_and(|operation| operation.stable);
        let errored = slots.iter().any(|slot| slot.state == SlotState::Errored);
        let state = if wanted == 0 {
            if running > 0 { AppState::Stopping } else { AppState::Stopped }
        } else if replacing {
            AppState::Reloading
        } else if ready == wanted {
            AppState::Online
        } else if ready > 0 {
            AppState::Degraded
        } else if errored {
            AppState::Errored
        } else {
            AppState::Starting
        };
        Self { state, generation: app.version.generation, wanted, ready, running, slots }
    }
}

impl SlotSnapshot {
    fn of(app: &App, index: u32, slot: &Slot) -> Self {
        let state = match (&slot.worker, slot.rest) {
            (Some(worker), _) => SlotState::of(worker),
            (None, Rest::Stopped) => SlotState::Stopped,
            (None, Rest::Due(_)) => SlotState::Backoff,
            (None, Rest::Errored) => SlotState::Errored,
        };
        let next_start = match (&slot.worker, slot.rest) {
            (None, Rest::Due(at)) => Some(at),
            (None, Rest::Errored) => app.probe_at,
            (None, Rest::Stopped) | (Some(_), _) => None,
        };
        Self {
            worker: slot.worker.as_ref().map(|worker| worker.id),
            generation: slot.worker.as_ref().map_or(slot.generation, |worker| worker.version.generation),
            state,
            since: slot.worker.as_deref().and_then(runs_since),
            restarts: slot.restarts,
            next_start,
            last_ending: slot.last_ending.clone(),
            side: slot.side,
            weight: app.weight(app.seat(index, slot.side)),
            beside: slot.successor.as_ref().or(slot.retired.as_ref()).map(|worker| Beside {
                worker: worker.id,
                side: worker.side,
                generation: worker.version.generation,
                state: SlotState::of(worker),
                since: runs_since(worker),
                // On the same sockets sits one that hangs.
                weight: app.weight(app.seat(index, worker.side)).filter(|_| worker.side != slot.side),
            }),
        }
    }
}

impl SlotState {
    const fn of(worker: &Worker) -> Self {
        match &worker.stage {
            Stage::Spawning | Stage::Starting { .. } => Self::Starting,
            Stage::Ready { .. } => Self::Ready,
            Stage::Draining { .. } => Self::Draining,
            Stage::Stopping { .. } => Self::Stopping,
        }
    }
}

/// When a worker's process was started, if it was.
fn runs_since(worker: &Worker) -> Option<Timestamp> {
    (worker.stage != Stage::Spawning).then_some(worker.since)
}
