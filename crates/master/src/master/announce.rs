//! What people are told of workers and of reloads: in the log, in the events, and
//! those who wait for an order.

use supervisor_core::{AppId, Notice, Step};
use supervisor_protocol::control::{Progress, WorkerState};
use supervisor_protocol::events::Happening;

use super::Master;
use crate::{records, words};

impl Master {
    /// Tells people what happened to a worker: in the log, and those who wait
    /// for an order about its app.
    pub(super) fn announce(&mut self, notice: Notice) {
        let worker = notice.worker();
        let pid = self.workers.get(worker).map(|worker| worker.pid);
        let process = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        match &notice {
            Notice::Starting(..) | Notice::Switched(..) => {}
            Notice::Ready { .. } => {
                self.channel.ready(worker);
                self.note_ready(worker);
            }
            Notice::Draining(..) | Notice::Stopping(..) | Notice::Hung { .. } | Notice::Killing(..) => {
                self.channel.drain(worker);
            }
            Notice::Ended { .. } => self.channel.end(worker),
        }
        let (slot, state, detail) = match notice {
            Notice::Starting(slot, _) => (slot, WorkerState::Starting, "starting".to_owned()),
            Notice::Ready { slot, after, .. } => {
                let watchdog = self.workers.get(worker).and_then(|worker| worker.settings.app.watchdog);
                self.hangs.begin(worker, watchdog);
                (slot, WorkerState::Ready, format!("ready after {}{process}", words::duration(after)))
            }
            Notice::Switched(slot, _) => (slot, WorkerState::Ready, format!("takes over{process}")),
            Notice::Draining(slot, _) => (slot, WorkerState::Draining, format!("draining{process}")),
            Notice::Stopping(slot, _) => {
                self.end_check(worker);
                (slot, WorkerState::Stopping, format!("stopping{process}"))
            }
            Notice::Hung { slot, hang, next, .. } => {
                let state = next.map_or(WorkerState::Stopping, words::state_after);
                (slot, state, words::hung(hang, next, &process))
            }
            Notice::Killing(slot, _) => {
                (slot, WorkerState::Stopping, format!("did not end in time, killing it{process}"))
            }
            Notice::Ended { slot, ending, next, .. } => {
                self.sampler.remove(worker);
                self.hangs.forget(worker);
                self.ended.push((slot.app, worker));
                for key in [records::worker_key, records::told_key, records::calls_key] {
                    self.link.delete(&key(worker));
                }
                (slot, words::state_after(next), words::ended(&ending, next))
            }
        };
        tracing::info!("{}: {detail}", self.place(slot));
        let app = self.registry.name(slot.app).to_owned();
        let pid = pid.and_then(|pid| u32::try_from(pid.as_raw_pid()).ok());
        self.events.tell(|| Happening::Worker {
            app: app.clone(),
            slot: slot.index,
            pid,
            state,
            detail: detail.clone(),
        });
        self.operations.tell(slot.app, &Progress::Worker { app, slot: slot.index, state, detail });
    }

    /// Tells people how far a reload is.
    pub(super) fn report(&mut self, app: AppId, step: Step) {
        let step = words::step(self.registry.name(app).to_owned(), step);
        tracing::info!("{}: {}", step.app, step.detail);
        self.events.tell(|| Happening::Step(step.clone()));
        self.operations.tell(app, &Progress::Step(step));
    }
}
