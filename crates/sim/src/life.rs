//! A page of the witness's book about one worker.

use std::rc::Rc;

use supervisor_core::{Exit, Generation, Policy, SeatId, Timestamp};

/// A life that is not over, as far as the supervisor was told.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) seat: SeatId,
    pub(crate) generation: Generation,
    /// The settings that it lives by.
    pub(crate) policy: Rc<Policy>,
    pub(crate) stage: LifeStage,
    /// It was ready, and there to stay, at the end of a turn.
    pub(crate) served: bool,
    /// Its end was begun by Drain.
    pub(crate) drained: bool,
    /// Its end was ordered by Terminate or Abort.
    pub(crate) terminated: bool,
    pub(crate) killed: bool,
    /// It may be killed at once.
    pub(crate) hurry: bool,
    /// It uses too much memory.
    pub(crate) outgrown: bool,
    /// It does nothing any more.
    pub(crate) hangs: bool,
    /// As a successor it may be of no use any more.
    pub(crate) vain: bool,
    /// It only answers the queue of one that crashed while it was drained: until
    /// when.
    pub(crate) relieves: Option<Timestamp>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LifeStage {
    Spawning,
    Starting { ready_by: Timestamp },
    Ready { stable_at: Timestamp, proved: bool },
    Draining { until: Timestamp, stable: bool },
    Ending { kill_at: Timestamp, stable: bool, was_ready: bool },
}

/// How a life ended, as the event says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over {
    pub(crate) exit: Option<Exit>,
    pub(crate) stable: bool,
    pub(crate) ready: bool,
}

/// What a worker is to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that the slot is about.
    Own,
    /// Who is to take its place.
    Successor,
    /// Who was in its place.
    Retired,
}

impl Life {
    pub(crate) fn new(seat: SeatId, generation: Generation, policy: Rc<Policy>) -> Self {
        Self {
            seat,
            generation,
            policy,
            stage: LifeStage::Spawning,
            served: false,
            drained: false,
            terminated: false,
            killed: false,
            hurry: false,
            outgrown: false,
            hangs: false,
            vain: false,
            relieves: None,
        }
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.stage, LifeStage::Ready { .. })
    }

    pub(crate) fn is_stable(&self, now: Timestamp) -> bool {
        matches!(self.stage, LifeStage::Ready { stable_at, .. } if stable_at <= now)
    }

    /// Whether it has been seen to be stable.
    pub(crate) const fn has_proved(&self) -> bool {
        matches!(self.stage, LifeStage::Ready { proved: true, .. })
    }

    /// Whether it was to be ready by now and is not.
    pub(crate) fn is_late(&self, now: Timestamp) -> bool {
        matches!(self.stage, LifeStage::Starting { ready_by, .. } if ready_by <= now)
    }

    /// Until when another must answer its queue, if it ends now.
    pub(crate) fn leaves_queue(&self, now: Timestamp) -> Option<Timestamp> {
        let LifeStage::Draining { until, .. } = self.stage else { return None };
        (self.relieves.is_none() && self.policy.listens && !self.hurry && until > now).then_some(until)
    }

    /// Whether somebody has begun to end it.
    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(self.stage, LifeStage::Draining { .. } | LifeStage::Ending { .. })
    }

    /// From now on it must end within `kill_timeout`.
    pub(crate) fn begin_ending(&mut self, now: Timestamp) {
        let kill_at = now + self.policy.kill_timeout;
        self.stage = match self.stage {
            LifeStage::Starting { .. } => LifeStage::Ending { kill_at, stable: false, was_ready: false },
            LifeStage::Ready { stable_at, .. } => {
                LifeStage::Ending { kill_at, stable: stable_at <= now, was_ready: true }
            }
            LifeStage::Draining { stable, .. } => LifeStage::Ending { kill_at, stable, was_ready: true },
            stage @ (LifeStage::Spawning | LifeStage::Ending { .. }) => stage,
        };
    }

    pub(crate) fn begin_draining(&mut self, now: Timestamp) {
        if let Some(until) = self.relieves {
            self.stage = LifeStage::Draining { until, stable: false };
            self.drained = true;
        }
        if let LifeStage::Ready { stable_at, .. } = self.stage {
            self.stage =
                LifeStage::Draining { until: now + self.policy.drain_timeout, stable: stable_at <= now };
            self.drained = true;
        }
    }
}
