//! The shell around the core: it knows pids, sockets and names, performs what
//! the core orders, and turns what comes back into events.

mod announce;
mod conclude;
mod declare;
mod spawn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use supervisor_config::Ready;
use supervisor_core::{Action, AppId, Event, OperationId, Order, SlotId, Supervisor, Timestamp, WorkerId};
use supervisor_keeper::Lull;
use supervisor_sys::limits::Limit;
use supervisor_sys::own;
use supervisor_sys::poll::Poller;
use supervisor_sys::spawn::Launcher;

use crate::automatic::Automatic;
use crate::capture::Later;
use crate::cgroups::Cgroups;
use crate::channel::Channel;
use crate::checks::Checks;
use crate::drains::Drains;
use crate::events::Events;
use crate::hangs::Hangs;
use crate::link::Link;
use crate::listeners::Listeners;
use crate::memory::Memory;
use crate::operations::Operations;
use crate::output::Output;
use crate::own::Own;
use crate::problems::Problems;
use crate::queues::Queues;
use crate::registry::Registry;
use crate::sampler::Sampler;
use crate::service::{self, Service};
use crate::sight::Observer;
use crate::snapshot::Facts;
use crate::store::Store;
use crate::workers::{News, Workers};
use crate::{capture, clock, fault, records, upgrade};

/// Messages that one worker gets read at a time, so that none can hold the
/// loop.
const MESSAGES: usize = 16;
/// How long actions are performed before other news is looked at.
const SLICE: Duration = Duration::from_millis(5);
/// So many bytes of an answer take as much memory for the moment as the start of a
/// worker.
const ANSWER_BYTES: usize = 2048;

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
            lull: Lull::new(64, 4),
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
        self.handle_all([event]);
    }

    /// The same of several events at once.
    fn handle_all(&mut self, events: impl IntoIterator<Item = Event>) {
        let actions = self.core.handle_all(clock::now(), events);
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
    /// news of other workers waiting. That processes run is told at once for all of
    /// them, as the core looks at the whole app each time.
    pub(crate) fn perform(&mut self) {
        let begin = Instant::now();
        let mut spawned = Vec::new();
        while let Some(action) = self.next_action() {
            spawned.extend(self.perform_one(action));
            if begin.elapsed() >= SLICE {
                break;
            }
        }
        if !spawned.is_empty() {
            self.handle_all(spawned.into_iter().map(Event::WorkerSpawned));
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

    /// Returns the worker whose process runs now, if it was to be started.
    fn perform_one(&mut self, action: Action) -> Option<WorkerId> {
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
            Action::Spawn { worker, seat, generation } => match self.spawn(worker, seat, generation) {
                Ok(()) => return Some(worker),
                Err(detail) => self.handle(Event::SpawnFailed { worker, detail }),
            },
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
        None
    }

    /// `web:0`, for people.
    pub(crate) fn place(&self, slot: SlotId) -> String {
        format!("{}:{}", self.registry.name(slot.app), slot.index)
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

    /// Looks whether groups that have changed are ours alone. To be called once
    /// a second.
    pub(crate) fn look_at_groups(&mut self) {
        let Self { listeners, observer, queues, poller, link, .. } = self;
        listeners.check(|port| observer.listeners(port), link);
        queues.follow(listeners, poller);
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

    /// Notes an answer of so many bytes: a long one takes memory and code as the
    /// starts of many workers do.
    pub(crate) fn note_answer(&mut self, bytes: usize) {
        self.lull.note_many((bytes / ANSWER_BYTES).try_into().unwrap_or(u32::MAX));
    }

    /// Gives back the memory that a storm of starts, or of long answers, has taken.
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
