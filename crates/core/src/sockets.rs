//! Which of an app's seats listen, and which get new connections.

use alloc::vec::Vec;

use crate::action::Action;
use crate::app::{App, Turn};
use crate::id::{SeatId, Side, SlotId};
use crate::slot::{Rest, Slot};

impl App {
    /// Opens the sockets of every seat that is to be taken, before anybody is
    /// spawned, and closes those of seats where nobody is or is expected: a
    /// worker may wait in `accept(2)` on them to its end.
    pub(crate) fn open_and_close(&mut self, turn: &mut Turn<'_>) {
        let mut opened = Vec::new();
        for index in self.indexes() {
            let wanted = self.wants(index, turn);
            let slot = &mut self.slots[index as usize];
            let expected = wanted && slot.rest != Rest::Errored;
            let taken = |side| slot.workers().any(|worker| worker.side == side);
            let own = (slot.side, taken(slot.side) || expected);
            // A successor does not start while a retired worker is there.
            let successor = slot.replace.is_some() && slot.retired.is_none();
            let other = (slot.side.other(), taken(slot.side.other()) || successor);
            for (side, needed) in [own, other] {
                let seat = SeatId { slot: SlotId { app: self.id, index }, side };
                let open = slot.open.of(side);
                if needed && !*open {
                    opened.push(Action::Open(seat));
                } else if *open && !needed {
                    turn.actions.push(Action::Close(seat));
                }
                *open = needed;
            }
        }
        turn.actions.append(&mut opened);
    }

    /// Steers new connections to the workers that are ready. While there is
    /// none, they wait in the queues of those that are expected.
    pub(crate) fn rotate(&mut self, turn: &mut Turn<'_>) {
        let seats = if self.listens() { self.serving_seats(turn) } else { Vec::new() };
        if seats != self.rotation {
            turn.actions.push(Action::Rotate(self.id, seats.clone()));
            self.rotation = seats;
        }
    }

    /// Whether its workers have sockets of ours. After a change of settings some
    /// may still run with those from before.
    fn listens(&self) -> bool {
        let mut workers = self.slots.iter().flat_map(Slot::workers);
        self.version.policy.listens || workers.any(|worker| worker.version.policy.listens)
    }

    /// The seats that get new connections, and how many in relation to each
    /// other.
    fn serving_seats(&self, turn: &Turn<'_>) -> Vec<(SeatId, u32)> {
        let wanted: Vec<u32> = self.indexes().filter(|index| self.wants(*index, turn)).collect();
        let slot = |index: u32| &self.slots[index as usize];
        let own = |index: u32| (self.seat(index, slot(index).side), 1);
        let operation = self.operation.as_ref();
        let steps = operation.and_then(|operation| operation.steps.as_ref());
        let is_fresh = |index: &u32| {
            operation.is_some_and(|operation| {
                // What is taken back does not prove itself any more.
                let goes_back = operation.returning.is_some();
                operation.fresh.contains(index)
                    && !(goes_back && slot(*index).generation == self.version.generation)
            })
        };
        let serves = |index: &u32| slot(*index).is_ready() && !is_fresh(index);
        let seats: Vec<_> = match steps {
            Some(steps) => self.shared_seats(steps, &wanted),
            None => wanted.iter().copied().filter(serves).map(own).collect(),
        };
        if !seats.is_empty() {
            return seats;
        }
        let open = |index: &u32| slot(*index).open.is(slot(*index).side);
        let withheld =
            |index: &u32| is_fresh(index) || steps.is_some_and(|steps| steps.withholds(*index, slot(*index)));
        wanted.into_iter().filter(open).filter(|index| !withheld(index)).map(own).collect()
    }

    /// One of a slot's seats.
    pub(crate) const fn seat(&self, index: u32, side: Side) -> SeatId {
        SeatId { slot: SlotId { app: self.id, index }, side }
    }

    /// The weight of a seat that gets new connections, as far as orders were
    /// given.
    pub(crate) fn weight(&self, seat: SeatId) -> Option<u32> {
        let at = self.rotation.binary_search_by_key(&seat, |(seat, _)| *seat).ok()?;
        Some(self.rotation[at].1)
    }
}
