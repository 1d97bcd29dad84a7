//! `GET /v1/events`: what happens to apps and workers, one JSON object a line,
//! from the request on.

use serde::{Deserialize, Serialize};

use crate::control::{Change, Step, WorkerState};

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, as an RFC 3339 time in UTC.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Happening {
    /// Something is to become of an app: an order, or a reload by itself.
    App {
        /// The app's name.
        app: String,
        /// What becomes of it.
        change: Change,
        /// How many of its workers that is about.
        instances: u32,
        /// Why, when no person ordered it.
        reason: Option<String>,
    },
    /// A worker changed its state.
    Worker {
        /// The app's name.
        app: String,
        /// The slot.
        slot: u32,
        /// The worker's process; null without one.
        pid: Option<u32>,
        /// The slot's state from now on.
        state: WorkerState,
        /// What happened, in words.
        detail: String,
    },
    /// A reload is a step further.
    Step(Step),
    /// What was to become of an app did.
    Done {
        /// The app's name.
        app: String,
        /// What became of it.
        change: Change,
        /// The generation that it has.
        generation: u64,
        /// Whether the master that began it died, and the next one ended it.
        by_next_master: bool,
    },
    /// What was to become of an app did not.
    Failed {
        /// The app's name.
        app: String,
        /// The slot whose worker failed, where one did.
        slot: Option<u32>,
        /// The cause, in words.
        reason: String,
        /// Whether the app's workers are again those of the settings before.
        rolled_back: bool,
        /// Whether the master that began it died, and the next one ended it.
        #[serde(default)]
        by_next_master: bool,
    },
    /// Something about the daemon itself.
    Daemon {
        /// What happened, in words.
        detail: String,
    },
    /// The reader was too slow: this many events were left out here.
    Missed {
        /// How many.
        events: u64,
    },
}

impl Happening {
    /// The app that it is about, and the slot where it is about one.
    #[must_use]
    pub fn place(&self) -> Option<(&str, Option<u32>)> {
        match self {
            Self::App { app, .. } | Self::Step(Step { app, .. }) | Self::Done { app, .. } => {
                Some((app, None))
            }
            Self::Worker { app, slot, .. } => Some((app, Some(*slot))),
            Self::Failed { app, slot, .. } => Some((app, *slot)),
            Self::Daemon { .. } | Self::Missed { .. } => None,
        }
    }
}
