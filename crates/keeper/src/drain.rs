//! Workers' output while no master reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::log::say;
use crate::table::Table;
use rustix::io::ioctl_fionread;
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, splice};

/// How long nobody may read before the keeper does.
const PATIENCE: Duration = Duration::from_secs(1);
/// A pipe is emptied when this part of its size is used, one in so many; what is
/// in it until then waits for the next master. A pipe can be full when half of it
/// is used, the smallest even sooner: a write that does not fit into the rest of
/// a page begins the next one (`pipe_write` in the kernel's `fs/pipe.c`), and a
/// master may have read a part of the first.
const FILLING: usize = 4;
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
    /// Bytes thrown away, by the keys of the entries with the pipes.
    lost: BTreeMap<Box<str>, u64>,
}

impl Drain {
    /// Nobody reads yet.
    ///
    /// # Errors
    ///
    /// When `/dev/null` cannot be opened.
    pub(crate) fn new(now: Instant) -> io::Result<Self> {
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self { null, due: Some(now + PATIENCE), lost: BTreeMap::new() })
    }

    /// A master reads from now on. Returns what was thrown away.
    pub(crate) fn stop(&mut self) -> BTreeMap<Box<str>, u64> {
        self.due = None;
        let lost = std::mem::take(&mut self.lost);
        if !lost.is_empty() {
            let bytes: u64 = lost.values().sum();
            say!("the master reads workers' output again; {bytes} bytes of it were thrown away");
        }
        lost
    }

    /// Nobody reads any more.
    pub(crate) fn start(&mut self, now: Instant) {
        self.due.get_or_insert(now + PATIENCE);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Empties each pipe that fills, if it is time.
    pub(crate) fn run(&mut self, table: &Table, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let mut drained = 0;
        for (key, pipe) in table.pipes().filter(|(_, pipe)| fills(pipe)) {
            // Unlike read(2), this never waits, whether O_NONBLOCK is set or
            // not, and though a new master may already read beside us.
            let bytes =
                splice(pipe, None, &self.null, None, PIECE, SpliceFlags::NONBLOCK).unwrap_or(0) as u64;
            if bytes > 0 {
                if self.lost.is_empty() {
                    say!(
                        "no master reads workers' output: what fills a pipe is thrown away, so that they need not wait"
                    );
                }
                *self.lost.entry(key.into()).or_default() += bytes;
                drained += bytes;
            }
        }
        self.due = Some(now + if drained > 0 { BUSY } else { IDLE });
    }
}

/// Whether a writer would soon wait for a reader.
fn fills(pipe: impl AsFd) -> bool {
    let used = ioctl_fionread(&pipe).unwrap_or(0);
    used > 0 && fcntl_getpipe_size(&pipe).is_ok_and(|size| used >= (size / FILLING) as u64)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;

    use rustix::pipe::fcntl_setpipe_size;
    use supervisor_protocol::keeper::FdRole;

    use super::*;
    use crate::table::Entry;

    #[test]
    fn blocking_pipes_that_fill_are_emptied_without_waiting() {
        let mut table = Table::new(usize::MAX);
        let mut writers = Vec::new();
        for key in ["empty", "full", "nearly empty", "not to be drained"] {
            let (reader, writer) = io::pipe().unwrap();
            let role = if key.starts_with("not") { FdRole::Hold } else { FdRole::Drain };
            table.put(key, Entry { record: Box::default(), fds: Box::new([(role, OwnedFd::from(reader))]) });
            writers.push(writer);
        }
        writers[1].write_all(&[0; 65_536]).unwrap();
        writers[2].write_all(&[0; 16_383]).unwrap();
        writers[3].write_all(&[0; 65_536]).unwrap();

        let begin = Instant::now();
        let mut drain = Drain::new(begin).unwrap();
        drain.run(&table, begin);
        assert!(drain.lost.is_empty(), "too early");
        drain.run(&table, begin + PATIENCE);
        assert_eq!(drain.deadline(), Some(begin + PATIENCE + BUSY));
        drain.run(&table, begin + PATIENCE + BUSY);
        assert_eq!(drain.deadline(), Some(begin + PATIENCE + BUSY + IDLE));
        assert_eq!(drain.lost, BTreeMap::from([("full".into(), 65_536)]));
        writers[2].write_all(b"x").unwrap();
        drain.run(&table, begin + PATIENCE + BUSY + IDLE);
        assert_eq!(drain.stop(), BTreeMap::from([("full".into(), 65_536), ("nearly empty".into(), 16_384)]));
        assert_eq!(drain.deadline(), None);
        assert!(drain.stop().is_empty());
    }

    #[test]
    fn a_pipe_fills_before_its_writer_waits() {
        // The smallest pipe, of whose first page all but a byte was read, and writes that share no page.
        let (mut reader, mut writer) = io::pipe().unwrap();
        fcntl_setpipe_size(&writer, 8192).unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        writer.write_all(&[0; 4096]).unwrap();
        reader.read_exact(&mut [0; 4095]).unwrap();
        assert!(!fills(&reader));
        writer.write_all(&[0; 2049]).unwrap();
        assert_eq!(writer.write(&[0; 2049]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(fills(&reader));
    }
}
