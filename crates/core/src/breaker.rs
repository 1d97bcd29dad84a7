//! The breaker of an app: slots that failed too often wait, and one of them is
//! tried from time to time.

use crate::app::App;
use crate::slot::{Rest, Slot};
use crate::time::Timestamp;

impl App {
    /// Tries one errored slot at a time, every `breaker_retry`. They take turns,
    /// in case one of them fails for a reason of its own.
    pub(crate) fn probe(&mut self, now: Timestamp) {
        let policy = &self.version.policy;
        let errored = |slot: &Slot| slot.wanted && slot.worker.is_none() && slot.rest == Rest::Errored;
        let probing =
            |slot: &Slot| slot.wanted && slot.streak >= policy.max_restarts.max(1) && !errored(slot);
        if policy.breaker_retry.is_zero() || !self.slots.iter().any(errored) || self.slots.iter().any(probing)
        {
            self.probe_at = None;
            return;
        }
        let at = *self.probe_at.get_or_insert(now + policy.breaker_retry);
        if at <= now
            && let Some(slot) = self
                .slots
                .iter_mut()
                .filter(|slot| errored(slot))
                .min_by_key(|slot| slot.last_ending.as_ref().map(|ending| ending.at))
        {
            slot.restarts += 1;
            slot.rest = Rest::Due(now);
            self.probe_at = None;
        }
    }
}
