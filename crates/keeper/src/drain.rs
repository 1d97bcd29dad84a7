//! Workers' output while no master reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use crate::log::say;
use crate::table::Table;
use rustix::pipe::{SpliceFlags, splice};

/// How long nobody may read before the keeper does.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon it looks again after there was something, and after there was
/// nothing.
const BUSY: Duration = Duration::from_millis(20);
const IDLE: Duration = Duration::from_millis(100);
/// The most that is taken from one pipe at a time, bytes: what a pipe holds at
/// most, unless root has raised that.
const PIECE: usize = 1 << 20;

/// When to drain, and how much was drained.
#[derive(Debug)]
pub(crate) struct Drain {
    /// `/dev/null`, to be written.
    null: File,
    /// `None` while a master reads.
    due: Option<Instant>,
    /// Bytes thrown away, by the keys of the entries with the pipes; `None` until
    /// there was a pipe to drain.
    lost: Option<BTreeMap<Box<str>, u64>>,
}

impl Drain {
    /// Nobody reads yet.
    ///
    /// # Errors
    ///
    /// When `/dev/null` cannot be opened.
    pub(crate) fn new(now: Instant) -> io::Result<Self> {
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self { null, due: Some(now + PATIENCE), lost: None })
    }

    /// A master reads from now on. Returns what was thrown away.
    pub(crate) fn stop(&mut self) -> BTreeMap<Box<str>, u64> {
        self.due = None;
        let Some(lost) = self.lost.take() else { return BTreeMap::new() };
        let bytes: u64 = lost.values().sum();
        say!("the master reads workers' output again; {bytes} bytes of it were thrown away");
        lost
    }

    /// Nobody reads any more.
    pub(crate) fn start(&mut self, now: Instant) {
        self.due.get_or_insert(now + PATIENCE);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Empties each pipe, if it is time.
    pub(crate) fn run(&mut self, table: &Table, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let mut drained = 0;
        for (key, pipe) in table.pipes() {
            let lost = self.lost.get_or_insert_with(|| {
                say!("no master reads workers' output: throwing it away, so that they need not wait");
                BTreeMap::new()
            });
            // Unlike read(2), this never waits, whether O_NONBLOCK is set or
            // not, and though a new master may already read beside us.
            let bytes =
                splice(pipe, None, &self.null, None, PIECE, SpliceFlags::NONBLOCK).unwrap_or(0) as u64;
            if bytes > 0 {
                *lost.entry(key.into()).or_default() += bytes;
                drained += bytes;
            }
        }
        self.due = Some(now + if drained > 0 { BUSY } else { IDLE });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use supervisor_protocol::keeper::FdRole;

    use super::*;
    use crate::table::Entry;

    #[test]
    fn blocking_pipes_are_emptied_without_waiting() {
        let mut table = Table::new(usize::MAX);
        let mut writers = Vec::new();
        for key in ["empty", "full", "not to be drained"] {
            let (reader, writer) = io::pipe().unwrap();
            let role = if key.starts_with("not") { FdRole::Hold } else { FdRole::Drain };
            table.put(key, Entry { record: Box::default(), fds: Box::new([(role, OwnedFd::from(reader))]) });
            writers.push(writer);
        }
        writers[1].write_all(&[0; 65_536]).unwrap();
        writers[2].write_all(b"x").unwrap();

        let begin = Instant::now();
        let mut drain = Drain::new(begin).unwrap();
        drain.run(&table, begin);
        assert_eq!(drain.lost, None, "too early");
        drain.run(&table, begin + PATIENCE);
        assert_eq!(drain.deadline(), Some(begin + PATIENCE + BUSY));
        drain.run(&table, begin + PATIENCE + BUSY);
        assert_eq!(drain.stop(), BTreeMap::from([("full".into(), 65_536)]));
        assert_eq!(drain.deadline(), None);
        assert!(drain.stop().is_empty());
    }
}
