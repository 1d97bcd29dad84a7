//! The one place that reads clocks.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use supervisor_core::Timestamp;

/// Now, on `CLOCK_MONOTONIC`: the same clock in every process until the next
/// boot.
pub(crate) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    // The clock counts from the boot, so neither part is negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::new(Duration::new(seconds, nanos))
}

/// A moment of the past as an RFC 3339 time in UTC, by what the wall clock says
/// now.
pub(crate) fn rfc3339(at: Timestamp, now: Timestamp) -> String {
    let wall = SystemTime::now().checked_sub(now.since(at)).unwrap_or(SystemTime::UNIX_EPOCH);
    jiff::Timestamp::try_from(wall).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}
