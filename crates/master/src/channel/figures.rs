//! What there is to tell of one worker's channel, for whoever asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use supervisor_protocol::channel::Change;
use supervisor_protocol::control::ChannelStatus;

/// Metrics that one worker may have.
const MAX_METRICS: usize = 128;

/// Shared between the thread that counts and those who look.
#[derive(Debug)]
pub(crate) struct Figures {
    open: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    queued: AtomicU64,
    metrics: Mutex<BTreeMap<String, f64>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            open: AtomicBool::new(true),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            refused: AtomicU64::default(),
            dropped: AtomicU64::default(),
            queued: AtomicU64::default(),
            metrics: Mutex::default(),
        }
    }
}

impl Figures {
    /// Messages of the worker that were read.
    pub(super) fn received(&self, messages: usize) {
        self.received.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Messages to the worker that have left.
    pub(super) fn sent(&self, messages: usize) {
        self.sent.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// A line of the worker that was not understood or too long.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages to the worker for which there was no room.
    pub(super) fn dropped(&self, messages: usize) {
        self.dropped.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// How many bytes wait for the worker.
    pub(super) fn queued(&self, bytes: usize) {
        self.queued.store(bytes as u64, Ordering::Relaxed);
    }

    /// The worker has closed its end.
    pub(super) fn closed(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// Changes metrics. Returns whether there was room for all of them.
    pub(super) fn change(&self, changes: BTreeMap<String, Change>) -> bool {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        for (name, change) in changes {
            if metrics.len() >= MAX_METRICS && !metrics.contains_key(&name) {
                all = false;
                continue;
            }
            let metric = metrics.entry(name).or_default();
            let value = match change {
                Change::Set(value) => value,
                Change::Add { add } => *metric + add,
            };
            // JSON has no other numbers.
            if value.is_finite() {
                *metric = value;
            }
        }
        all
    }

    /// Whether the worker can still be sent messages.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// For people.
    pub(crate) fn status(&self) -> ChannelStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ChannelStatus {
            open: self.is_open(),
            received: count(&self.received),
            sent: count(&self.sent),
            refused: count(&self.refused),
            dropped: count(&self.dropped),
            queued_bytes: count(&self.queued),
            metrics: self.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
