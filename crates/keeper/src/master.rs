//! The master as the keeper's child: how it is started, and what it is sent.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello};
use supervisor_sys::fdpass::{self, Received};
use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::spawn::{Launcher, Plan, ProcessGroup, Program};
use supervisor_sys::{Pid, socket};

use crate::Error;
use crate::error::system;
use crate::news::News;
use crate::notify;
use crate::silence::Silence;
use crate::state::Running;
use crate::table::Table;

/// The poller's token of a master's messages.
pub(crate) const TOKEN: u64 = 1;
/// That of a child that rehearses.
pub(crate) const REHEARSAL: u64 = 2;
/// What tells it so.
const REHEARSE: &str = "--rehearse";
/// The most messages to one master in a turn of the loop.
const BURST: usize = 256;
/// When to try again after the kernel had no room for a message that does not
/// show as a full buffer: memory, or descriptors under way.
const RETRY: Duration = Duration::from_millis(50);

/// A running master.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Our end of the pair; non-blocking, and in the poller.
    pub(crate) socket: OwnedFd,
    /// It has said that it serves.
    pub(crate) serves: bool,
    /// Why it cannot go on, as it has said.
    pub(crate) last_words: Option<String>,
    pub(crate) silence: Silence,
    token: u64,
    step: Step,
    /// The first orphan that it has not been told of.
    orphan: u64,
    /// The last news of an upgrade that it has been told.
    upgrade: u64,
    /// What the poller waits for.
    interest: Interest,
    retry: Option<Instant>,
}

/// What a master gets next.
#[derive(Debug)]
enum Step {
    Hello,
    /// The entry after this key.
    Entry {
        after: Option<String>,
    },
    /// The orphans so far, then the end of the table.
    Orphans,
    /// Whatever happens.
    News,
    /// Nothing: it has closed its end, or has what it is to rehearse with.
    Nothing,
}

/// What every master is started with.
#[derive(Debug)]
pub(crate) struct Cradle {
    pub(crate) launcher: Launcher,
    /// The binary that the keeper was started from.
    pub(crate) binary: OwnedFd,
    pub(crate) args: Vec<OsString>,
    /// What a keeper is started with that takes this one's place.
    pub(crate) keeper_args: Vec<OsString>,
    pub(crate) null: File,
}

impl Cradle {
    /// Starts a master. `poller` announces its messages, under [`TOKEN`].
    ///
    /// # Errors
    ///
    /// When descriptors, memory or processes are short; nothing is left behind.
    pub(crate) fn start(&mut self, poller: &Poller, now: Instant) -> Result<Master, Error> {
        let Self { launcher, binary, args, null, .. } = self;
        Master::start(launcher, binary.as_fd(), args.clone(), null, (TOKEN, None), poller, now)
    }

    /// Starts a child of another binary that is to restore a copy of the table
    /// and of this state, and to touch nothing. `poller` announces its messages, under
    /// [`REHEARSAL`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub(crate) fn rehearse(
        &mut self,
        binary: BorrowedFd<'_>,
        state: BorrowedFd<'_>,
        poller: &Poller,
        now: Instant,
    ) -> Result<Master, Error> {
        let args = self.args.iter().cloned().chain([REHEARSE.into()]).collect();
        Master::start(&mut self.launcher, binary, args, &self.null, (REHEARSAL, Some(state)), poller, now)
    }
}

impl Master {
    /// Starts one in a process group of its own, so that a terminal's Ctrl-C
    /// reaches the keeper only.
    fn start(
        launcher: &mut Launcher,
        binary: BorrowedFd<'_>,
        args: Vec<OsString>,
        null: &File,
        (token, state): (u64, Option<BorrowedFd<'_>>),
        poller: &Poller,
        now: Instant,
    ) -> Result<Self, Error> {
        let (ours, theirs) = fdpass::seqpacket_pair().map_err(system("socketpair"))?;
        socket::set_nonblocking(&ours, true).map_err(system("fcntl"))?;
        // Closing it, should the spawn fail, takes it out again: it has no
        // duplicate.
        poller.add(&ours, token, Interest::Read).map_err(system("epoll_ctl"))?;
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let stdio = [null.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let plan = Plan {
            env: std::env::vars_os().filter(|(name, _)| name != notify::VARIABLE).collect(),
            fds: [theirs.as_fd()].into_iter().chain(state).collect(),
            process_group: ProcessGroup::NewGroup,
            ..Plan::new(Program::Binary(binary), args, stdio)
        };
        let child = launcher.spawn(&plan)?;
        Ok(Self {
            pid: child.pid,
            pidfd: child.pidfd,
            socket: ours,
            serves: false,
            last_words: None,
            silence: Silence::new(now),
            token,
            step: Step::Hello,
            orphan: 0,
            upgrade: 0,
            interest: Interest::Read,
            retry: None,
        })
    }

    /// One that another keeper has started, in the process that is this one.
    pub(crate) fn running(running: Running, poller: &Poller, now: Instant) -> io::Result<Self> {
        let Running { pid, pidfd, socket, orphan } = running;
        poller.add(&socket, TOKEN, Interest::Read)?;
        let mut silence = Silence::new(now);
        silence.broken(now);
        Ok(Self {
            pid,
            pidfd,
            socket,
            serves: true,
            last_words: None,
            silence,
            token: TOKEN,
            step: Step::News,
            orphan,
            upgrade: 0,
            interest: Interest::Read,
            retry: None,
        })
    }

    /// The first orphan that it has not been told of.
    pub(crate) const fn orphan(&self) -> u64 {
        self.orphan
    }

    /// Its next message; one without bytes when it has closed its end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` without one.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        receive(&self.socket, buffer)
    }

    /// When to [`send`](Self::send) again, though nothing happens.
    pub(crate) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Sends what it is to get, as far as it reads, and has the poller wait for
    /// the rest.
    ///
    /// First comes the table, an entry at a time: only the place in it is kept.
    /// Entries that change meanwhile were changed by this very master.
    pub(crate) fn send(
        &mut self,
        hello: &Hello,
        table: &Table,
        news: &mut News,
        poller: &Poller,
        now: Instant,
    ) {
        self.retry = None;
        let mut interest = Interest::ReadWrite;
        for _ in 0..BURST {
            match self.send_next(hello, table, news) {
                Ok(true) => {}
                Ok(false) => {
                    interest = Interest::Read;
                    break;
                }
                Err(error) => {
                    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are lacks that pass")]
                    match error.kind() {
                        io::ErrorKind::WouldBlock => {}
                        // The end of its messages tells that it has gone.
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                            self.step = Step::Nothing;
                            interest = Interest::Read;
                        }
                        _ => {
                            self.retry = Some(now + RETRY);
                            interest = Interest::Read;
                        }
                    }
                    break;
                }
            }
        }
        if interest != self.interest {
            self.interest = interest;
            // It fails only for one that has closed its end and was taken out.
            let _ = poller.modify(&self.socket, self.token, interest);
        }
    }

    /// Sends one message. Returns whether there was one.
    fn send_next(&mut self, hello: &Hello, table: &Table, news: &mut News) -> io::Result<bool> {
        match &self.step {
            Step::Hello => {
                self.put(&FromKeeper::Hello(*hello), &[])?;
                self.step = Step::Entry { after: None };
            }
            Step::Entry { after } => match table.after(after.as_deref()) {
                Some((key, entry)) => {
                    let fds: Vec<BorrowedFd<'_>> = entry.fds.iter().map(|(_, fd)| fd.as_fd()).collect();
                    let roles: Vec<FdRole> = entry.fds.iter().map(|(role, _)| *role).collect();
                    let record = entry.record.to_vec();
                    self.put(&FromKeeper::Entry { key: key.to_owned(), record, roles }, &fds)?;
                    self.step = Step::Entry { after: Some(key.to_owned()) };
                }
                None => self.step = Step::Orphans,
            },
            Step::Orphans => {
                if !self.send_orphan(news)? && !self.send_upgrade(news)? {
                    self.put(&FromKeeper::TableEnd, &[])?;
                    self.step = if self.token == REHEARSAL { Step::Nothing } else { Step::News };
                }
            }
            Step::News => match news.signal() {
                Some(signal) => {
                    self.put(&FromKeeper::Signal { number: signal.as_raw() }, &[])?;
                    news.signal_sent();
                }
                None => return Ok(self.send_orphan(news)? || self.send_upgrade(news)?),
            },
            Step::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Tells of the next orphan. Returns whether there was one.
    fn send_orphan(&mut self, news: &News) -> io::Result<bool> {
        let Some((number, orphan)) = news.orphan(self.orphan) else { return Ok(false) };
        self.put(&FromKeeper::Orphan(orphan), &[])?;
        self.orphan = number + 1;
        Ok(true)
    }

    /// Tells how far an upgrade has come. Returns whether that was news.
    fn send_upgrade(&mut self, news: &News) -> io::Result<bool> {
        let Some((number, upgrade)) = news.upgrade(self.upgrade) else { return Ok(false) };
        self.put(&FromKeeper::Upgrade(upgrade.clone()), &[])?;
        self.upgrade = number;
        Ok(true)
    }

    fn put(&self, message: &FromKeeper, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        fdpass::send(&self.socket, &message.encode(), fds)
    }
}

/// Receives a message, though the peer left some of ours unread when it ended.
/// The kernel reports that as an error, once, before it gives what the peer had
/// sent.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        match fdpass::receive(socket, buffer) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_master_sent_is_received_though_it_left_ours_unread() {
        let (ours, theirs) = fdpass::seqpacket_pair().unwrap();
        fdpass::send(&ours, b"unread", &[]).unwrap();
        fdpass::send(&theirs, b"first", &[]).unwrap();
        fdpass::send(&theirs, b"second", &[]).unwrap();
        drop(theirs);
        let mut buffer = [0; 16];
        for sent in [&b"first"[..], b"second", b""] {
            let length = receive(&ours, &mut buffer).unwrap().len;
            assert_eq!(&buffer[..length], sent);
        }
    }
}
