//! Orders to the shell, in the imperative.

use alloc::vec::Vec;
use core::time::Duration;

use crate::event::Hang;
use crate::id::{AppId, Generation, OperationId, SeatId, SlotId, WorkerId};
use crate::slot::Ending;

/// Something that the shell must do; [`Supervisor::handle`](crate::Supervisor::handle)
/// tells in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let the seat's sockets listen. It is given for every slot of a new app
    /// before the first worker is spawned.
    Open(SeatId),
    /// Close the seat's sockets: it has no worker, and none is expected.
    Close(SeatId),
    /// Let these seats of an app get new connections, and no others: each as many
    /// as its weight, at least 1, says in relation to the others'. Sorted.
    Rotate(AppId, Vec<(SeatId, u32)>),
    /// Start a process. Answered by [`WorkerSpawned`](crate::Event::WorkerSpawned)
    /// or [`SpawnFailed`](crate::Event::SpawnFailed).
    Spawn {
        /// The life that begins.
        worker: WorkerId,
        /// Where.
        seat: SeatId,
        /// With which settings.
        generation: Generation,
    },
    /// Wait until a worker that gets no new connections has taken all that wait
    /// for it. Answered by [`WorkerDrained`](crate::Event::WorkerDrained).
    Drain(WorkerId),
    /// The app's settings are those of the generation before again.
    Revert(AppId),
    /// Ask a worker to end, by its app's signal.
    Terminate(WorkerId),
    /// Ask a worker that hangs to end, and to leave a core dump: `SIGABRT`.
    Abort(WorkerId),
    /// End a worker, its group and its descendants at once.
    Kill(WorkerId),
    /// Forget an app: it has no worker and no slot any more.
    Forget(AppId),
    /// Tell people of a worker.
    Announce(Notice),
    /// Tell people how far a reload is.
    Report(AppId, Step),
    /// An operation is over.
    Finish(OperationId, Outcome),
}

/// A step in a worker's life, for logs and for people who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A worker is being started.
    Starting(SlotId, WorkerId),
    /// A worker may take connections.
    Ready {
        /// Where.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// How long it took.
        after: Duration,
    },
    /// A successor has proved itself and serves in place of the slot's worker.
    Switched(SlotId, WorkerId),
    /// A worker gets no new connections and ends when it has taken those that
    /// wait for it.
    Draining(SlotId, WorkerId),
    /// A worker was asked to end, or said that it will.
    Stopping(SlotId, WorkerId),
    /// A worker hangs and is aborted.
    Hung {
        /// Where.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// How it was seen.
        hang: Hang,
        /// What becomes of the slot, unless that is decided when the worker has
        /// ended: somebody else is there beside it.
        next: Option<Next>,
    },
    /// A worker did not end in time and is killed.
    Killing(SlotId, WorkerId),
    /// A worker is gone.
    Ended {
        /// Where.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// How and why.
        ending: Ending,
        /// What becomes of the slot.
        next: Next,
    },
}

impl Notice {
    /// Whose step it is.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        match self {
            Self::Starting(_, worker)
            | Self::Ready { worker, .. }
            | Self::Switched(_, worker)
            | Self::Draining(_, worker)
            | Self::Stopping(_, worker)
            | Self::Hung { worker, .. }
            | Self::Killing(_, worker)
            | Self::Ended { worker, .. } => *worker,
        }
    }
}

/// How far a reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// New workers are started beside the old ones, for all slots or for some.
    Introduced(Portion),
    /// They have proved themselves and get their share of the new connections.
    Held(Portion, Duration),
    /// All have, and all take over at once.
    Switched(Portion),
    /// It is given up: the old workers get all new connections.
    Returning,
}

/// Some of the workers that a reload brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// The share of new connections that is for them, in percent.
    pub share: u32,
    /// How many they are.
    pub workers: u32,
    /// How many the reload brings in all.
    pub of: u32,
}

/// What becomes of a slot whose worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is started again at once.
    AtOnce,
    /// It is started again after a pause.
    After(Duration),
    /// It stays stopped.
    Stopped,
    /// It failed too often in a row. One of the app's errored slots is tried
    /// after this time, if ever.
    Errored(Option<Duration>),
    /// The one that was to be its successor is gone; its worker stays.
    Kept,
    /// Its successor serves.
    Replaced,
    /// Another answers its queue, and ends, too.
    Relieved,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What was ordered is so.
    Done,
    /// A worker that it was waiting for failed. The supervisor goes on trying.
    Failed(Failure),
    /// A worker of a new generation failed, and the generation before serves
    /// again.
    RolledBack(Failure),
    /// An order ended it, and the generation before serves again.
    Aborted,
    /// It was not begun.
    Refused(Refusal),
    /// A later order took its place.
    Superseded,
}

/// The life whose end an operation failed of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose worker.
    pub slot: SlotId,
    /// Which worker.
    pub worker: WorkerId,
    /// How and why it ended.
    pub ending: Ending,
}

/// Why an order was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such app.
    NoSuchApp,
    /// None of the slots exists.
    NoSuchSlot,
    /// Another operation on the app is under way.
    Busy,
    /// There is no reload to abort.
    NoReload,
    /// The reload goes back already.
    Returning,
    /// The supervisor is ending.
    ShuttingDown,
}
