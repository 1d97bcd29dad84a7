//! Taking over the apps of a master that has died, and their workers, who do not
//! notice.
//!
//! The core goes on from what the keeper was told of it (`memory`), and orders
//! again what may not have been performed. What has happened meanwhile comes
//! from the machine: sockets still listen, pipes and messages wait to be read, a
//! process runs or has ended, and the keeper has reaped it and tells how.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use supervisor_config::App;
use supervisor_core::memo::{OperationMemo, ReturningMemo, WorkerMemo};
use supervisor_core::{
    Action, AppId, Cause, Event, Exit, Generation, SeatId, Side, SlotId, SlotMemo, Stage, WorkerId,
};
use supervisor_protocol::control::Stream;
use supervisor_protocol::keeper::OrphanExit;

use crate::capture::Captured;
use crate::clock;
use crate::fault;
use crate::inherit::{Apps, Leftover, Leftovers};
use crate::master::Master;
use crate::memory::Remembered;
use crate::records::{AppRecord, Held, next_key};
use crate::registry::Declaration;
use crate::settings::{Settings, address_text};
use crate::workers::{Foundling, Worker, process_exit};

/// What a worker that is to become ready gets on top of its time: while there is
/// no master its calls wait.
const GRACE: Duration = Duration::from_secs(5);

/// What has become of a worker.
enum Fate {
    /// It runs, or its end is told by whoever hears of it.
    Followed,
    /// It has ended in this way.
    Ended(Exit),
    /// It was never executed.
    Never,
}

impl Master {
    /// Takes the apps over that an earlier master or daemon had.
    pub(crate) fn take_over(&mut self, apps: &mut Apps) {
        self.memory.count_from(&apps.memories);
        self.operations.inherit(std::mem::take(&mut apps.orders));
        let is_first = apps.memories.is_empty();
        if !is_first {
            self.events.remember();
        }
        let answering = apps.leftovers.answering();
        let (mut news, mut adopted) = (Vec::new(), 0);
        for (app, record) in std::mem::take(&mut apps.known) {
            let next = apps.next.remove(&app.name);
            match apps.memories.of(&app.name) {
                Some(known) => {
                    adopted += self.adopt((app, record), next, known, &mut apps.leftovers, &mut news);
                }
                None => self.declare_again(app, record),
            }
        }
        std::mem::take(&mut apps.leftovers).end(&self.link);
        for key in apps.memories.of_others(|name| self.registry.get(name).is_some()) {
            self.link.delete(&key);
        }
        for name in std::mem::take(&mut apps.next).into_keys() {
            self.link.delete(&next_key(&name));
        }
        self.operations.drop_left(&self.link);
        for (app, last) in self.operations.outcomes() {
            if let Some(entry) = self.registry.get_mut(app) {
                entry.last_order = Some(last.clone());
            }
        }
        self.workers.remove_other_cgroups();
        self.remember();
        if !is_first {
            // It may not have come so far as to write that down.
            let _ = self.keep_declared();
        }
        if adopted > 0 && self.upgrade.is_trial() {
            tracing::info!("{adopted} workers go on with this version");
        } else if adopted > 0 {
            tracing::warn!("the master before has died; {adopted} workers go on");
        }
        self.channel.begin();
        for event in news {
            self.handle(event);
        }
        for id in answering {
            self.hear_calls(id);
            self.restart_calls(id);
        }
    }

    /// An app of which only the declaration is known starts anew.
    fn declare_again(&mut self, app: App, record: AppRecord) {
        let settings = Settings::new(app, record.generation);
        let id = self.registry.insert(settings, record.origin, record.instances, record.stopped);
        self.restore(id);
    }

    /// Takes an app over. Returns how many workers it has.
    fn adopt(
        &mut self,
        lasting: (App, AppRecord),
        next: Option<(App, AppRecord)>,
        known: Remembered,
        leftovers: &mut Leftovers,
        news: &mut Vec<Event>,
    ) -> usize {
        fault::adopt(&lasting.0.name);
        let Remembered { app: memo, slots } = known;
        let again = lasting.clone();
        let declarations: Vec<Declaration> =
            [Some(lasting), next].into_iter().flatten().map(declaration).collect();
        let of =
            |generation: Generation| declarations.iter().find(|one| one.settings.generation == generation.0);
        let Some(current) = of(memo.generation).or(declarations.first()).cloned() else { return 0 };
        let is_proved =
            declarations.first().is_some_and(|first| first.settings.generation != memo.generation.0);
        let settings_of = |generation| Rc::clone(&of(generation).unwrap_or(&current).settings);
        let before = memo.operation.as_ref().and_then(|operation| operation.before.as_ref());
        let before = before.and_then(|before| of(before.generation)).cloned();

        // What the core was told of is what a person has ordered.
        let instances = memo.operation.as_ref().and_then(|operation| operation.shrink);
        let instances = instances.unwrap_or(memo.instances);
        let wanted = |slot: u32| slots.get(slot as usize).is_some_and(|slot| slot.wanted);
        let stopped: BTreeSet<u32> =
            current.stopped.iter().copied().filter(|slot| *slot < instances && !wanted(*slot)).collect();
        let settings = Rc::clone(&current.settings);
        let id = self.registry.insert(settings, current.origin.clone(), instances, stopped);
        if let Some(entry) = self.registry.by_id_mut(id) {
            entry.deleted = memo.deleting;
            entry.before = before.map(Box::new);
        }
        let (generation, operation) = (memo.generation, memo.operation.clone());
        let Some(orders) = self.core.adopt(clock::now(), id, memo, slots.clone()) else {
            tracing::error!("{}: what is known of it makes no sense; it starts anew", again.0.name);
            self.registry.remove(id);
            self.link.delete(&next_key(&again.0.name));
            self.declare_again(again.0, again.1);
            return 0;
        };
        match operation {
            Some(operation) => self.follow_on(id, &operation, generation),
            None => self.settle_on(id, is_proved),
        }

        self.spread_out(id);
        for (seat, occupant) in open_seats(id, &slots, generation) {
            if let Err(error) = self.listeners.open(seat, &settings_of(occupant), &self.link) {
                tracing::error!("{}: {error}", self.place(seat.slot));
            }
        }
        if let Some(address) = self.listeners.captured(id).into_iter().next() {
            tracing::debug!("{}: it listens on {}", self.registry.name(id), address_text(address));
            if let Some(entry) = self.registry.by_id_mut(id) {
                entry.listened = true;
            }
        }

        let (mut count, mut never, mut told) = (0, BTreeSet::new(), BTreeSet::new());
        for (index, slot) in (0..).zip(&slots) {
            for memo in slot.workers() {
                let seat = SeatId { slot: SlotId { app: id, index }, side: memo.side };
                let knows = leftovers.told.remove(&memo.id);
                told.extend(knows.then_some(memo.id));
                let fate = match leftovers.workers.remove(&memo.id) {
                    Some(left) => {
                        let settings = settings_of(memo.generation);
                        self.adopt_worker((memo, knows), seat, settings, left, leftovers, news)
                    }
                    None if memo.stage == Stage::Spawning => Fate::Never,
                    None => Fate::Ended(Exit::Unknown),
                };
                match fate {
                    Fate::Followed => count += 1,
                    Fate::Ended(exit) => {
                        news.push(Event::WorkerSpawned(memo.id));
                        news.push(Event::WorkerExited { worker: memo.id, exit });
                    }
                    Fate::Never => _ = never.insert(memo.id),
                }
            }
        }
        self.listeners.settle_holders(id);
        let is_due = |action: &Action| match action {
            Action::Spawn { worker, .. } => never.contains(worker),
            Action::Terminate(worker) | Action::Abort(worker) => !told.contains(worker),
            Action::Open(_)
            | Action::Close(_)
            | Action::Rotate(..)
            | Action::Drain(_)
            | Action::Revert(_)
            | Action::Kill(_)
            | Action::Forget(_)
            | Action::Announce(_)
            | Action::Report(..)
            | Action::Finish(..) => true,
        };
        self.queue(orders.into_iter().filter(is_due).collect());
        count
    }

    /// An operation goes on, and with it the one that takes it back.
    fn follow_on(&mut self, app: AppId, operation: &OperationMemo, generation: Generation) {
        let name = self.registry.name(app).to_owned();
        let abort = match operation.returning {
            Some(ReturningMemo::Ordered(by)) => by,
            Some(ReturningMemo::Failed(_)) | None => None,
        };
        for id in [Some(operation.id), abort].into_iter().flatten() {
            self.operations.adopt(id, (app, &name), generation.0);
        }
        tracing::info!("{name}: the order that was under way goes on");
    }

    /// Settings that are an app's own are there to stay, and others are gone: the
    /// master before may not have come so far.
    fn settle_on(&mut self, app: AppId, is_proved: bool) {
        let name = self.registry.name(app).to_owned();
        if is_proved {
            self.store_app(app);
        }
        self.link.delete(&next_key(&name));
    }

    fn adopt_worker(
        &mut self,
        (memo, told): (&WorkerMemo, bool),
        seat: SeatId,
        settings: Rc<Settings>,
        left: Leftover,
        leftovers: &mut Leftovers,
        news: &mut Vec<Event>,
    ) -> Fate {
        let id = memo.id;
        let Leftover { mut record, mut fds, process } = left;
        let Some(pid) = process else { return Fate::Never };
        let orphan = leftovers.orphan(&record).copied();
        let (Some(pidfd), Some(notify)) = (fds.remove(&Held::Process), fds.remove(&Held::Notify)) else {
            // It has ended before anybody could follow it.
            let cgroup = self.workers.cgroups.find(&settings.app.name, id, None);
            self.workers.cgroups.remove(cgroup);
            return Fate::Ended(match orphan.map(|orphan| orphan.exit) {
                Some(OrphanExit::Code(code)) => Exit::Code(code),
                Some(OrphanExit::Signal(number)) => Exit::Signal(number),
                None => Exit::Unknown,
            });
        };
        let (out, error, calls) =
            (fds.remove(&Held::Out), fds.remove(&Held::Error), fds.remove(&Held::Calls));
        let channel = fds.remove(&Held::Channel);
        if record.fds.contains(&Held::Introduction) {
            let held = [
                (Held::Process, Some(&pidfd)),
                (Held::Out, out.as_ref()),
                (Held::Error, error.as_ref()),
                (Held::Notify, Some(&notify)),
                (Held::Calls, calls.as_ref()),
                (Held::Channel, channel.as_ref()),
            ];
            let held = held.into_iter().filter_map(|(held, fd)| Some((held, fd?.as_fd())));
            record.replace(id, &held.collect::<Vec<_>>(), &self.link);
        }
        match memo.stage {
            Stage::Spawning => news.push(Event::WorkerSpawned(id)),
            Stage::Starting { .. } => news.push(Event::WorkerDelayed { worker: id, by: GRACE }),
            Stage::Ready { .. } | Stage::Draining { .. } | Stage::Stopping { .. } => {}
        }
        let pipes = [(Stream::Out, out), (Stream::Error, error)];
        let pipes = pipes.into_iter().filter_map(|(stream, pipe)| Some((stream, pipe?))).collect();
        if let Err(error) = self.carry(id, seat.slot.index, pid, &settings, pipes) {
            tracing::error!("{}: its output is lost: {error}", self.place(seat.slot));
        }
        let calls = calls.map(|calls| {
            self.listeners.meet_holder(seat, id, || leftovers.inodes(pid), &self.link);
            let record = leftovers.calls.remove(&id).unwrap_or_default();
            Captured::adopted(calls, record, self.listeners.has_captured(seat, id))
        });
        let asked = match &memo.stage {
            Stage::Stopping { cause, .. } => *cause != Cause::Itself,
            Stage::Spawning | Stage::Starting { .. } | Stage::Ready { .. } | Stage::Draining { .. } => false,
        };
        let ended = record.exit.map(Exit::from);
        let cgroup = self.workers.cgroups.find(&settings.app.name, id, settings.app.max_memory_hard);
        let mut worker = Worker::adopted(Foundling {
            settings: Rc::clone(&settings),
            record,
            seat,
            pid,
            pidfd,
            cgroup,
            notify,
            captured: calls,
            told: told && asked,
            killed: matches!(memo.stage, Stage::Stopping { kill_at: None, .. }),
        });
        worker.channel = channel.map(|socket| {
            let mut left = leftovers.channels.remove(&id).unwrap_or_default();
            left.is_adopted = true;
            self.connect(id, seat.slot.index, &settings, socket, left)
        });
        let ended = ended.or_else(|| orphan.map(|orphan| worker.exit(process_exit(&orphan))));
        if let Err(error) = self.workers.add(id, worker, &self.poller) {
            tracing::error!("{}: it cannot be followed, so it is ended: {error}", self.place(seat.slot));
            return Fate::Ended(Exit::Unknown);
        }
        if let Some(exit) = ended {
            news.extend(self.workers.end(id, exit, &self.poller, &self.link));
        } else {
            self.watch_again(memo, &settings);
        }
        Fate::Followed
    }
}

impl Master {
    /// Looks after a worker as its stage demands. What it has said to an earlier
    /// master counts as said now.
    fn watch_again(&mut self, memo: &WorkerMemo, settings: &Settings) {
        match memo.stage {
            Stage::Spawning | Stage::Starting { .. } if settings.is_checked() => self.checks.add(memo.id),
            Stage::Ready { .. } => {
                self.hangs.begin(memo.id, settings.app.watchdog);
                self.channel.ready(memo.id);
                self.note_ready(memo.id);
            }
            Stage::Spawning | Stage::Starting { .. } | Stage::Draining { .. } | Stage::Stopping { .. } => {}
        }
    }
}

impl Leftovers {
    /// The workers whose calls may wait for an answer that will not come.
    fn answering(&self) -> Vec<WorkerId> {
        self.calls.iter().filter(|(_, record)| record.answering).map(|(id, _)| *id).collect()
    }
}

/// A declaration as the keeper had it.
fn declaration((app, record): (App, AppRecord)) -> Declaration {
    let AppRecord { generation, instances, stopped, origin } = record;
    Declaration { settings: Settings::new(app, generation), instances, stopped, origin }
}

/// The seats whose sockets listen, each with the generation of whom they are
/// for; `current` is that of successors.
fn open_seats(app: AppId, slots: &[SlotMemo], current: Generation) -> Vec<(SeatId, Generation)> {
    let mut seats = Vec::new();
    for (index, slot) in (0..).zip(slots) {
        for (side, is_open) in [(Side::A, slot.open.0), (Side::B, slot.open.1)] {
            let occupant = slot.workers().find(|worker| worker.side == side).map(|worker| worker.generation);
            let expected = if side == slot.side { slot.generation } else { current };
            let seat = SeatId { slot: SlotId { app, index }, side };
            seats.extend(is_open.then_some((seat, occupant.unwrap_or(expected))));
        }
    }
    seats
}
