//! When and how fast to restart.

use core::time::Duration;

use crate::policy::Policy;

/// No pause is longer than this, unless `restart_delay` itself is.
pub const CAP: Duration = Duration::from_secs(15);

/// The pause before the life that follows `streak` unstable ones in a row.
///
/// `restart_delay`, multiplied by the backoff for each unstable life after the
/// first, at most [`CAP`]; then moved by up to 20 % in either direction, so
/// that workers that failed together do not come back together. `jitter` is in
/// −1000..=1000 thousandths of those 20 %.
#[must_use]
pub fn pause(policy: &Policy, streak: u32, jitter: i32) -> Duration {
    let cap = CAP.max(policy.restart_delay);
    let mut pause = policy.restart_delay;
    for _ in 1..streak {
        if pause >= cap || policy.restart_backoff_percent <= 100 {
            break;
        }
        pause = pause.saturating_mul(policy.restart_backoff_percent) / 100;
    }
    let pause = pause.min(cap);
    // Divided first: a pause from a damaged memo may be as long as can be.
    let spread = pause / 5000 * jitter.unsigned_abs().min(1000);
    if jitter < 0 { pause - spread } else { pause.saturating_add(spread) }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::policy::ReadyWhen;

    fn policy(delay_ms: u64, percent: u32) -> Policy {
        Policy {
            ready: ReadyWhen::Started,
            listen_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
            restart_delay: Duration::from_millis(delay_ms),
            restart_backoff_percent: percent,
            breaker_retry: Duration::from_secs(60),
            autorestart: true,
            stop_exit_codes: Vec::new(),
            kill_timeout: Duration::from_secs(5),
            listens: false,
            drain_timeout: Duration::from_secs(30),
            max_surge: 0,
            reload: crate::policy::Reload::Rolling,
        }
    }

    #[track_caller]
    fn check(delay_ms: u64, percent: u32, streak: u32, jitter: i32, expected_ms: u64) {
        assert_eq!(pause(&policy(delay_ms, percent), streak, jitter), Duration::from_millis(expected_ms));
    }

    #[test]
    fn it_doubles_up_to_the_cap() {
        check(100, 200, 1, 0, 100);
        check(100, 200, 2, 0, 200);
        check(100, 200, 8, 0, 12_800);
        check(100, 200, 9, 0, 15_000);
        check(100, 200, u32::MAX, 0, 15_000);
    }

    #[test]
    fn a_factor_of_one_keeps_it() {
        check(100, 100, 9, 0, 100);
    }

    #[test]
    fn a_delay_beyond_the_cap_is_its_own_cap() {
        check(60_000, 200, 3, 0, 60_000);
    }

    #[test]
    fn the_longest_delay_is_none_too_long() {
        let longest = Policy { restart_delay: Duration::MAX, ..policy(0, 200) };
        assert_eq!(pause(&longest, 3, 1000), Duration::MAX);
    }

    #[test]
    fn no_delay_stays_none() {
        check(0, 200, 9, 1000, 0);
    }

    #[test]
    fn jitter_moves_it_by_a_fifth() {
        check(1000, 200, 1, 1000, 1200);
        check(1000, 200, 1, -1000, 800);
        check(1000, 200, 1, 500, 1100);
    }
}
