//! Lines that were written before: of a file, and of those that were rotated
//! from it.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flate2::read::GzDecoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex_lite::Regex;
use serde::Deserialize;
use supervisor_protocol::control::{LogLine, LogPosition};

use super::logs::{LogFile, LogQuery};
use crate::output::{COMPRESSED, Place, rotated_files};

/// The longest line that is told whole, bytes; a longer one is cut.
pub(super) const MAX_LINE: usize = 64 * 1024;
/// The most lines of a file and those rotated from it.
const MAX_LINES: usize = 10_000;
/// The most bytes of them, of which the last ones are told.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How much is searched, newest files first, bytes: no further file is opened
/// after that.
const MAX_SEARCH: u64 = 512 * 1024 * 1024;
/// How far from the end of a file the last lines are looked for, bytes a line.
const USUAL_LINE: u64 = 1024;

/// What a file has told.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Oldest first.
    pub(super) lines: Vec<LogLine>,
    /// Up to where; `None` without a file.
    pub(super) end: Option<LogPosition>,
}

/// The lines that are asked for.
///
/// # Errors
///
/// When the file cannot be read. Rotated ones may vanish meanwhile; they are
/// passed over.
pub(super) fn read(file: &LogFile, wanted: &LogQuery) -> io::Result<Past> {
    file.access.reach(&file.path, |place| match &wanted.after {
        Some(after) => read_after(file, place, wanted, after),
        None => read_last(file, place, wanted),
    })
}

fn read_last(file: &LogFile, place: Place, wanted: &LogQuery) -> io::Result<Past> {
    let mut found = VecDeque::new();
    let mut room = Room { lines: wanted.lines.min(MAX_LINES), bytes: MAX_BYTES };
    if room.lines == 0 {
        let end = Source::open(&file.path, place).ok().and_then(|source| source.end());
        return Ok(Past { lines: Vec::new(), end });
    }
    let mut paths = rotated_files(&file.path)?;
    paths.push(file.path.clone());
    let (mut searched, mut end) = (0, None);
    while let Some(path) = paths.pop() {
        // Older files have older lines only.
        let is_past = wanted.since.is_some_and(|since| last_written(&path).is_some_and(|last| last < since));
        if room.lines == 0 || searched >= MAX_SEARCH || is_past {
            break;
        }
        let Ok(source) = Source::open(&path, place) else { continue };
        if path == file.path {
            end = source.end();
        }
        let Ok((lines, read)) = read_file(file, source, wanted, &room) else { continue };
        searched += read;
        room.lines -= lines.len();
        for line in lines.into_iter().rev() {
            room.bytes = room.bytes.saturating_sub(length(&line));
            found.push_front(line);
        }
        if room.bytes == 0 {
            break;
        }
    }
    Ok(Past { lines: found.into(), end })
}

/// The lines after the place that was told last: of the file that it is in,
/// whatever that is called by now, and of those that came later.
fn read_after(
    file: &LogFile,
    place: Place,
    wanted: &LogQuery,
    after: &HashMap<u64, u64>,
) -> io::Result<Past> {
    let mut paths = rotated_files(&file.path)?;
    paths.push(file.path.clone());
    let mut sources: Vec<Source> = paths.iter().filter_map(|path| Source::open(path, place).ok()).collect();
    let known = |source: &Source| source.inode().and_then(|inode| after.get(&inode));
    let first = sources.iter().rposition(|source| known(source).is_some());
    // Of one that is not known all is new, but not what was rotated from it.
    let newest = sources.len().saturating_sub(1);
    let mut past = Past::default();
    for source in sources.drain(first.unwrap_or(newest)..) {
        let begun = known(&source).copied().unwrap_or(0);
        past.end = source.end();
        past.lines.extend(read_on(file, source, wanted, begun)?);
    }
    Ok(past)
}

/// The lines of a file from a place on, or the last of them.
fn read_on(file: &LogFile, source: Source, wanted: &LogQuery, begun: u64) -> io::Result<Vec<LogLine>> {
    let room = Room { lines: usize::MAX, bytes: usize::MAX };
    let Source::Plain { mut opened, inode, length } = source else {
        return Ok(read_file(file, source, wanted, &room)?.0.into());
    };
    // It may have been emptied.
    let begun = if begun > length { 0 } else { begun };
    let start = begun.max(length.saturating_sub(MAX_BYTES as u64));
    let mut lines = Vec::new();
    opened.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::new(opened.take(length - start));
    let mut skipped = 0;
    if start > begun {
        skipped = reader.skip_until(b'\n')? as u64;
        lines.push(LogLine::Missed { chunks: 1 });
    }
    let origin = Some(LogPosition { file: inode, end: start + skipped });
    lines.extend(collect(file, reader, origin, wanted, &room)?.0);
    Ok(lines)
}

/// A file that lines are read from.
enum Source {
    Compressed(File),
    /// As long as it was when it was opened.
    Plain {
        opened: File,
        inode: u64,
        length: u64,
    },
}

impl Source {
    fn open(path: &Path, place: Place) -> io::Result<Self> {
        let opened = place.open(path, OpenOptions::new().read(true))?;
        if path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes()) {
            return Ok(Self::Compressed(opened));
        }
        let metadata = opened.metadata()?;
        Ok(Self::Plain { inode: metadata.ino(), length: metadata.len(), opened })
    }

    fn inode(&self) -> Option<u64> {
        self.end().map(|end| end.file)
    }

    fn end(&self) -> Option<LogPosition> {
        match self {
            Self::Compressed(_) => None,
            Self::Plain { inode, length, .. } => Some(LogPosition { file: *inode, end: *length }),
        }
    }
}

/// What may still be told.
struct Room {
    lines: usize,
    bytes: usize,
}

fn length(line: &LogLine) -> usize {
    match line {
        LogLine::Line { line, .. } => line.len(),
        LogLine::Files { .. } | LogLine::Missed { .. } => 0,
    }
}

fn last_written(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(fs::metadata(path).ok()?.modified().ok()?).ok()
}

/// The last wanted lines of one file, and how much was read.
fn read_file(
    file: &LogFile,
    source: Source,
    wanted: &LogQuery,
    room: &Room,
) -> io::Result<(VecDeque<LogLine>, u64)> {
    let (mut opened, inode, end) = match source {
        Source::Compressed(opened) => {
            return collect(file, BufReader::new(GzDecoder::new(opened)), None, wanted, room);
        }
        Source::Plain { opened, inode, length } => (opened, inode, length),
    };
    let mut from = |start: u64| {
        opened.seek(SeekFrom::Start(start))?;
        let mut reader = BufReader::new((&opened).take(end - start));
        // It may begin in the middle of a line.
        let skipped = if start > 0 { reader.skip_until(b'\n')? as u64 } else { 0 };
        let origin = Some(LogPosition { file: inode, end: start + skipped });
        let (lines, read) = collect(file, reader, origin, wanted, room)?;
        Ok((lines, read + skipped))
    };
    let is_filtered = wanted.grep.is_some() || wanted.since.is_some();
    // Most lines are short: begin near the end, and at the beginning only when
    // that was not enough.
    let back = (room.lines as u64).saturating_mul(USUAL_LINE).max(USUAL_LINE * 64);
    if is_filtered || end <= back {
        return from(0);
    }
    match from(end - back) {
        Ok((lines, read))
            if lines.len() == room.lines || lines.iter().map(length).sum::<usize>() >= MAX_BYTES / 2 =>
        {
            Ok((lines, read))
        }
        Ok(_) => from(end.saturating_sub(MAX_BYTES as u64)),
        Err(error) => Err(error),
    }
}

/// The last lines of what is read, which begins at `origin`.
fn collect(
    file: &LogFile,
    mut from: impl BufRead,
    origin: Option<LogPosition>,
    wanted: &LogQuery,
    room: &Room,
) -> io::Result<(VecDeque<LogLine>, u64)> {
    let mut lines = VecDeque::new();
    let (mut bytes, mut read) = (0, 0);
    let mut buffer = Vec::new();
    // A line without a time belongs to the one before it.
    let mut is_recent = true;
    loop {
        buffer.clear();
        let taken = from.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut buffer)?;
        if taken == 0 {
            return Ok((lines, read));
        }
        read += taken as u64;
        if !buffer.ends_with(b"\n") {
            read += from.skip_until(b'\n')? as u64;
        }
        let line = text(&buffer);
        if let Some(since) = wanted.since {
            is_recent = time_of(&line, file.json).map_or(is_recent, |time| time >= since);
        }
        let position = origin.filter(|_| wanted.positions);
        let position = position.map(|LogPosition { file, end }| LogPosition { file, end: end + read });
        let line = told(file, line, position);
        if !is_recent || !matches(&line, wanted.grep.as_ref()) {
            continue;
        }
        bytes += length(&line);
        lines.push_back(line);
        while lines.len() > room.lines || bytes > room.bytes {
            let Some(oldest) = lines.pop_front() else { break };
            bytes -= length(&oldest);
        }
    }
}

fn matches(line: &LogLine, grep: Option<&Regex>) -> bool {
    match (line, grep) {
        (LogLine::Line { line, .. }, Some(grep)) => grep.is_match(line),
        (LogLine::Line { .. } | LogLine::Files { .. } | LogLine::Missed { .. }, _) => true,
    }
}

/// What a JSON object in a file says.
#[derive(Debug, Deserialize)]
struct Record {
    timestamp: String,
    instance: u32,
    message: String,
}

fn told(file: &LogFile, line: String, position: Option<LogPosition>) -> LogLine {
    let LogFile { app, slot, stream, .. } = file.clone();
    match serde_json::from_str::<Record>(&line) {
        Ok(Record { instance, message, .. }) if file.json => {
            LogLine::Line { app, slot: Some(instance), stream, line: message, position }
        }
        Ok(_) | Err(_) => LogLine::Line { app, slot, stream, line, position },
    }
}

/// When a line was written, if it says so: in its object, or at its beginning,
/// with an offset or in the system's zone.
fn time_of(line: &str, json: bool) -> Option<Timestamp> {
    if json {
        return serde_json::from_str::<Record>(line).ok()?.timestamp.parse().ok();
    }
    let first = line.split(' ').next()?.trim_end_matches(':');
    if let Ok(time) = first.parse() {
        return Some(time);
    }
    let time: DateTime = line.get(..19)?.parse().ok()?;
    Some(TimeZone::system().to_zoned(time).ok()?.timestamp())
}

/// A line's text without its end.
pub(super) fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use supervisor_protocol::control::Stream;

    use super::*;
    use crate::output::Access;

    fn wanted(lines: usize) -> LogQuery {
        LogQuery { lines, ..LogQuery::default() }
    }

    fn file(path: &Path, json: bool) -> LogFile {
        let (app, access) = ("web".to_owned(), Access::default());
        LogFile { app, slot: None, stream: Stream::Out, path: path.to_owned(), access, json }
    }

    fn lines(path: &Path, wanted: &LogQuery) -> Vec<String> {
        let lines = read(&file(path, false), wanted).unwrap().lines;
        lines
            .into_iter()
            .filter_map(|line| match line {
                LogLine::Line { line, .. } => Some(line),
                LogLine::Files { .. } | LogLine::Missed { .. } => None,
            })
            .collect()
    }

    #[track_caller]
    fn check(content: &str, count: usize, expected: &[&str]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        assert_eq!(lines(file.path(), &wanted(count)), expected);
    }

    #[test]
    fn the_last_lines_are_found() {
        check("", 3, &[]);
        check("a\nb\nc\n", 2, &["b", "c"]);
        check("a\nb", 5, &["a", "b"]);
        check("a\r\nb\n", 0, &[]);
    }

    #[test]
    fn long_files_are_read_from_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let content: String = (0..10_000).map(|n| format!("line {n} {}\n", "x".repeat(300))).collect();
        fs::write(&path, content).unwrap();
        let last = lines(&path, &wanted(100));
        assert_eq!(last.len(), 100);
        assert!(last[0].starts_with("line 9900 "));
        // Longer lines than usual.
        let content: String = (0..200).map(|n| format!("line {n} {}\n", "x".repeat(10_000))).collect();
        fs::write(&path, content).unwrap();
        let last = lines(&path, &wanted(100));
        assert_eq!(last.len(), 100);
        assert!(last[0].starts_with("line 100 "));
        // No more than a limit, however long they are.
        let all: usize = lines(&path, &wanted(1_000)).iter().map(String::len).sum();
        assert!(all <= MAX_BYTES && all > MAX_BYTES / 4, "{all}");
    }

    #[test]
    fn rotated_files_go_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let rotated = |stamp: &str| folder.path().join(format!("web.log.{stamp}"));
        let mut oldest =
            GzEncoder::new(File::create(rotated("20260101T000000.000000Z.gz")).unwrap(), Compression::fast());
        oldest.write_all(b"one a\ntwo b\n").unwrap();
        oldest.finish().unwrap();
        fs::write(rotated("20260102T000000.000000Z"), "three a\nfour b\n").unwrap();
        fs::write(&path, "five a\n").unwrap();
        assert_eq!(lines(&path, &wanted(9)), ["one a", "two b", "three a", "four b", "five a"]);
        assert_eq!(lines(&path, &wanted(2)), ["four b", "five a"]);
        let grep = |lines| LogQuery { grep: Some(Regex::new("a$").unwrap()), ..wanted(lines) };
        assert_eq!(lines(&path, &grep(9)), ["one a", "three a", "five a"]);
        assert_eq!(lines(&path, &grep(2)), ["three a", "five a"]);
    }

    #[test]
    fn lines_since_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let text = "2026-01-01T00:00:00Z: old\n more\n2026-01-01T00:00:05Z new\n more\n";
        fs::write(&path, text).unwrap();
        let since = |time: &str| LogQuery { since: Some(time.parse().unwrap()), ..wanted(9) };
        assert_eq!(lines(&path, &since("2026-01-01T00:00:01Z")), ["2026-01-01T00:00:05Z new", " more"]);
        assert_eq!(lines(&path, &since("2999-01-01T00:00:00Z")), [""; 0]);
        fs::write(&path, "no time\n").unwrap();
        assert_eq!(lines(&path, &since("2026-01-01T00:00:01Z")), ["no time"]);
    }

    #[test]
    fn objects_say_who_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        fs::write(&path, "{\"timestamp\":\"2026-01-01T00:00:00Z\",\"instance\":3,\"message\":\"hi\"}\nodd\n")
            .unwrap();
        let line = |slot, line: &str| LogLine::Line {
            app: "web".to_owned(),
            slot,
            stream: Stream::Out,
            line: line.to_owned(),
            position: None,
        };
        assert_eq!(
            read(&file(&path, true), &wanted(9)).unwrap().lines,
            [line(Some(3), "hi"), line(None, "odd")]
        );
    }

    #[test]
    fn lines_after_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let after = |inode: u64, end: u64| LogQuery {
            after: Some(HashMap::from([(inode, end)])),
            positions: true,
            ..LogQuery::default()
        };
        assert_eq!(lines(&path, &after(inode, 4)), ["two", "three"]);
        assert_eq!(lines(&path, &after(inode, 14)), [""; 0]);
        let end = read(&file(&path, false), &after(inode, 8)).unwrap().lines.pop();
        let expected = LogPosition { file: inode, end: 14 };
        assert!(matches!(end, Some(LogLine::Line { position: Some(end), .. }) if end == expected), "{end:?}");
        assert_eq!(lines(&path, &after(inode, 99)), ["one", "two", "three"], "it was emptied");
        // It is rotated, twice, and goes on in another file.
        fs::rename(&path, folder.path().join("web.log.20260101T000000.000000Z")).unwrap();
        fs::write(folder.path().join("web.log.20260102T000000.000000Z"), "four\n").unwrap();
        fs::write(&path, "five\n").unwrap();
        assert_eq!(lines(&path, &after(inode, 8)), ["three", "four", "five"]);
        assert_eq!(lines(&path, &after(0, 8)), ["five"], "a file that nobody knew");
    }
}
