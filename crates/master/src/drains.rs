//! Workers that get no new connections: when have they taken those that wait?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use supervisor_core::WorkerId;

/// How often queues are looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long queues must have been empty: a handshake that began before the
/// worker was taken out of the rotation still ends in its queue.
const QUIET: Duration = Duration::from_millis(200);

/// The workers that are being drained.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    /// Since when nothing was seen waiting for each of them.
    quiet_since: BTreeMap<WorkerId, Instant>,
    look_at: Option<Instant>,
}

impl Drains {
    /// Begins to look after a worker.
    pub(crate) fn add(&mut self, worker: WorkerId) {
        let now = Instant::now();
        self.quiet_since.insert(worker, now);
        self.look_at.get_or_insert(now + PAUSE);
    }

    /// When [`Self::look`] must be called.
    pub(crate) const fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks at the queues; `waiting` tells whether anything waits for a worker,
    /// and `None` for one that is gone. Returns those that are drained.
    pub(crate) fn look(&mut self, waiting: impl Fn(WorkerId) -> Option<bool>) -> Vec<WorkerId> {
        let now = Instant::now();
        let mut drained = Vec::new();
        self.quiet_since.retain(|worker, since| match waiting(*worker) {
            None => false,
            Some(true) => {
                *since = now;
                true
            }
            Some(false) if now.duration_since(*since) < QUIET => true,
            Some(false) => {
                drained.push(*worker);
                false
            }
        });
        self.look_at = (!self.quiet_since.is_empty()).then_some(now + PAUSE);
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_must_stay_empty() {
        let (busy, gone) = (WorkerId(1), WorkerId(2));
        let mut drains = Drains::default();
        assert_eq!(drains.next_look(), None);
        drains.add(busy);
        drains.add(gone);
        let look = |drains: &mut Drains, waits| drains.look(|worker| (worker == busy).then_some(waits));
        assert_eq!(look(&mut drains, true), []);
        assert_eq!(look(&mut drains, false), []);
        let ago = |drains: &mut Drains| {
            drains.quiet_since.insert(busy, Instant::now().checked_sub(QUIET).unwrap());
        };
        ago(&mut drains);
        assert_eq!(look(&mut drains, true), []);
        ago(&mut drains);
        assert_eq!(look(&mut drains, false), [busy]);
        assert_eq!(drains.next_look(), None);
    }
}
