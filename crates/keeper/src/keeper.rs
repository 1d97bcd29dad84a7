//! The loop.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello, MAX_PACKET, Orphan, OrphanExit, ToKeeper};
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, fdpass, process, socket};

use crate::Error;
use crate::drain::Drain;
use crate::error::system;
use crate::master::{Cradle, Master, Restarts};
use crate::signals::Signals;
use crate::table::{Entry, Table};

/// Statuses of orphans that are remembered for the next master.
const ORPHANS: usize = 4096;
/// How long a master that has finished may take to leave.
const FAREWELL: Duration = Duration::from_secs(5);
/// A second TERM counts only this long after the first.
const SECOND_SIGNAL: Duration = Duration::from_secs(1);

const SIGNALS: u64 = 0;
const MASTER: u64 = 1;

/// Everything that the keeper has.
#[derive(Debug)]
pub(crate) struct Keeper {
    cradle: Cradle,
    signals: Signals,
    table: Table,
    hello: Hello,
    poller: Poller,
    master: Option<Master>,
    /// When the next master is started, while there is none.
    start_at: Option<Instant>,
    restarts: Restarts,
    /// A master has been started.
    begun: bool,
    drain: Drain,
    orphans: VecDeque<Orphan>,
    /// When everything was first asked to end.
    ending_since: Option<Instant>,
    /// Everything has ended: the exit code, and how long to wait for the
    /// master.
    finished: Option<(u8, Instant)>,
    buffer: Box<[u8]>,
}

impl Keeper {
    pub(crate) fn new(cradle: Cradle, signals: Signals, table: Table, hello: Hello) -> Result<Self, Error> {
        let poller = Poller::new().map_err(system("epoll"))?;
        poller.add(&signals, SIGNALS, Interest::Read).map_err(system("epoll"))?;
        let now = Instant::now();
        Ok(Self {
            cradle,
            signals,
            table,
            hello,
            poller,
            master: None,
            start_at: Some(now),
            restarts: Restarts::default(),
            begun: false,
            drain: Drain::new(now),
            orphans: VecDeque::new(),
            ending_since: None,
            finished: None,
            buffer: vec![0; MAX_PACKET].into(),
        })
    }

    /// Runs until everything has ended. Returns the exit code.
    pub(crate) fn run(mut self) -> Result<u8, Error> {
        let mut events = Vec::new();
        loop {
            let now = Instant::now();
            if let Some(code) = self.is_over(now) {
                return Ok(code);
            }
            self.start_master(now)?;
            self.end_silent_master(now);
            self.drain.run(&self.table, now);
            let timeout = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            self.poller.wait(&mut events, timeout).map_err(system("epoll"))?;
            for event in &events {
                match event.token {
                    SIGNALS => {
                        if let Some(code) = self.take_signals() {
                            return Ok(code);
                        }
                    }
                    _ => self.hear_master(),
                }
            }
            self.send_to_master();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let silent = self.master.as_ref().map(|master| master.silent_at);
        let farewell = self.finished.map(|(_, until)| until);
        [silent, farewell, self.start_at, self.drain.deadline()].into_iter().flatten().min()
    }

    fn is_over(&self, now: Instant) -> Option<u8> {
        let (code, until) = self.finished?;
        (self.master.is_none() || now >= until).then_some(code)
    }

    /// Starts the next master when it is time.
    fn start_master(&mut self, now: Instant) -> Result<(), Error> {
        if self.finished.is_some() || self.start_at.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.start_at = None;
        let (ours, theirs) = fdpass::seqpacket_pair().map_err(system("socketpair"))?;
        socket::set_nonblocking(&ours, true).map_err(system("fcntl"))?;
        match self.cradle.start(ours, &theirs, now) {
            Ok(mut master) => {
                self.poller.add(&master.socket, MASTER, Interest::Read).map_err(system("epoll"))?;
                // It has not heard yet that everything is to end.
                if self.ending_since.is_some() {
                    master.tell(FromKeeper::Signal { number: Signal::TERM.as_raw() });
                }
                self.master = Some(master);
                self.begun = true;
                Ok(())
            }
            // The first one tells whether it can work here at all. Later ones
            // are worth another try: memory or processes may be short.
            Err(error) if !self.begun => Err(Error::Spawn(error)),
            Err(error) => {
                eprintln!("keeper: cannot start a master: {error}");
                self.start_at = Some(now + self.restarts.after(false).max(Duration::from_millis(100)));
                Ok(())
            }
        }
    }

    fn end_silent_master(&mut self, now: Instant) {
        if let Some(master) = self.master.as_mut().filter(|master| now >= master.silent_at) {
            eprintln!("keeper: master {} does not answer any more; replacing it", master.pid);
            // Its end comes as SIGCHLD.
            let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
            master.heard(now);
        }
    }

    /// Sends the master what it is to get, as far as it reads.
    fn send_to_master(&mut self) {
        let Some(master) = &mut self.master else { return };
        let interest = match master.send(&self.hello, &self.table, &self.orphans) {
            Ok(false) => Interest::Read,
            Ok(true) => Interest::ReadWrite,
            // It has ended: SIGCHLD comes.
            Err(_) => {
                let _ = self.poller.remove(&master.socket);
                return;
            }
        };
        // The only failure is that it was taken out of the set before.
        let _ = self.poller.modify(&master.socket, MASTER, interest);
    }

    /// Takes what the master sends, until there is nothing more.
    fn hear_master(&mut self) {
        while let Some(master) = &mut self.master {
            let received = match fdpass::receive(&master.socket, &mut self.buffer) {
                Ok(received) if received.len > 0 => received,
                Ok(_) => {
                    // It has closed its end: SIGCHLD comes, if it has not.
                    let _ = self.poller.remove(&master.socket);
                    return;
                }
                Err(_) => return,
            };
            master.heard(Instant::now());
            let packet = self.buffer.get(..received.len).unwrap_or_default();
            match ToKeeper::decode(packet) {
                Ok(_) if received.truncated => {
                    eprintln!("keeper: a message came without all of its descriptors")
                }
                Ok(ToKeeper::Put { key, record, roles }) if roles.len() == received.fds.len() => {
                    let fds = roles.into_iter().zip(received.fds).collect();
                    if !self.table.put(&key, Entry { record: record.into(), fds }) {
                        eprintln!("keeper: no room for {key}");
                    }
                }
                Ok(ToKeeper::Put { key, .. }) => eprintln!("keeper: {key} came without its descriptors"),
                Ok(ToKeeper::Delete { key }) => self.table.delete(&key),
                Ok(ToKeeper::Beat) => {}
                Ok(ToKeeper::Adopted) => {
                    master.serves = true;
                    let lost = self.drain.stop();
                    if lost > 0 {
                        eprintln!("keeper: {lost} bytes of output were lost while no master read");
                    }
                }
                Ok(ToKeeper::Finish { exit_code }) => {
                    self.finished = Some((exit_code, Instant::now() + FAREWELL));
                }
                Err(error) => eprintln!("keeper: not understood: {error}"),
            }
        }
    }

    /// Passes signals on and reaps children. Returns the exit code when the
    /// keeper must leave at once.
    fn take_signals(&mut self) -> Option<u8> {
        for signal in self.signals.take() {
            if matches!(signal, Signal::TERM | Signal::INT) && self.must_end_alone() {
                return Some(1);
            }
            if let Some(master) = &mut self.master {
                master.tell(FromKeeper::Signal { number: signal.as_raw() });
            }
        }
        if self.signals.take_child() {
            self.reap();
        }
        None
    }

    /// Notes a request to end. When it is the second one and no master serves,
    /// all workers are killed here.
    fn must_end_alone(&mut self) -> bool {
        let since = *self.ending_since.get_or_insert_with(Instant::now);
        let served = self.master.as_ref().is_some_and(|master| master.serves);
        if served || since.elapsed() < SECOND_SIGNAL {
            return false;
        }
        eprintln!("keeper: asked twice to end and no master serves: killing all workers");
        if let Some(master) = &self.master {
            let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
        }
        for worker in self.table.with_role(FdRole::Process) {
            let _ = pidfd::send_signal(worker, Signal::KILL);
        }
        true
    }

    /// Reaps every child that has ended: the master, or one that came to us
    /// when its parent died.
    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = pidfd::peek_any() {
            if self.master.as_ref().is_some_and(|master| master.pid == pid) {
                self.bury_master(exit);
            } else {
                self.remember(pid, exit);
            }
            if pidfd::reap_pid(pid).is_err() {
                return;
            }
        }
    }

    fn bury_master(&mut self, exit: Exit) {
        // What it sent before it ended counts.
        self.hear_master();
        let Some(master) = self.master.take() else { return };
        let _ = self.poller.remove(&master.socket);
        if self.finished.is_some() {
            return;
        }
        let now = Instant::now();
        let pause = self.restarts.after(master.serves);
        eprintln!("keeper: master {} ended ({exit}); the next one starts in {pause:?}", master.pid);
        self.start_at = Some(now + pause);
        self.drain.start(now);
    }

    /// Notes how an orphan ended, before it is reaped.
    fn remember(&mut self, pid: Pid, exit: Exit) {
        let orphan = Orphan {
            pid: pid.as_raw_pid().unsigned_abs(),
            start_time: process::start_time(pid).unwrap_or(0),
            exit: match exit {
                Exit::Code(code) => OrphanExit::Code(code),
                Exit::Signal { number, .. } => OrphanExit::Signal(number),
            },
        };
        if self.orphans.len() == ORPHANS {
            self.orphans.pop_front();
        }
        self.orphans.push_back(orphan);
        if let Some(master) = &mut self.master {
            master.tell(FromKeeper::Orphan(orphan));
        }
    }
}
