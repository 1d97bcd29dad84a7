//! Workers' output while no master reads it.

use std::time::{Duration, Instant};

use supervisor_protocol::keeper::FdRole;

use crate::table::Table;

/// How long nobody may read before the keeper does.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it does then.
const EVERY: Duration = Duration::from_millis(100);
/// What is read of one pipe at a time, bytes.
const PIECE: usize = 64 * 1024;

/// When to drain, and how much was drained.
#[derive(Debug)]
pub(crate) struct Drain {
    /// `None` while a master reads.
    due: Option<Instant>,
    lost: u64,
}

impl Drain {
    /// Nobody reads yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: Some(now + PATIENCE), lost: 0 }
    }

    /// A master reads from now on. Returns how many bytes were thrown away
    /// before.
    pub(crate) fn stop(&mut self) -> u64 {
        self.due = None;
        std::mem::take(&mut self.lost)
    }

    /// Nobody reads any more.
    pub(crate) fn start(&mut self, now: Instant) {
        self.due.get_or_insert(now + PATIENCE);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Reads a piece of each pipe, if it is time. The pipes are non-blocking:
    /// the master has made them so.
    pub(crate) fn run(&mut self, table: &Table, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let mut buffer = vec![0; PIECE];
        for pipe in table.with_role(FdRole::Drain) {
            self.lost += rustix::io::read(pipe, &mut buffer[..]).unwrap_or(0) as u64;
        }
        self.due = Some(now + EVERY);
    }
}
