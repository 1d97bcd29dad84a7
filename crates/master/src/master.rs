//! The shell around the core: it knows pids, sockets and names, performs what
//! the core orders, and turns what comes back into events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use supervisor_config::Ready;
use supervisor_core::{
    Action, AppId, Event, Generation, Notice, OperationId, Order, Outcome, SeatId, SlotId, Slots, Step,
    Supervisor, Timestamp, WorkerId,
};
use supervisor_keeper::Lull;
use supervisor_protocol::control::{Change, Failure, Progress, Stream, WorkerState};
use supervisor_protocol::events::Happening;
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::limits::Limit;
use supervisor_sys::poll::Poller;
use supervisor_sys::spawn::{Launcher, Plan, ProcessGroup, Program, Stage, resolve_program};
use supervisor_sys::{Pid, fdpass, own, process, socket};

use crate::automatic::Automatic;
use crate::capture::Later;
use crate::cgroups::Cgroups;
use crate::channel::{Channel, Ends, Figures, Left, NewMember};
use crate::checks::Checks;
use crate::drains::Drains;
use crate::events::Events;
use crate::hangs::Hangs;
use crate::link::Link;
use crate::listeners::Listeners;
use crate::memory::Memory;
use crate::operations::{Begun, Conclusion, Line, Operations};
use crate::output::{NewStream, Output, Source};
use crate::own::Own;
use crate::problems::Problems;
use crate::queues::Queues;
use crate::records::{self, AppRecord, Held, ProcessRecord, WorkerRecord};
use crate::registry::{Entry, Registry};
use crate::sampler::Sampler;
use crate::service::{self, Service};
use crate::settings::{Place, Settings, listener_name};
use crate::sight::Observer;
use crate::snapshot::Facts;
use crate::spread::Spread;
use crate::store::{Pending, Store};
use crate::workers::{News, Worker, Workers};
use crate::{capture, clock, fault, requests, upgrade, words};

/// Messages that one worker gets read at a time, so that none can hold the
/// loop.
const MESSAGES: usize = 16;
/// How long actions are performed before other news is looked at.
const SLICE: Duration = Duration::from_millis(5);

/// Everything that the master has.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) core: Supervisor,
    /// Actions that the core has ordered and nobody has performed yet: those
    /// that change the world.
    todo: VecDeque<Action>,
    /// The others, for people. They wait for the queue, so that a replacement
    /// runs before anybody hears that one is needed.
    news: VecDeque<Action>,
    pub(crate) registry: Registry,
    pub(crate) operations: Operations,
    pub(crate) events: Events,
    pub(crate) workers: Workers,
    pub(crate) drains: Drains,
    pub(crate) checks: Checks,
    pub(crate) observer: Observer,
    pub(crate) hangs: Hangs,
    pub(crate) listeners: Listeners,
    pub(crate) queues: Queues,
    pub(crate) output: Output,
    pub(crate) channel: Channel,
    pub(crate) sampler: Sampler,
    pub(crate) link: Link,
    pub(crate) memory: Memory,
    lull: Lull,
    pub(crate) automatic: Automatic,
    pub(crate) upgrade: upgrade::Progress,
    /// Apps that are left alone: a later version has them.
    pub(crate) aside: BTreeSet<String>,
    /// The settings of the daemon itself.
    pub(crate) own: Own,
    /// What is declared, on disk.
    pub(crate) store: Store,
    /// What the service manager was told, if there is one.
    service: Option<Service>,
    /// What does not work now.
    pub(crate) problems: Problems,
    /// When the keeper refused an entry last.
    pub(crate) refused_entry: Option<Instant>,
    /// Waits for the news of workers and of the keeper.
    pub(crate) poller: Poller,
    pub(crate) started: Instant,
    /// What people are to know of how it began.
    pub(crate) notices: Vec<String>,
    pub(crate) log_dir: PathBuf,
    /// What workers are given as standard input.
    pub(crate) null: OwnedFd,
    pub(crate) launcher: Launcher,
    /// Whether the sockets that workers bind can be captured here.
    pub(crate) captures: bool,
    /// Why not.
    pub(crate) uncaptured: Option<String>,
    /// The limit of open files that workers get: the one the daemon had before
    /// it was raised.
    pub(crate) open_files: Limit,
    /// The score that workers get unless their app says otherwise.
    pub(crate) oom_score_adj: Option<i32>,
    /// Workers that ended: their output's tail may still be asked for until the
    /// turn is over, and while an order about their app is under way, whose
    /// failure may be told at its end.
    ended: Vec<(AppId, WorkerId)>,
    /// Calls of workers that wait.
    pub(crate) later: Later,
    /// Why workers were refused an address, for whoever is told of their end.
    pub(crate) refused: BTreeMap<WorkerId, String>,
}

/// What a new master starts from.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) link: Link,
    pub(crate) cgroups: Cgroups,
    pub(crate) log_dir: PathBuf,
    pub(crate) first_worker: WorkerId,
    pub(crate) open_files: Limit,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) service_manager: bool,
    pub(crate) notices: Vec<String>,
}

impl Master {
    pub(crate) fn new(beginning: Beginning) -> io::Result<Self> {
        let Beginning {
            link,
            cgroups,
            log_dir,
            first_worker,
            open_files,
            oom_score_adj,
            service_manager,
            notices,
        } = beginning;
        let null = File::options().read(true).write(true).open("/dev/null")?.into();
        let mut launcher = Launcher::new()?;
        let uncaptured = capture::try_out(&mut launcher, &null).err();
        if let Some(why) = &uncaptured {
            tracing::warn!(
                "sockets that workers bind are not captured here, each is alone with its own: {why}"
            );
        }
        Ok(Self {
            core: Supervisor::new(fastrand::u64(..), first_worker),
            todo: VecDeque::new(),
            news: VecDeque::new(),
            registry: Registry::default(),
            operations: Operations::default(),
            events: Events::default(),
            workers: Workers::new(cgroups),
            drains: Drains::default(),
            checks: Checks::default(),
            observer: Observer::default(),
            hangs: Hangs::default(),
            listeners: Listeners::new()?,
            queues: Queues::default(),
            output: Output::start()?,
            channel: Channel::start(link.notes()?)?,
            sampler: Sampler::start()?,
            link,
            memory: Memory::default(),
            lull: Lull::default(),
            automatic: Automatic::default(),
            upgrade: upgrade::Progress::default(),
            aside: BTreeSet::new(),
            own: Own::default(),
            store: Store::default(),
            service: service_manager.then(Service::default),
            problems: Problems::default(),
            refused_entry: None,
            poller: Poller::new()?,
            started: Instant::now(),
            notices,
            log_dir,
            null,
            launcher,
            captures: uncaptured.is_none(),
            uncaptured,
            open_files,
            oom_score_adj,
            ended: Vec::new(),
            later: Later::new(),
            refused: BTreeMap::new(),
        })
    }

    /// Whether everything has ended as ordered.
    pub(crate) fn is_over(&self) -> bool {
        !self.is_busy() && self.core.is_finished() && self.workers.is_empty()
    }

    /// Whether actions are left to perform.
    pub(crate) fn is_busy(&self) -> bool {
        !self.todo.is_empty() || !self.news.is_empty()
    }

    /// Lets the core handle an event; its actions wait for [`Self::perform`]. What
    /// it has decided is remembered first: who takes over performs them, too.
    pub(crate) fn handle(&mut self, event: Event) {
        let actions = self.core.handle(clock::now(), event);
        self.link.begin();
        self.remember();
        for action in &actions {
            if let Action::Finish(operation, outcome) = action {
                self.conclude(*operation, outcome);
            }
        }
        self.link.commit();
        self.queue(actions);
    }

    /// Lets the keeper know what the core knows.
    pub(crate) fn remember(&mut self) {
        self.memory.note(&mut self.core, &self.registry, &self.link);
    }

    /// Lets actions wait for [`Self::perform`].
    pub(crate) fn queue(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open(_)
                | Action::Close(_)
                | Action::Rotate(..)
                | Action::Spawn { .. }
                | Action::Drain(_)
                | Action::Revert(_)
                | Action::Terminate(_)
                | Action::Abort(_)
                | Action::Kill(_) => {
                    self.todo.push_back(action);
                }
                Action::Announce(_) | Action::Report(..) | Action::Finish(..) | Action::Forget(_) => {
                    self.news.push_back(action);
                }
            }
        }
    }

    /// Gives an order for one app.
    pub(crate) fn order(&mut self, operation: OperationId, app: AppId, order: Order) {
        self.handle(Event::Ordered { operation, app, order });
    }

    /// Performs actions, but not for long: a storm of them must not keep the
    /// news of other workers waiting.
    pub(crate) fn perform(&mut self) {
        let begin = Instant::now();
        while let Some(action) = self.next_action() {
            self.perform_one(action);
            if begin.elapsed() >= SLICE {
                break;
            }
        }
        if !self.is_busy() {
            let Self { ended, refused, operations, output, .. } = self;
            for (_, worker) in ended.extract_if(.., |(app, _)| !operations.is_about(*app)) {
                output.forget(worker);
                refused.remove(&worker);
            }
            // Every slot that is to listen has asked for its sockets by now.
            self.listeners.drop_inherited(&self.link);
        }
    }

    /// What to do next: first the world, then the dead, then the people.
    fn next_action(&mut self) -> Option<Action> {
        if let Some(action) = self.todo.pop_front() {
            return Some(action);
        }
        self.workers.bury(&self.poller, &self.link);
        self.news.pop_front()
    }

    fn perform_one(&mut self, action: Action) {
        fault::step();
        match action {
            Action::Open(seat) => {
                if let Some(entry) = self.registry.by_id(seat.slot.app)
                    // A failure comes again when the seat's worker is spawned,
                    // and is told then.
                    && let Err(error) = self.listeners.open(seat, &entry.settings, &self.link)
                {
                    tracing::debug!("{}: {error}", self.place(seat.slot));
                }
            }
            Action::Close(seat) => self.listeners.close(seat, &self.link),
            Action::Rotate(app, seats) => {
                self.listeners.rotate(self.registry.name(app), &seats, &self.link);
            }
            Action::Drain(worker) => self.drains.add(worker),
            Action::Revert(app) => {
                if let Some(entry) = self.registry.by_id_mut(app) {
                    entry.revert();
                }
                self.spread_out(app);
            }
            Action::Spawn { worker, seat, generation } => {
                let event = match self.spawn(worker, seat, generation) {
                    Ok(()) => Event::WorkerSpawned(worker),
                    Err(detail) => Event::SpawnFailed { worker, detail },
                };
                self.handle(event);
            }
            Action::Terminate(worker) => {
                if self.workers.ask_by_message(worker, &self.link) {
                    self.channel.shut_down(worker);
                } else {
                    self.workers.terminate(worker, &self.link);
                }
            }
            Action::Abort(worker) => self.workers.abort(worker, &self.link),
            Action::Kill(worker) => {
                let mut killed = vec![worker];
                while let Some(Action::Kill(worker)) =
                    self.todo.pop_front_if(|next| matches!(next, Action::Kill(_)))
                {
                    killed.push(worker);
                }
                killed.iter().for_each(|worker| self.end_check(*worker));
                self.workers.kill(&killed);
            }
            Action::Forget(app) => {
                if let Some(entry) = self.registry.remove(app) {
                    let name = &entry.settings.app.name;
                    self.listeners.forget(name);
                    self.channel.forget(name);
                    self.link.delete(&records::app_key(name));
                    self.link.delete(&records::next_key(name));
                    self.memory.forget(app, name, &self.link);
                }
            }
            Action::Announce(notice) => self.announce(notice),
            Action::Report(app, step) => self.report(app, step),
            Action::Finish(operation, outcome) => self.finish(operation, &outcome),
        }
    }

    /// `web:0`, for people.
    pub(crate) fn place(&self, slot: SlotId) -> String {
        format!("{}:{}", self.registry.name(slot.app), slot.index)
    }

    /// Starts a worker.
    ///
    /// The order of the steps makes a kill of this process at any of them safe:
    /// the keeper has the intent, with all that the child will hold, before the
    /// child exists; and the child introduces itself on a socket that the
    /// keeper has too.
    ///
    /// # Errors
    ///
    /// In words: the stage that failed and the cause.
    fn spawn(&mut self, id: WorkerId, seat: SeatId, generation: Generation) -> Result<(), String> {
        self.lull.note();
        let slot = seat.slot;
        let entry = self.registry.by_id(slot.app).ok_or("its app is gone")?;
        let settings = Rc::clone(entry.settings_of(generation.0));
        let app = &settings.app;
        self.listeners.open(seat, &settings, &self.link).map_err(|error| error.to_string())?;
        let identity = settings.identity()?;
        let fail = |what: &'static str| move |error: io::Error| format!("{what}: {}", words::lack(&error));

        let (notify, notify_name) = socket::abstract_datagram().map_err(fail("notify socket"))?;
        let notify_name = format!("@{notify_name}");
        let names: Vec<String> = app.listen.iter().map(listener_name).collect();
        let instances = self.registry.by_id(slot.app).map_or(0, |entry| entry.instances);
        let channel = app.channel.enabled.then(Ends::new).transpose().map_err(fail("channel"))?;
        let channel_fd = 3 + names.len();
        let ipc =
            channel.as_ref().map(|channel| channel.name(channel_fd)).transpose().map_err(fail("channel"))?;
        let place = Place {
            slot: slot.index,
            instances,
            notify_socket: &notify_name,
            listeners: &names,
            channel: ipc.as_deref(),
        };
        let env = settings.environment(&place);
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let (program, args) = app.command.split_first().ok_or("no command")?;
        let program =
            resolve_program(program.as_ref(), path, &app.cwd).map_err(|error| words::no_program(&error))?;

        let owner = identity.map(|identity| (identity.credentials.uid, identity.credentials.gid));
        let pipe = |stream| {
            let is_kept = !self.log_paths(&settings, stream, slot.index).is_empty();
            is_kept.then(|| Pipe::new(owner).map_err(fail("output pipe"))).transpose()
        };
        let out = pipe(Stream::Out)?;
        let error = pipe(Stream::Error)?;
        let (ours, theirs) = fdpass::seqpacket_pair().map_err(fail("introduction socket"))?;

        let mut record = WorkerRecord {
            app: app.name.clone(),
            slot: slot.index,
            generation: settings.generation,
            process: None,
            exit: None,
            fds: Vec::new(),
            cut_off: false,
        };
        let ends = [(Held::Out, &out), (Held::Error, &error)];
        let ends = ends.into_iter().filter_map(|(held, pipe)| Some((held, pipe.as_ref()?.read.as_fd())));
        let channel_end = channel.iter().map(|channel| (Held::Channel, channel.ours.as_fd()));
        let shared: Vec<_> = ends.chain([(Held::Notify, notify.as_fd())]).chain(channel_end).collect();
        let introduction = [(Held::Introduction, ours.as_fd()), (Held::Introducer, theirs.as_fd())];
        let stored = record.store(id, &[&introduction[..], &shared[..]].concat(), &self.link);
        stored.map_err(fail("keeper's copy"))?;

        let null = self.null.as_fd();
        let stdio = [
            null,
            out.as_ref().map_or(null, |pipe| pipe.write.as_fd()),
            error.as_ref().map_or(null, |pipe| pipe.write.as_fd()),
        ];
        let argv = std::iter::once(&app.command[0]).chain(args).map(Into::into).collect();
        let mut fds =
            self.listeners.hand_over(seat, &settings, &self.link).map_err(|error| error.to_string())?;
        fds.extend(channel.iter().map(|channel| channel.theirs.as_fd()));
        let mut plan = Plan {
            env,
            listen_pid: !names.is_empty(),
            cwd: Some(app.cwd.clone()),
            fds,
            introduce: Some(theirs.as_fd()),
            capture: self.captures && settings.wants_capture(),
            process_group: ProcessGroup::NewSession,
            credentials: identity.map(|identity| identity.credentials.clone()),
            umask: app.umask,
            nice: app.nice,
            cpus: settings.cpus(slot.index)?,
            limits: settings.limits(self.open_files)?,
            oom_score_adj: app.oom_score_adj.or(self.oom_score_adj),
            ..Plan::new(Program::Path(program.clone()), argv, stdio)
        };
        let (mut cgroup, folder) = self.workers.cgroups.make(&app.name, id, app.max_memory_hard).unzip();
        plan.cgroup = folder.as_ref().map(AsFd::as_fd);
        fault::step();
        let mut spawned = self.launcher.spawn(&plan);
        fault::step();
        if let Err(error) = &spawned
            && error.stage == Stage::Cgroup
        {
            self.workers.cgroups.give_up(error, cgroup.take());
            plan.cgroup = None;
            spawned = self.launcher.spawn(&plan);
        }
        let child = match spawned {
            Ok(child) => child,
            // The intent is deleted when the core announces the failure.
            Err(error) => {
                self.workers.cgroups.remove(cgroup);
                let cause = words::lack(&io::Error::from_raw_os_error(error.errno));
                #[expect(clippy::wildcard_enum_match_arm, reason = "the other stages need no more")]
                return Err(match error.stage {
                    Stage::Exec => format!("exec {}: {cause}", program.display()),
                    Stage::Chdir => format!("chdir {}: {cause}", app.cwd.display()),
                    Stage::CpuAffinity => words::no_cpu(&plan.cpus),
                    _ => format!("{}: {cause}", error.stage),
                });
            }
        };

        if let Some(errno) = child.uncaptured {
            let why = words::errno(&io::Error::from_raw_os_error(errno));
            tracing::error!("{}: its sockets are not captured, seccomp: {why}", self.place(slot));
        }
        // It has come before the program could make a call. What introduces the
        // child stays: a next master must find it until the keeper has its pid.
        let calls =
            fdpass::peek(&ours, &mut [0; 4]).ok().and_then(|received| received.fds.into_iter().next());
        // Its pid is reserved until it is reaped, so this is its own.
        let start_time = process::start_time(child.pid).unwrap_or(0);
        record.process = Some(ProcessRecord { pid: child.pid.as_raw_pid(), start_time });
        let pidfd = [(Held::Process, child.pidfd.as_fd())];
        let calls_too: Vec<_> = calls.iter().map(|calls| (Held::Calls, calls.as_fd())).collect();
        // In place of what introduces it, so it is not more.
        let _ = record.store(id, &[&pidfd[..], &shared[..], &calls_too[..]].concat(), &self.link);
        drop(shared);
        drop(calls_too);

        let pipes = [(Stream::Out, out), (Stream::Error, error)];
        let pipes = pipes.into_iter().filter_map(|(stream, pipe)| Some((stream, pipe?.read))).collect();
        self.carry(id, slot.index, child.pid, &settings, pipes)?;
        let mut worker = Worker::new(Rc::clone(&settings), record, seat, child, cgroup, notify, calls);
        worker.channel = channel
            .map(|Ends { ours, theirs: _ }| self.connect(id, slot.index, &settings, ours, Left::default()));
        self.workers.add(id, worker, &self.poller).map_err(fail("epoll"))?;
        if settings.is_checked() {
            self.checks.add(id);
        }
        Ok(())
    }

    /// The files that a stream of a slot's workers goes to; none for one that is
    /// thrown away.
    fn log_paths(&self, settings: &Settings, stream: Stream, slot: u32) -> Vec<PathBuf> {
        let own = match stream {
            Stream::Out => settings.out_path(&self.log_dir, slot),
            Stream::Error => settings.error_path(&self.log_dir, slot),
        };
        let mut paths: Vec<PathBuf> = own.into_iter().chain(settings.combined_path(slot)).collect();
        paths.dedup();
        paths
    }

    /// Begins to carry a worker's output, and to look at what it uses.
    ///
    /// # Errors
    ///
    /// As [`Settings::access`].
    pub(crate) fn carry(
        &self,
        worker: WorkerId,
        slot: u32,
        pid: Pid,
        settings: &Settings,
        pipes: Vec<(Stream, OwnedFd)>,
    ) -> Result<(), String> {
        let access = settings.access()?;
        let name: Arc<str> = settings.app.name.as_str().into();
        let streams = pipes.into_iter().map(|(stream, pipe)| NewStream {
            source: Source {
                worker,
                app: Arc::clone(&name),
                slot,
                stream,
                pipe,
                paths: self.log_paths(settings, stream, slot).into_iter().map(Arc::from).collect(),
            },
            pid: pid.as_raw_pid().unsigned_abs(),
            generation: settings.generation,
            access: access.clone(),
            options: settings.app.logs.clone(),
            zone: settings.zone(),
        });
        self.output.add(streams.collect());
        self.sampler.add(worker, pid, settings.ceilings());
        Ok(())
    }

    /// Serves a worker's channel from now on.
    pub(crate) fn connect(
        &self,
        worker: WorkerId,
        slot: u32,
        settings: &Settings,
        socket: OwnedFd,
        left: Left,
    ) -> Arc<Figures> {
        let (app, generation) = (settings.app.name.as_str().into(), settings.generation);
        let new = NewMember { worker, app, slot, generation, socket, left };
        self.channel.join(new, &settings.app.channel)
    }

    /// Turns what the poller tells into events. `hangup`: nobody is left at the other
    /// end.
    pub(crate) fn hear(&mut self, news: News, hangup: bool) {
        match news {
            News::Said(id) => {
                for _ in 0..MESSAGES {
                    let Some((events, alive)) = self.workers.hear(id, &self.link) else { break };
                    if alive {
                        self.hangs.alive(id);
                    }
                    for event in events {
                        self.handle(event);
                    }
                    self.workers.heard(id);
                }
            }
            // All processes of the tree are gone, of which there is more to come.
            News::Calls(id) if hangup => self.workers.end_calls(id, &self.poller),
            News::Calls(id) => self.hear_calls(id),
            News::Ended(id) => {
                self.end_check(id);
                if let Some(event) = self.workers.take_exit(id, &self.poller, &self.link) {
                    // Many programs remove their path when they end.
                    self.listeners.restore_paths();
                    self.handle(event);
                }
            }
        }
    }

    /// Takes the message `"ready"` of a worker, if its app waits for it.
    pub(crate) fn hear_ready(&mut self, worker: WorkerId) {
        if self.workers.get(worker).is_some_and(|worker| worker.settings.app.ready == Ready::Ipc) {
            self.handle(Event::WorkerReady(worker));
        }
    }

    /// Looks whether groups that outlived their leaders are gone.
    pub(crate) fn look_after_lingering(&mut self) {
        for event in self.workers.look_after_lingering(&self.poller, &self.link) {
            self.handle(event);
        }
    }

    /// Looks whether workers that are being drained may be asked to end.
    pub(crate) fn look_after_drains(&mut self) {
        let Self { drains, workers, listeners, observer, .. } = self;
        let mut moment = observer.look();
        let drained = drains.look(|id, half_open| {
            let worker = workers.get(id)?;
            let ports = listeners.ports(worker.seat);
            let queue = listeners.queue(worker.seat).unwrap_or(0);
            Some(moment.of(worker.pid, &ports, half_open, queue, worker.settings.app.drain_quiet))
        });
        for worker in drained {
            self.handle(Event::WorkerDrained(worker));
        }
    }

    /// Looks at the queues that decide who gets connections.
    pub(crate) fn look_at_queues(&mut self) {
        self.queues.look(&mut self.listeners, &self.poller);
    }

    /// Looks whether groups that have changed are ours alone. To be called once
    /// a second.
    pub(crate) fn look_at_groups(&mut self) {
        let Self { listeners, observer, queues, poller, link, .. } = self;
        listeners.check(|port| observer.listeners(port), link);
        queues.follow(listeners, poller);
    }

    /// Tells people what happened to a worker: in the log, and those who wait
    /// for an order about its app.
    fn announce(&mut self, notice: Notice) {
        let worker = notice.worker();
        let pid = self.workers.get(worker).map(|worker| worker.pid);
        let process = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        match &notice {
            Notice::Starting(..) | Notice::Switched(..) => {}
            Notice::Ready { .. } => {
                self.channel.ready(worker);
                self.note_ready(worker);
            }
            Notice::Draining(..) | Notice::Stopping(..) | Notice::Hung { .. } | Notice::Killing(..) => {
                self.channel.drain(worker);
            }
            Notice::Ended { .. } => self.channel.end(worker),
        }
        let (slot, state, detail) = match notice {
            Notice::Starting(slot, _) => (slot, WorkerState::Starting, "starting".to_owned()),
            Notice::Ready { slot, after, .. } => {
                let watchdog = self.workers.get(worker).and_then(|worker| worker.settings.app.watchdog);
                self.hangs.begin(worker, watchdog);
                (slot, WorkerState::Ready, format!("ready after {}{process}", words::duration(after)))
            }
            Notice::Switched(slot, _) => (slot, WorkerState::Ready, format!("takes over{process}")),
            Notice::Draining(slot, _) => (slot, WorkerState::Draining, format!("draining{process}")),
            Notice::Stopping(slot, _) => {
                self.end_check(worker);
                (slot, WorkerState::Stopping, format!("stopping{process}"))
            }
            Notice::Hung { slot, hang, next, .. } => {
                let state = next.map_or(WorkerState::Stopping, words::state_after);
                (slot, state, words::hung(hang, next, &process))
            }
            Notice::Killing(slot, _) => {
                (slot, WorkerState::Stopping, format!("did not end in time, killing it{process}"))
            }
            Notice::Ended { slot, ending, next, .. } => {
                self.sampler.remove(worker);
                self.hangs.forget(worker);
                self.ended.push((slot.app, worker));
                for key in [records::worker_key, records::told_key, records::calls_key] {
                    self.link.delete(&key(worker));
                }
                (slot, words::state_after(next), words::ended(&ending, next))
            }
        };
        tracing::info!("{}: {detail}", self.place(slot));
        let app = self.registry.name(slot.app).to_owned();
        let pid = pid.and_then(|pid| u32::try_from(pid.as_raw_pid()).ok());
        self.events.tell(|| Happening::Worker {
            app: app.clone(),
            slot: slot.index,
            pid,
            state,
            detail: detail.clone(),
        });
        self.operations.tell(slot.app, &Progress::Worker { app, slot: slot.index, state, detail });
    }

    /// Tells people how far a reload is.
    fn report(&mut self, app: AppId, step: Step) {
        let step = words::step(self.registry.name(app).to_owned(), step);
        tracing::info!("{}: {}", step.app, step.detail);
        self.events.tell(|| Happening::Step(step.clone()));
        self.operations.tell(app, &Progress::Step(step));
    }

    /// Notes how an operation ended, together with what the core knows by then:
    /// another master could not find out.
    fn conclude(&mut self, operation: OperationId, outcome: &Outcome) {
        let (exit_code, failure) = match outcome {
            Outcome::Done => (0, None),
            Outcome::Failed(failure) => (1, Some(self.failure_of(failure, false))),
            Outcome::RolledBack(failure) => (6, Some(self.failure_of(failure, true))),
            Outcome::Aborted => {
                let failure = self.failure(operation, "aborted by an order");
                (6, Some(Failure { rolled_back: true, ..failure }))
            }
            Outcome::Refused(refusal) => (5, Some(self.failure(operation, &words::refusal(*refusal)))),
            Outcome::Superseded => (5, Some(self.failure(operation, "a later order took its place"))),
        };
        let app = self.operations.get(operation).map(|begun| begun.app);
        let last = self.operations.conclude(operation, Conclusion { exit_code, failure }, &self.link);
        if let Some(entry) = app.and_then(|app| self.registry.by_id_mut(app)) {
            entry.last_order = last;
        }
    }

    /// An operation has ended: now that what it ordered is done, people are told.
    fn finish(&mut self, operation: OperationId, outcome: &Outcome) {
        match outcome {
            Outcome::Done | Outcome::Failed(_) | Outcome::Superseded => self.settle(operation),
            Outcome::RolledBack(_) | Outcome::Aborted | Outcome::Refused(_) => {}
        }
        let Some(begun) = self.operations.get(operation).cloned() else { return };
        let app = self.registry.name(begun.app).to_owned();
        match begun.conclusion.clone().and_then(|conclusion| conclusion.failure) {
            None => self.tell_done(app, &begun),
            Some(failure) => {
                self.tell_failure(&failure, &begun);
                let worker = match outcome {
                    Outcome::Failed(failure) | Outcome::RolledBack(failure) => Some(failure.worker),
                    Outcome::Done | Outcome::Aborted | Outcome::Refused(_) | Outcome::Superseded => None,
                };
                self.operations.fail(operation, || match worker {
                    Some(worker) => Line::Failed(failure.clone(), self.output.tail(worker)),
                    None => Line::Progress(Progress::Failed(failure.clone())),
                });
            }
        }
        self.drop_next(operation);
        self.operations.finish(operation, &self.link);
    }

    /// Settings that have proved themselves are an app's own, others are gone.
    fn drop_next(&self, operation: OperationId) {
        let entry = self.operations.get(operation).and_then(|begun| self.registry.by_id(begun.app));
        if let Some(entry) = entry.filter(|entry| entry.before.is_none()) {
            self.link.delete(&records::next_key(&entry.settings.app.name));
        }
    }

    /// A worker's end that an order failed of, in words.
    fn failure_of(&self, failure: &supervisor_core::Failure, rolled_back: bool) -> Failure {
        let supervisor_core::Failure { slot, worker, ending } = failure;
        let mut reason = words::ending(ending);
        if let Some(refused) = self.refused.get(worker) {
            reason = format!("{reason}; {refused}");
        }
        let app = self.registry.name(slot.app).to_owned();
        Failure { app, slot: Some(slot.index), reason, last_lines: Vec::new(), rolled_back }
    }

    fn tell_done(&self, app: String, begun: &Begun) {
        if begun.is_adopted {
            tracing::info!(
                "{app}: {}, which an earlier master began, is done",
                words::order(begun.change, begun.generation)
            );
        }
        let Begun { change, generation, is_adopted: by_next_master, .. } = *begun;
        self.events.tell(|| Happening::Done { app, change, generation, by_next_master });
    }

    fn tell_failure(&self, failure: &Failure, begun: &Begun) {
        let Failure { app, slot, reason, last_lines: _, rolled_back } = failure.clone();
        let by_next_master = begun.is_adopted;
        if rolled_back || by_next_master {
            let whose = if by_next_master { ", which an earlier master began," } else { "" };
            let place = slot.map_or_else(|| app.clone(), |slot| format!("{app}:{slot}"));
            let how = if rolled_back { "rolled back" } else { "failed" };
            tracing::error!(
                "{place}: {reason}; {}{whose} is {how}",
                words::order(begun.change, begun.generation)
            );
        }
        self.events.tell(|| Happening::Failed { app, slot, reason, rolled_back, by_next_master });
    }

    /// The settings that an operation brought are there to stay.
    fn settle(&mut self, operation: OperationId) {
        // One that takes a reload back has brought none.
        let brings = |begun: &&Begun| begun.change != Change::Aborted;
        let Some(app) = self.operations.get(operation).filter(brings).map(|begun| begun.app) else { return };
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        if entry.before.take().is_none() {
            return;
        }
        self.store_app(app);
        if let Some(pending) = self.keep_declared() {
            let name = self.registry.name(app).to_owned();
            tokio::spawn(async move {
                if let Err(error) = pending.written().await {
                    tracing::error!("{name}: the next daemon will not know its settings: {error}");
                }
            });
        }
    }

    fn failure(&self, operation: OperationId, reason: &str) -> Failure {
        let app = self.operations.get(operation).map_or("", |begun| self.registry.name(begun.app)).to_owned();
        requests::failure(app, reason.to_owned())
    }

    /// Declares a new app or changes a known one. The generation tells the core
    /// whether its workers are outdated.
    pub(crate) fn declare(&mut self, operation: OperationId, app: AppId) {
        let Some(entry) = self.registry.by_id(app) else { return };
        let order = entry.order(self.captures);
        self.store_app(app);
        self.order(operation, app, order);
    }

    /// Starts an app that was declared earlier. Nobody waits for it.
    pub(crate) fn restore(&mut self, app: AppId) {
        let Some(entry) = self.registry.by_id(app) else { return };
        self.core.restore(
            clock::now(),
            app,
            Generation(entry.settings.generation),
            entry.policy(self.captures),
            entry.instances,
            &entry.running(),
        );
        self.store_app(app);
    }

    /// Spreads an app's connections as its settings say now.
    pub(crate) fn spread_out(&mut self, app: AppId) {
        if let Some(entry) = self.registry.by_id(app) {
            self.listeners.spread_out(&entry.settings.app.name, Spread::new(entry), &self.link);
        }
    }

    /// Lets the keeper know what a person wants of an app.
    pub(crate) fn store_app(&mut self, app: AppId) {
        self.spread_out(app);
        let Some(entry) = self.registry.by_id(app).filter(|entry| !entry.deleted) else { return };
        let (settings, record) = entry.lasting();
        self.store_settings(&records::app_key(&settings.app.name), &settings, &record);
        if entry.before.is_some() {
            let next = entry.declaration();
            self.store_settings(&records::next_key(&settings.app.name), &next.settings, &next.record());
        }
    }

    fn store_settings(&self, key: &str, settings: &Settings, record: &AppRecord) {
        match records::store_app(&settings.app, record) {
            Ok(fd) => self.link.put(key, &[], &[(FdRole::Hold, fd.as_fd())]),
            Err(error) => tracing::error!("{}: cannot keep its settings: {error}", settings.app.name),
        }
    }

    /// Writes down what is declared, for the next daemon. `None` when nothing
    /// is kept.
    pub(crate) fn keep_declared(&self) -> Option<Pending> {
        let declared = self.registry.iter().map(|(_, entry)| entry).filter(|entry| !entry.deleted);
        let lasting: Vec<_> = declared.map(Entry::lasting).collect();
        let apps = lasting.iter().map(|(settings, record)| (&settings.app, record.clone()));
        self.store.keep(apps, &self.own.settings)
    }

    /// Notes that a person does not want an app any more. The next daemon does
    /// not know it; another master goes on ending it.
    pub(crate) fn note_deleted(&mut self, app: AppId) {
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        entry.deleted = true;
    }

    /// Notes that a person stopped or started slots.
    pub(crate) fn note_stopped(&mut self, app: AppId, slots: &Slots, stopped: bool) {
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        // A stop ends a reload: then it counts for what was declared before, too.
        let before = entry.before.as_mut().map(|before| (before.instances, &mut before.stopped));
        for (instances, known) in [Some((entry.instances, &mut entry.stopped)), before].into_iter().flatten()
        {
            for index in (0..instances).filter(|index| slots.contains(*index)) {
                if stopped {
                    known.insert(index);
                } else {
                    known.remove(&index);
                }
            }
        }
        self.store_app(app);
    }

    /// Notes that a person changed the number of slots. The new ones of an app
    /// that is stopped stay stopped.
    pub(crate) fn note_scaled(&mut self, app: AppId, instances: u32) {
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        let all_stopped = entry.is_stopped();
        entry.instances = instances;
        entry.stopped.retain(|slot| *slot < instances);
        if all_stopped {
            entry.stopped.extend(0..instances);
        }
        self.store_app(app);
    }

    /// The facts for a snapshot of now.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            now: clock::now(),
            workers: &self.workers,
            listeners: &self.listeners,
            samples: self.sampler.samples(),
            output: &self.output,
        }
    }

    /// Says that the master is alive, and to a service manager how things are.
    pub(crate) fn beat(&mut self, ending: bool) {
        self.link.beat();
        if self.lull.beat() {
            self.give_back();
        }
        let advancing = self.is_busy() || self.core.next_deadline().is_some();
        let Some(service) = &mut self.service else { return };
        let mut facts = service::Facts { ending, advancing, ..service::Facts::default() };
        for (_, entry) in self.registry.iter() {
            if let Some(app) = self.core.app(entry.id) {
                facts.add(&app);
            }
        }
        let words = service.words(&facts);
        self.link.notify(words);
    }

    /// Gives back the memory that a storm of starts has taken.
    fn give_back(&mut self) {
        self.memory.condense(&self.registry, &self.link);
        self.todo.shrink_to_fit();
        self.news.shrink_to_fit();
        own::drop_code();
        own::trim_heap();
    }

    /// When the core wants to be woken.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.core.next_deadline()
    }
}

/// A worker's output pipe.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// It belongs to the worker's user, because programs open `/dev/stdout`.
    fn new(owner: Option<(u32, u32)>) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        socket::set_nonblocking(&read, true)?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            rustix::fs::fchown(&write, Some(uid), Some(gid))?;
        }
        Ok(Self { read, write })
    }
}
