//! A slot and the workers in it.
//!
//! ```text
//!            spawn                spawned             ready             drain
//!   rest ─────────────► Spawning ─────────► Starting ───────► Ready ────────► Draining
//!    ▲                     │ failed            │ exit, too late │ exit, stop      │
//!    │                     ▼                   ▼                ▼                 ▼
//!    └──────────────────────────── ended ◄──────────────── Stopping ◄─────────────┘
//! ```
//!
//! What a slot *wants* is one field, what it *has* another; what a slot without
//! a worker waits for is [`Rest`]. A second worker is in the slot while one
//! replaces another: first as the *successor* that must prove itself, then, when
//! it serves, beside the *retired* one that ends. Each of the two has a seat of
//! its own ([`Side`]), unless the retired one hangs: then whoever comes next sits
//! on the same sockets, to answer its queue. One that ends unasked while it is
//! drained is *relieved*: another takes its place in the same seat, is drained as
//! soon as it runs, and ends. So is one that ended before its successor took over
//! and did not come back, by one of the successor's settings.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use crate::event::{Exit, Hang};
use crate::id::{Generation, Side, WorkerId};
use crate::policy::Version;
use crate::time::Timestamp;

/// One place of an app.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// A person wants it to run.
    pub(crate) wanted: bool,
    /// Its worker must make room for a new one, and why.
    pub(crate) recycle: Option<Cause>,
    /// Its worker is to be replaced by one beside it, and why.
    pub(crate) replace: Option<Cause>,
    /// Who is in it. In boxes, as most slots have one of the three at most.
    pub(crate) worker: Option<Box<Worker>>,
    /// Who is to take its place.
    pub(crate) successor: Option<Box<Worker>>,
    /// Who was in it and has not ended yet.
    pub(crate) retired: Option<Box<Worker>>,
    /// Where the worker's sockets are. The other seat is the successor's, or
    /// that of a retired one that it has replaced.
    pub(crate) side: Side,
    /// Whose sockets listen, as far as orders were given.
    pub(crate) open: Seats,
    /// What it waits for while it has no worker.
    pub(crate) rest: Rest,
    /// Unstable lives in a row.
    pub(crate) streak: u32,
    /// Automatic restarts since the app was declared, or since a person began to
    /// count anew.
    pub(crate) restarts: u64,
    /// The generation of its worker, or of the last one.
    pub(crate) generation: Generation,
    /// How its last life ended.
    pub(crate) last_ending: Option<Ending>,
}

/// A yes or no for each seat of a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seats {
    a: bool,
    b: bool,
}

impl Seats {
    pub(crate) const fn of(&mut self, side: Side) -> &mut bool {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    pub(crate) const fn is(self, side: Side) -> bool {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }
}

/// What a slot without a worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// For a person.
    Stopped,
    /// For this moment.
    Due(Timestamp),
    /// For the app's next try, or for a person.
    Errored,
}

/// What a worker is to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    Successor,
    Retired,
}

/// One life of one process.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    /// Where in its slot it sits.
    pub(crate) side: Side,
    /// The settings that it lives by.
    pub(crate) version: Version,
    /// When its process began to run; when it was ordered, before that.
    pub(crate) since: Timestamp,
    pub(crate) stage: Stage,
    /// It is to be killed instead of asked, as soon as it runs.
    pub(crate) hurry: bool,
    /// It only answers the queue of one that ended unasked while it was drained:
    /// until when, at most.
    pub(crate) relieves: Option<Timestamp>,
}

/// How far a worker's life has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Ordered; the outcome is not known yet.
    Spawning,
    /// It runs.
    Starting {
        /// When it counts as ready (`ready: started`) or as failed (otherwise).
        deadline: Timestamp,
        /// What is missing until it is ready, in words, if that is known.
        lacks: Option<String>,
    },
    /// It may take connections.
    Ready {
        /// When it will be stable; `None` once it is.
        stable_at: Option<Timestamp>,
    },
    /// It gets no new connections; it is asked to end when it has taken those
    /// that wait for it, or at the deadline.
    Draining {
        /// Why it is to end.
        cause: Cause,
        /// How long it is waited for.
        deadline: Timestamp,
        /// It had proved itself.
        stable: bool,
    },
    /// It was asked to end, or said that it will.
    Stopping {
        /// Why.
        cause: Cause,
        /// When it is killed; `None` once it was.
        kill_at: Option<Timestamp>,
        /// It had proved itself.
        stable: bool,
    },
}

/// How and why a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How the process ended; `None` when there never was one.
    pub exit: Option<Exit>,
    /// Why.
    pub cause: Cause,
    /// When.
    pub at: Timestamp,
    /// How long the process ran.
    pub uptime: Duration,
}

/// Why a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It ended by itself, or somebody else ended it.
    Itself,
    /// It was asked to end by an order.
    Asked,
    /// It was asked to end because it was not ready in time.
    NotReady {
        /// How much time it had.
        limit: Duration,
        /// What was missing at last, in words, if that is known.
        lacks: Option<String>,
    },
    /// It was asked to end, or killed, because of the memory that it used.
    Memory {
        /// How much it used, in bytes.
        used: u64,
        /// How much it might use, in bytes.
        limit: u64,
    },
    /// It was aborted because it did nothing any more.
    Hung(Hang),
    /// Its process could not be started: the stage and the cause in words.
    NotStarted(String),
}

impl Slot {
    pub(crate) const fn new(generation: Generation) -> Self {
        Self {
            wanted: false,
            recycle: None,
            replace: None,
            worker: None,
            successor: None,
            retired: None,
            side: Side::A,
            open: Seats { a: false, b: false },
            rest: Rest::Stopped,
            streak: 0,
            restarts: 0,
            generation,
            last_ending: None,
        }
    }

    /// Wants it to run, its failures forgiven; without a worker it is due now.
    pub(crate) fn want_now(&mut self, now: Timestamp) {
        self.wanted = true;
        self.streak = 0;
        if self.worker.is_none() {
            self.rest = Rest::Due(now);
        }
    }

    /// Whether somebody may wait for its next worker: the sockets of the one before
    /// still listen.
    pub(crate) const fn is_awaited(&self) -> bool {
        self.wanted && self.worker.is_none() && self.open.is(self.side)
    }

    /// Whether its worker may take connections and is to stay.
    pub(crate) fn is_ready(&self) -> bool {
        self.recycle.is_none() && self.worker.as_ref().is_some_and(|worker| worker.is_ready())
    }

    /// Whether its worker is ready, is to stay, and has proved itself.
    pub(crate) fn is_stable(&self) -> bool {
        self.recycle.is_none() && self.worker.as_ref().is_some_and(|worker| worker.is_stable())
    }

    /// Whether no replacement of its worker is under way.
    pub(crate) const fn is_settled(&self) -> bool {
        self.replace.is_none() && self.successor.is_none() && self.retired.is_none()
    }

    /// Whether nobody is in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.worker.is_none() && self.successor.is_none() && self.retired.is_none()
    }

    /// Lets whoever is in it be killed instead of asked.
    pub(crate) fn hurry(&mut self) {
        self.workers_mut().for_each(|worker| worker.hurry = true);
    }

    /// The workers in it: first the one that it is about, then the one beside.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        [&self.worker, &self.successor, &self.retired].into_iter().flatten().map(|worker| &**worker)
    }

    pub(crate) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let places = [&mut self.worker, &mut self.successor, &mut self.retired];
        places.into_iter().flatten().map(|worker| &mut **worker)
    }

    /// Takes a worker that is gone out of it.
    pub(crate) fn take(&mut self, id: WorkerId) -> Option<(Role, Box<Worker>)> {
        let is = |worker: &mut Box<Worker>| worker.id == id;
        if let Some(worker) = self.worker.take_if(is) {
            return Some((Role::Worker, worker));
        }
        if let Some(worker) = self.successor.take_if(is) {
            return Some((Role::Successor, worker));
        }
        self.retired.take_if(is).map(|worker| (Role::Retired, worker))
    }

    /// Puts a worker where another was.
    pub(crate) fn put(&mut self, role: Role, worker: Worker) {
        let worker = Some(Box::new(worker));
        match role {
            Role::Worker => self.worker = worker,
            Role::Successor => self.successor = worker,
            Role::Retired => self.retired = worker,
        }
    }
}

impl Worker {
    /// Whether it may take connections.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    /// Whether it is ready and has proved itself.
    pub(crate) const fn is_stable(&self) -> bool {
        matches!(self.stage, Stage::Ready { stable_at: None })
    }

    /// Whether it has been ready for long enough to count as stable.
    pub(crate) fn was_stable(&self, now: Timestamp) -> bool {
        match &self.stage {
            Stage::Spawning | Stage::Starting { .. } => false,
            Stage::Ready { stable_at } => stable_at.is_none_or(|at| at <= now),
            Stage::Draining { stable, .. } | Stage::Stopping { stable, .. } => *stable,
        }
    }

    /// Takes note that it has been ready for long enough to be stable, if so. Returns whether
    /// that is news.
    pub(crate) fn prove(&mut self, now: Timestamp) -> bool {
        match &mut self.stage {
            Stage::Ready { stable_at } => stable_at.take_if(|at| *at <= now).is_some(),
            Stage::Spawning | Stage::Starting { .. } | Stage::Draining { .. } | Stage::Stopping { .. } => {
                false
            }
        }
    }

    /// Until when somebody has to answer its queue, if it ends now, unasked. Who
    /// only came for that queue is not followed by another.
    pub(crate) fn leaves_queue(&self, now: Timestamp) -> Option<Timestamp> {
        let Stage::Draining { deadline, .. } = self.stage else { return None };
        let alone = self.relieves.is_none() && self.version.policy.listens && !self.hurry;
        (alone && deadline > now).then_some(deadline)
    }

    /// When it must be looked at though nothing happened.
    pub(crate) const fn deadline(&self) -> Option<Timestamp> {
        match &self.stage {
            Stage::Spawning => None,
            Stage::Starting { deadline, .. } | Stage::Draining { deadline, .. } => Some(*deadline),
            Stage::Ready { stable_at } => *stable_at,
            Stage::Stopping { kill_at, .. } => *kill_at,
        }
    }
}
