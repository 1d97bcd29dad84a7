//! Facts, in the past tense. They carry values, never handles.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::time::Duration;

use crate::id::{AppId, Generation, OperationId, WorkerId};
use crate::policy::Policy;

/// Something that happened.
///
/// News of a worker that is already forgotten is normal (two facts can cross)
/// and is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Event {
    /// A person gave an order for one app. Its result is an
    /// [`Action::Finish`](crate::Action::Finish) with the same id.
    Ordered {
        /// The id to answer with.
        operation: OperationId,
        /// The app that it is about.
        app: AppId,
        /// What to do.
        order: Order,
    },
    /// A worker's process runs its program now.
    WorkerSpawned(WorkerId),
    /// A worker's process could not be started.
    SpawnFailed {
        /// The worker that never was.
        worker: WorkerId,
        /// The stage and the cause, in words.
        detail: String,
    },
    /// A worker said that it may take connections.
    WorkerReady(WorkerId),
    /// A worker was looked at that is not ready yet.
    WorkerUnready {
        /// Who.
        worker: WorkerId,
        /// What it lacks, in words.
        lacks: String,
    },
    /// A worker said that it is about to end by its own choice.
    WorkerLeaving(WorkerId),
    /// A worker asked for more time to become ready or to end.
    WorkerDelayed {
        /// Who asked.
        worker: WorkerId,
        /// How much time it wants from now on.
        by: Duration,
    },
    /// Nothing waits for a worker any more that is being drained.
    WorkerDrained(WorkerId),
    /// A worker's processes use more memory than they may.
    MemoryExceeded {
        /// Whose they are.
        worker: WorkerId,
        /// How much they use, in bytes.
        used: u64,
        /// How much they may use, in bytes.
        limit: u64,
        /// It is to be killed instead of replaced.
        hard: bool,
    },
    /// A worker that was ready does nothing any more.
    WorkerHung {
        /// Who.
        worker: WorkerId,
        /// How that was seen.
        hang: Hang,
    },
    /// A worker's process and what was left of its group are gone.
    WorkerExited {
        /// Who ended.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// The deadline that was asked for has come.
    TimePassed,
    /// Everything is to end, and no order is taken any more.
    ShutdownOrdered {
        /// Kill instead of asking.
        now: bool,
    },
}

/// How it was seen that a worker does nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// It has taken no connection from its queue for so long.
    Queue(Duration),
    /// It has not said for so long that it is alive, as it was to.
    Watchdog(Duration),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel killed it, because there was no memory left for it.
    OutOfMemory {
        /// Its own limit in bytes, if it was that which it had reached.
        limit: Option<u64>,
    },
    /// Nobody can tell any more.
    Unknown,
}

/// What a person wants of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The app should exist with these settings.
    Declare {
        /// Which version of its settings these are. Running workers of an
        /// earlier one are replaced, and if one of the new ones fails,
        /// everything goes back.
        generation: Generation,
        /// Its settings.
        policy: Policy,
        /// Its number of workers.
        instances: u32,
        /// The slots that should run. The others are left as they are.
        start: Slots,
    },
    /// The slots should run.
    Start(Slots),
    /// The slots should not run.
    Stop {
        /// Which ones.
        slots: Slots,
        /// Kill instead of asking.
        now: bool,
    },
    /// The slots should get a new worker each.
    Restart {
        /// Which ones.
        slots: Slots,
        /// All at once instead of one after another.
        now: bool,
    },
    /// The app should have another number of slots.
    Scale {
        /// How many.
        instances: u32,
        /// Which of the new ones should run.
        start: Slots,
    },
    /// The reload that is under way should go back. It is done when the
    /// generation before serves alone.
    Abort,
    /// The app should end and be forgotten.
    Delete {
        /// Kill instead of asking.
        now: bool,
    },
}

/// Some of an app's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slots {
    /// Every one.
    All,
    /// These; the ones that do not exist are ignored.
    Only(BTreeSet<u32>),
}

impl Slots {
    /// Whether the slot is among them.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(indexes) => indexes.contains(&index),
        }
    }
}
