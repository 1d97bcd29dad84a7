//! Queues of apps with `balance: least-queue`: looked at several times a second
//! while connections come, and not at all otherwise.

use std::time::{Duration, Instant};

use supervisor_sys::poll::{Interest, Poller};

use crate::listeners::Listeners;
use crate::master::Master;

/// How often queues are looked at while connections come.
const LOOK: Duration = Duration::from_millis(100);
/// After so many looks at empty queues nobody looks until one is not.
const EMPTY: u32 = 10;
/// The poller's token for them; workers' tokens are far below.
pub(crate) const TOKEN: u64 = u64::MAX - 1;

/// When to look.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// All sockets in question: it can be read when a connection waits.
    sockets: Option<Poller>,
    next: Option<Instant>,
    /// How many looks in a row found nothing.
    empty: u32,
}

impl Queues {
    /// Follows a change of the sockets in question. To be called once a second.
    pub(crate) fn follow(&mut self, listeners: &mut Listeners, poller: &Poller) {
        let Some(sockets) = listeners.renewed_queues() else { return };
        // A set that is closed leaves the poller by itself.
        self.sockets = None;
        let watched = if sockets.is_empty() { None } else { Poller::new().ok() };
        if let Some(watched) = watched {
            for socket in sockets {
                let _ = watched.add(&*socket, 0, Interest::Read);
            }
            self.sockets = Some(watched);
        } else {
            self.next = None;
        }
        if self.next.is_none() {
            self.wait(poller);
        }
    }

    /// Lets the poller tell of the next connection.
    fn wait(&mut self, poller: &Poller) {
        self.next = None;
        if let Some(sockets) = &self.sockets
            && let Err(error) = poller.add(sockets, TOKEN, Interest::Read)
        {
            tracing::warn!("queues of connections are not looked at: {error}");
        }
    }

    /// A connection waits: from now on it is looked often.
    pub(crate) fn begin(&mut self, poller: &Poller) {
        if let Some(sockets) = &self.sockets {
            let _ = poller.remove(sockets);
        }
        (self.next, self.empty) = (Some(Instant::now()), 0);
    }

    /// When to look next, if at all.
    pub(crate) const fn next_look(&self) -> Option<Instant> {
        self.next
    }

    /// Looks at the queues.
    pub(crate) fn look(&mut self, listeners: &mut Listeners, poller: &Poller) {
        if listeners.look_at_queues() {
            self.empty = 0;
        } else {
            self.empty += 1;
        }
        if self.empty < EMPTY {
            self.next = Some(Instant::now() + LOOK);
        } else {
            self.wait(poller);
        }
    }
}

impl Master {
    /// Looks at the queues that decide who gets connections.
    pub(crate) fn look_at_queues(&mut self) {
        self.queues.look(&mut self.listeners, &self.poller);
    }
}
