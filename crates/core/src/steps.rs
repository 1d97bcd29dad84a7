//! A reload whose new workers take over together: first they get connections
//! beside the old ones, a greater share at each step.
//!
//! ```text
//!   introduced ── all are proved ──► held ── time is over ──► the next step introduced …
//!        └───────── all are proved, at the last step ───────► all switched
//! ```
//!
//! Until then the old workers stay and get the rest, so that going back is
//! nothing but a change of the rotation. A slot that has a worker, or should
//! have one, gets its new worker as a successor; one that the reload adds gets
//! it as its own. With a single step of 100 % nobody is held, and all slots are
//! switched in one turn.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::action::{Action, Portion, Step};
use crate::app::{App, Turn};
use crate::id::{Generation, SeatId};
use crate::memo::StepsMemo;
use crate::policy::{Policy, Reload};
use crate::slot::{Rest, Slot, Worker};
use crate::time::Timestamp;

/// How far such a reload is.
#[derive(Debug, Clone)]
pub(crate) struct Steps {
    /// In percent, ascending; the last one is 100.
    shares: Vec<u32>,
    hold: Duration,
    /// Which of the shares is worked on.
    at: usize,
    /// When the next one's turn comes; `None` until the new workers of this one
    /// have proved themselves.
    held_until: Option<Timestamp>,
    /// How many slots the reload is about.
    of: u32,
    /// The slots that have, or are to have, a new worker.
    pub(crate) introduced: BTreeSet<u32>,
    /// Those whose new worker gets connections.
    pub(crate) admitted: BTreeSet<u32>,
    /// The share that these get together, in percent; 0 before the first step.
    share: u32,
}

impl Steps {
    /// The steps of a reload of so many slots. Those of `introduced` have a new
    /// worker already, and so have all of `admitted`, whomever the reload is
    /// about. `None` where workers take over one by one.
    pub(crate) fn new(
        policy: &Policy,
        of: u32,
        introduced: BTreeSet<u32>,
        admitted: BTreeSet<u32>,
    ) -> Option<Self> {
        let Reload::Steps { shares, hold } = &policy.reload else { return None };
        if policy.max_surge == 0 || shares.is_empty() || of == 0 {
            return None;
        }
        Some(Self {
            shares: shares.clone(),
            hold: *hold,
            at: 0,
            held_until: None,
            of,
            introduced,
            admitted,
            share: 0,
        })
    }

    /// What there is to remember of it, without its slots.
    pub(crate) fn memo(&self) -> StepsMemo {
        StepsMemo {
            shares: self.shares.clone(),
            hold: self.hold,
            at: self.at,
            held_until: self.held_until,
            of: self.of,
            share: self.share,
        }
    }

    /// The steps that a memo was taken of.
    pub(crate) fn restored(memo: StepsMemo, introduced: BTreeSet<u32>, admitted: BTreeSet<u32>) -> Self {
        let StepsMemo { shares, hold, at, held_until, of, share } = memo;
        let at = at.min(shares.len());
        Self { shares, hold, at, held_until, of, introduced, admitted, share }
    }

    /// Whether more slots get a new worker at this step.
    pub(crate) fn has_room(&self) -> bool {
        self.held_until.is_none() && count(&self.introduced) < self.needed()
    }

    /// When something is due though nothing happened.
    pub(crate) const fn deadline(&self) -> Option<Timestamp> {
        self.held_until
    }

    /// How many slots have a new worker at this step: at least one.
    fn needed(&self) -> u32 {
        let share = u64::from(self.current_share());
        let needed = (u64::from(self.of) * share).div_ceil(100).max(1);
        u32::try_from(needed).map_or(self.of, |needed| needed.min(self.of))
    }

    fn current_share(&self) -> u32 {
        self.shares.get(self.at).copied().unwrap_or(100)
    }

    /// Whether the slot's own worker is a new one that gets no connections yet.
    pub(crate) fn withholds(&self, index: u32, slot: &Slot) -> bool {
        slot.replace.is_none() && self.introduced.contains(&index) && !self.admitted.contains(&index)
    }

    fn is_last(&self) -> bool {
        self.at + 1 >= self.shares.len()
    }

    /// What this step is about.
    pub(crate) fn portion(&self) -> Portion {
        Portion { share: self.current_share(), workers: self.needed(), of: self.of }
    }
}

fn count(slots: &BTreeSet<u32>) -> u32 {
    // Slots are counted by a u32 (`App::instances`).
    u32::try_from(slots.len()).unwrap_or(u32::MAX)
}

impl App {
    /// Takes a reload in steps as far as its new workers and the time allow.
    pub(crate) fn step(&mut self, turn: &mut Turn<'_>) {
        loop {
            let (slots, generation) = (&self.slots, self.version.generation);
            let Some(operation) = &mut self.operation else { return };
            let Some(steps) = &mut operation.steps else { return };
            if steps.held_until.is_some_and(|until| until > turn.now) || steps.has_room() {
                return;
            }
            if steps.held_until.take().is_some() {
                steps.at += 1;
                if steps.has_room() {
                    turn.actions.push(Action::Report(self.id, Step::Introduced(steps.portion())));
                }
                continue;
            }
            let slot = |index: &u32| slots.get(*index as usize);
            let proved = |index: &u32| slot(index).is_none_or(|slot| is_proved(slot, generation));
            if !steps.introduced.iter().all(proved) {
                return;
            }
            if steps.is_last() {
                if steps.introduced.iter().filter_map(slot).all(Slot::may_switch) {
                    self.switch_all(turn);
                }
                return;
            }
            steps.admitted.extend(&steps.introduced);
            steps.share = steps.current_share();
            steps.held_until = Some(turn.now + steps.hold);
            turn.actions.push(Action::Report(self.id, Step::Held(steps.portion(), steps.hold)));
        }
    }

    /// Lets all new workers take over, and the slots go that are too many.
    fn switch_all(&mut self, turn: &mut Turn<'_>) {
        let Some(mut operation) = self.operation.take() else { return };
        let Some(steps) = operation.steps.take() else { return };
        turn.actions.push(Action::Report(self.id, Step::Switched(steps.portion())));
        for index in &steps.introduced {
            self.switch_slot(*index, turn);
        }
        if let Some(instances) = operation.shrink.take() {
            operation.gone.extend(self.resize(instances));
        }
        self.operation = Some(operation);
    }

    /// The seats that get connections meanwhile: those of ready old workers, and
    /// of ready new ones as far as they are admitted.
    pub(crate) fn shared_seats(&self, steps: &Steps, wanted: &[u32]) -> Vec<(SeatId, u32)> {
        let generation = self.version.generation;
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for index in wanted.iter().copied() {
            let slot = &self.slots[index as usize];
            let admitted = steps.admitted.contains(&index);
            let own = slot.worker.as_ref().filter(|_| slot.recycle.is_none()).map(|own| (own, slot.side));
            let successor = slot.successor.as_ref().map(|successor| (successor, slot.side.other()));
            let seat = |side| self.seat(index, side);
            old.extend(own.filter(|(own, _)| own.is_of_old(generation)).map(|(_, side)| seat(side)));
            let both = [own, successor].into_iter().flatten();
            new.extend(
                both.filter(|(one, _)| admitted && one.is_of_new(generation)).map(|(_, side)| seat(side)),
            );
        }
        let (old_weight, new_weight) = weights(steps.share, old.len(), new.len());
        let old = old.into_iter().map(|seat| (seat, old_weight));
        let mut seats: Vec<_> = old.chain(new.into_iter().map(|seat| (seat, new_weight))).collect();
        seats.sort_unstable();
        seats
    }
}

impl Worker {
    fn is_of_old(&self, generation: Generation) -> bool {
        self.is_ready() && self.version.generation != generation
    }

    fn is_of_new(&self, generation: Generation) -> bool {
        self.is_ready() && self.version.generation == generation
    }
}

/// Whether a slot has a new worker that has proved itself.
fn is_proved(slot: &Slot, generation: Generation) -> bool {
    let is_new = |worker: &Worker| worker.is_stable() && worker.version.generation == generation;
    match slot.replace {
        Some(_) => slot.successor.as_deref().is_some_and(is_new),
        None => slot.recycle.is_none() && slot.worker.as_deref().is_some_and(is_new),
    }
}

impl Slot {
    /// Whether a successor may take over now. A worker that has just crashed is
    /// waited for: what is in its queue is answered by its replacement. One that
    /// fails again and again is not.
    pub(crate) fn may_switch(&self) -> bool {
        self.replace.is_none()
            || self.is_ready()
            || self.streak > 0
            || (self.worker.is_none() && self.rest == Rest::Errored)
    }
}

/// The weights of each old and each new worker, so that the new ones get the
/// share together. They are small enough for sums of them.
fn weights(share: u32, old: usize, new: usize) -> (u32, u32) {
    let (Ok(old), Ok(new)) = (u64::try_from(old), u64::try_from(new)) else { return (1, 1) };
    let share = u64::from(share.min(100));
    let (of_old, of_new) = ((100 - share) * new, share * old);
    if of_old == 0 || of_new == 0 {
        return (1, 1);
    }
    // Of many workers a ten-thousandth is exact enough.
    let divisor = greatest_common_divisor(of_old, of_new).max(of_old.max(of_new).div_ceil(MAX_WEIGHT));
    let narrow = |weight: u64| u32::try_from((weight / divisor).max(1)).unwrap_or(u32::MAX);
    (narrow(of_old), narrow(of_new))
}

const MAX_WEIGHT: u64 = 10_000;

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_make_the_share() {
        // 20 of 400 connections.
        assert_eq!(weights(5, 4, 1), (19, 4));
        assert_eq!(weights(25, 4, 1), (3, 4));
        assert_eq!(weights(50, 1, 1), (1, 1));
        assert_eq!(weights(99, 997, 987), (98, 9870));
        // Nobody to share with, or nothing said.
        assert_eq!(weights(5, 0, 3), (1, 1));
        assert_eq!(weights(5, 3, 0), (1, 1));
        assert_eq!(weights(0, 3, 1), (1, 1));
        assert_eq!(weights(100, 3, 3), (1, 1));
    }
}
