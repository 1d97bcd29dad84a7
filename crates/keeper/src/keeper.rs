//! The loop.

mod upgrade;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello, MAX_PACKET, Orphan, OrphanExit, ToKeeper};
use supervisor_sys::fdpass::Received;
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, own, process};

use crate::Error;
use crate::drain::Drain;
use crate::ending::Ending;
use crate::error::system;
use crate::log::say;
use crate::lull::Lull;
use crate::master::{self, Cradle, Master, SafeMode};
use crate::news::News;
use crate::notify::ServiceManager;
use crate::restarts::{Ended, Next, Restarts};
use crate::signals::Signals;
use crate::state::Running;
use crate::table::{Entry, Table};
use upgrade::Upgrade;

/// How long a master that is to leave may take to do so.
const FAREWELL: Duration = Duration::from_secs(5);
/// The most messages that are taken in a turn of the loop: signals and children
/// have their turn, too.
const BURST: usize = 64;
/// The exit code when the keeper had to end everything itself.
const ALONE: u8 = 1;

/// The poller's token of signals.
const SIGNALS: u64 = 0;
const _: () = assert!(SIGNALS != master::TOKEN && SIGNALS != master::REHEARSAL);

/// Everything that the keeper has.
#[derive(Debug)]
pub(crate) struct Keeper {
    cradle: Cradle,
    signals: Signals,
    table: Table,
    hello: Hello,
    service_manager: ServiceManager,
    poller: Poller,
    master: Option<Master>,
    /// When the next master is started, while there is none.
    start_at: Option<Instant>,
    /// The next master is to be in safe mode.
    safe: Option<SafeMode>,
    /// Since when no master serves; `None` while one does.
    unserved_since: Option<Instant>,
    restarts: Restarts,
    /// It has just taken another keeper's place, and its master serves.
    is_settling: bool,
    /// A master has been started, by this keeper or the one before.
    begun: bool,
    drain: Drain,
    news: News,
    lull: Lull,
    ending: Ending,
    upgrade: Option<Upgrade>,
    finish: Option<Finish>,
    /// Room for a packet.
    buffer: Box<[u8]>,
}

/// The end of the keeper: once the master has left.
#[derive(Debug, Clone, Copy)]
struct Finish {
    code: u8,
    /// How long to wait for it.
    until: Instant,
}

impl Keeper {
    pub(crate) fn new(
        cradle: Cradle,
        signals: Signals,
        table: Table,
        hello: Hello,
        service_manager: ServiceManager,
        begun: bool,
    ) -> Result<Self, Error> {
        let poller = Poller::new().map_err(system("epoll_create"))?;
        poller.add(&signals, SIGNALS, Interest::Read).map_err(system("epoll_ctl"))?;
        let now = Instant::now();
        Ok(Self {
            cradle,
            signals,
            table,
            hello,
            service_manager,
            poller,
            master: None,
            start_at: Some(now),
            safe: None,
            unserved_since: Some(now),
            restarts: Restarts::default(),
            is_settling: false,
            begun,
            drain: Drain::new(now).map_err(system("opening /dev/null"))?,
            news: News::default(),
            // A worker that is started, or ends, is some ten changes.
            lull: Lull::new(640, 40),
            ending: Ending::default(),
            upgrade: None,
            finish: None,
            buffer: vec![0; MAX_PACKET].into(),
        })
    }

    /// Goes on with the master of the keeper that this process was before, if it
    /// has one, and with the news for masters.
    pub(crate) fn with(mut self, running: Option<Running>, news: News) -> Result<Self, Error> {
        self.news = news;
        if let Some(running) = running {
            let now = Instant::now();
            self.master = Some(Master::running(running, &self.poller, now).map_err(system("epoll_ctl"))?);
            self.start_at = None;
            self.unserved_since = None;
            self.drain.stop();
            self.is_settling = true;
        }
        Ok(self)
    }

    /// Runs until everything has ended. Returns the exit code.
    pub(crate) fn run(mut self) -> Result<u8, Error> {
        let mut events = Vec::new();
        // Children that ended before signals were caught.
        self.reap();
        loop {
            let now = Instant::now();
            self.start_master(now)?;
            self.end_silent_master(now);
            self.end_alone_when_due(now);
            self.look_after_upgrade(now);
            self.drain.run(&self.table, now);
            self.send_to_master(now);
            if let Some(finish) = self.finish
                && (self.master.is_none() || now >= finish.until)
            {
                return Ok(self.leave(finish));
            }
            let timeout = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            self.poller.wait(&mut events, timeout).map_err(system("epoll_wait"))?;
            for event in &events {
                match event.token {
                    SIGNALS => self.take_signals(),
                    master::REHEARSAL => self.hear_rehearsal(),
                    // The poller tells of the rest again.
                    _ => _ = self.hear_master(),
                }
            }
        }
    }

    /// When something is to be done, though nothing happens.
    fn deadline(&self) -> Option<Instant> {
        if let Some(finish) = self.finish {
            return Some(finish.until);
        }
        let master = self.master.as_ref();
        let deadlines = [
            master.map(|master| master.silence.deadline()),
            master.and_then(Master::retry),
            self.ending.deadline(self.unserved_since),
            self.upgrade_deadline(),
            self.start_at,
            self.drain.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Starts the next master when it is time.
    fn start_master(&mut self, now: Instant) -> Result<(), Error> {
        if self.finish.is_some() || self.start_at.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.start_at = None;
        match self.cradle.start(self.safe.as_ref(), &self.poller, now) {
            Ok(master) => {
                self.safe = None;
                // It has not heard yet that everything is to end.
                if self.ending.is_asked() {
                    self.news.add_signal(Signal::TERM);
                }
                self.master = Some(master);
                self.begun = true;
                Ok(())
            }
            // The first one tells whether it can work here at all. Later ones
            // are worth another try: descriptors, memory or processes may be
            // short for a while, and workers depend on us.
            Err(error) if !self.begun => Err(error),
            Err(error) if self.go_back(false, &error.to_string(), None) => {
                self.start_at = Some(now);
                Ok(())
            }
            Err(error) => {
                let pause = self.restarts.after_no_start();
                say!("cannot start a master: {error}; trying again in {pause:?}");
                self.start_at = Some(now + pause);
                Ok(())
            }
        }
    }

    /// Kills a master that hangs. Its end comes as SIGCHLD.
    fn end_silent_master(&mut self, now: Instant) {
        if self.master.as_ref().is_none_or(|master| now < master.silence.deadline()) {
            return;
        }
        // What it said may be waiting: it is us who may have been slow.
        self.hear_master();
        if let Some(master) = &mut self.master
            && master.silence.is_too_long(now)
        {
            say!("master {} does not answer any more: killing it", master.pid);
            let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
            master.silence.broken(now);
        }
    }

    /// Gives up waiting for a master to end everything.
    fn end_alone_when_due(&mut self, now: Instant) {
        if self.ending.deadline(self.unserved_since).is_some_and(|at| now >= at) {
            self.end_alone(now, "no master serves to end everything");
        }
    }

    /// Ends the master and then, when it can start no more, the workers.
    fn end_alone(&mut self, now: Instant, why: &str) {
        if self.finish.is_some() {
            return;
        }
        say!("{why}: killing all workers");
        if let Some(master) = &self.master {
            let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
        }
        self.finish = Some(Finish { code: ALONE, until: now + FAREWELL });
    }

    /// The last acts. Returns the exit code.
    fn leave(&mut self, finish: Finish) -> u8 {
        self.abandon_upgrade();
        if let Some(master) = &self.master {
            say!("master {} does not leave: killing it", master.pid);
            let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
        }
        for worker in self.table.with_role(FdRole::Process) {
            let _ = pidfd::send_signal(worker, Signal::KILL);
        }
        self.reap();
        finish.code
    }

    /// Sends the master what it is to get, as far as it reads.
    fn send_to_master(&mut self, now: Instant) {
        if let Some(master) = &mut self.master {
            master.send(&self.hello, &self.table, &mut self.news, &self.poller, now);
        }
    }

    /// Takes what the master has sent. Returns whether there may be more.
    fn hear_master(&mut self) -> bool {
        for _ in 0..BURST {
            let Some(master) = &mut self.master else { return false };
            match master.receive(&mut self.buffer) {
                Ok(received) if received.len > 0 => {
                    let now = Instant::now();
                    master.silence.broken(now);
                    self.take_message(received, now);
                }
                Ok(_) => {
                    // It has closed its end: SIGCHLD comes, if it has not, or
                    // the silence ends it. It fails for one taken out before.
                    let _ = self.poller.remove(&master.socket);
                    return false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Does what a message says.
    fn take_message(&mut self, received: Received, now: Instant) {
        let Received { len, fds, truncated } = received;
        match ToKeeper::decode(self.buffer.get(..len).unwrap_or_default()) {
            Ok(message) if truncated || message.fds() != fds.len() => {
                let (got, meant) = (fds.len(), message.fds());
                say!("{} is not stored: {got} of its {meant} descriptors have come", name(&message));
                self.refuse(message);
            }
            Ok(ToKeeper::Together(messages)) => {
                let mut fds = fds.into_iter();
                messages.into_iter().for_each(|message| self.obey(message, &mut fds, now));
            }
            Ok(message) => self.obey(message, &mut fds.into_iter(), now),
            Err(error) => say!("a message of the master is not understood: {error}"),
        }
    }

    /// Has the master know of the entries that are not stored.
    fn refuse(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Put { key, .. } => self.news.add_note(FromKeeper::Refused { key }),
            ToKeeper::Together(messages) => {
                messages.into_iter().for_each(|message| self.refuse(message));
            }
            ToKeeper::Delete { .. }
            | ToKeeper::Beat
            | ToKeeper::Adopted
            | ToKeeper::Notify { .. }
            | ToKeeper::Upgrade { .. }
            | ToKeeper::Failed { .. }
            | ToKeeper::Finish { .. } => {}
        }
    }

    /// Does what a message says that is no bundle. Its descriptors are the first
    /// ones.
    fn obey(&mut self, message: ToKeeper, fds: &mut std::vec::IntoIter<OwnedFd>, now: Instant) {
        match message {
            ToKeeper::Put { key, record, roles } => {
                self.lull.note();
                let fds = roles.into_iter().zip(fds).collect();
                if !self.table.put(&key, Entry { record: record.into(), fds }) {
                    let (entries, fds) = self.table.size();
                    say!("{key:?} is not stored: no room beside {entries} entries with {fds} descriptors");
                    self.news.add_note(FromKeeper::Refused { key });
                }
            }
            ToKeeper::Delete { key } => {
                self.lull.note();
                self.table.delete(&key);
            }
            ToKeeper::Together(_) => {}
            ToKeeper::Beat => {
                self.note_beat();
                let is_over = self.lull.beat();
                if std::mem::take(&mut self.is_settling) || is_over {
                    self.settle_down();
                }
            }
            ToKeeper::Upgrade { label } => self.begin_upgrade(label, fds.next(), now),
            ToKeeper::Failed { text } => {
                say!("the master cannot go on: {text}");
                if let Some(master) = &mut self.master {
                    master.last_words = Some(text);
                }
            }
            ToKeeper::Adopted => {
                self.unserved_since = None;
                let Some(master) = &mut self.master else { return };
                master.serves = true;
                // One in safe mode leaves the output to us.
                if !master.safe {
                    for (key, bytes) in self.drain.stop() {
                        self.news.add_note(FromKeeper::Lost { key: key.into(), bytes });
                    }
                }
                self.settle_down();
            }
            ToKeeper::Notify { text } => {
                if let Err(error) = self.service_manager.tell(&text) {
                    say!("cannot tell the service manager: {error}");
                }
            }
            ToKeeper::Finish { exit_code } if self.finish.is_none() => {
                // No worker is left but those that this master knew nothing of.
                self.finish = Some(Finish { code: exit_code, until: now + FAREWELL });
            }
            ToKeeper::Finish { .. } => {}
        }
    }

    /// Gives back what it took to get here, at the beginning and in a storm: the
    /// loop needs little of it.
    fn settle_down(&mut self) {
        self.table.pack();
        own::drop_code();
        own::trim_heap();
    }

    /// Passes signals on and reaps children.
    fn take_signals(&mut self) {
        let now = Instant::now();
        for signal in self.signals.take() {
            if matches!(signal, Signal::TERM | Signal::INT)
                && self.ending.ask(now, self.unserved_since.is_none())
            {
                self.end_alone(now, "asked again to end, and no master serves");
            }
            self.news.add_signal(signal);
        }
        if self.signals.take_child() {
            self.reap();
        }
    }

    /// Reaps every child that has ended: the master, or one that came to us
    /// when its parent died.
    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = pidfd::peek_any() {
            if self.master.as_ref().is_some_and(|master| master.pid == pid) {
                self.bury_master(exit);
            } else if self.rehearses(pid) {
                self.end_rehearsal(exit);
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
        while self.hear_master() {}
        let Some(master) = self.master.take() else { return };
        // It fails when the end of its messages was seen.
        let _ = self.poller.remove(&master.socket);
        if self.finish.is_some() {
            return;
        }
        let now = Instant::now();
        let is_replaced = self.try_new_binary(now)
            || self.go_back(master.serves, &exit.to_string(), master.last_words.clone());
        let ended = match (master.safe, master.serves) {
            // The next one is of another binary.
            _ if is_replaced => Ended::Served,
            (false, true) => Ended::Served,
            (false, false) => Ended::Failed,
            (true, _) if exit == Exit::Code(0) => Ended::Left,
            (true, _) => Ended::Died,
        };
        let Master { pid, last_words, .. } = master;
        match self.restarts.after(ended, now) {
            Next::Ordinary(pause) => {
                let when = if pause.is_zero() { "now".to_owned() } else { format!("in {pause:?}") };
                say!("master {pid} ended ({exit}); the next one starts {when}");
                self.start_at = Some(now + pause);
            }
            Next::Safe(pause) => {
                let failures = self.restarts.failures();
                let words = last_words.map(|words| format!(": {words}")).unwrap_or_default();
                let reason = format!(
                    "{failures} masters in a row ended before they served, the last one: {exit}{words}"
                );
                say!("{reason}");
                say!("safe mode: workers go on, but nobody replaces them; the next try is in {pause:?}");
                self.safe = Some(SafeMode { reason, pause });
                self.start_at = Some(now);
            }
        }
        self.unserved_since.get_or_insert(now);
        self.drain.start(now);
    }

    /// Notes how an orphan ended, before it is reaped: its start time is still
    /// to be read.
    fn remember(&mut self, pid: Pid, exit: Exit) {
        self.news.add_orphan(Orphan {
            pid: pid.as_raw_pid().unsigned_abs(),
            start_time: process::start_time(pid).unwrap_or(0),
            exit: match exit {
                Exit::Code(code) => OrphanExit::Code(code),
                Exit::Signal { number, .. } => OrphanExit::Signal(number),
            },
        });
    }
}

/// What a message is about, for people.
fn name(message: &ToKeeper) -> String {
    match message {
        ToKeeper::Put { key, .. } => format!("{key:?}"),
        ToKeeper::Together(messages) => messages.iter().map(name).collect::<Vec<_>>().join(" with "),
        ToKeeper::Delete { .. }
        | ToKeeper::Beat
        | ToKeeper::Adopted
        | ToKeeper::Notify { .. }
        | ToKeeper::Upgrade { .. }
        | ToKeeper::Failed { .. }
        | ToKeeper::Finish { .. } => "a message".to_owned(),
    }
}
