//! Requests that wait for their replies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use supervisor_core::WorkerId;

/// Requests of one worker that may wait at a time.
const MAX_WAITING: usize = 1024;

/// A request that waits for its reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// Who asked.
    pub(super) from: WorkerId,
    /// The id that it gave.
    pub(super) id: u64,
    /// Who is to reply.
    pub(super) to: WorkerId,
    until: Instant,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<u64, Waiting>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// How many each worker has.
    counts: BTreeMap<WorkerId, usize>,
    next: u64,
}

impl Requests {
    /// Notes a request. Returns its number for the one who is to reply; `None`
    /// when too many of this worker wait.
    pub(super) fn add(&mut self, from: WorkerId, id: u64, to: WorkerId, until: Instant) -> Option<u64> {
        let count = self.counts.entry(from).or_default();
        if *count >= MAX_WAITING {
            return None;
        }
        *count += 1;
        self.next += 1;
        self.waiting.insert(self.next, Waiting { from, id, to, until });
        self.deadlines.insert((until, self.next));
        Some(self.next)
    }

    /// The request that `by` replies to, which does not wait any more.
    pub(super) fn reply(&mut self, number: u64, by: WorkerId) -> Option<Waiting> {
        self.waiting.get(&number).filter(|request| request.to == by)?;
        self.take(number)
    }

    /// Requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Waiting> {
        let over = self.deadlines.iter().take_while(|(until, _)| *until <= now).map(|(_, number)| *number);
        over.collect::<Vec<_>>().into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// When [`Self::expire`] must be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Forgets the requests of a worker that is gone, and returns those that it
    /// will not reply to.
    pub(super) fn forget(&mut self, worker: WorkerId) -> Vec<Waiting> {
        let concerned =
            self.waiting.iter().filter(|(_, request)| request.from == worker || request.to == worker);
        let numbers: Vec<u64> = concerned.map(|(number, _)| *number).collect();
        let gone: Vec<Waiting> = numbers.into_iter().filter_map(|number| self.take(number)).collect();
        gone.into_iter().filter(|request| request.from != worker).collect()
    }

    /// All of them: nobody waits any more.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waiting> {
        std::mem::take(self).waiting.into_values()
    }

    fn take(&mut self, number: u64) -> Option<Waiting> {
        let request = self.waiting.remove(&number)?;
        self.deadlines.remove(&(request.until, number));
        if let Some(count) = self.counts.get_mut(&request.from) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&request.from);
            }
        }
        Some(request)
    }
}
