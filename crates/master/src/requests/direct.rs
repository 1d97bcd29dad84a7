//! What is done at once and is no operation: signals and messages to workers, and
//! counts of restarts that begin anew.

use supervisor_core::{SlotId, Slots};
use supervisor_protocol::control::{ErrorCode, Reset, ResetDone, SendMessage, SendSignal, Signalled};
use supervisor_sys::signal::Signal;
use tokio::sync::oneshot;

use super::Answered;
use crate::master::Master;
use crate::registry::refuse;

impl Master {
    pub(super) fn signal(&self, send: &SendSignal) -> Answered<Signalled> {
        let signal: Signal =
            send.signal.parse().map_err(|error| refuse(ErrorCode::Usage, format!("{error}")))?;
        let mut workers = 0;
        for (id, slots) in self.select(&send.selectors)? {
            let Some(app) = self.core.app(id) else { continue };
            for (index, slot) in (0..).zip(app.slots).filter(|(index, _)| slots.contains(*index)) {
                for worker in slot.worker.into_iter().chain(slot.beside.map(|beside| beside.worker)) {
                    match self.workers.signal(worker, signal) {
                        Ok(()) => workers += 1,
                        Err(error) => tracing::debug!("{}: {error}", SlotId { app: id, index }),
                    }
                }
            }
        }
        Ok(Signalled { workers })
    }

    /// Sends a message to the ready workers of the selected slots.
    pub(super) fn send(&self, send: &SendMessage) -> Answered<Vec<oneshot::Receiver<u32>>> {
        let selected = self.select(&send.selectors)?;
        // Between the parts of a value a line end means no more than a blank.
        let mut line = send.message.get().replace(['\n', '\r'], " ").into_bytes();
        line.push(b'\n');
        for (id, _) in &selected {
            let name = self.registry.name(*id);
            let Some(entry) = self.registry.by_id(*id) else { continue };
            let channel = &entry.settings.app.channel;
            if !channel.enabled {
                return Err(refuse(
                    ErrorCode::Usage,
                    format!("{name} has no channel: it says `channel: false`"),
                ));
            }
            if line.len() as u64 > channel.max_message {
                let max = channel.max_message;
                let why =
                    format!("the message has more than {max} bytes, which is `ipc_max_message` of {name}");
                return Err(refuse(ErrorCode::Usage, why));
            }
        }
        let mut parts = Vec::new();
        for (id, slots) in selected {
            let name = self.registry.name(id);
            let mut say = |slot| parts.push(self.channel.say(name.to_owned(), slot, line.clone()));
            match slots {
                Slots::All => say(None),
                Slots::Only(slots) => slots.into_iter().for_each(|slot| say(Some(slot))),
            }
        }
        Ok(parts)
    }

    pub(super) fn reset(&mut self, reset: &Reset) -> Answered<ResetDone> {
        let selected = self.select(&reset.selectors)?;
        let slots = selected.iter().map(|(id, slots)| self.core.reset_restarts(*id, slots)).sum();
        Ok(ResetDone { slots })
    }
}
