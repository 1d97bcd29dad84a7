//! The link to the keeper: what outlives this process goes through here.
//!
//! What is stored is sent, and what is sent survives the sender, so nothing
//! waits for an answer. When the keeper is gone the master goes on serving
//! without it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use supervisor_protocol::keeper::{FdRole, FromKeeper, MAX_PACKET, ToKeeper};
use supervisor_sys::fdpass;

use crate::fault;

/// The master's end of the pair.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// `None` once the keeper is gone.
    keeper_pid: Option<u32>,
    /// The daemon's lock, in case this process outlives the keeper.
    lock: Vec<OwnedFd>,
    /// Room for a packet.
    buffer: Box<[u8]>,
}

impl Link {
    /// The link to the keeper with this pid, or to one that has not said it.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, keeper_pid: None, lock: Vec::new(), buffer: vec![0; MAX_PACKET].into() }
    }

    pub(crate) fn keeper_pid(&self) -> Option<u32> {
        self.keeper_pid
    }

    /// Notes who the keeper is.
    pub(crate) fn meet(&mut self, keeper_pid: u32) {
        self.keeper_pid = Some(keeper_pid);
    }

    /// Holds the daemon's lock for as long as this process runs.
    pub(crate) fn hold_lock(&mut self, lock: Vec<OwnedFd>) {
        self.lock = lock;
    }

    /// Notes that the keeper is gone.
    pub(crate) fn lose(&mut self) {
        self.keeper_pid = None;
    }

    /// To wait for the next message.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The keeper's next message, with its descriptors. It waits for one.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the keeper is gone, `InvalidData` for a message
    /// that makes no sense, [`is_cut`] for one whose descriptors found no room.
    pub(crate) fn receive(&mut self) -> io::Result<(FromKeeper, Vec<OwnedFd>)> {
        let received = fdpass::receive(&self.socket, &mut self.buffer)?;
        if received.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.truncated {
            return Err(Errno::MFILE.into());
        }
        let packet = self.buffer.get(..received.len).unwrap_or_default();
        let message =
            FromKeeper::decode(packet).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((message, received.fds))
    }

    /// Stores an entry in place of the one with the same key.
    pub(crate) fn put(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) {
        fault::step();
        self.log(put(&self.socket, key, record, fds));
        fault::step();
    }

    /// Forgets an entry.
    pub(crate) fn delete(&self, key: &str) {
        self.send(&ToKeeper::Delete { key: key.to_owned() }, &[]);
    }

    /// A way to the keeper's table for another thread.
    pub(crate) fn notes(&self) -> io::Result<Notes> {
        Ok(Notes { socket: self.socket.try_clone()? })
    }

    /// Says that this master is alive.
    pub(crate) fn beat(&self) {
        // It is no step of anything.
        self.transmit(&ToKeeper::Beat, &[]);
    }

    /// Says that this master serves.
    pub(crate) fn adopted(&self) {
        self.send(&ToKeeper::Adopted, &[]);
    }

    /// Tells the service manager something.
    pub(crate) fn notify(&self, text: String) {
        self.send(&ToKeeper::Notify { text }, &[]);
    }

    /// Says that everything has ended.
    pub(crate) fn finish(&self, exit_code: u8) {
        self.send(&ToKeeper::Finish { exit_code }, &[]);
    }

    fn send(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) {
        fault::step();
        self.transmit(message, fds);
        fault::step();
    }

    fn transmit(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) {
        self.log(send(&self.socket, message, fds));
    }

    fn log(&self, sent: io::Result<()>) {
        if let Err(error) = sent
            && self.keeper_pid.is_some()
        {
            tracing::error!("cannot tell the keeper: {error}");
        }
    }
}

/// Whether a message came without all of its descriptors: too many are open.
pub(crate) fn is_cut(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MFILE.raw_os_error())
}

/// What another thread stores with the keeper.
#[derive(Debug)]
pub(crate) struct Notes {
    socket: OwnedFd,
}

impl Notes {
    /// Stores an entry in place of the one with the same key.
    pub(crate) fn put(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) {
        // When the keeper is gone there will be no next master.
        let _ = put(&self.socket, key, record, fds);
    }

    /// Forgets an entry.
    pub(crate) fn delete(&self, key: &str) {
        let _ = send(&self.socket, &ToKeeper::Delete { key: key.to_owned() }, &[]);
    }
}

fn put(socket: &OwnedFd, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) -> io::Result<()> {
    let (roles, fds): (Vec<_>, Vec<_>) = fds.iter().copied().unzip();
    send(socket, &ToKeeper::Put { key: key.to_owned(), record: record.to_vec(), roles }, &fds)
}

/// It waits while the keeper's buffer is full; the keeper only ever reads and
/// never waits for us.
fn send(socket: &OwnedFd, message: &ToKeeper, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    fdpass::send(socket, &message.encode(), fds)
}
