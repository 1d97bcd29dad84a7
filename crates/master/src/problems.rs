//! What does not work at this moment, though the daemon goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What can fail for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The daemon's own log.
    Log,
    /// The state file.
    State,
    /// The control socket.
    Control,
    /// The keeper's table.
    Table,
}

/// What does not work, in words: each thing at most once. Whoever tries it
/// notes how it went; `status` tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems(Arc<Mutex<BTreeMap<About, String>>>);

impl Problems {
    /// Notes that something does not work. Returns whether that is new.
    pub(crate) fn note(&self, about: About, words: String) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(about, words).is_none()
    }

    /// Notes that it works. Returns whether that is new.
    pub(crate) fn solve(&self, about: About) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&about).is_some()
    }

    /// Whether something does not work.
    pub(crate) fn has(&self, about: About) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&about)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
