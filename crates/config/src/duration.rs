//! Durations as people write them: `500ms`, `10s`, `1.5s`, `1h30m`, `1d`.

use std::time::Duration;

/// The longest one, ten years: sums of a few of them cannot overflow anything.
pub(crate) const MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// From the largest unit to the smallest, in milliseconds.
const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads numbers with units, the largest unit first and each at most once. A
/// fraction is fine where it stands alone and comes to whole milliseconds.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_length = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, after) = rest.split_at(number_length);
        let unit_length = after.find(|char: char| !char.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let position = units.iter().position(|(name, _)| *name == unit)?;
        let millis = match number.split_once('.') {
            None => units[position].1.checked_mul(number.parse().ok()?)?,
            Some(parts) if number.len() + unit.len() == text.len() => fraction(parts, units[position].1)?,
            Some(_) => return None,
        };
        total = total.checked_add(millis)?;
        units = &units[position + 1..];
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// `whole.decimals` times `unit`, if that is a whole number.
fn fraction((whole, decimals): (&str, &str), unit: u64) -> Option<u64> {
    let scale = 10u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let scaled = scale.checked_mul(whole.parse().ok()?)?.checked_add(decimals.parse().ok()?)?;
    let millis = scaled.checked_mul(unit)?;
    (millis % scale == 0).then_some(millis / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("0.25s", 250),
            ("1m", 60_000),
            ("90m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_all_else() {
        for text in [
            "",
            "s",
            "10",
            "10 s",
            " 10s",
            "-1s",
            "+1s",
            "1S",
            "1M",
            "1min",
            "30m1h",
            "1s1s",
            "1.s",
            ".5s",
            "1.2.3s",
            "1h1.5s",
            "1.0005s",
            "1e3s",
            "١s",
            "99999999999999999999s",
            "18446744073709551615d",
            "0.00000000000000000001s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
