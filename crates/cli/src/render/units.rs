//! Durations, sizes and shares as people write them: short, two digits that
//! matter.

use std::time::Duration;

/// Whole seconds as `5s`, `12m 5s`, `4h 7m`, `3d 4h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        86_400.. => format!("{days}d {}h", hours % 24),
    }
}

/// Seconds from JSON as [`duration`] shows them; negative and unreal ones are 0.
pub(crate) fn seconds(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
    #[expect(clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
    duration(seconds as u64)
}

/// A configured time, as it may be written in a file: `1600ms`, `30s`, `1m`,
/// `1h30m`.
pub(crate) fn setting(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.subsec_nanos() > 0 || seconds == 0 {
        return format!("{}ms", time.as_millis());
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect()
}

/// Bytes as `0`, `812K`, `84.1M`, `1.2G`; K is 2¹⁰.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes == 0 {
        return "0".to_owned();
    }
    // Sizes beyond 2⁵³ lose digits that are not shown.
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{}K", value.ceil()) } else { format!("{value:.1}{}", UNITS[unit]) }
}

/// A share of one core as `0.3%`, `12.5%`, `250%`.
pub(crate) fn percent(percent: f64) -> String {
    if percent < 99.95 { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |seconds, text| assert_eq!(duration(seconds), text);
        check(0, "0s");
        check(59, "59s");
        check(725, "12m 5s");
        check(3599, "59m 59s");
        check(3600, "1h 0m");
        check(86_399, "23h 59m");
        check(3 * 86_400 + 4 * 3600 + 59, "3d 4h");
        assert_eq!(seconds(-3.0), "0s");
        assert_eq!(seconds(f64::NAN), "0s");
        assert_eq!(seconds(61.9), "1m 1s");
        assert_eq!(setting(Duration::from_millis(1600)), "1600ms");
        assert_eq!(setting(Duration::ZERO), "0ms");
        assert_eq!(setting(Duration::from_secs(30)), "30s");
        assert_eq!(setting(Duration::from_secs(60)), "1m");
        assert_eq!(setting(Duration::from_secs(5430)), "1h30m30s");
    }

    #[test]
    fn sizes() {
        let check = |size, text| assert_eq!(bytes(size), text);
        check(0, "0");
        check(1, "1K");
        check(1024, "1K");
        check(812 << 10, "812K");
        check((1 << 20) - 1, "1.0M");
        check(88_185_242, "84.1M");
        check(1 << 30, "1.0G");
        check(u64::MAX, "16384.0P");
    }

    #[test]
    fn shares() {
        let check = |share, text| assert_eq!(percent(share), text);
        check(0.0, "0.0%");
        check(12.46, "12.5%");
        check(99.96, "100%");
        check(250.4, "250%");
    }
}
