//! Which of an app's seats listen, and which get new connections.

use alloc::vec::Vec;

use crate::action::Action;
use crate::app::{App, Turn};
use crate::id::{SeatId, SlotId};
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

    fn serving_seats(&self, turn: &Turn<'_>) -> Vec<SeatId> {
        let seat = |index: u32| {
            let slot = SlotId { app: self.id, index };
            SeatId { slot, side: self.slots[index as usize].side }
        };
        let wanted: Vec<u32> = self.indexes().filter(|index| self.wants(*index, turn)).collect();
        let ready = |index: &&u32| self.slots[**index as usize].is_ready();
        let seats: Vec<SeatId> = wanted.iter().filter(ready).map(|index| seat(*index)).collect();
        if !seats.is_empty() {
            return seats;
        }
        let open = |index: &&u32| {
            let slot = &self.slots[**index as usize];
            slot.open.is(slot.side)
        };
        wanted.iter().filter(open).map(|index| seat(*index)).collect()
    }
}
