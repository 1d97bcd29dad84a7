//! When something recurs: the times of a cron expression in a time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use supervisor_config::parse_cron;

/// The times of an expression, and how far they were looked at.
///
/// A time that the clocks of the zone skip comes right after the gap. One that
/// they show twice comes once, or both times where the expression has `*` or
/// several hours.
#[derive(Debug)]
pub(crate) struct Schedule {
    cron: croner::Cron,
    zone: TimeZone,
    looked: Timestamp,
    next: Option<Timestamp>,
}

impl Schedule {
    /// A schedule that begins now.
    ///
    /// # Errors
    ///
    /// In words: what is wrong with the expression.
    pub(crate) fn new(expression: &str, zone: TimeZone, now: Timestamp) -> Result<Self, String> {
        let mut schedule = Self { cron: parse_cron(expression)?, zone, looked: now, next: None };
        schedule.next = schedule.next_after(now);
        Ok(schedule)
    }

    /// The next time after an instant; `None` when there is none in the
    /// calendar.
    fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        let from = instant.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|next| next.timestamp())
    }

    /// Whether a time has come since the last look. Several that were missed,
    /// because the machine slept, count as one.
    pub(crate) fn is_due(&mut self, now: Timestamp) -> bool {
        // Where the clock was set back, times come again.
        let set_back = now < self.looked;
        self.looked = now;
        let due = !set_back && self.next.is_some_and(|next| next <= now);
        if due || set_back {
            self.next = self.next_after(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    /// The times of two days and nights, by a clock that is looked at each
    /// minute.
    fn times(expression: &str, zone: &str, from: &str) -> Vec<String> {
        let zone = TimeZone::get(zone).unwrap();
        let from: Timestamp = from.parse().unwrap();
        let mut schedule = Schedule::new(expression, zone.clone(), from).unwrap();
        (1..=48 * 60)
            .map(|minute| from + SignedDuration::from_mins(minute))
            .filter(|now| schedule.is_due(*now))
            .map(|now| now.to_zoned(zone.clone()).strftime("%dT%H:%M%:z").to_string())
            .collect()
    }

    #[test]
    fn a_skipped_time_comes_right_after_the_gap() {
        // Europe: 02:00 becomes 03:00 on 29 March 2026.
        let spring = "2026-03-28T12:00:00Z";
        assert_eq!(times("30 2 * * *", "Europe/Berlin", spring), ["29T03:00+02:00", "30T02:30+02:00"]);
        assert_eq!(times("30 3 * * *", "Europe/Berlin", spring), ["29T03:30+02:00", "30T03:30+02:00"]);
        assert_eq!(times("30 2 * * *", "UTC", spring), ["29T02:30+00:00", "30T02:30+00:00"]);
        let hourly = times("0 * * * *", "Europe/Berlin", spring);
        assert_eq!(hourly.len(), 48);
        assert!(!hourly.contains(&"29T02:00+01:00".to_owned()), "{hourly:?}");
    }

    #[test]
    fn a_doubled_time_comes_once() {
        // 03:00 becomes 02:00 on 25 October 2026.
        let autumn = "2026-10-24T12:00:00Z";
        assert_eq!(times("30 2 * * *", "Europe/Berlin", autumn), ["25T02:30+02:00", "26T02:30+01:00"]);
        let hourly = times("0 * * * *", "Europe/Berlin", autumn);
        assert_eq!(hourly.len(), 48);
        // Half an hour in New South Wales: 02:00 becomes 01:30 on 5 April 2026.
        let half = times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z");
        assert_eq!(half, ["05T01:45+11:00", "06T01:45+10:30"]);
    }

    #[test]
    fn a_clock_that_leaps() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut schedule = Schedule::new("0 3 * * *", TimeZone::UTC, at("2026-01-01T00:00:00Z")).unwrap();
        assert!(!schedule.is_due(at("2026-01-01T02:59:59Z")));
        assert!(schedule.is_due(at("2026-01-01T03:00:00Z")));
        assert!(!schedule.is_due(at("2026-01-01T03:00:01Z")));
        // Days of sleep count once.
        assert!(schedule.is_due(at("2026-01-05T12:00:00Z")));
        assert!(!schedule.is_due(at("2026-01-05T12:00:01Z")));
        // Set back by a year, it does not wait for one.
        assert!(!schedule.is_due(at("2025-01-01T02:59:00Z")));
        assert!(schedule.is_due(at("2025-01-01T03:00:00Z")));
    }
}
