//! The sockets of the hub's members, and what waits for them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use supervisor_core::WorkerId;
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::poll::{Interest, Poller};

use super::figures::Figures;
use super::hub::Deliver;
use super::inbound::Inbound;
use super::outbound::{Outbound, Progress};
use crate::link::Notes;
use crate::records;

/// One worker's socket.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: OwnedFd,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) figures: Arc<Figures>,
    /// The longest line that it may send, bytes.
    pub(super) max_message: usize,
    /// What may wait for it, bytes.
    pub(super) buffer: usize,
    /// It has used the envelope, so it may be sent some.
    pub(super) speaks: bool,
    /// It has said that it is ready.
    pub(super) said_ready: bool,
    /// It is not read yet: its siblings may not be there.
    pub(super) waits: bool,
    /// It is in the queue of those to be read.
    pub(super) has_turn: bool,
    /// Since when the beginning of a line has waited for its end.
    pub(super) beginning: Option<Instant>,
    /// It has waited too long: the beginning is to be consumed.
    pub(super) is_late: bool,
    /// Its process is gone: only what it has said is left.
    pub(super) ended: bool,
    /// It has closed its end, or it is lost.
    pub(super) closed: bool,
    /// The keeper has been told that its stream is in the middle of a line.
    pub(super) is_noted: bool,
    /// The keeper holds a long line for it.
    pub(super) is_held: bool,
    /// Whether the poller tells when it can be written.
    is_watched: bool,
}

impl Port {
    pub(super) fn new(socket: OwnedFd, figures: Arc<Figures>, max_message: usize, buffer: usize) -> Self {
        Self {
            socket,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            figures,
            max_message,
            buffer,
            speaks: false,
            said_ready: false,
            waits: false,
            has_turn: false,
            beginning: None,
            is_late: false,
            ended: false,
            closed: false,
            is_noted: false,
            is_held: false,
            is_watched: false,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) poller: Poller,
    pub(super) keeper: Notes,
    pub(super) all: HashMap<WorkerId, Box<Port>>,
}

impl Ports {
    /// Sends what waits for a worker, as far as it takes it.
    pub(super) fn flush(&mut self, worker: WorkerId) {
        let Self { poller, keeper, all } = self;
        let Some(port) = all.get_mut(&worker) else { return };
        let mut is_held = port.is_held;
        let mut hold = |line: Option<BorrowedFd<'_>>| {
            let key = records::line_key(worker);
            is_held = line.is_some();
            match line {
                Some(line) => keeper.put(&key, &[], &[(FdRole::Hold, line)]),
                None => keeper.delete(&key),
            }
        };
        while let Some(progress) = port.outbound.send_next(port.socket.as_fd(), port.speaks, &mut hold) {
            note(port, progress);
        }
        port.is_held = is_held;
        watch(poller, worker, port);
    }

    /// Leaves what waits for all of them to the next master.
    pub(super) fn leave(&mut self) {
        let Self { keeper, all, .. } = self;
        for (worker, port) in all {
            let hold = |line: BorrowedFd<'_>| {
                keeper.put(&records::line_key(*worker), &[], &[(FdRole::Hold, line)]);
            };
            if let Err(error) = port.outbound.leave(port.speaks, hold) {
                tracing::warn!("messages that wait for worker {} are lost: {error}", worker.0);
            }
        }
    }

    /// Closes a worker's socket, and lets the keeper forget what belongs to it.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        let Some(port) = self.all.remove(&worker) else { return };
        let _ = self.poller.remove(&port.socket);
        port.figures.closed();
        if port.is_held {
            self.keeper.delete(&records::line_key(worker));
        }
        if port.is_noted {
            self.keeper.delete(&records::channel_key(worker));
        }
        if port.speaks {
            self.keeper.delete(&records::topics_key(worker));
        }
    }
}

impl Deliver for Ports {
    fn deliver(&mut self, to: WorkerId, lines: &[u8]) {
        let Some(port) = self.all.get_mut(&to).filter(|port| !port.closed) else { return };
        let progress = port.outbound.push(port.socket.as_fd(), lines, port.buffer);
        note(port, progress);
        if !port.outbound.is_empty() {
            watch(&self.poller, to, port);
        }
    }
}

/// Counts what became of messages.
fn note(port: &mut Port, progress: Progress) {
    if progress.sent > 0 {
        port.figures.sent(progress.sent);
    }
    if progress.dropped > 0 {
        port.figures.dropped(progress.dropped);
    }
    if progress.closed {
        port.closed = true;
        port.figures.closed();
    }
}

/// Has the poller tell when a worker can be written, if something waits for it.
fn watch(poller: &Poller, worker: WorkerId, port: &mut Port) {
    port.figures.queued(port.outbound.bytes());
    let wanted = !port.outbound.is_empty();
    if wanted != port.is_watched {
        let interest = if wanted { Interest::ReadWriteEdge } else { Interest::ReadEdge };
        port.is_watched = poller.modify(&port.socket, worker.0, interest).is_ok() && wanted;
    }
}
