//! Waiting for facts.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a fact may take to come true. It is far more than it should take:
/// the machine may be slow, and busy with other things.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and returns it.
///
/// # Panics
///
/// When there is nothing within [`DEADLINE`]; `what` tells what was missed.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        sleep(PAUSE);
    }
}

/// Waits until something is true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    eventually(what, || is_true().then_some(()));
}
