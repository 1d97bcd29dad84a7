//! Requests to end, when there may be no master to obey them.

use std::time::{Duration, Instant};

/// A second request counts only this long after the first: one Ctrl-C may
/// arrive twice.
const ECHO: Duration = Duration::from_secs(1);
/// How long a request waits for a master that serves.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether everything is to end, and who sees to it.
///
/// A master that serves does, in its own time. Without one the request waits
/// for the next; the keeper acts alone when it is asked again, or has waited
/// too long.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    asked: Option<Instant>,
}

impl Ending {
    /// Whether somebody has asked: every new master must hear of it.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Notes a request. Returns whether the keeper must end everything itself.
    pub(crate) fn ask(&mut self, now: Instant, served: bool) -> bool {
        let first = *self.asked.get_or_insert(now);
        !served && now.saturating_duration_since(first) >= ECHO
    }

    /// When the keeper must end everything itself, if no master has served
    /// since then.
    pub(crate) fn deadline(&self, unserved_since: Option<Instant>) -> Option<Instant> {
        Some(self.asked?.max(unserved_since?) + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_master_that_serves_decides() {
        let begin = Instant::now();
        let mut ending = Ending::default();
        assert!(!ending.is_asked());
        for seconds in [0.0, 2.0, 200.0] {
            assert!(!ending.ask(begin + after(seconds), true));
        }
        assert!(ending.is_asked());
        assert_eq!(ending.deadline(None), None);
    }

    #[test]
    fn without_one_the_second_request_counts() {
        let begin = Instant::now();
        let mut ending = Ending::default();
        assert!(!ending.ask(begin, false));
        assert!(!ending.ask(begin + after(0.9), false), "an echo");
        assert!(ending.ask(begin + after(1.0), false));
    }

    #[test]
    fn without_one_patience_ends() {
        let begin = Instant::now();
        let mut ending = Ending::default();
        assert_eq!(ending.deadline(Some(begin)), None);
        ending.ask(begin + after(5.0), false);
        assert_eq!(ending.deadline(Some(begin)), Some(begin + after(95.0)));
        // A master that served in between had its own time.
        assert_eq!(ending.deadline(Some(begin + after(50.0))), Some(begin + after(140.0)));
    }
}
