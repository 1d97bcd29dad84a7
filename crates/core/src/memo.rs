//! What must outlive the process that this code runs in: an app's whole state as
//! plain values, and the way back.
//!
//! ```text
//!   handle ──► memo ──► kept elsewhere ── the process dies ──► adopt ──► orders that may be lost
//! ```
//!
//! A memo is taken after each turn and kept before the turn's actions are
//! performed. So whatever was done is known, and what is known may not have been
//! done: [`Supervisor::adopt`](crate::Supervisor::adopt) orders that again.

mod soundness;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::action::{Action, Failure};
use crate::app::{App, Turn};
use crate::id::{AppId, Generation, OperationId, SeatId, Side, SlotId, WorkerId};
use crate::operation::{Before, Operation, Returning};
use crate::policy::{Policy, Version};
use crate::slot::{Cause, Ending, Rest, Seats, Slot, Stage, Worker};
use crate::steps::Steps;
use crate::time::Timestamp;

/// An app, without its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppMemo {
    /// The generation that it is declared with.
    pub generation: Generation,
    /// The settings of that generation, of the one before while a reload runs,
    /// and of those that workers still live by.
    pub versions: Vec<(Generation, Rc<Policy>)>,
    /// Slots from here on are to go.
    pub instances: u32,
    /// It is to be forgotten.
    pub deleting: bool,
    /// What a person waits for.
    pub operation: Option<OperationMemo>,
    /// When an errored slot is tried next.
    pub probe_at: Option<Timestamp>,
    /// Successors in a row that failed without an operation, and until when
    /// there are no more.
    pub vain: (u32, Timestamp),
}

/// An operation. What it waits for of each slot is with the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationMemo {
    /// Which one.
    pub id: OperationId,
    /// Whether its workers must be stable, too.
    pub stable: bool,
    /// How many slots it renews at a time.
    pub at_once: usize,
    /// Whether the new worker starts beside the old one.
    pub beside: bool,
    /// The number of slots that the app shrinks to when the rest is done.
    pub shrink: Option<u32>,
    /// What it goes back to when a worker fails.
    pub before: Option<BeforeMemo>,
    /// How its new workers get connections until they take over together.
    pub steps: Option<StepsMemo>,
    /// It is going back, and why.
    pub returning: Option<ReturningMemo>,
}

/// What an app was before it was declared anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeforeMemo {
    /// The generation of its settings.
    pub generation: Generation,
    /// Its number of slots.
    pub instances: u32,
    /// The slots that were to run. Some may be gone meanwhile.
    pub wanted: Rc<BTreeSet<u32>>,
}

/// How far a reload in steps is. Which slots have a new worker, and which of
/// these get connections, is with the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepsMemo {
    /// In percent, ascending; the last one is 100.
    pub shares: Vec<u32>,
    /// How long each share but the last is kept.
    pub hold: Duration,
    /// Which of the shares is worked on.
    pub at: usize,
    /// When the next one's turn comes, once the new workers of this one have
    /// proved themselves.
    pub held_until: Option<Timestamp>,
    /// How many slots the reload is about.
    pub of: u32,
    /// The share that the new workers get now, in percent.
    pub share: u32,
}

/// Why an operation goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturningMemo {
    /// A worker of the new settings failed.
    Failed(FailureMemo),
    /// A person wants it, by an order that is over when it has gone back.
    Ordered(Option<OperationId>),
}

/// The life whose end an operation failed of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureMemo {
    /// The index of its slot.
    pub slot: u32,
    /// Which worker.
    pub worker: WorkerId,
    /// How and why it ended.
    pub ending: Ending,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMemo {
    /// A person wants it to run.
    pub wanted: bool,
    /// Its worker must make room for a new one, and why.
    pub recycle: Option<Cause>,
    /// Its worker is to be replaced by one beside it, and why.
    pub replace: Option<Cause>,
    /// Who is in it.
    pub worker: Option<Box<WorkerMemo>>,
    /// Who is to take its place.
    pub successor: Option<Box<WorkerMemo>>,
    /// Who was in it and has not ended yet.
    pub retired: Option<Box<WorkerMemo>>,
    /// Where the worker's sockets are.
    pub side: Side,
    /// Whether the sockets of seat `A` and of seat `B` listen.
    pub open: (bool, bool),
    /// What it waits for while it has no worker.
    pub rest: Rest,
    /// Unstable lives in a row.
    pub streak: u32,
    /// Automatic restarts.
    pub restarts: u64,
    /// The generation of its worker, or of the last one.
    pub generation: Generation,
    /// How its last life ended.
    pub last_ending: Option<Ending>,
    /// What the app's operation waits for here.
    pub awaited: Awaited,
}

/// What an operation waits for of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Awaited {
    /// That its worker becomes ready.
    pub ready: bool,
    /// That it is its turn to get a new worker.
    pub turn: bool,
    /// That it is empty.
    pub gone: bool,
    /// In a reload in steps, it has, or is to have, a new worker.
    pub introduced: bool,
    /// That one gets connections.
    pub admitted: bool,
    /// In another reload, it has a new worker where there was nobody to start it beside.
    pub fresh: bool,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerMemo {
    /// Who it is.
    pub id: WorkerId,
    /// Where in its slot it sits.
    pub side: Side,
    /// The settings that it lives by.
    pub generation: Generation,
    /// When its process began to run; when it was ordered, before that.
    pub since: Timestamp,
    /// How far its life has come.
    pub stage: Stage,
    /// It is to be killed instead of asked, as soon as it runs.
    pub hurry: bool,
    /// Until when, at most, it answers the queue of one that ended while it was
    /// drained, if it is there for that.
    pub relieves: Option<Timestamp>,
}

impl SlotMemo {
    /// Everybody in it: first the one that it is about, then the one beside.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerMemo> {
        [&self.worker, &self.successor, &self.retired].into_iter().flatten().map(|worker| &**worker)
    }

    fn of(slot: &Slot, index: u32, operation: Option<&Operation>) -> Self {
        let memo = |worker: &Option<Box<Worker>>| worker.as_ref().map(|one| Box::new(WorkerMemo::of(one)));
        Self {
            wanted: slot.wanted,
            recycle: slot.recycle.clone(),
            replace: slot.replace.clone(),
            worker: memo(&slot.worker),
            successor: memo(&slot.successor),
            retired: memo(&slot.retired),
            side: slot.side,
            open: (slot.open.is(Side::A), slot.open.is(Side::B)),
            rest: slot.rest,
            streak: slot.streak,
            restarts: slot.restarts,
            generation: slot.generation,
            last_ending: slot.last_ending.clone(),
            awaited: Awaited::of(index, operation),
        }
    }

    /// Whether it is what there is to remember of a slot: without making that.
    fn is_of(&self, slot: &Slot, index: u32, operation: Option<&Operation>) -> bool {
        let same = |memo: &Option<Box<WorkerMemo>>, worker: &Option<Box<Worker>>| match (memo, worker) {
            (Some(memo), Some(worker)) => memo.is_of(worker),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same(&self.worker, &slot.worker)
            && same(&self.successor, &slot.successor)
            && same(&self.retired, &slot.retired)
            && self.wanted == slot.wanted
            && self.recycle == slot.recycle
            && self.replace == slot.replace
            && self.side == slot.side
            && self.open == (slot.open.is(Side::A), slot.open.is(Side::B))
            && self.rest == slot.rest
            && self.streak == slot.streak
            && self.restarts == slot.restarts
            && self.generation == slot.generation
            && self.last_ending == slot.last_ending
            && self.awaited == Awaited::of(index, operation)
    }

    fn restore(self, version: &impl Fn(Generation) -> Version) -> Slot {
        let worker = |memo: Option<Box<WorkerMemo>>| {
            let WorkerMemo { id, side, generation, since, stage, hurry, relieves } = *memo?;
            let version = version(generation);
            Some(Box::new(Worker { id, side, version, since, stage, hurry, relieves }))
        };
        let mut open = Seats::default();
        (*open.of(Side::A), *open.of(Side::B)) = self.open;
        Slot {
            wanted: self.wanted,
            recycle: self.recycle,
            replace: self.replace,
            worker: worker(self.worker),
            successor: worker(self.successor),
            retired: worker(self.retired),
            side: self.side,
            open,
            rest: self.rest,
            streak: self.streak,
            // It counts on, as many slots' do in a sum.
            restarts: self.restarts.min(u32::MAX.into()),
            generation: self.generation,
            last_ending: self.last_ending,
        }
    }
}

impl Awaited {
    fn of(index: u32, operation: Option<&Operation>) -> Self {
        let Some(operation) = operation else { return Self::default() };
        let steps = operation.steps.as_ref();
        Self {
            ready: operation.ready.contains(&index),
            turn: operation.waiting.contains(&index),
            gone: operation.gone.contains(&index),
            introduced: steps.is_some_and(|steps| steps.introduced.contains(&index)),
            admitted: steps.is_some_and(|steps| steps.admitted.contains(&index)),
            fresh: operation.fresh.contains(&index),
        }
    }
}

impl WorkerMemo {
    fn is_of(&self, worker: &Worker) -> bool {
        self.id == worker.id
            && self.side == worker.side
            && self.generation == worker.version.generation
            && self.since == worker.since
            && self.stage == worker.stage
            && self.hurry == worker.hurry
            && self.relieves == worker.relieves
    }

    fn of(worker: &Worker) -> Self {
        let Worker { id, side, version, since, stage, hurry, relieves } = worker;
        let (generation, stage) = (version.generation, stage.clone());
        Self { id: *id, side: *side, generation, since: *since, stage, hurry: *hurry, relieves: *relieves }
    }
}

impl OperationMemo {
    fn of(operation: &Operation) -> Self {
        Self {
            id: operation.id,
            stable: operation.stable,
            at_once: operation.at_once,
            beside: operation.beside,
            shrink: operation.shrink,
            before: operation.before.as_ref().map(|before| BeforeMemo {
                generation: before.version.generation,
                instances: before.instances,
                wanted: Rc::clone(&before.wanted),
            }),
            steps: operation.steps.as_ref().map(Steps::memo),
            returning: operation.returning.as_ref().map(|returning| match returning {
                Returning::Failed(failure) => ReturningMemo::Failed(FailureMemo {
                    slot: failure.slot.index,
                    worker: failure.worker,
                    ending: failure.ending.clone(),
                }),
                Returning::Ordered(by) => ReturningMemo::Ordered(*by),
            }),
        }
    }

    fn restore(self, app: AppId, slots: &[SlotMemo], version: &impl Fn(Generation) -> Version) -> Operation {
        let among = |which: fn(&Awaited) -> bool| -> BTreeSet<u32> {
            (0..).zip(slots).filter(|(_, slot)| which(&slot.awaited)).map(|(index, _)| index).collect()
        };
        let returning = |returning| match returning {
            ReturningMemo::Failed(FailureMemo { slot: index, worker, ending }) => {
                Returning::Failed(Failure { slot: SlotId { app, index }, worker, ending })
            }
            ReturningMemo::Ordered(by) => Returning::Ordered(by),
        };
        let steps = |memo| {
            Steps::restored(memo, among(|awaited| awaited.introduced), among(|awaited| awaited.admitted))
        };
        Operation {
            id: self.id,
            fresh: among(|awaited| awaited.fresh),
            ready: among(|awaited| awaited.ready),
            stable: self.stable,
            gone: among(|awaited| awaited.gone),
            waiting: among(|awaited| awaited.turn),
            at_once: self.at_once,
            beside: self.beside,
            shrink: self.shrink,
            before: self.before.map(|BeforeMemo { generation, instances, wanted }| Before {
                version: version(generation),
                instances,
                wanted,
            }),
            steps: self.steps.map(steps),
            returning: self.returning.map(returning),
        }
    }
}

impl App {
    /// What there is to remember of it, without its slots.
    pub(crate) fn memo(&self) -> AppMemo {
        let before = self.operation.as_ref().and_then(|operation| operation.before.as_ref());
        let workers = self.slots.iter().flat_map(Slot::workers).map(|worker| &worker.version);
        let mut versions: Vec<(Generation, Rc<Policy>)> = Vec::new();
        for version in [&self.version].into_iter().chain(before.map(|before| &before.version)).chain(workers)
        {
            if versions.iter().all(|(known, _)| *known != version.generation) {
                versions.push((version.generation, Rc::clone(&version.policy)));
            }
        }
        AppMemo {
            generation: self.version.generation,
            versions,
            instances: self.instances,
            deleting: self.deleting,
            operation: self.operation.as_ref().map(OperationMemo::of),
            probe_at: self.probe_at,
            vain: self.vain,
        }
    }

    /// What there is to remember of its slots, in order.
    pub(crate) fn slot_memos(&self) -> impl Iterator<Item = SlotMemo> {
        let operation = self.operation.as_ref();
        (0..).zip(&self.slots).map(move |(index, slot)| SlotMemo::of(slot, index, operation))
    }

    /// The slots that differ from what was remembered of them, in order, unless
    /// their number does.
    pub(crate) fn changed_slots(&self, known: &[SlotMemo]) -> Option<Vec<(u32, SlotMemo)>> {
        if known.len() != self.slots.len() {
            return None;
        }
        let operation = self.operation.as_ref();
        let all = (0..).zip(&self.slots).zip(known);
        let changed = all.filter(|((index, slot), known)| !known.is_of(slot, *index, operation));
        Some(changed.map(|((index, slot), _)| (index, SlotMemo::of(slot, index, operation))).collect())
    }

    /// The app that a memo was taken of; `None` when the memo is of none, or lacks
    /// the settings that it names.
    pub(crate) fn adopted(
        id: AppId,
        memo: AppMemo,
        slots: Vec<SlotMemo>,
        turn: &mut Turn<'_>,
    ) -> Option<Self> {
        if !memo.is_sound(&slots, turn) {
            return None;
        }
        let versions: BTreeMap<Generation, Rc<Policy>> = memo.versions.into_iter().collect();
        let current = Rc::clone(versions.get(&memo.generation)?);
        let version = |generation: Generation| Version {
            generation,
            policy: Rc::clone(versions.get(&generation).unwrap_or(&current)),
        };
        let operation = memo.operation.map(|running| running.restore(id, &slots, &version));
        let mut app = Self {
            id,
            version: version(memo.generation),
            instances: memo.instances,
            slots: slots.into_iter().map(|slot| slot.restore(&version)).collect(),
            operation,
            deleting: memo.deleting,
            rotation: Vec::new(),
            probe_at: memo.probe_at,
            vain: memo.vain,
            deadline: Some(turn.now),
        };
        // Whose record was lost never ran.
        let missing = (memo.instances as usize).saturating_sub(app.slots.len());
        app.slots.extend((0..missing).map(|_| Slot::new(memo.generation)));
        app.order_again(turn);
        Some(app)
    }

    /// Orders what may have been ordered in vain.
    fn order_again(&mut self, turn: &mut Turn<'_>) {
        for (index, slot) in (0..).zip(&self.slots) {
            let place = SlotId { app: self.id, index };
            for worker in slot.workers() {
                turn.places.insert(worker.id, place);
                turn.actions.extend(match &worker.stage {
                    Stage::Spawning => Some(Action::Spawn {
                        worker: worker.id,
                        seat: SeatId { slot: place, side: worker.side },
                        generation: worker.version.generation,
                    }),
                    Stage::Draining { .. } => Some(Action::Drain(worker.id)),
                    Stage::Stopping { cause: Cause::Hung(_), kill_at: Some(_), .. } => {
                        Some(Action::Abort(worker.id))
                    }
                    Stage::Stopping { kill_at: Some(_), .. } => Some(Action::Terminate(worker.id)),
                    Stage::Stopping { kill_at: None, .. } => Some(Action::Kill(worker.id)),
                    Stage::Starting { .. } | Stage::Ready { .. } => None,
                });
            }
        }
        self.rotate(turn);
    }
}
