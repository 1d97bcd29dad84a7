//! When the next master comes, and of which kind.

use std::time::{Duration, Instant};

/// Masters in a row that may fail to serve before there are pauses.
const FREE: u32 = 3;
/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(15);
/// This long after the first failure the pauses are spent in safe mode.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long safe mode takes before an ordinary master is tried again: at first,
/// then twice as long each time.
const FIRST_SAFE: Duration = Duration::from_secs(5);
const LONGEST_SAFE: Duration = Duration::from_secs(60);

/// What comes after a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// An ordinary one, after a pause.
    Ordinary(Duration),
    /// One in safe mode, at once, that leaves after this time.
    Safe(Duration),
}

/// How a master has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It had served.
    Served,
    /// It had not come so far.
    Failed,
    /// It was in safe mode, and has left to make room for an ordinary one.
    Left,
    /// It was in safe mode, and died.
    Died,
}

/// When the next master comes.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// Ordinary masters in a row that never served.
    failures: u32,
    /// When the first of them ended.
    since: Option<Instant>,
    /// How often safe mode came between them.
    rounds: u32,
}

impl Restarts {
    /// What comes next. One that had served is replaced at once, however often;
    /// so are the first ones that had not.
    pub(crate) fn after(&mut self, ended: Ended, now: Instant) -> Next {
        match ended {
            Ended::Served => {
                *self = Self::default();
                Next::Ordinary(Duration::ZERO)
            }
            Ended::Failed => {
                self.failures = self.failures.saturating_add(1);
                let since = *self.since.get_or_insert(now);
                if self.failures < FREE || now.saturating_duration_since(since) < PATIENCE {
                    return Next::Ordinary(self.pause());
                }
                self.rounds = self.rounds.saturating_add(1);
                Next::Safe(doubled(FIRST_SAFE, self.rounds - 1).min(LONGEST_SAFE))
            }
            Ended::Left => Next::Ordinary(Duration::ZERO),
            // Never at once: the two must not chase each other.
            Ended::Died => Next::Ordinary(PATIENCE),
        }
    }

    /// Masters in a row that never served.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after a master that could not even be started. Never none:
    /// what was missing is not there at once.
    pub(crate) fn after_no_start(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.pause().max(FIRST)
    }

    fn pause(&self) -> Duration {
        self.failures.checked_sub(FREE).map_or(Duration::ZERO, |more| doubled(FIRST, more).min(LONGEST))
    }
}

fn doubled(duration: Duration, times: u32) -> Duration {
    duration.saturating_mul(2_u32.saturating_pow(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Restarts, and a clock.
    struct Bench {
        restarts: Restarts,
        begin: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { restarts: Restarts::default(), begin: Instant::now() }
        }

        fn after(&mut self, ended: Ended, ms: u64) -> Next {
            self.restarts.after(ended, self.begin + Duration::from_millis(ms))
        }

        /// What follows failures at these milliseconds.
        fn failed<const N: usize>(&mut self, at: [u64; N]) -> [Next; N] {
            at.map(|ms| self.after(Ended::Failed, ms))
        }
    }

    fn ordinary(ms: u64) -> Next {
        Next::Ordinary(Duration::from_millis(ms))
    }

    fn safe(seconds: u64) -> Next {
        Next::Safe(Duration::from_secs(seconds))
    }

    #[test]
    fn a_master_that_served_is_replaced_at_once() {
        let mut bench = Bench::new();
        for _ in 0..1000 {
            assert_eq!(bench.after(Ended::Served, 0), ordinary(0));
        }
    }

    #[test]
    fn masters_that_never_serve_are_slowed_down() {
        let mut bench = Bench::new();
        let pauses = [0, 0, 100, 200, 400, 800].map(ordinary);
        assert_eq!(bench.failed([1, 2, 3, 103, 303, 703]), pauses);
        assert_eq!(bench.after(Ended::Served, 9000), ordinary(0));
        assert_eq!(bench.failed([9001]), [ordinary(0)]);
    }

    #[test]
    fn safe_mode_comes_when_it_lasts() {
        let mut bench = Bench::new();
        // Slow failures are as bad as many.
        assert_eq!(bench.failed([30_000, 60_000, 90_000]), [ordinary(0), ordinary(0), safe(5)]);
        for (at, pause) in [(100_000, 10), (120_000, 20), (150_000, 40), (200_000, 60), (300_000, 60)] {
            assert_eq!(bench.after(Ended::Left, at), ordinary(0));
            assert_eq!(bench.failed([at + 10]), [safe(pause)]);
        }
        assert_eq!(bench.restarts.failures(), 8);
        bench.after(Ended::Served, 400_000);
        assert_eq!(bench.restarts.failures(), 0);
    }

    #[test]
    fn safe_mode_that_dies_is_no_loop() {
        let mut bench = Bench::new();
        bench.failed([1000, 2000, 3000]);
        assert_eq!(bench.after(Ended::Died, 3001), Next::Ordinary(PATIENCE));
    }

    #[test]
    fn what_cannot_be_started_is_never_tried_at_once() {
        let mut restarts = Restarts::default();
        let pauses: Vec<u128> = (0..5).map(|_| restarts.after_no_start().as_millis()).collect();
        assert_eq!(pauses, [100, 100, 100, 200, 400]);
        for _ in 0..100 {
            restarts.after_no_start();
        }
        assert_eq!(restarts.after_no_start(), LONGEST);
    }
}
