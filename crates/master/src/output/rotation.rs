//! When a file is rotated, and what rotated files are called.
//!
//! A rotated file keeps its name for ever: the file's own, and the time of the
//! rotation in UTC, `web-out-0.log.20260309T040506.007008Z`, with `.gz` once it
//! is compressed. So names sort by time, and nothing is renamed twice.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use supervisor_config::{LogOptions, LogPeriod, parse_cron};

/// The end of a compressed file's name.
pub(crate) const COMPRESSED: &str = ".gz";
/// The end of the name of one that is being compressed.
pub(super) const UNFINISHED: &str = ".gz.part";
/// A rotation's time within a name.
const STAMP: &str = "%Y%m%dT%H%M%S.%6fZ";
/// The same as an example: a digit stands for any.
const STAMP_EXAMPLE: &[u8] = b"00000000T000000.000000Z";

/// When a file is rotated, and what becomes of it.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// Bytes; 0 means that size does not matter.
    pub(crate) max_size: u64,
    pub(crate) period: LogPeriod,
    /// Times in place of a period: a cron expression.
    pub(crate) cron: Option<String>,
    pub(crate) zone: TimeZone,
    pub(crate) keep: u32,
    pub(crate) compress: bool,
}

impl Rotation {
    pub(crate) fn new(options: &LogOptions, zone: TimeZone) -> Self {
        let LogOptions { max_size, rotate, keep, compress, .. } = *options;
        let cron = options.rotate_cron.clone();
        Self { max_size, period: rotate, cron, zone, keep, compress }
    }

    /// The end of the period that `time` is in.
    pub(crate) fn next(&self, time: Timestamp) -> Option<Timestamp> {
        let time = time.to_zoned(self.zone.clone());
        match &self.cron {
            // Clients check it; what is not understood has no times.
            Some(cron) => {
                let next = parse_cron(cron).ok()?.find_next_occurrence(&time, false);
                next.ok().map(|next| next.timestamp())
            }
            None => next_boundary(self.period, &time),
        }
    }
}

fn next_boundary(period: LogPeriod, time: &Zoned) -> Option<Timestamp> {
    let today = time.date();
    let day = match period {
        LogPeriod::Never => return None,
        LogPeriod::Hourly => {
            let hour = time.with().minute(0).second(0).subsec_nanosecond(0).build().ok()?;
            return hour.timestamp().checked_add(SignedDuration::from_hours(1)).ok();
        }
        LogPeriod::Daily => today.tomorrow().ok()?,
        LogPeriod::Weekly => today.nth_weekday(1, Weekday::Monday).ok()?,
        LogPeriod::Monthly => today.first_of_month().checked_add(1.month()).ok()?,
    };
    Some(day.to_zoned(time.time_zone().clone()).ok()?.timestamp())
}

/// What a file is called once it has been rotated at this time.
pub(crate) fn rotated_name(path: &Path, at: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(at.strftime(STAMP).to_string());
    name.into()
}

/// Files that were rotated from `path`, oldest first; compressed ones too.
///
/// # Errors
///
/// Of `opendir(3)`.
pub(crate) fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let is_rotated = |end: &[u8]| is_stamp(end.strip_suffix(COMPRESSED.as_bytes()).unwrap_or(end));
    let mut files = siblings(path, is_rotated)?;
    files.sort();
    // Both are there when compressing was cut short after its last step but
    // one; the compressed one is whole, and comes second.
    files.dedup_by(|second, first| {
        let same = second.as_os_str().as_bytes().strip_suffix(COMPRESSED.as_bytes());
        same == Some(first.as_os_str().as_bytes())
    });
    Ok(files)
}

/// Files whose compressing never ended.
pub(super) fn unfinished_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    siblings(path, |end| end.strip_suffix(UNFINISHED.as_bytes()).is_some_and(is_stamp))
}

/// Files in the same folder whose name is that of `path`, a dot, and an end
/// that is `wanted`.
fn siblings(path: &Path, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let end = end_of(&entry.file_name(), name).is_some_and(&wanted);
        if end {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn end_of<'a>(sibling: &'a OsStr, name: &OsStr) -> Option<&'a [u8]> {
    sibling.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b".")
}

fn is_stamp(text: &[u8]) -> bool {
    let fits = |(byte, example): (&u8, &u8)| match example {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    text.len() == STAMP_EXAMPLE.len() && text.iter().zip(STAMP_EXAMPLE).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    #[test]
    fn the_times_of_a_cron_expression() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let cron = Some("30 2 * * SUN".to_owned());
        let rotation =
            Rotation { max_size: 0, period: LogPeriod::Never, cron, zone, keep: 1, compress: false };
        // The clocks skip half past two on this Sunday.
        let next = rotation.next("2026-03-27T12:00:00Z".parse().unwrap());
        assert_eq!(next, Some("2026-03-29T01:00:00Z".parse().unwrap()));
    }

    fn check(period: LogPeriod, zone: &str, time: &str, expected: &str) {
        let rotation = Rotation {
            max_size: 0,
            period,
            cron: None,
            zone: TimeZone::get(zone).unwrap(),
            keep: 1,
            compress: false,
        };
        let next = rotation.next(time.parse().unwrap()).map(|next| next.to_string());
        assert_eq!(next.as_deref(), Some(expected), "{period:?} after {time} in {zone}");
    }

    #[test]
    fn boundaries() {
        use LogPeriod::{Daily, Hourly, Monthly, Weekly};
        check(Hourly, "UTC", "2026-03-09T04:05:06Z", "2026-03-09T05:00:00Z");
        check(Hourly, "UTC", "2026-03-09T04:00:00Z", "2026-03-09T05:00:00Z");
        check(Hourly, "Asia/Kolkata", "2026-03-09T04:05:06Z", "2026-03-09T04:30:00Z");
        check(Daily, "UTC", "2026-03-09T04:05:06Z", "2026-03-10T00:00:00Z");
        check(Daily, "Europe/Berlin", "2026-03-09T23:30:00Z", "2026-03-10T23:00:00Z");
        // A day of 23 hours, and one that begins at one o'clock.
        check(Daily, "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T22:00:00Z");
        check(Daily, "Africa/Cairo", "2026-04-23T12:00:00Z", "2026-04-23T22:00:00Z");
        check(Weekly, "UTC", "2026-03-08T23:00:00Z", "2026-03-09T00:00:00Z");
        check(Weekly, "UTC", "2026-03-09T00:00:00Z", "2026-03-16T00:00:00Z");
        check(Monthly, "UTC", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z");
        check(Monthly, "UTC", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z");
    }

    #[test]
    fn the_names_of_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let at = |micros| Timestamp::from_microsecond(micros).unwrap();
        let names =
            [rotated_name(&path, at(1)), rotated_name(&path, at(2)), rotated_name(&path, at(1_000_000))];
        assert!(names[0].ends_with("web.log.19700101T000000.000001Z"), "{names:?}");
        let with = |path: &Path, end: &str| PathBuf::from(format!("{}{end}", path.display()));
        for name in [&path, &names[2], &names[1], &with(&names[1], ".gz"), &with(&names[0], ".gz")] {
            fs::write(name, "").unwrap();
        }
        for other in ["web.log.1", "web.log.", "web.log.19700101T000000.000001Z.bz2", "web.log2"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        fs::write(with(&names[2], UNFINISHED), "").unwrap();
        assert_eq!(
            rotated_files(&path).unwrap(),
            [with(&names[0], ".gz"), names[1].clone(), names[2].clone()]
        );
        assert_eq!(unfinished_files(&path).unwrap(), [with(&names[2], UNFINISHED)]);
    }
}
