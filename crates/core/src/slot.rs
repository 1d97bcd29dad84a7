//! A slot and the worker in it.
//!
//! ```text
//!            spawn                spawned             ready
//!   rest ─────────────► Spawning ─────────► Starting ───────► Ready
//!    ▲                     │ failed            │ exit, too late │ exit, stop
//!    │                     ▼                   ▼                ▼
//!    └──────────────────────────── ended ◄──────────────── Stopping
//! ```
//!
//! What a slot *wants* is one field, what it *has* another; what a slot without
//! a worker waits for is [`Rest`].

use alloc::string::String;
use core::time::Duration;

use crate::event::Exit;
use crate::id::{Generation, WorkerId};
use crate::time::Timestamp;

/// One place of an app.
#[derive(Debug)]
pub(crate) struct Slot {
    /// A person wants it to run.
    pub(crate) wanted: bool,
    /// Its sockets listen, as far as orders were given.
    pub(crate) open: bool,
    /// Its worker is outdated and must make room for a new one.
    pub(crate) recycle: bool,
    /// Its worker is to be killed instead of asked.
    pub(crate) hurry: bool,
    /// Who is in it.
    pub(crate) worker: Option<Worker>,
    /// What it waits for while nobody is.
    pub(crate) rest: Rest,
    /// Unstable lives in a row.
    pub(crate) streak: u32,
    /// Automatic restarts since the app was declared.
    pub(crate) restarts: u64,
    /// The generation of its worker, or of the last one.
    pub(crate) generation: Generation,
    /// How its last life ended.
    pub(crate) last_ending: Option<Ending>,
}

/// What a slot without a worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// For a person.
    Stopped,
    /// For this moment.
    Due(Timestamp),
    /// For the app's next try, or for a person.
    Errored,
}

/// One life of one process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    /// When its process began to run; when it was ordered, before that.
    pub(crate) since: Timestamp,
    pub(crate) stage: Stage,
}

/// How far a worker's life has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Ordered; the outcome is not known yet.
    Spawning,
    /// It runs. At the deadline it counts as ready (`ready: started`) or as
    /// failed (otherwise).
    Starting { deadline: Timestamp },
    /// It may take connections. `stable_at` is `None` once it is stable.
    Ready { stable_at: Option<Timestamp> },
    /// It was asked to end, or said that it will; killed at `kill_at`.
    Stopping { cause: Cause, kill_at: Option<Timestamp>, stable: bool },
}

/// How and why a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How the process ended; `None` when there never was one.
    pub exit: Option<Exit>,
    /// Why.
    pub cause: Cause,
    /// When.
    pub at: Timestamp,
    /// How long the process ran.
    pub uptime: Duration,
}

/// Why a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It ended by itself, or somebody else ended it.
    Itself,
    /// It was asked to end by an order.
    Asked,
    /// It was asked to end because it was not ready in time.
    NotReady(Duration),
    /// Its process could not be started: the stage and the cause in words.
    NotStarted(String),
}

impl Slot {
    pub(crate) const fn new(generation: Generation) -> Self {
        Self {
            wanted: false,
            open: false,
            recycle: false,
            hurry: false,
            worker: None,
            rest: Rest::Stopped,
            streak: 0,
            restarts: 0,
            generation,
            last_ending: None,
        }
    }

    /// Wants it to run, its failures forgiven; without a worker it is due now.
    pub(crate) fn want_now(&mut self, now: Timestamp) {
        self.wanted = true;
        self.streak = 0;
        if self.worker.is_none() {
            self.rest = Rest::Due(now);
        }
    }

    /// Whether its worker may take connections and is to stay.
    pub(crate) fn is_ready(&self) -> bool {
        !self.recycle && matches!(self.worker, Some(Worker { stage: Stage::Ready { .. }, .. }))
    }

    /// Whether its worker is ready, is to stay, and has proved itself.
    pub(crate) fn is_stable(&self) -> bool {
        !self.recycle && matches!(self.worker, Some(Worker { stage: Stage::Ready { stable_at: None }, .. }))
    }
}

impl Worker {
    /// Whether it has lived long enough, as a ready worker, to count as stable.
    pub(crate) fn was_stable(&self, now: Timestamp) -> bool {
        match &self.stage {
            Stage::Spawning | Stage::Starting { .. } => false,
            Stage::Ready { stable_at } => stable_at.is_none_or(|at| at <= now),
            Stage::Stopping { stable, .. } => *stable,
        }
    }
}
