//! Times as people want them before their lines: tokens of day.js.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A format, read once, and the last text that it gave: many lines share one.
#[derive(Debug)]
pub(crate) struct DateFormat {
    parts: Vec<Part>,
    zone: TimeZone,
    /// Of the cached text, in the format's resolution.
    tick: Option<i64>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A token as `strftime(3)` has it.
    Field(&'static str),
    Millisecond,
    /// `am`, `pm`.
    LowerMeridiem,
    /// `Mo`: the first two letters of the day.
    ShortDay,
}

/// Longer tokens first, so that the first match is the longest.
const TOKENS: &[(&str, Part)] = &[
    ("YYYY", Part::Field("%Y")),
    ("YY", Part::Field("%y")),
    ("MMMM", Part::Field("%B")),
    ("MMM", Part::Field("%b")),
    ("MM", Part::Field("%m")),
    ("M", Part::Field("%-m")),
    ("DD", Part::Field("%d")),
    ("D", Part::Field("%-d")),
    ("dddd", Part::Field("%A")),
    ("ddd", Part::Field("%a")),
    ("dd", Part::ShortDay),
    ("d", Part::Field("%w")),
    ("HH", Part::Field("%H")),
    ("H", Part::Field("%-H")),
    ("hh", Part::Field("%I")),
    ("h", Part::Field("%-I")),
    ("mm", Part::Field("%M")),
    ("m", Part::Field("%-M")),
    ("ss", Part::Field("%S")),
    ("s", Part::Field("%-S")),
    ("SSS", Part::Millisecond),
    ("ZZ", Part::Field("%z")),
    ("Z", Part::Field("%:z")),
    ("A", Part::Field("%p")),
    ("a", Part::LowerMeridiem),
    ("X", Part::Field("%s")),
];

impl DateFormat {
    pub(crate) fn new(format: &str, zone: TimeZone) -> Self {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some(first) = rest.chars().next() {
            if let Some((text, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                parts.push(Part::Text(text.to_owned()));
                rest = after;
            } else if let Some((token, part)) = TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
                parts.push(part.clone());
                rest = &rest[token.len()..];
            } else {
                match parts.last_mut() {
                    Some(Part::Text(text)) => text.push(first),
                    _ => parts.push(Part::Text(first.to_string())),
                }
                rest = &rest[first.len_utf8()..];
            }
        }
        Self { parts, zone, tick: None, text: String::new() }
    }

    /// The time as text.
    pub(crate) fn text(&mut self, now: Timestamp) -> &str {
        let is_fine = self.parts.contains(&Part::Millisecond);
        let tick = if is_fine { now.as_millisecond() } else { now.as_second() };
        if self.tick != Some(tick) {
            self.tick = Some(tick);
            self.text = self.render(now);
        }
        &self.text
    }

    fn render(&self, now: Timestamp) -> String {
        let time = now.to_zoned(self.zone.clone());
        let mut result = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => result.push_str(text),
                Part::Field(field) => result.push_str(&time.strftime(field).to_string()),
                Part::Millisecond => result.push_str(&format!("{:03}", time.millisecond())),
                Part::LowerMeridiem => {
                    result.push_str(&time.strftime("%p").to_string().to_ascii_lowercase());
                }
                Part::ShortDay => result.extend(time.strftime("%a").to_string().chars().take(2)),
            }
        }
        result
    }
}

/// The zone that a `TZ` means: a name or a rule. The system's without one.
pub(crate) fn zone(variable: Option<&str>) -> TimeZone {
    let Some(name) = variable.map(|name| name.trim_start_matches(':')).filter(|name| !name.is_empty()) else {
        return TimeZone::system();
    };
    TimeZone::get(name).or_else(|_| TimeZone::posix(name)).unwrap_or_else(|_| TimeZone::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: &str, zone_name: &str, expected: &str) {
        let now: Timestamp = "2026-03-09T04:05:06.007Z".parse().unwrap();
        assert_eq!(DateFormat::new(format, zone(Some(zone_name))).text(now), expected, "{format}");
    }

    #[test]
    fn tokens() {
        check("YYYY-MM-DDTHH:mm:ss", "UTC", "2026-03-09T04:05:06");
        check("YYYY-MM-DD HH:mm:ss.SSS Z", "UTC", "2026-03-09 04:05:06.007 +00:00");
        check("YY M D H h m s ZZ", "Europe/Berlin", "26 3 9 5 5 5 6 +0100");
        check("dddd ddd dd d MMMM MMM", "UTC", "Monday Mon Mo 1 March Mar");
        check("hh A a", "America/New_York", "12 AM am");
        check("[YYYY] X é", "UTC", "YYYY 1773029106 é");
        check("[open", "UTC", "[open");
        check("HH:mm Z", "EST5EDT,M3.2.0,M11.1.0", "00:05 -04:00");
    }

    #[test]
    fn the_text_follows_the_time() {
        let mut format = DateFormat::new("ss.SSS", TimeZone::UTC);
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        assert_eq!(format.text(at(1)), "00.001");
        assert_eq!(format.text(at(2)), "00.002");
        let mut format = DateFormat::new("ss", TimeZone::UTC);
        assert_eq!(format.text(at(999)), "00");
        assert_eq!(format.text(at(1000)), "01");
    }
}
