//! The master as the keeper's child: how it is started, what waits for it, and
//! when the next one comes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello, Orphan};
use supervisor_sys::spawn::{Launcher, Plan, ProcessGroup, Program, SpawnError};
use supervisor_sys::{Pid, fdpass};

use crate::table::Table;

/// A master that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(10);
/// One that has not said anything yet may take this long.
const BEGINNING: Duration = Duration::from_secs(30);
/// News that waits while the master does not read.
const WAITING: usize = 64;

/// A running master.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Our end of the pair; non-blocking.
    pub(crate) socket: OwnedFd,
    /// It has said that it serves.
    pub(crate) serves: bool,
    /// When it is taken to hang.
    pub(crate) silent_at: Instant,
    step: Step,
    /// News for a master that has the table.
    waiting: VecDeque<FromKeeper>,
}

/// What a master gets next.
#[derive(Debug)]
enum Step {
    Hello,
    /// The entry after this key.
    Entry {
        after: Option<String>,
    },
    /// The remembered status with this index.
    Orphan(usize),
    TableEnd,
    News,
}

/// What every master is started with.
#[derive(Debug)]
pub(crate) struct Cradle {
    pub(crate) launcher: Launcher,
    /// The binary that the keeper was started from.
    pub(crate) binary: OwnedFd,
    pub(crate) args: Vec<std::ffi::OsString>,
    pub(crate) null: File,
}

impl Cradle {
    /// Starts a master in a process group of its own, so that a terminal's
    /// Ctrl-C reaches the keeper only.
    pub(crate) fn start(
        &mut self,
        ours: OwnedFd,
        theirs: &OwnedFd,
        now: Instant,
    ) -> Result<Master, SpawnError> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let stdio = [self.null.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let plan = Plan {
            env: std::env::vars_os().collect(),
            fds: vec![theirs.as_fd()],
            process_group: ProcessGroup::NewGroup,
            ..Plan::new(Program::Binary(self.binary.as_fd()), self.args.clone(), stdio)
        };
        let child = self.launcher.spawn(&plan)?;
        Ok(Master {
            pid: child.pid,
            pidfd: child.pidfd,
            socket: ours,
            serves: false,
            silent_at: now + BEGINNING,
            step: Step::Hello,
            waiting: VecDeque::new(),
        })
    }
}

impl Master {
    /// Notes a sign of life.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.silent_at = now + SILENCE;
    }

    /// Tells it something once it has the table. News beyond what a master
    /// that does not read may leave waiting is lost.
    pub(crate) fn tell(&mut self, news: FromKeeper) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(news);
        }
    }

    /// Sends what it is to get, as far as it reads. Returns whether more waits.
    pub(crate) fn send(
        &mut self,
        hello: &Hello,
        table: &Table,
        orphans: &VecDeque<Orphan>,
    ) -> io::Result<bool> {
        loop {
            let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
            let (message, next) = match &self.step {
                Step::Hello => (FromKeeper::Hello(*hello), Step::Entry { after: None }),
                Step::Entry { after } => match table.after(after.as_deref()) {
                    Some((key, entry)) => {
                        fds.extend(entry.fds.iter().map(|(_, fd)| fd.as_fd()));
                        let roles: Vec<FdRole> = entry.fds.iter().map(|(role, _)| *role).collect();
                        let message =
                            FromKeeper::Entry { key: key.to_owned(), record: entry.record.to_vec(), roles };
                        (message, Step::Entry { after: Some(key.to_owned()) })
                    }
                    None => {
                        self.step = Step::Orphan(0);
                        continue;
                    }
                },
                Step::Orphan(index) => match orphans.get(*index) {
                    Some(orphan) => (FromKeeper::Orphan(*orphan), Step::Orphan(index + 1)),
                    None => {
                        self.step = Step::TableEnd;
                        continue;
                    }
                },
                Step::TableEnd => (FromKeeper::TableEnd, Step::News),
                Step::News => match self.waiting.front() {
                    Some(news) => (news.clone(), Step::News),
                    None => return Ok(false),
                },
            };
            match fdpass::send(&self.socket, &message.encode(), &fds) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            if matches!(self.step, Step::News) {
                self.waiting.pop_front();
            }
            self.step = next;
        }
    }
}

/// When the next master comes.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// Masters in a row that never served.
    failures: u32,
}

impl Restarts {
    /// The pause after a master has ended: none for one that had served, and
    /// for the first ones that had not.
    pub(crate) fn after(&mut self, served: bool) -> Duration {
        const FREE: u32 = 3;
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(15);
        self.failures = if served { 0 } else { self.failures.saturating_add(1) };
        match self.failures.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => FIRST.saturating_mul(2_u32.saturating_pow(more)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_that_served_is_replaced_at_once() {
        let mut restarts = Restarts::default();
        for _ in 0..1000 {
            assert_eq!(restarts.after(true), Duration::ZERO);
        }
    }

    #[test]
    fn masters_that_never_serve_are_slowed_down() {
        let mut restarts = Restarts::default();
        let pauses: Vec<u128> = (0..6).map(|_| restarts.after(false).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800]);
        for _ in 0..100 {
            restarts.after(false);
        }
        assert_eq!(restarts.after(false), Duration::from_secs(15));
        assert_eq!(restarts.after(true), Duration::ZERO);
        assert_eq!(restarts.after(false), Duration::ZERO);
    }
}
