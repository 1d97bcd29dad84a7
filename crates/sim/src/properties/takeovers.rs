//! What a new master orders again.

use supervisor_core::{Action, WorkerId};

use super::{Check, hold};
use crate::life::{Life, LifeStage};
use crate::witness::Witness;

/// What may not have been performed is ordered again, each once, and nothing
/// else: whoever runs does not notice that there is another master.
pub(crate) fn orders_are_repeated(witness: &Witness, orders: &[Action]) -> Check {
    let lives = witness.lives.iter().filter_map(|(worker, life)| open_order(*worker, life));
    let books = witness.apps.iter().filter(|(_, book)| !book.rotation.is_empty());
    let rotations = books.map(|(id, book)| Action::Rotate(*id, book.rotation.clone()));
    let expected: Vec<Action> = lives.chain(rotations).collect();
    let missing: Vec<&Action> = expected.iter().filter(|order| !orders.contains(order)).collect();
    let vain: Vec<&Action> = orders.iter().filter(|order| !expected.contains(order)).collect();
    let once = orders.len() == expected.len();
    hold(missing.is_empty() && vain.is_empty() && once, "orders are repeated", || {
        format!("missing: {missing:?}, in vain: {vain:?}, all: {orders:?}")
    })
}

/// The last order about a worker, unless there is news that it was performed.
/// One that said by itself that it will end is asked, too: the shell knows who
/// knows, and tells nobody twice.
fn open_order(worker: WorkerId, life: &Life) -> Option<Action> {
    match life.stage {
        LifeStage::Spawning => Some(Action::Spawn { worker, seat: life.seat, generation: life.generation }),
        LifeStage::Starting { .. } | LifeStage::Ready { .. } => None,
        LifeStage::Draining { .. } => Some(Action::Drain(worker)),
        LifeStage::Ending { .. } if life.killed => Some(Action::Kill(worker)),
        LifeStage::Ending { .. } if life.hangs => Some(Action::Abort(worker)),
        LifeStage::Ending { .. } => Some(Action::Terminate(worker)),
    }
}
