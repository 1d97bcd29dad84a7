//! What happens, for everybody who wants to hear of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use supervisor_protocol::events::{Event, Happening};
use tokio::sync::broadcast;

/// Events that wait for the slowest reader before it misses some.
const AHEAD: usize = 4096;

/// How long a new master remembers what has happened since it began, for those
/// who followed the one before and have yet to find this one.
const FIRST: Duration = Duration::from_secs(10);
/// How many events at most.
const FIRST_EVENTS: usize = 1024;

/// Those who follow what happens.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// There once somebody has asked: the room for [`AHEAD`] is not small.
    readers: Option<broadcast::Sender<Event>>,
    /// What has happened in the first moments, until these are over.
    first: RefCell<Option<First>>,
}

/// The first moments of a master that has taken over.
#[derive(Debug)]
struct First {
    until: Instant,
    events: VecDeque<Event>,
}

impl Events {
    /// Remembers what happens for a while.
    pub(crate) fn remember(&self) {
        let until = Instant::now() + FIRST;
        self.first.replace(Some(First { until, events: VecDeque::new() }));
    }

    /// Tells everybody who listens. Without a reader it costs nothing, but for the
    /// first moments.
    pub(crate) fn tell(&self, what: impl FnOnce() -> Happening) {
        let readers = self.readers.as_ref().filter(|readers| readers.receiver_count() > 0);
        let mut first = self.first.borrow_mut();
        let _ = first.take_if(|first| first.until <= Instant::now());
        if readers.is_none() && first.is_none() {
            return;
        }
        let event = Event { at: Timestamp::now().to_string(), what: what() };
        if let Some(First { events, .. }) = &mut *first {
            if events.len() == FIRST_EVENTS {
                events.pop_front();
            }
            events.push_back(event.clone());
        }
        if let Some(readers) = readers {
            // The last one may leave at this moment.
            let _ = readers.send(event);
        }
    }

    /// What has happened since a time, as far as it is remembered, and what
    /// happens from now on.
    pub(crate) fn follow(&mut self, since: Option<Timestamp>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let is_wanted = |event: &&Event| {
            let at = event.at.parse::<Timestamp>();
            since.is_some_and(|since| at.is_ok_and(|at| at > since))
        };
        let first = self.first.borrow();
        let past = first.iter().flat_map(|first| &first.events).filter(is_wanted).cloned().collect();
        let readers = self.readers.get_or_insert_with(|| broadcast::Sender::new(AHEAD));
        (past, readers.subscribe())
    }
}
