//! Whether a master hangs.

use std::time::{Duration, Instant};

/// A master that says nothing for this long hangs. It beats once a second.
const LONGEST: Duration = Duration::from_secs(10);
/// One that has not said anything yet may take this long.
const BEGINNING: Duration = Duration::from_secs(30);
/// A keeper that looks this much too late did not run itself: the machine or
/// the container stood still, and the master with it.
const LATE: Duration = Duration::from_secs(1);

/// How long a master may still be silent.
#[derive(Debug)]
pub(crate) struct Silence {
    over: Instant,
}

impl Silence {
    /// Of a master that has just been started.
    pub(crate) fn new(now: Instant) -> Self {
        Self { over: now + BEGINNING }
    }

    /// Notes a sign of life.
    pub(crate) fn broken(&mut self, now: Instant) {
        self.over = now + LONGEST;
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.over
    }

    /// Whether it has been too long. Everything that has come must have been
    /// taken into account.
    pub(crate) fn is_too_long(&mut self, now: Instant) -> bool {
        let late = now.saturating_duration_since(self.over);
        if late > LATE {
            self.over = now + LONGEST;
            return false;
        }
        now >= self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_counted_from_the_last_sign_of_life() {
        let begin = Instant::now();
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        let mut silence = Silence::new(begin);
        assert!(!silence.is_too_long(at(29.9)));
        assert!(silence.is_too_long(at(30.0)));
        silence.broken(at(5.0));
        assert!(!silence.is_too_long(at(14.9)));
        assert!(silence.is_too_long(at(15.0)));
        assert_eq!(silence.deadline(), at(15.0));
    }

    #[test]
    fn a_keeper_that_stood_still_gives_the_master_time() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut silence = Silence::new(begin);
        silence.broken(begin);
        assert!(!silence.is_too_long(at(600)));
        assert!(!silence.is_too_long(at(609)));
        assert!(silence.is_too_long(at(610)));
    }
}
