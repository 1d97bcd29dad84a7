//! What will happen when, in order.

use std::collections::BTreeMap;

use supervisor_core::Timestamp;

/// A queue by time; things of one moment come in the order they were noted.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    entries: BTreeMap<(Timestamp, u64), T>,
    noted: u64,
}

impl<T> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: BTreeMap::new(), noted: 0 }
    }

    pub(crate) fn note(&mut self, at: Timestamp, thing: T) {
        self.entries.insert((at, self.noted), thing);
        self.noted += 1;
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.entries.pop_first().map(|(_, thing)| thing)
    }
}
