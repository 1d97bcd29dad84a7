//! The settings that decisions depend on.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::Generation;

/// The part of an app's settings that the core needs. Programs, addresses and
/// users are the shell's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// When a worker counts as ready.
    pub ready: ReadyWhen,
    /// How long a worker may take to become ready.
    pub listen_timeout: Duration,
    /// A worker that has been ready for this long is stable.
    pub min_uptime: Duration,
    /// Unstable lives in a row after which a slot is errored.
    pub max_restarts: u32,
    /// The pause after the first unstable life.
    pub restart_delay: Duration,
    /// What each further unstable life multiplies the pause by, in hundredths;
    /// at least 100.
    pub restart_backoff_percent: u32,
    /// How often an errored app tries one slot; zero means never.
    pub breaker_retry: Duration,
    /// Whether a worker that ended by itself is started again.
    pub autorestart: bool,
    /// Exit codes after which a worker is not started again.
    pub stop_exit_codes: Vec<i32>,
    /// How long a worker that was asked to end may take.
    pub kill_timeout: Duration,
    /// Whether the workers have sockets of ours: then connections are steered,
    /// and a worker that makes room for others is drained before it is asked.
    pub listens: bool,
    /// How long draining a worker may take.
    pub drain_timeout: Duration,
    /// How many slots of an app may have a successor beside their worker at a
    /// time; with zero the worker ends before its successor starts.
    pub max_surge: u32,
    /// How workers of a new generation take the place of those that serve.
    pub reload: Reload,
}

/// How workers of a new generation take the place of those that serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// Slot by slot, `max_surge` at a time: each as soon as it has proved itself.
    Rolling,
    /// All at once, when all have proved themselves. Until then they get shares
    /// of the new connections, beside the old workers. Without a surge it is
    /// `Rolling`.
    Steps {
        /// In percent, ascending; the last one is 100. There are new workers for
        /// the same share of the slots.
        shares: Vec<u32>,
        /// How long each share but the last is kept.
        hold: Duration,
    },
}

/// An app's settings and the generation that they are.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) generation: Generation,
    pub(crate) policy: Rc<Policy>,
}

impl Version {
    pub(crate) fn new(generation: Generation, policy: Policy) -> Self {
        Self { generation, policy: Rc::new(policy) }
    }
}

/// When a worker counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyWhen {
    /// When it has lived for `min_uptime`.
    Started,
    /// When the shell reports [`Event::WorkerReady`](crate::Event::WorkerReady).
    Reported,
}
