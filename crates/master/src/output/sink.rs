//! One file that output goes to.
//!
//! It has whole lines only, whoever writes to it. What cannot be written is
//! dropped and counted; the worker never waits for a disk. Writing is tried
//! again every second, and the file is made anew when it, or its folder, has
//! been taken away. It is opened when its first byte has come: many workers
//! never write, and making files for them would slow down their start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use supervisor_protocol::control::LogPosition;

use super::access::{Access, Place};
use super::rotation::{Rotation, rotated_files, rotated_name};
use super::tidy::{self, Tidy};

/// How often the path is looked at, and how long after a failure writing or
/// rotating is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// A file with output.
#[derive(Debug)]
pub(crate) struct Sink {
    path: Arc<Path>,
    access: Access,
    rotation: Rotation,
    state: State,
    /// When the path is looked at again, or opening is tried again.
    next_look: Instant,
    /// When a failed rotation is tried again.
    next_rotation: Option<Instant>,
    /// The newest name that a rotated file got.
    last_rotation: Timestamp,
    /// The stream whose line is not ended yet.
    unfinished: Option<u64>,
    /// How many bytes were dropped since writing failed; `None` while it works.
    dropped: Option<u64>,
    /// How many streams write to it.
    pub(crate) streams: usize,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet.
    Unopened,
    Open(Open),
    /// Writing does not work: bytes are counted instead.
    Failing,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    size: u64,
    /// Devices and pipes are neither rotated nor cut.
    is_regular: bool,
    /// The end of the period that its lines belong to.
    period_end: Option<Timestamp>,
}

/// The time, read once for a piece of output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) time: Timestamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { instant: Instant::now(), time: Timestamp::now() }
    }
}

impl Sink {
    /// A file that is opened by the first write, which makes it and its folders
    /// when they are not there.
    pub(crate) fn new(path: Arc<Path>, access: Access, rotation: Rotation) -> Self {
        Self {
            path,
            access,
            rotation,
            state: State::Unopened,
            next_look: Instant::now(),
            next_rotation: None,
            last_rotation: Timestamp::MIN,
            unfinished: None,
            dropped: None,
            streams: 0,
        }
    }

    /// Takes the settings of the app's newest generation.
    pub(crate) fn set_rotation(&mut self, rotation: Rotation, now: Now) {
        if let State::Open(open) = &mut self.state {
            open.period_end = rotation.next(begin_of(&open.file, now));
        }
        self.rotation = rotation;
    }

    /// Writes lines, the last of which may have no end yet, and returns how
    /// many bytes were dropped.
    pub(crate) fn write(&mut self, stream: u64, lines: &[u8], now: Now, tidy: &Tidy) -> u64 {
        self.look(now);
        let mut dropped = 0;
        if self.unfinished.is_some_and(|other| other != stream) {
            // An end that is of no line's own does not count.
            self.put(b"\n", now);
            self.unfinished = None;
        }
        if self.is_past_period(now) {
            self.rotate(now, tidy);
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let fits = self.room_for(rest, now);
            if fits == 0 {
                self.rotate(now, tidy);
                continue;
            }
            let (part, after) = rest.split_at(fits);
            dropped += self.put(part, now);
            self.unfinished = (!part.ends_with(b"\n")).then_some(stream);
            rest = after;
        }
        if let Some(all) = &mut self.dropped {
            *all += dropped;
        }
        dropped
    }

    /// Where the next byte goes, if that is a file.
    pub(crate) fn position(&self) -> Option<LogPosition> {
        match &self.state {
            State::Open(open) if open.is_regular => Some(LogPosition { file: open.inode, end: open.size }),
            State::Open(_) | State::Unopened | State::Failing => None,
        }
    }

    /// Closes the file, if it was opened, and opens what is at its path now.
    pub(crate) fn reopen(&mut self, now: Now) {
        match self.state {
            State::Unopened => {}
            State::Open(_) | State::Failing => self.open(now),
        }
    }

    fn open(&mut self, now: Now) {
        self.next_look = now.instant + LOOK;
        self.unfinished = None;
        let opened = self.access.reach(&self.path, |place| Open::new(&self.path, place, &self.rotation, now));
        match opened {
            Ok(open) => self.state = State::Open(open),
            Err(error) => self.fail(&error),
        }
    }

    /// Empties the file and deletes what was rotated from it.
    ///
    /// # Errors
    ///
    /// The first of `ftruncate(2)`, `unlink(2)`.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.state {
            // An earlier worker may have written to it.
            State::Unopened => return flush(&self.path, &self.access),
            State::Open(open) if open.is_regular => {
                open.file.set_len(0)?;
                open.size = 0;
                self.unfinished = None;
            }
            State::Open(_) | State::Failing => {}
        }
        self.access.reach(&self.path, |_| remove_rotated(&self.path))
    }

    /// At the first write, and once a second: is the file still there, and how
    /// large is it?
    fn look(&mut self, now: Now) {
        let is_there = match &mut self.state {
            State::Unopened => false,
            State::Open(_) | State::Failing if now.instant < self.next_look => return,
            State::Open(open) => open.is_at(&self.path),
            State::Failing => false,
        };
        self.next_look = now.instant + LOOK;
        if !is_there {
            self.open(now);
        }
    }

    fn is_past_period(&self, now: Now) -> bool {
        match &self.state {
            State::Open(Open { size: 1.., period_end: Some(end), .. }) => {
                *end <= now.time && self.unfinished.is_none() && self.may_rotate(now)
            }
            State::Unopened | State::Open(_) | State::Failing => false,
        }
    }

    fn may_rotate(&self, now: Now) -> bool {
        let is_regular = matches!(&self.state, State::Open(open) if open.is_regular);
        is_regular && self.next_rotation.is_none_or(|at| at <= now.instant)
    }

    /// How much of `lines` goes into the file before it has to be rotated.
    fn room_for(&self, lines: &[u8], now: Now) -> usize {
        let State::Open(Open { size, .. }) = self.state else { return lines.len() };
        let max = self.rotation.max_size;
        if max == 0 || !self.may_rotate(now) {
            return lines.len();
        }
        let room = usize::try_from(max.saturating_sub(size)).unwrap_or(usize::MAX);
        if lines.len() <= room {
            return lines.len();
        }
        match memchr::memrchr(b'\n', &lines[..room]) {
            Some(end) => end + 1,
            // A new file takes one line, however long. A line that never ends
            // is cut when the file is full.
            None if size > 0 && (self.unfinished.is_none() || size >= max) => 0,
            None => memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1),
        }
    }

    /// Renames the file and begins a new one. When that fails the file grows
    /// on for a while.
    fn rotate(&mut self, now: Now, tidy: &Tidy) {
        // Two rotations have two names, even when the clock is set back.
        let next = self.last_rotation.saturating_add(SignedDuration::from_micros(1));
        let at = now.time.max(next.unwrap_or(now.time));
        let renamed = self.access.reach(&self.path, |_| fs::rename(&self.path, rotated_name(&self.path, at)));
        if let Err(error) = renamed {
            if self.next_rotation.is_none() {
                tracing::warn!("cannot rotate {}: {error}", self.path.display());
            }
            self.next_rotation = Some(now.instant + LOOK);
            return;
        }
        self.next_rotation = None;
        self.last_rotation = at;
        self.open(now);
        tidy.order(&self.path, &self.access, &self.rotation);
    }

    /// Writes bytes, or as many whole lines of them as there is room for.
    /// Returns how many were dropped.
    fn put(&mut self, bytes: &[u8], now: Now) -> u64 {
        let State::Open(open) = &mut self.state else { return bytes.len() as u64 };
        match open.append(bytes) {
            Ok(()) => {
                if let Some(bytes) = self.dropped.take() {
                    tracing::info!("{} can be written again; {bytes} bytes were lost", self.path.display());
                }
                0
            }
            Err((error, written)) => {
                self.next_look = now.instant + LOOK;
                self.fail(&error);
                (bytes.len() - written) as u64
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if self.dropped.is_none() {
            tracing::error!("cannot write to {}: {error}; output is dropped", self.path.display());
            self.dropped = Some(0);
        }
        self.state = State::Failing;
        self.unfinished = None;
    }
}

impl Open {
    fn new(path: &Path, place: Place, rotation: &Rotation, now: Now) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let file = place.open(path, OpenOptions::new().append(true).create(true).mode(0o640))?;
        let metadata = file.metadata()?;
        let period_end = rotation.next(begin_of(&file, now));
        Ok(Self {
            inode: metadata.ino(),
            size: metadata.len(),
            is_regular: metadata.is_file(),
            period_end,
            file,
        })
    }

    /// Whether the file is still at its path. Notes its size, which others may
    /// have changed.
    fn is_at(&mut self, path: &Path) -> bool {
        let (Ok(here), Ok(there)) = (self.file.metadata(), fs::metadata(path)) else { return false };
        self.size = here.len();
        (here.dev(), here.ino()) == (there.dev(), there.ino())
    }

    /// Writes all, or as many whole lines as there is room for: the error comes
    /// with their length.
    fn append(&mut self, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), self.keep_whole(bytes, written))),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((error, self.keep_whole(bytes, written))),
            }
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Cuts off a line that was written in part only. Returns how much of what
    /// was written is left.
    fn keep_whole(&self, bytes: &[u8], written: usize) -> usize {
        let whole = memchr::memrchr(b'\n', &bytes[..written]).map_or(0, |end| end + 1);
        let torn = (written - whole) as u64;
        if torn == 0 || !self.is_regular {
            return written;
        }
        let size = self.file.metadata().map(|metadata| metadata.len());
        match size.and_then(|size| self.file.set_len(size.saturating_sub(torn))) {
            Ok(()) => whole,
            Err(_) => written,
        }
    }
}

/// When the lines of a file were written: now, if it has none.
fn begin_of(file: &File, now: Now) -> Timestamp {
    let metadata = file.metadata().ok().filter(|metadata| metadata.len() > 0);
    let modified = metadata.and_then(|metadata| metadata.modified().ok());
    modified.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(now.time)
}

/// Empties a file that no stream writes to, and deletes what was rotated from
/// it.
///
/// # Errors
///
/// The first of `truncate(2)`, `unlink(2)`. A file that is not there is empty.
pub(crate) fn flush(path: &Path, access: &Access) -> io::Result<()> {
    access.reach(path, |place| {
        match place.open(path, OpenOptions::new().write(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => empty(&file?)?,
        }
        remove_rotated(path)
    })
}

/// Devices and pipes have nothing to empty.
fn empty(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => file.set_len(0),
        false => Ok(()),
    }
}

fn remove_rotated(path: &Path) -> io::Result<()> {
    match rotated_files(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        files => files?.iter().try_for_each(|file| tidy::remove(file)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use supervisor_config::LogPeriod;

    use std::path::PathBuf;

    use super::*;

    struct Files {
        folder: tempfile::TempDir,
        sink: Sink,
        tidy: Tidy,
        now: Now,
    }

    impl Files {
        fn new(max_size: u64, period: LogPeriod) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let now = Now::read();
            let rotation =
                Rotation { max_size, period, cron: None, zone: TimeZone::UTC, keep: 1000, compress: false };
            let sink = Sink::new(folder.path().join("logs/web.log").into(), Access::default(), rotation);
            Self { folder, sink, tidy: Tidy::default(), now }
        }

        fn write(&mut self, stream: u64, lines: &str) -> u64 {
            self.sink.write(stream, lines.as_bytes(), self.now, &self.tidy)
        }

        fn pass(&mut self, time: Duration) {
            self.now.instant += time;
            self.now.time += time;
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("logs/web.log")
        }

        /// What the files have, oldest first.
        fn texts(&self) -> Vec<String> {
            let mut paths = rotated_files(&self.path()).unwrap();
            paths.push(self.path());
            paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
        }
    }

    #[test]
    fn a_file_never_grows_beyond_its_size() {
        let mut files = Files::new(10, LogPeriod::Never);
        assert_eq!(files.write(1, "one\ntwo\nthree\nfour\n"), 0);
        assert_eq!(files.texts(), ["one\ntwo\n", "three\n", "four\n"]);
        files.write(1, "five\n");
        files.write(1, "six\n");
        assert_eq!(files.texts(), ["one\ntwo\n", "three\n", "four\nfive\n", "six\n"]);
        // A line that is longer has a file of its own.
        files.write(1, "a line that is long\nx\n");
        assert_eq!(files.texts()[3..], ["six\n", "a line that is long\n", "x\n"]);
    }

    #[test]
    fn a_line_is_ended_before_its_file_is_rotated() {
        let mut files = Files::new(10, LogPeriod::Never);
        files.write(1, "one\nunfin");
        files.write(1, "ished\ntwo\n");
        assert_eq!(files.texts(), ["one\nunfinished\n", "two\n"]);
        // But one that never ends does not fill the disk.
        for _ in 0..10 {
            files.write(1, "endless");
        }
        assert!(files.texts().iter().all(|text| text.len() <= 20), "{:?}", files.texts());
    }

    #[test]
    fn lines_of_two_streams_are_not_mixed() {
        let mut files = Files::new(0, LogPeriod::Never);
        files.write(1, "prompt: ");
        files.write(2, "other\n");
        files.write(1, "answer\n");
        assert_eq!(files.texts(), ["prompt: \nother\nanswer\n"]);
    }

    #[test]
    fn a_new_period_begins_a_new_file() {
        let mut files = Files::new(0, LogPeriod::Daily);
        files.write(1, "today\n");
        files.pass(Duration::from_hours(24));
        files.write(1, "tomorrow\n");
        files.write(1, "still\n");
        assert_eq!(files.texts(), ["today\n", "tomorrow\nstill\n"]);
    }

    #[test]
    fn a_file_that_is_taken_away_comes_back() {
        let mut files = Files::new(0, LogPeriod::Never);
        files.write(1, "one\n");
        fs::remove_dir_all(files.path().parent().unwrap()).unwrap();
        files.pass(LOOK);
        assert_eq!(files.write(1, "two\n"), 0);
        assert_eq!(files.texts(), ["two\n"]);
        // A folder that cannot be made: dropped and counted.
        fs::remove_dir_all(files.path().parent().unwrap()).unwrap();
        fs::write(files.path().parent().unwrap(), "").unwrap();
        files.pass(LOOK);
        assert_eq!(files.write(1, "three\n"), 6);
        fs::remove_file(files.path().parent().unwrap()).unwrap();
        assert_eq!(files.write(1, "four\n"), 5);
        files.pass(LOOK);
        assert_eq!(files.write(1, "five\n"), 0);
        assert_eq!(files.texts(), ["five\n"]);
    }

    #[test]
    fn a_file_is_made_by_its_first_byte() {
        let mut files = Files::new(0, LogPeriod::Never);
        files.sink.reopen(files.now);
        files.sink.flush().unwrap();
        assert!(!files.path().parent().unwrap().exists());
        files.write(1, "one\n");
        assert_eq!(files.texts(), ["one\n"]);
        // The next worker has written nothing yet.
        let rotation = files.sink.rotation.clone();
        files.sink = Sink::new(files.path().into(), Access::default(), rotation);
        files.sink.flush().unwrap();
        assert_eq!(files.texts(), [""]);
    }

    #[test]
    fn a_file_that_others_rename_is_left_to_them() {
        let mut files = Files::new(0, LogPeriod::Never);
        files.write(1, "one\n");
        let renamed = files.folder.path().join("theirs");
        fs::rename(files.path(), &renamed).unwrap();
        files.sink.reopen(files.now);
        files.write(1, "two\n");
        assert_eq!(fs::read_to_string(renamed).unwrap(), "one\n");
        assert_eq!(files.texts(), ["two\n"]);
    }

    #[test]
    fn flushing_empties_all() {
        let mut files = Files::new(4, LogPeriod::Never);
        files.write(1, "one\ntwo\n");
        files.sink.flush().unwrap();
        assert_eq!(files.texts(), [""]);
        files.write(1, "one\ntwo\n");
        let path = files.path();
        drop(files.sink);
        flush(&path, &Access::default()).unwrap();
        assert!(rotated_files(&path).unwrap().is_empty());
        assert_eq!(fs::read_to_string(path).unwrap(), "");
    }
}
