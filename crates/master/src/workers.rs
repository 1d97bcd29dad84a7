//! The processes: from the core's [`WorkerId`] to a pidfd, and back from news
//! of the kernel to events.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::{AppId, Event, Exit, SeatId, WorkerId};
use supervisor_protocol::keeper::{Orphan, OrphanExit};
use supervisor_sys::pidfd::{self, Exit as ProcessExit};
use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::Child;
use supervisor_sys::{Pid, fdpass, process};

use crate::capture::Captured;
use crate::cgroups::{Cgroups, WorkerCgroup};
use crate::channel::Figures;
use crate::family::Processes;
use crate::fault;
use crate::link::Link;
use crate::notify::{self, Word};
use crate::records::{self, Held, WorkerRecord};
use crate::settings::Settings;

/// How often what outlives a worker's main process is looked at.
const LINGER: Duration = Duration::from_millis(20);
/// How long it is waited for somebody to tell how an adopted worker ended.
const STATUS: Duration = Duration::from_secs(2);

/// A living worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) settings: Rc<Settings>,
    /// What the keeper knows of it.
    pub(crate) record: WorkerRecord,
    /// Where its sockets are.
    pub(crate) seat: SeatId,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Where it and all that it starts are, if there are cgroups for workers.
    pub(crate) cgroup: Option<WorkerCgroup>,
    /// Where it sends `sd_notify(3)` messages.
    pub(crate) notify: OwnedFd,
    /// How its channel does, if it has one.
    pub(crate) channel: Option<Arc<Figures>>,
    /// Its calls, where its sockets are captured.
    pub(crate) captured: Option<Captured>,
    /// The last `STATUS=`.
    pub(crate) message: Option<String>,
    /// How much of its output the keeper has thrown away.
    pub(crate) lost_log_bytes: u64,
    /// It was asked to end.
    asked: bool,
    /// It was killed.
    killed: bool,
    /// Its process is gone, others of its group or cgroup are not.
    left: Option<Exit>,
    /// An earlier master has started it: it is the keeper's child, who reaps it
    /// and tells how it ended, or that of a stranger.
    adopted: bool,
}

/// How a worker is found by a master that has not started it.
#[derive(Debug)]
pub(crate) struct Foundling {
    pub(crate) settings: Rc<Settings>,
    pub(crate) record: WorkerRecord,
    pub(crate) seat: SeatId,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: Option<WorkerCgroup>,
    pub(crate) notify: OwnedFd,
    pub(crate) captured: Option<Captured>,
    /// It knows that it is to end.
    pub(crate) told: bool,
    pub(crate) killed: bool,
}

/// What is known of the end of an adopted worker.
#[derive(Debug, Clone, Copy)]
enum Told {
    Exit(Exit),
    /// Its parent has not reaped it, or the keeper has not told.
    Later,
    /// Nobody will tell.
    Nothing,
}

/// What the poller tells of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Its process ended.
    Ended(WorkerId),
    /// It sent a message.
    Said(WorkerId),
    /// It calls `bind` or `listen`.
    Calls(WorkerId),
}

/// All living workers.
#[derive(Debug)]
pub(crate) struct Workers {
    /// In boxes: of the places of a tree that only grows half are empty.
    alive: BTreeMap<WorkerId, Box<Worker>>,
    /// Those that ended by themselves and are not reaped yet.
    dead: Vec<(WorkerId, Box<Worker>, Exit)>,
    /// Those whose group or cgroup outlives them.
    lingering: Vec<WorkerId>,
    /// When these are looked at next.
    look_at: Instant,
    /// Adopted workers that have ended, and until when it is waited for somebody
    /// to tell how.
    unknown: Vec<(WorkerId, Instant)>,
    pub(crate) cgroups: Cgroups,
}

impl News {
    /// The poller's token for it. Worker ids stay far below 2⁶².
    const fn token(self) -> u64 {
        match self {
            Self::Ended(worker) => worker.0 << 2,
            Self::Said(worker) => worker.0 << 2 | 1,
            Self::Calls(worker) => worker.0 << 2 | 2,
        }
    }

    /// What a token stands for.
    pub(crate) const fn from_token(token: u64) -> Self {
        let worker = WorkerId(token >> 2);
        match token & 3 {
            0 => Self::Ended(worker),
            1 => Self::Said(worker),
            _ => Self::Calls(worker),
        }
    }
}

impl Worker {
    pub(crate) fn new(
        settings: Rc<Settings>,
        record: WorkerRecord,
        seat: SeatId,
        child: Child,
        cgroup: Option<WorkerCgroup>,
        notify: OwnedFd,
        calls: Option<OwnedFd>,
    ) -> Self {
        let Child { pid, pidfd, .. } = child;
        Self {
            settings,
            record,
            seat,
            pid,
            pidfd,
            cgroup,
            notify,
            channel: None,
            captured: calls.map(Captured::new),
            message: None,
            lost_log_bytes: 0,
            asked: false,
            killed: false,
            left: None,
            adopted: false,
        }
    }

    /// A worker that an earlier master has started.
    pub(crate) fn adopted(found: Foundling) -> Self {
        let Foundling { settings, record, seat, pid, pidfd, cgroup, notify, captured, told, killed } = found;
        Self {
            settings,
            record,
            seat,
            pid,
            pidfd,
            cgroup,
            notify,
            channel: None,
            captured,
            message: None,
            lost_log_bytes: 0,
            asked: told,
            killed,
            left: None,
            adopted: true,
        }
    }

    /// Lets the keeper know how its process ended, and reaps that.
    fn reap(&self, id: WorkerId, exit: Exit, poller: &Poller, link: &Link) {
        let mut record = WorkerRecord { exit: Some(exit.into()), ..self.record.clone() };
        let held = [(Held::Process, self.pidfd.as_fd()), (Held::Notify, self.notify.as_fd())];
        record.replace(id, &held, link);
        // A closed pidfd would leave the poller by itself, but the keeper has
        // another descriptor for it.
        let _ = poller.remove(&self.pidfd);
        fault::step();
        if !self.adopted {
            let _ = pidfd::reap(&self.pidfd);
        }
        fault::step();
    }

    /// Hears nothing of it any more. The keeper has other descriptors, so closing
    /// these would not do.
    fn leave(&self, poller: &Poller) {
        let _ = poller.remove(&self.notify);
        if let Some(captured) = &self.captured {
            let _ = poller.remove(&captured.notify);
        }
    }

    /// Whether the keeper speaks of its process.
    fn is(&self, orphan: &Orphan) -> bool {
        self.record.process.is_some_and(|process| process.is(orphan))
    }

    /// How it ended, by the exit of its process.
    pub(crate) fn exit(&self, exit: ProcessExit) -> Exit {
        const KILL: i32 = Signal::KILL.as_raw();
        match exit {
            ProcessExit::Code(code) => Exit::Code(code),
            // We kill for memory, too, and say so ourselves.
            ProcessExit::Signal { number: KILL, .. } if !self.killed => {
                self.cgroup.as_ref().map_or(Exit::Signal(KILL), WorkerCgroup::exit_of_killed)
            }
            ProcessExit::Signal { number, .. } => Exit::Signal(number),
        }
    }

    /// How it has ended, though it is no child of ours. The kernel shows it until
    /// it is reaped, if we may know, and tells afterwards; an older one does not,
    /// then the keeper does, if it is its child.
    fn told_exit(&self, link: &Link) -> Told {
        let born = self.record.process.map_or(0, |process| process.start_time);
        let shown = process::exit_of_zombie(self.pid, born);
        match (pidfd::exit_of_stranger(&self.pidfd), shown) {
            (Ok(Some(exit)), _) | (Ok(None), Some(exit)) => Told::Exit(self.exit(exit)),
            (Ok(None), None) => Told::Later,
            // It shows 0 for some that failed, too.
            (Err(_), Some(exit)) if exit != ProcessExit::Code(0) => Told::Exit(self.exit(exit)),
            (Err(_), _) => match (link.keeper_pid(), process::parent(self.pid)) {
                (None, _) => Told::Nothing,
                // The keeper has reaped it, or will.
                (Some(_), Err(_)) => Told::Later,
                (Some(keeper), Ok(parent)) => {
                    let parent = parent.map(|parent| parent.as_raw_pid().unsigned_abs());
                    if parent == Some(keeper) { Told::Later } else { Told::Nothing }
                }
            },
        }
    }

    /// Whether its main process, which is gone, has left others behind.
    fn has_left_others(&self) -> bool {
        let populated = self.cgroup.as_ref().and_then(WorkerCgroup::is_populated);
        populated.unwrap_or_else(|| pidfd::group_exists(self.pid))
    }

    /// Asks it to end.
    fn ask(&mut self, signal: Signal) {
        self.asked = true;
        if self.left.is_some() {
            self.signal_others(signal);
        } else {
            // The only failure is that it has just ended.
            let _ = pidfd::send_signal(&self.pidfd, signal);
        }
    }

    /// Signals those that its main process has left behind.
    fn signal_others(&self, signal: Signal) {
        match &self.cgroup {
            Some(own) => own.signal(signal),
            None => self.signal_group(signal),
        }
    }

    /// Signals the process group that it leads.
    fn signal_group(&self, signal: Signal) {
        // The only failure is that nobody is left.
        let _ = pidfd::signal_group(self.pid, signal);
    }

    /// Kills all in its cgroup. Returns whether that was everything.
    fn kill_cgroup(&self) -> bool {
        self.cgroup.as_ref().is_some_and(WorkerCgroup::kill)
    }
}

impl Workers {
    pub(crate) fn new(cgroups: Cgroups) -> Self {
        Self {
            alive: BTreeMap::new(),
            dead: Vec::new(),
            lingering: Vec::new(),
            look_at: Instant::now(),
            unknown: Vec::new(),
            cgroups,
        }
    }

    /// A living worker, to note something of it.
    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.alive.get_mut(&id).map(|worker| &mut **worker)
    }

    pub(crate) fn get(&self, worker: WorkerId) -> Option<&Worker> {
        self.alive.get(&worker).map(|worker| &**worker)
    }

    /// Who is to answer in each seat: of two with the same sockets the later one,
    /// as the other hangs.
    pub(crate) fn by_seat(&self) -> BTreeMap<SeatId, WorkerId> {
        self.alive.iter().map(|(id, worker)| (worker.seat, *id)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.alive.is_empty() && self.dead.is_empty()
    }

    /// Ends what is left in cgroups of other workers than these.
    pub(crate) fn remove_other_cgroups(&mut self) {
        self.cgroups.remove_others(self.alive.values().filter_map(|worker| worker.cgroup.as_ref()));
    }

    /// When [`Self::look_after_lingering`] must be called.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        (!self.lingering.is_empty() || !self.unknown.is_empty()).then_some(self.look_at)
    }

    /// Begins to follow a worker.
    pub(crate) fn add(&mut self, id: WorkerId, worker: Worker, poller: &Poller) -> io::Result<()> {
        let watch = |fd, news: News| poller.add(fd, news.token(), Interest::Read);
        let watched = watch(worker.pidfd.as_fd(), News::Ended(id))
            .and_then(|()| watch(worker.notify.as_fd(), News::Said(id)))
            .and_then(|()| match &worker.captured {
                Some(captured) => watch(captured.notify.as_fd(), News::Calls(id)),
                None => Ok(()),
            });
        if let Err(error) = watched {
            // Nobody would see it end, so it must not run.
            worker.kill_cgroup();
            worker.signal_group(Signal::KILL);
            let _ = poller.remove(&worker.pidfd);
            let _ = pidfd::wait(&worker.pidfd);
            self.cgroups.remove(worker.cgroup);
            return Err(error);
        }
        self.alive.insert(id, Box::new(worker));
        Ok(())
    }

    /// Whether a worker is to be asked to end by a message, which is noted: its
    /// app wants that, and it can be told.
    pub(crate) fn ask_by_message(&mut self, id: WorkerId, link: &Link) -> bool {
        let Some(worker) = self.alive.get_mut(&id).filter(|worker| worker.left.is_none()) else {
            return false;
        };
        let wants = worker.settings.app.channel.shutdown_with_message;
        let asks = wants && worker.channel.as_ref().is_some_and(|channel| channel.is_open());
        worker.asked |= asks;
        if asks {
            note_told(id, link);
        }
        asks
    }

    /// Asks a worker to end, with its app's signal.
    pub(crate) fn terminate(&mut self, id: WorkerId, link: &Link) {
        let Some(worker) = self.alive.get_mut(&id) else { return };
        worker.ask(worker.settings.kill_signal());
        note_told(id, link);
    }

    /// Asks a worker that hangs to end with a core dump.
    pub(crate) fn abort(&mut self, id: WorkerId, link: &Link) {
        let Some(worker) = self.alive.get_mut(&id) else { return };
        worker.ask(Signal::ABRT);
        note_told(id, link);
    }

    /// Ends workers at once, with all in their cgroups, or with their groups,
    /// their sessions and their descendants.
    pub(crate) fn kill(&mut self, ids: &[WorkerId]) {
        // One look for all of them; without it the groups still end.
        let processes = LazyCell::new(Processes::look);
        for id in ids {
            let Some(worker) = self.alive.get_mut(id) else { continue };
            worker.asked = true;
            worker.killed = true;
            // Those that left the group are found while they have a parent.
            if !worker.kill_cgroup()
                && let Ok(processes) = &*processes
            {
                processes.kill_family(worker.pid);
            }
            worker.signal_group(Signal::KILL);
        }
    }

    /// Sends a worker's main process a signal.
    pub(crate) fn signal(&self, id: WorkerId, signal: Signal) -> io::Result<()> {
        match self.alive.get(&id) {
            Some(worker) if worker.left.is_none() => pidfd::send_signal(&worker.pidfd, signal),
            Some(_) | None => Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error())),
        }
    }

    /// Takes the exit of a worker's process.
    ///
    /// A worker that ended by itself needs a replacement at once: what is left
    /// of its cgroup or group is killed, because the replacement must not meet
    /// it, and the rest of its funeral waits for [`Self::bury`]. One that was
    /// asked to end may have been a launcher: the others get the signal too and
    /// what is left of the time.
    pub(crate) fn take_exit(&mut self, id: WorkerId, poller: &Poller, link: &Link) -> Option<Event> {
        let worker = self.alive.get_mut(&id)?;
        if worker.left.is_some() {
            return None;
        }
        let exit = match pidfd::peek_exit(&worker.pidfd) {
            Ok(None) => return None,
            Ok(Some(exit)) => worker.exit(exit),
            Err(_) if worker.adopted => match worker.told_exit(link) {
                Told::Exit(exit) => exit,
                Told::Nothing => Exit::Unknown,
                Told::Later => {
                    // It would be told again and again.
                    let _ = poller.remove(&worker.pidfd);
                    self.unknown.push((id, Instant::now() + STATUS));
                    self.look_at = Instant::now();
                    return None;
                }
            },
            // Somebody else has reaped it.
            Err(_) => Exit::Unknown,
        };
        self.end(id, exit, poller, link)
    }

    /// Takes word of the keeper that a process has ended, which may be a worker.
    pub(crate) fn take_orphan(&mut self, orphan: &Orphan, poller: &Poller, link: &Link) -> Option<Event> {
        let adopted = self.alive.iter().filter(|(_, worker)| worker.adopted && worker.left.is_none());
        let (id, worker) = { adopted }.find(|(_, worker)| worker.is(orphan))?;
        let (id, exit) = (*id, worker.exit(process_exit(orphan)));
        self.end(id, exit, poller, link)
    }

    /// Looks whether it can be told now how adopted workers have ended, and gives
    /// up at last.
    fn look_after_unknown(&mut self, poller: &Poller, link: &Link) -> Vec<Event> {
        let now = Instant::now();
        let mut known = Vec::new();
        let alive = &self.alive;
        self.unknown.retain(|(id, until)| {
            // The keeper may have told.
            let Some(worker) = alive.get(id).filter(|worker| worker.left.is_none()) else { return false };
            let exit = match worker.told_exit(link) {
                Told::Exit(exit) => exit,
                Told::Later if now < *until => return true,
                Told::Nothing | Told::Later => Exit::Unknown,
            };
            known.push((*id, exit));
            false
        });
        known.into_iter().filter_map(|(id, exit)| self.end(id, exit, poller, link)).collect()
    }

    /// Takes the exit of a worker's process, which is known.
    pub(crate) fn end(&mut self, id: WorkerId, exit: Exit, poller: &Poller, link: &Link) -> Option<Event> {
        let worker = self.alive.get_mut(&id)?;
        if worker.asked {
            worker.reap(id, exit, poller, link);
            if worker.has_left_others() {
                worker.signal_others(worker.settings.kill_signal());
                worker.left = Some(exit);
                self.lingering.push(id);
                return None;
            }
            self.forget(id, poller);
        } else {
            worker.kill_cgroup();
            worker.signal_group(Signal::KILL);
            self.dead.extend(self.alive.remove(&id).map(|worker| (id, worker, exit)));
        }
        Some(Event::WorkerExited { worker: id, exit })
    }

    /// Reaps the workers that ended by themselves. It is done after their
    /// replacements were started.
    pub(crate) fn bury(&mut self, poller: &Poller, link: &Link) {
        for (id, worker, exit) in self.dead.drain(..) {
            worker.reap(id, exit, poller, link);
            worker.leave(poller);
            self.cgroups.remove(worker.cgroup);
        }
    }

    /// A worker whose calls are reported.
    pub(crate) fn captured_mut(&mut self, id: WorkerId) -> Option<&mut Captured> {
        self.alive.get_mut(&id)?.captured.as_mut()
    }

    /// The latest generation that a worker of an app is of: going back may have left
    /// it.
    pub(crate) fn latest_generation(&self, app: AppId) -> Option<u64> {
        let dead = self.dead.iter().map(|(_, worker, _)| worker);
        let own = self.alive.values().chain(dead).filter(|worker| worker.seat.slot.app == app);
        own.map(|worker| worker.record.generation).max()
    }

    /// The slots of an app whose workers are of another generation than this.
    pub(crate) fn of_other_generations(&self, app: AppId, generation: Option<u64>) -> BTreeSet<u32> {
        let own = self.alive.values().filter(|worker| worker.seat.slot.app == app);
        let others = own.filter(|worker| Some(worker.record.generation) != generation);
        others.map(|worker| worker.seat.slot.index).collect()
    }

    /// The slots of an app whose workers' calls nobody can hear any more.
    pub(crate) fn cut_off(&self, app: AppId) -> Vec<u32> {
        let own = self.alive.values().filter(|worker| worker.seat.slot.app == app && worker.record.cut_off);
        own.map(|worker| worker.seat.slot.index).collect()
    }

    /// Looks for no calls of a worker any more.
    pub(crate) fn end_calls(&mut self, id: WorkerId, poller: &Poller) {
        if let Some(captured) = self.alive.get_mut(&id).and_then(|worker| worker.captured.take()) {
            let _ = poller.remove(&captured.notify);
        }
    }

    /// Looks whether groups and cgroups that outlived a main process are empty,
    /// and how adopted workers have ended.
    pub(crate) fn look_after_lingering(&mut self, poller: &Poller, link: &Link) -> Vec<Event> {
        self.look_at = Instant::now() + LINGER;
        let told = self.look_after_unknown(poller, link);
        let alive = &self.alive;
        let processes = LazyCell::new(Processes::look);
        // A zombie that nobody reaps keeps its group for ever, so after a kill
        // only those that run count; in a cgroup it never does.
        let remains = |worker: &Worker| {
            if worker.killed
                && worker.cgroup.is_none()
                && let Ok(processes) = &*processes
            {
                processes.group_runs(worker.pid)
            } else {
                worker.has_left_others()
            }
        };
        let gone: Vec<WorkerId> = self
            .lingering
            .extract_if(.., |id| !alive.get(id).is_some_and(|worker| remains(worker)))
            .collect();
        let gone = gone.into_iter().filter_map(|id| {
            let exit = self.alive.get(&id)?.left?;
            self.forget(id, poller);
            Some(Event::WorkerExited { worker: id, exit })
        });
        told.into_iter().chain(gone).collect()
    }

    fn forget(&mut self, id: WorkerId, poller: &Poller) {
        if let Some(worker) = self.alive.remove(&id) {
            worker.leave(poller);
            self.cgroups.remove(worker.cgroup);
        }
    }

    /// Reads what a worker says, a message at a time: the next one of
    /// [`Self::heard`]. Only itself, root and the daemon's user are believed.
    /// Returns the events, and whether it said that it is alive.
    pub(crate) fn hear(&mut self, id: WorkerId, link: &Link) -> Option<(Vec<Event>, bool)> {
        let worker = self.alive.get_mut(&id)?;
        let own = rustix::process::getuid().as_raw();
        let its = worker.settings.identity().ok().flatten().map_or(own, |identity| identity.credentials.uid);
        let mut events = Vec::new();
        let mut buffer = [0; notify::MAX_MESSAGE];
        let datagram = fdpass::peek_from(&worker.notify, &mut buffer).ok()?;
        let mut alive = false;
        if !datagram.sender.is_some_and(|sender| [0, own, its].contains(&sender.uid)) {
            return Some((events, alive));
        }
        for word in notify::parse(buffer.get(..datagram.len).unwrap_or_default()) {
            match word {
                // Then a check decides, and nobody else.
                Word::Ready if worker.settings.is_checked() => {}
                Word::Ready => events.push(Event::WorkerReady(id)),
                Word::Stopping => {
                    note_told(id, link);
                    events.push(Event::WorkerLeaving(id));
                }
                Word::Extend(by) => events.push(Event::WorkerDelayed { worker: id, by }),
                Word::Status(status) => worker.message = Some(status),
                Word::Watchdog => alive = true,
            }
        }
        Some((events, alive))
    }

    /// Takes the message away that was read: what it says is remembered now.
    pub(crate) fn heard(&self, id: WorkerId) {
        if let Some(worker) = self.alive.get(&id) {
            let _ = fdpass::receive_from(&worker.notify, &mut []);
        }
    }
}

/// Lets the keeper know that a worker knows that it is to end, so that it is not
/// told again.
fn note_told(id: WorkerId, link: &Link) {
    link.put(&records::told_key(id), &[], &[]);
}

/// How a process ended, in the keeper's words.
pub(crate) const fn process_exit(orphan: &Orphan) -> ProcessExit {
    match orphan.exit {
        OrphanExit::Code(code) => ProcessExit::Code(code),
        OrphanExit::Signal(number) => ProcessExit::Signal { number, core_dumped: false },
    }
}
