//! Members that their program shuts down: they have left their group at that
//! moment, and another one has their number.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use supervisor_config::ListenAddress;
use supervisor_sys::poll::{Interest, Poller};

/// A member that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) app: String,
    pub(super) address: ListenAddress,
    pub(super) key: String,
}

/// Watches sockets that listen.
#[derive(Debug)]
pub(super) struct Hangups {
    poller: Poller,
    /// By the poller's tokens.
    watched: BTreeMap<u64, Watched>,
    /// The tokens, by the members' keys.
    tokens: HashMap<String, u64>,
    next: u64,
}

impl Hangups {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { poller: Poller::new()?, watched: BTreeMap::new(), tokens: HashMap::new(), next: 0 })
    }

    /// Begins to watch a member that listens, unless it is watched.
    pub(super) fn add(&mut self, socket: impl AsFd, watched: Watched) {
        // Without memory for it, the member is looked at when its group changes.
        if !self.tokens.contains_key(&watched.key)
            && self.poller.add(socket, self.next, Interest::HangupOnly).is_ok()
        {
            self.tokens.insert(watched.key.clone(), self.next);
            self.watched.insert(self.next, watched);
            self.next += 1;
        }
    }

    /// Watches a member no more.
    pub(super) fn remove(&mut self, socket: &OwnedFd, key: &str) {
        if let Some(token) = self.tokens.remove(key) {
            self.watched.remove(&token);
            // It is open elsewhere, so closing it would not do.
            let _ = self.poller.remove(socket);
        }
    }

    /// Those that were shut down since.
    pub(super) fn take(&self) -> Vec<Watched> {
        let mut events = Vec::new();
        // It does not wait, so nothing can break it off.
        let _ = self.poller.wait(&mut events, Some(Duration::ZERO));
        events.iter().filter_map(|event| self.watched.get(&event.token).cloned()).collect()
    }
}

impl AsFd for Hangups {
    /// It can be read when there is something to [take](Self::take).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}
