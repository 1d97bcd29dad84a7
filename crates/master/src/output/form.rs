//! What lines look like in files.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use supervisor_config::LogOptions;

use super::date::DateFormat;

/// A time in JSON, unless the app says otherwise: RFC 3339 in UTC.
const JSON_TIME: &str = "YYYY-MM-DD[T]HH:mm:ss.SSS[Z]";
/// How much is rendered at a time, bytes; one line may exceed it.
const RENDERED: usize = 256 * 1024;

/// The form of one stream's lines.
#[derive(Debug)]
pub(crate) enum Form {
    /// As the worker wrote them.
    Raw,
    /// With the time before each.
    Dated(DateFormat),
    /// As objects.
    Json {
        date: DateFormat,
        /// From the timestamp's end to the message's beginning.
        middle: String,
    },
}

/// Who writes, as JSON has it.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    pub(crate) app: &'a str,
    pub(crate) slot: u32,
    pub(crate) pid: u32,
    pub(crate) generation: u64,
    pub(crate) stream: &'static str,
}

impl Form {
    pub(crate) fn new(options: &LogOptions, zone: TimeZone, author: &Author<'_>) -> Self {
        match (&options.date_format, options.json) {
            (None, false) => Self::Raw,
            (Some(format), false) => Self::Dated(DateFormat::new(format, zone)),
            (format, true) => {
                let date = match format {
                    Some(format) => DateFormat::new(format, zone),
                    None => DateFormat::new(JSON_TIME, TimeZone::UTC),
                };
                let Author { app, slot, pid, generation, stream } = author;
                let app = json_text(app);
                let middle = format!(
                    r#","app":{app},"instance":{slot},"pid":{pid},"generation":{generation},"stream":"{stream}","message":"#
                );
                Self::Json { date, middle }
            }
        }
    }

    /// Renders the first lines into `out`, which is emptied before, and takes
    /// them from `lines`. A last line without an end gets one, unless lines are
    /// written as they are.
    pub(crate) fn render(&mut self, lines: &mut &[u8], now: Timestamp, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Raw => out.extend_from_slice(std::mem::take(lines)),
            Self::Dated(date) => {
                let date = date.text(now).as_bytes();
                while let Some(line) = take_line(lines, out) {
                    out.extend_from_slice(date);
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(line);
                    out.push(b'\n');
                }
            }
            Self::Json { date, middle } => {
                let date = json_text(date.text(now));
                while let Some(line) = take_line(lines, out) {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    out.extend_from_slice(br#"{"timestamp":"#);
                    out.extend_from_slice(date.as_bytes());
                    out.extend_from_slice(middle.as_bytes());
                    // Writing to memory cannot fail, nor can a text be no JSON.
                    let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(line));
                    out.extend_from_slice(b"}\n");
                }
            }
        }
    }
}

/// The next line without its end, while `out` has room.
fn take_line<'a>(lines: &mut &'a [u8], out: &[u8]) -> Option<&'a [u8]> {
    if lines.is_empty() || out.len() >= RENDERED {
        return None;
    }
    let (line, rest) = match memchr::memchr(b'\n', lines) {
        Some(end) => (&lines[..end], &lines[end + 1..]),
        None => (*lines, &[][..]),
    };
    *lines = rest;
    Some(line)
}

/// A text in quotes. It always has a JSON form.
fn json_text(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: bool, date_format: Option<&str>) -> LogOptions {
        LogOptions {
            combined_file: None,
            merge: false,
            json,
            date_format: date_format.map(str::to_owned),
            max_size: 0,
            rotate: supervisor_config::LogPeriod::Never,
            rotate_cron: None,
            keep: 0,
            compress: false,
        }
    }

    #[track_caller]
    fn check(options: &LogOptions, lines: &[u8], expected: &str) {
        let author = Author { app: "we\"b", slot: 2, pid: 77, generation: 3, stream: "out" };
        let mut form = Form::new(options, TimeZone::UTC, &author);
        let (mut rest, mut out) = (lines, Vec::new());
        form.render(&mut rest, "2026-03-09T04:05:06.007Z".parse().unwrap(), &mut out);
        assert!(rest.is_empty());
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn raw_lines_stay_as_they_are() {
        check(&options(false, None), b"a\r\n\nb", "a\r\n\nb");
    }

    #[test]
    fn dated_lines() {
        let options = options(false, Some("HH:mm:ss"));
        check(&options, b"a\n\nb", "04:05:06: a\n04:05:06: \n04:05:06: b\n");
        check(&options, b"", "");
    }

    #[test]
    fn json_lines() {
        let line = |time: &str, message: &str| {
            format!(
                r#"{{"timestamp":"{time}","app":"we\"b","instance":2,"pid":77,"generation":3,"stream":"out","message":"{message}"}}"#
            ) + "\n"
        };
        let time = "2026-03-09T04:05:06.007Z";
        let expected = line(time, r#"say \"a\"\t"#) + &line(time, "\u{fffd}");
        check(&options(true, None), b"say \"a\"\t\r\n\xff\n", &expected);
        check(&options(true, Some("HH:mm")), b"x", &line("04:05", "x"));
    }

    #[test]
    fn much_is_rendered_in_parts() {
        let author = Author { app: "web", slot: 0, pid: 1, generation: 1, stream: "out" };
        let mut form = Form::new(&options(true, None), TimeZone::UTC, &author);
        let all = vec![b'\n'; 10_000];
        let (mut rest, mut out, mut lines) = (&all[..], Vec::new(), 0);
        while !rest.is_empty() {
            form.render(&mut rest, Timestamp::UNIX_EPOCH, &mut out);
            assert!(out.len() < 2 * RENDERED);
            lines += out.split_inclusive(|byte| *byte == b'\n').count();
        }
        assert_eq!(lines, all.len());
    }
}
