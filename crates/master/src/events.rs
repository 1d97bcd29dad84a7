//! What happens, for everybody who wants to hear of it.

use jiff::Timestamp;
use supervisor_protocol::events::{Event, Happening};
use tokio::sync::broadcast;

/// Events that wait for the slowest reader before it misses some.
const AHEAD: usize = 4096;

/// Those who follow what happens.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// There once somebody has asked: the room for [`AHEAD`] is not small.
    readers: Option<broadcast::Sender<Event>>,
}

impl Events {
    /// Tells everybody who listens. Without a reader it costs nothing.
    pub(crate) fn tell(&self, what: impl FnOnce() -> Happening) {
        if let Some(readers) = self.readers.as_ref().filter(|readers| readers.receiver_count() > 0) {
            // The last one may leave at this moment.
            let _ = readers.send(Event { at: Timestamp::now().to_string(), what: what() });
        }
    }

    /// What happens from now on.
    pub(crate) fn follow(&mut self) -> broadcast::Receiver<Event> {
        self.readers.get_or_insert_with(|| broadcast::Sender::new(AHEAD)).subscribe()
    }
}
