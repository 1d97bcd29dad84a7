//! Sockets that workers bind for themselves: each `bind` and `listen` of theirs
//! comes here, is done on a duplicate of the worker's own socket, and answered.
//!
//! A first socket at an address is the worker's own, made a member of a group
//! (`SO_REUSEPORT`), and held from `listen` on. When its worker has crashed, the
//! replacement's `bind` puts the held one in place of the one that it made, so
//! that what waits in the queue is answered. Nothing here waits.

mod paths;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use supervisor_config::{Balance, ListenAddress};
use supervisor_core::{AppId, Event, SeatId, WorkerId};
use supervisor_sys::capture::{self, Address, Call, Request, Standing, Traits};
use supervisor_sys::diag::inodes_of;
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::{Launcher, Plan, Program};
use supervisor_sys::{fdpass, pidfd, process, socket};

use crate::control::to_json;
use crate::family::Processes;
use crate::fault;
use crate::listeners::{Caught, Rival};
use crate::master::Master;
use crate::records::calls_key;
use crate::settings::address_text;
use crate::words;
use crate::workers::Worker;

/// Calls of one worker that are answered at a time, so that none holds the loop.
const CALLS: usize = 16;
/// How long after it listens a worker may take to bind all that the one before
/// it had.
const REBIND: Duration = Duration::from_secs(1);
/// How soon a call that had to wait is looked at again.
const LATER: Duration = Duration::from_millis(2);
/// Sockets that one worker may have bound and not let listen yet.
const BOUND: usize = 256;
/// How many of them the next master will know.
const KEPT: usize = 32;
/// How long a worker may take to be stopped, so that its call begins anew.
const STOP: Duration = Duration::from_millis(200);
/// How often it is looked at meanwhile.
const STOP_LOOK: Duration = Duration::from_millis(1);

/// What a worker's calls have come to.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Where its calls come.
    pub(crate) notify: OwnedFd,
    /// What it has bound, by the sockets' cookies.
    bound: BTreeMap<u64, ListenAddress>,
    /// When it let a socket listen last; when it was started, before that.
    listened: Instant,
    /// It has let one listen.
    listens: bool,
    /// It was ready once. Until then it, or whoever comes after it, is waited for.
    pub(crate) ready: bool,
    /// It was said that its calls cannot be looked at.
    complained: bool,
}

/// Calls that wait for another worker's: one a thread at most.
#[derive(Debug)]
pub(crate) struct Later {
    calls: Vec<(WorkerId, Request)>,
    look_at: Instant,
}

impl Later {
    pub(crate) fn new() -> Self {
        Self { calls: Vec::new(), look_at: Instant::now() }
    }

    /// Whether a worker waits.
    fn has(&self, worker: WorkerId) -> bool {
        self.calls.iter().any(|(id, _)| *id == worker)
    }

    /// When [`Master::hear_later_calls`] must be called.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        (!self.calls.is_empty()).then_some(self.look_at)
    }
}

impl Captured {
    pub(crate) fn new(notify: OwnedFd) -> Self {
        let listened = Instant::now();
        Self { notify, bound: BTreeMap::new(), listened, listens: false, ready: false, complained: false }
    }

    /// What an earlier master has known of a worker's calls. `listens` tells
    /// whether the worker has let a socket listen.
    pub(crate) fn adopted(notify: OwnedFd, record: CallsRecord, listens: bool) -> Self {
        let bound = record.bound.into_iter().filter_map(|(cookie, address, dual_stack)| {
            let address = match address.starts_with('/') {
                true => ListenAddress::Unix(address.into()),
                false => ListenAddress::Tcp { address: address.parse().ok()?, dual_stack },
            };
            Some((cookie, address))
        });
        Self { bound: bound.collect(), listens, ..Self::new(notify) }
    }

    /// Whether it may be about to bind a path that its siblings have.
    fn is_to_bind(&self, path: &Path) -> bool {
        let is_it = |address: &ListenAddress| matches!(address, ListenAddress::Unix(at) if at == path);
        !self.listens && !self.bound.values().any(is_it)
    }

    fn record(&self, answering: bool) -> CallsRecord {
        // A program binds many addresses only to let them listen one by one.
        let latest = self.bound.iter().rev().take(KEPT).filter_map(|(cookie, address)| match address {
            ListenAddress::Tcp { address, dual_stack } => Some((*cookie, address.to_string(), *dual_stack)),
            ListenAddress::Unix(path) => Some((*cookie, path.to_str()?.to_owned(), false)),
        });
        CallsRecord { answering, bound: latest.collect() }
    }
}

/// What the keeper knows of a worker's calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CallsRecord {
    /// A call has been taken, and may not have been answered.
    pub(crate) answering: bool,
    /// Cookies, addresses or paths, and whether they are for IPv4 as well.
    #[serde(default)]
    bound: Vec<(u64, String, bool)>,
}

/// Whether sockets can be captured here, tried on a child.
///
/// # Errors
///
/// In words: why not.
pub(crate) fn try_out(launcher: &mut Launcher, null: &OwnedFd) -> Result<(), String> {
    let seccomp = |error: io::Error| format!("seccomp: {}", words::errno(&error));
    capture::available().map_err(seccomp)?;
    // Nobody reads it, but a socket without its other end would fail the spawn.
    let (_ours, theirs) = fdpass::seqpacket_pair().map_err(|error| words::errno(&error))?;
    let own = Program::Path("/proc/self/exe".into());
    let mut plan = Plan::new(own, vec!["supervisor".into(), "--version".into()], [null.as_fd(); 3]);
    plan.introduce = Some(theirs.as_fd());
    plan.capture = true;
    let child = launcher.spawn(&plan).map_err(|error| error.to_string())?;
    // It has not been reaped, so its descriptors are looked for in it and nobody else.
    let copied = capture::copy_descriptor(&child.pidfd, 0);
    let _ = pidfd::send_signal(&child.pidfd, Signal::KILL);
    let _ = pidfd::wait(&child.pidfd);
    match child.uncaptured {
        Some(errno) if errno == Errno::BUSY.raw_os_error() => {
            Err("somebody else captures the calls of this process already".to_owned())
        }
        Some(errno) => Err(seccomp(io::Error::from_raw_os_error(errno))),
        None => match copied {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                Err("the descriptors of children may not be copied (pidfd_getfd): see Yama".to_owned())
            }
            // One that has ended already proves nothing.
            Ok(_) | Err(_) => Ok(()),
        },
    }
}

impl Master {
    /// Answers calls of a worker.
    pub(crate) fn hear_calls(&mut self, id: WorkerId) {
        // A call that has been taken is not told again: who takes over must know.
        self.note_calls(id, true);
        self.answer_calls(id);
        self.note_calls(id, self.later.has(id));
    }

    fn note_calls(&self, id: WorkerId, answering: bool) {
        if let Some(captured) = self.workers.get(id).and_then(|worker| worker.captured.as_ref()) {
            self.link.put(&calls_key(id), &to_json(&captured.record(answering)), &[]);
        }
    }

    /// Has those calls of an adopted worker begin anew that an earlier master has
    /// taken and not answered: nobody can answer them any more.
    pub(crate) fn restart_calls(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let family = Processes::look().map(|all| all.family(worker.pid)).unwrap_or_default();
        for pid in family.into_iter().filter(|pid| capture::is_calling(*pid)) {
            let Ok(process) = pidfd::open(pid) else { continue };
            let place = self.place(worker.seat.slot);
            tracing::debug!("{place}: its call begins anew (pid {pid})");
            let _ = pidfd::send_signal(&process, Signal::STOP);
            // To go on too early would take the stop back.
            let deadline = Instant::now() + STOP;
            while !process::is_stopped(pid).unwrap_or(true) && Instant::now() < deadline {
                std::thread::sleep(STOP_LOOK);
            }
            let _ = pidfd::send_signal(&process, Signal::CONT);
        }
    }

    fn answer_calls(&mut self, id: WorkerId) {
        for _ in 0..CALLS {
            let Some(captured) = self.workers.get(id).and_then(|worker| worker.captured.as_ref()) else {
                return;
            };
            match capture::receive(&captured.notify) {
                Ok(Some(request)) => self.hear_call(id, &request),
                Ok(None) => return,
                Err(error) => {
                    // All processes of the tree are gone.
                    tracing::debug!("worker {}: no further calls: {error}", id.0);
                    self.workers.end_calls(id, &self.poller);
                    return;
                }
            }
        }
    }

    /// Answers the calls that had to wait for another worker's.
    pub(crate) fn hear_later_calls(&mut self) {
        self.later.look_at = Instant::now() + LATER;
        let calls = std::mem::take(&mut self.later.calls);
        for (id, request) in &calls {
            self.hear_call(*id, request);
        }
        for (id, _) in calls.into_iter().filter(|(id, _)| !self.later.has(*id)).collect::<Vec<_>>() {
            self.note_calls(id, false);
        }
    }

    fn hear_call(&mut self, id: WorkerId, request: &Request) {
        fault::step();
        let result = match &request.call {
            Call::Bind(Some(Address::Inet(address))) if address.port() != 0 => {
                self.bind(id, request, *address)
            }
            Call::Bind(Some(Address::Unix(path))) => self.bind_path(id, request, path),
            Call::Listen(backlog) => self.listen(id, request, *backlog),
            Call::Bind(_) | Call::Other => Ok(Verdict::LetGo),
        };
        fault::step();
        let Some(captured) = self.workers.get(id).and_then(|worker| worker.captured.as_ref()) else { return };
        let (notify, call) = (&captured.notify, request.id);
        let answered = match result {
            Ok(Verdict::Later) => {
                self.later.calls.push((id, request.clone()));
                return;
            }
            Ok(Verdict::Done) => capture::answer(notify, call, Ok(())),
            Ok(Verdict::LetGo) => capture::let_go(notify, call),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
                capture::answer(notify, call, Err(errno))
            }
        };
        if let Err(error) = answered {
            tracing::error!("worker {}: its call cannot be answered: {error}", id.0);
        }
    }

    /// What a call is about, unless that is none of our business.
    fn subject(&mut self, id: WorkerId, request: &Request) -> io::Result<Option<Subject>> {
        let Some(socket) = self.socket_of(id, request) else { return Ok(None) };
        let traits = capture::traits(&socket)?;
        let Some(worker) = self.workers.get(id).filter(|_| traits.is_tcp || traits.is_unix) else {
            return Ok(None);
        };
        let Some(captured) = &worker.captured else { return Ok(None) };
        if !capture::is_waiting(&captured.notify, request.id) {
            return Ok(None);
        }
        let (seat, cookie) = (worker.seat, capture::cookie(&socket)?);
        let known = captured.bound.get(&cookie).cloned();
        let known = known.or_else(|| self.listeners.address_of(seat, cookie));
        Ok(Some(Subject { socket, traits, seat, cookie, known }))
    }

    /// The program's socket, if it can be had.
    fn socket_of(&mut self, id: WorkerId, request: &Request) -> Option<OwnedFd> {
        let error = match request.socket() {
            Ok(socket) => return Some(socket),
            Err(error) => error,
        };
        let captured = self.workers.captured_mut(id)?;
        // A number that it does not have is its own mistake.
        let own_mistake = [Errno::BADF, Errno::SRCH].map(Errno::raw_os_error);
        if !error.raw_os_error().is_some_and(|errno| own_mistake.contains(&errno)) && !captured.complained {
            captured.complained = true;
            let why = words::errno(&error);
            let slot = self.workers.get(id)?.seat.slot;
            tracing::error!(
                "{}: its sockets cannot be captured, so it is alone with its address: {why}; \
                 use `exec_mode: fork` or `listen`",
                self.place(slot)
            );
            // From the next order on it is treated as one of `exec_mode: fork`.
            if let Some(entry) = self.registry.by_id_mut(slot.app) {
                entry.alone = Some(why);
            }
        }
        None
    }

    fn bind(&mut self, id: WorkerId, request: &Request, address: SocketAddr) -> io::Result<Verdict> {
        let Some(subject) = self.subject(id, request)? else { return Ok(Verdict::LetGo) };
        let Subject { socket: own, traits, seat, cookie, known } = subject;
        if !traits.is_tcp {
            return Ok(Verdict::LetGo);
        }
        let at = ListenAddress::Tcp { address, dual_stack: address.is_ipv6() && !traits.v6only };
        if let Some(known) = known {
            if known != at {
                return Err(Errno::INVAL.into());
            }
            // A signal, or the death of a master, may have broken the call off
            // after it was done.
            self.listeners.take_up(seat, cookie, id, &self.link);
            return Ok(Verdict::Done);
        }
        let held = self.listeners.held(seat, &at, id);
        // A probe closes what it has bound, and binds again.
        let lost = || held.first().filter(|_| self.has_none(id, &held)).cloned();
        let shares = self.workers.get(id).is_some_and(|one| one.settings.app.balance == Balance::Shared);
        let common = || self.listeners.first(seat, &at).filter(|_| shares && held.is_empty());
        if let Some(parked) = self.listeners.parked(seat, &at, id).or_else(lost).or_else(common) {
            let standing = capture::standing(request)?;
            if standing.in_epoll {
                tracing::warn!(
                    "{}: {} is watched before it is bound: what waits for the worker before stays there",
                    self.place(seat.slot),
                    address_text(&at)
                );
            } else {
                // Nobody living has it, or siblings that do it alike, so its flags may be those of the new
                // one.
                socket::set_nonblocking(&*parked, socket::is_nonblocking(&own)?)?;
                self.put_in_place(id, request, &standing, &parked)?;
                self.listeners.take_up(seat, capture::cookie(&*parked)?, id, &self.link);
                return Ok(Verdict::Done);
            }
        }
        if !held.is_empty() && !traits.reuse_port {
            return Err(Errno::ADDRINUSE.into());
        }
        self.look_for_rival(id, seat, &at)?;
        let is_done = || socket::local_address(&own).is_ok_and(|bound| bound == address);
        match capture::bind(&own, address) {
            // An earlier master has bound it, and died before it could say so.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) && is_done() => {}
            Err(error) => {
                let place = self.place(seat.slot);
                tracing::warn!("{place}: bind {}: {}", address_text(&at), words::errno(&error));
                return Err(error);
            }
            Ok(()) => {}
        }
        tracing::debug!("{}: {} is bound", self.place(seat.slot), address_text(&at));
        self.note_bound(id, cookie, at);
        Ok(Verdict::Done)
    }

    /// Puts a socket in place of the one that a worker made, wherever it has it.
    fn put_in_place(
        &self,
        id: WorkerId,
        request: &Request,
        standing: &Standing,
        socket: &OwnedFd,
    ) -> io::Result<()> {
        let Some(captured) = self.workers.get(id).and_then(|worker| worker.captured.as_ref()) else {
            return Ok(());
        };
        let mut all = standing.others.iter().chain([&request.fd]);
        all.try_for_each(|fd| capture::place(&captured.notify, request, socket, *fd, standing.cloexec))
    }

    /// Notes what a worker has bound and may let listen.
    fn note_bound(&mut self, id: WorkerId, cookie: u64, at: ListenAddress) {
        if let Some(captured) = self.workers.captured_mut(id) {
            if captured.bound.len() >= BOUND {
                captured.bound.pop_first();
            }
            captured.bound.insert(cookie, at);
        }
        self.note_calls(id, true);
    }

    /// Refuses a worker an address that somebody else has.
    fn look_for_rival(&mut self, id: WorkerId, seat: SeatId, at: &ListenAddress) -> io::Result<()> {
        let Some(line) = self.rival(seat.slot.app, at) else { return Ok(()) };
        tracing::error!("{}: {line}", self.place(seat.slot));
        self.refused.insert(id, line);
        Err(Errno::ADDRINUSE.into())
    }

    /// Who else has an address, in words.
    fn rival(&mut self, app: AppId, at: &ListenAddress) -> Option<String> {
        let text = address_text(at);
        match self.listeners.rival(app, at) {
            Some(Rival::Sibling) => None,
            Some(Rival::App(other)) => {
                Some(format!("bind {text}: app {} has this address already", self.registry.name(other)))
            }
            Some(Rival::Form(other)) => {
                Some(format!("bind {text}: the app has {} already, which overlaps", address_text(&other)))
            }
            None => {
                let ListenAddress::Tcp { address, dual_stack } = at else { return None };
                let owner = self.observer.listener_at(*address, !dual_stack)?;
                Some(format!("bind {text}: {owner} has this address already"))
            }
        }
    }

    /// Whether no process of the worker has one of these sockets open, for sure: without descriptors of our
    /// own nothing can be seen.
    fn has_none(&self, id: WorkerId, sockets: &[Rc<OwnedFd>]) -> bool {
        let Some(worker) = self.workers.get(id) else { return true };
        let Ok(processes) = Processes::look() else { return false };
        let Ok(open) = inodes_of(processes.family(worker.pid)) else { return false };
        let inode = |socket: &Rc<OwnedFd>| rustix::fs::fstat(&**socket).map(|stat| stat.st_ino);
        sockets.iter().all(|socket| inode(socket).is_ok_and(|inode| !open.contains(&inode)))
    }

    /// Whether a worker has closed a socket and goes on. One that ends loses its descriptors before its end is
    /// told; its replacement answers there.
    fn has_closed(&self, id: WorkerId, socket: &Rc<OwnedFd>) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        self.has_none(id, std::slice::from_ref(socket)) && !process::is_ending(worker.pid)
    }

    fn listen(&mut self, id: WorkerId, request: &Request, backlog: i32) -> io::Result<Verdict> {
        let Some(subject) = self.subject(id, request)? else { return Ok(Verdict::LetGo) };
        let (seat, cookie) = (subject.seat, subject.cookie);
        let settings = self.workers.get(id).map(|worker| Rc::clone(&worker.settings));
        // Without an address it is a port that the kernel chose.
        let (Some(address), Some(settings)) = (subject.known.clone(), settings) else {
            return Ok(Verdict::LetGo);
        };
        if let ListenAddress::Unix(path) = &address {
            if self.listen_at_path(id, request, subject, path, backlog)? == Verdict::Later {
                return Ok(Verdict::Later);
            }
        } else {
            // A negative one means the largest.
            let backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
            let is_multipath = subject.traits.is_multipath;
            let caught = Caught { address, socket: subject.socket, backlog, is_multipath };
            self.listeners.capture(seat, &settings, id, caught, &self.link)?;
        }
        if let Some(captured) = self.workers.captured_mut(id) {
            captured.bound.remove(&cookie);
            (captured.listened, captured.listens) = (Instant::now(), true);
        }
        if let Some(entry) = self.registry.by_id_mut(seat.slot.app) {
            entry.listened = true;
        }
        self.checks.hasten(id);
        if settings.ready_by_listening() {
            self.handle(Event::WorkerReady(id));
        }
        Ok(Verdict::Done)
    }

    /// Takes note that a worker is ready.
    pub(crate) fn note_ready(&mut self, id: WorkerId) {
        if let Some(captured) = self.workers.captured_mut(id) {
            captured.ready = true;
        }
    }

    /// Closes sockets that their program has closed, and that somebody waits at:
    /// nobody will answer there. To be called once a second.
    pub(crate) fn look_after_closed(&mut self) {
        let standing: Vec<WorkerId> = self.hangs.standing().collect();
        for id in standing {
            let Some(worker) = self.workers.get(id).filter(|worker| worker.captured.is_some()) else {
                continue;
            };
            let seat = worker.seat;
            for (address, socket) in self.listeners.waited_at(seat, id) {
                if self.has_closed(id, &socket) {
                    self.listeners.give_up(seat, &socket, &self.link);
                    tracing::warn!("{}: it has closed {}", self.place(seat.slot), address_text(&address));
                }
            }
        }
    }

    /// Closes sockets whose worker has crashed and that its replacement has not
    /// made again though it was ready: nobody will answer there. To be called once
    /// a second.
    pub(crate) fn look_after_parked(&mut self) {
        let is_late = |worker: &Worker| {
            worker.captured.as_ref().is_some_and(|captured| {
                let patience = if captured.listens { REBIND } else { worker.settings.app.listen_timeout };
                (captured.listens || captured.ready) && captured.listened.elapsed() >= patience
            })
        };
        let late: Vec<_> = self
            .workers
            .by_seat()
            .into_iter()
            .filter(|(_, id)| self.workers.get(*id).is_some_and(is_late))
            .collect();
        for (seat, id) in late {
            for address in self.listeners.give_up_parked(seat, id, &self.link) {
                let place = self.place(seat.slot);
                tracing::warn!("{place}: it does not listen on {} any more", address_text(&address));
            }
        }
    }
}

/// The socket that a call is about.
#[derive(Debug)]
struct Subject {
    /// A duplicate of the program's own.
    socket: OwnedFd,
    traits: Traits,
    seat: SeatId,
    cookie: u64,
    /// Where it is bound, if it is.
    known: Option<ListenAddress>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is done here: the program is told so.
    Done,
    /// The kernel does it.
    LetGo,
    /// It waits for another worker's.
    Later,
}
