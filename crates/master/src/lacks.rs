//! What the keeper could not hold, and what it has thrown away.

use std::time::{Duration, Instant};

use supervisor_core::WorkerId;

use crate::master::Master;
use crate::problems::About;
use crate::records::WORKER;

/// How long it is told that the keeper had no room.
const TOLD: Duration = Duration::from_secs(60);

impl Master {
    /// The keeper has not stored an entry. A worker that it does not know would
    /// be lost with this process, so it must not live.
    pub(crate) fn hear_refused(&mut self, key: &str) {
        let why = "the keeper has no room for it: too many workers and sockets for the limit of open files";
        tracing::error!("{key}: {why}");
        self.refused_entry = Some(Instant::now());
        self.problems.note(
            About::Table,
            format!("{key}: {why}; scale down, or raise the limit and start the daemon anew"),
        );
        if let Some(worker) = worker_of(key).filter(|worker| self.workers.get(*worker).is_some()) {
            self.refused.insert(worker, why.to_owned());
            self.workers.kill(&[worker]);
        }
    }

    /// Forgets that the keeper had no room. To be called once a second.
    pub(crate) fn look_after_refused(&mut self) {
        if self.refused_entry.is_some_and(|at| at.elapsed() >= TOLD) {
            self.refused_entry = None;
            self.problems.solve(About::Table);
        }
    }

    /// The keeper has thrown output away while no master read it.
    pub(crate) fn hear_lost(&mut self, key: &str, bytes: u64) {
        let worker = worker_of(key).and_then(|id| self.workers.get_mut(id));
        let Some(worker) = worker else { return };
        worker.lost_log_bytes += bytes;
        let slot = worker.seat.slot;
        tracing::warn!(
            "{}: {bytes} bytes of its output were thrown away while no master read it",
            self.place(slot)
        );
    }
}

fn worker_of(key: &str) -> Option<WorkerId> {
    key.strip_prefix(WORKER)?.parse().ok().map(WorkerId)
}
