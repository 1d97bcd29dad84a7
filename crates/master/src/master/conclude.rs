//! The end of an operation: noted when the core decides it, told when what it
//! ordered is done.

use supervisor_core::{OperationId, Outcome};
use supervisor_protocol::control::{Change, Failure, Progress};
use supervisor_protocol::events::Happening;

use super::Master;
use crate::operations::{self, Begun, Conclusion, Line};
use crate::{records, words};

impl Master {
    /// Notes how an operation ended, together with what the core knows by then:
    /// another master could not find out.
    pub(super) fn conclude(&mut self, operation: OperationId, outcome: &Outcome) {
        let (exit_code, failure) = match outcome {
            Outcome::Done => (0, None),
            Outcome::Failed(failure) => (1, Some(self.failure_of(failure, false))),
            Outcome::RolledBack(failure) => (6, Some(self.failure_of(failure, true))),
            Outcome::Aborted => {
                let failure = self.failure(operation, "aborted by an order");
                (6, Some(Failure { rolled_back: true, ..failure }))
            }
            Outcome::Refused(refusal) => (5, Some(self.failure(operation, &words::refusal(*refusal)))),
            Outcome::Superseded => (5, Some(self.failure(operation, "a later order took its place"))),
        };
        let app = self.operations.get(operation).map(|begun| begun.app);
        let last = self.operations.conclude(operation, Conclusion { exit_code, failure }, &self.link);
        if let Some(entry) = app.and_then(|app| self.registry.by_id_mut(app)) {
            entry.last_order = last;
        }
    }

    /// An operation has ended: now that what it ordered is done, people are told.
    pub(super) fn finish(&mut self, operation: OperationId, outcome: &Outcome) {
        match outcome {
            Outcome::Done | Outcome::Failed(_) | Outcome::Superseded => self.settle(operation),
            Outcome::RolledBack(_) | Outcome::Aborted | Outcome::Refused(_) => {}
        }
        let Some(begun) = self.operations.get(operation).cloned() else { return };
        let app = self.registry.name(begun.app).to_owned();
        match begun.conclusion.clone().and_then(|conclusion| conclusion.failure) {
            None => self.tell_done(app, &begun),
            Some(failure) => {
                self.tell_failure(&failure, &begun);
                let worker = match outcome {
                    Outcome::Failed(failure) | Outcome::RolledBack(failure) => Some(failure.worker),
                    Outcome::Done | Outcome::Aborted | Outcome::Refused(_) | Outcome::Superseded => None,
                };
                self.operations.fail(operation, || match worker {
                    Some(worker) => Line::Failed(failure.clone(), self.output.tail(worker)),
                    None => Line::Progress(Progress::Failed(failure.clone())),
                });
            }
        }
        self.drop_next(operation);
        self.operations.finish(operation, &self.link);
    }

    /// Settings that have proved themselves are an app's own, others are gone.
    fn drop_next(&self, operation: OperationId) {
        let entry = self.operations.get(operation).and_then(|begun| self.registry.by_id(begun.app));
        if let Some(entry) = entry.filter(|entry| entry.before.is_none()) {
            self.link.delete(&records::next_key(&entry.settings.app.name));
        }
    }

    /// A worker's end that an order failed of, in words.
    fn failure_of(&self, failure: &supervisor_core::Failure, rolled_back: bool) -> Failure {
        let supervisor_core::Failure { slot, worker, ending } = failure;
        let mut reason = words::ending(ending);
        if let Some(refused) = self.refused.get(worker) {
            reason = format!("{reason}; {refused}");
        }
        let app = self.registry.name(slot.app).to_owned();
        if rolled_back {
            let lasting = self.registry.by_id(slot.app).map(|entry| {
                // It may not have been made what it was before yet.
                entry.before.as_ref().map_or(entry.settings.generation, |before| before.settings.generation)
            });
            for index in self.workers.of_other_generations(slot.app, lasting) {
                reason.push_str(&format!("; {app}:{index} could not be taken back and runs on"));
            }
        }
        Failure { app, slot: Some(slot.index), reason, last_lines: Vec::new(), rolled_back }
    }

    fn tell_done(&self, app: String, begun: &Begun) {
        if begun.is_adopted {
            tracing::info!(
                "{app}: {}, which an earlier master began, is done",
                words::order(begun.change, begun.generation)
            );
        }
        let Begun { change, generation, is_adopted: by_next_master, .. } = *begun;
        self.events.tell(|| Happening::Done { app, change, generation, by_next_master });
    }

    fn tell_failure(&self, failure: &Failure, begun: &Begun) {
        let Failure { app, slot, reason, last_lines: _, rolled_back } = failure.clone();
        let by_next_master = begun.is_adopted;
        if rolled_back || by_next_master {
            let whose = if by_next_master { ", which an earlier master began," } else { "" };
            let place = slot.map_or_else(|| app.clone(), |slot| format!("{app}:{slot}"));
            let how = if rolled_back { "rolled back" } else { "failed" };
            tracing::error!(
                "{place}: {reason}; {}{whose} is {how}",
                words::order(begun.change, begun.generation)
            );
        }
        self.events.tell(|| Happening::Failed { app, slot, reason, rolled_back, by_next_master });
    }

    /// The settings that an operation brought are there to stay.
    fn settle(&mut self, operation: OperationId) {
        // One that takes a reload back has brought none.
        let brings = |begun: &&Begun| begun.change != Change::Aborted;
        let Some(app) = self.operations.get(operation).filter(brings).map(|begun| begun.app) else { return };
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        if entry.before.take().is_none() {
            return;
        }
        self.store_app(app);
        if let Some(pending) = self.keep_declared() {
            let name = self.registry.name(app).to_owned();
            tokio::spawn(async move {
                if let Err(error) = pending.written().await {
                    tracing::error!("{name}: the next daemon will not know its settings: {error}");
                }
            });
        }
    }

    fn failure(&self, operation: OperationId, reason: &str) -> Failure {
        let app = self.operations.get(operation).map_or("", |begun| self.registry.name(begun.app)).to_owned();
        operations::failure(app, reason.to_owned())
    }
}
