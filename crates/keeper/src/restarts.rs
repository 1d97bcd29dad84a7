//! When the next master comes.

use std::time::Duration;

/// Masters in a row that may fail to serve before there are pauses.
const FREE: u32 = 3;
/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(15);

/// When the next master comes.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// Masters in a row that never served.
    failures: u32,
}

impl Restarts {
    /// The pause after a master has ended: none for one that had served, and
    /// for the first ones that had not.
    pub(crate) fn after(&mut self, served: bool) -> Duration {
        self.failures = if served { 0 } else { self.failures.saturating_add(1) };
        match self.failures.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => FIRST.saturating_mul(2_u32.saturating_pow(more)).min(LONGEST),
        }
    }

    /// The pause after a master that could not even be started. Never none:
    /// what was missing is not there at once.
    pub(crate) fn after_no_start(&mut self) -> Duration {
        self.after(false).max(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_that_served_is_replaced_at_once() {
        let mut restarts = Restarts::default();
        for _ in 0..1000 {
            assert_eq!(restarts.after(true), Duration::ZERO);
        }
    }

    #[test]
    fn masters_that_never_serve_are_slowed_down() {
        let mut restarts = Restarts::default();
        let pauses: Vec<u128> = (0..6).map(|_| restarts.after(false).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800]);
        for _ in 0..100 {
            restarts.after(false);
        }
        assert_eq!(restarts.after(false), LONGEST);
        assert_eq!(restarts.after(true), Duration::ZERO);
        assert_eq!(restarts.after(false), Duration::ZERO);
    }

    #[test]
    fn what_cannot_be_started_is_never_tried_at_once() {
        let mut restarts = Restarts::default();
        let pauses: Vec<u128> = (0..5).map(|_| restarts.after_no_start().as_millis()).collect();
        assert_eq!(pauses, [100, 100, 100, 200, 400]);
    }
}
