//! The link to the keeper: what outlives this process goes through here.
//!
//! What is stored is sent, and what is sent survives the sender, so nothing
//! waits for an answer. A copy of it all stays here (`mirror`): when the keeper
//! is gone, this process takes its place (`succession`).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::getppid;
use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello, MAX_FDS, MAX_PACKET, ToKeeper};
use supervisor_sys::signal::Signal;
use supervisor_sys::{fdpass, pidfd};

use crate::fault;
use crate::mirror::Mirror;

/// The master's end of the pair.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// What the keeper has said of itself, if it has.
    hello: Option<Hello>,
    /// The keeper is gone.
    lost: bool,
    mirror: Mirror,
    /// Room for a packet.
    buffer: Box<[u8]>,
    /// What is to be sent together.
    bundle: RefCell<Bundle>,
}

/// Changes of the table that go in one packet: this master's death does not come
/// between them.
#[derive(Debug, Default)]
struct Bundle {
    /// How many have begun it and not sent it.
    depth: u32,
    messages: Vec<ToKeeper>,
    fds: Vec<OwnedFd>,
    /// How long the packet is by now, bytes.
    length: usize,
}

impl Link {
    /// The link to a keeper that has not said anything yet.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            hello: None,
            lost: false,
            mirror: Mirror::new(),
            buffer: vec![0; MAX_PACKET].into(),
            bundle: RefCell::default(),
        }
    }

    /// The keeper's pid; `None` when it is gone.
    pub(crate) fn keeper_pid(&self) -> Option<u32> {
        self.hello.filter(|_| !self.lost).map(|hello| hello.keeper_pid)
    }

    /// What the daemon was started with, as the keeper has said.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.hello
    }

    /// Notes who the keeper is.
    pub(crate) fn meet(&mut self, hello: Hello) {
        self.hello = Some(hello);
    }

    /// Notes that the keeper is gone.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }

    /// Kills the keeper, which is this process's parent: nobody else can have its
    /// pid.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is gone.
    pub(crate) fn kill_keeper(&self) -> io::Result<()> {
        let parent = getppid().filter(|pid| self.keeper_pid() == u32::try_from(pid.as_raw_pid()).ok());
        let keeper = pidfd::open(parent.ok_or(io::ErrorKind::NotFound)?)?;
        if getppid() != parent {
            return Err(io::ErrorKind::NotFound.into());
        }
        pidfd::send_signal(&keeper, Signal::KILL)
    }

    /// How long the keeper may leave messages unread when there is no room for
    /// another, before it is killed; `None` for as long as it likes.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) {
        // It fails for a length that makes no sense.
        let _ = set_socket_timeout(&self.socket, Timeout::Send, patience);
    }

    /// All that the keeper holds, or held.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
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
        if let FromKeeper::Entry { key, record, roles } = &message {
            let fds: Vec<_> = roles.iter().copied().zip(received.fds.iter().map(AsFd::as_fd)).collect();
            log_copy(key, self.mirror.put(key, record, &fds));
        }
        Ok((message, received.fds))
    }

    /// Lets the changes of the table up to [`Self::commit`] go together: a master
    /// that dies before has changed nothing. Such changes within others are part
    /// of those. More than a packet takes goes in several, in order.
    pub(crate) fn begin(&self) {
        self.bundle.borrow_mut().depth += 1;
    }

    /// Sends what has been changed since [`Self::begin`].
    pub(crate) fn commit(&self) {
        let mut bundle = self.bundle.borrow_mut();
        bundle.depth = bundle.depth.saturating_sub(1);
        if bundle.depth == 0 {
            self.send_bundle(&mut bundle);
        }
    }

    fn send_bundle(&self, bundle: &mut Bundle) {
        let (mut messages, fds) = (std::mem::take(&mut bundle.messages), std::mem::take(&mut bundle.fds));
        bundle.length = 0;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match messages.len() {
            0 => {}
            1 => messages.drain(..).for_each(|message| self.send(&message, &fds)),
            _ => self.send(&ToKeeper::Together(messages), &fds),
        }
    }

    /// Stores an entry in place of the one with the same key.
    pub(crate) fn put(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) {
        log_copy(key, self.mirror.put(key, record, fds));
        self.tell(key, record, fds);
    }

    /// Stores an entry that the keeper's death must not take away: it is stored
    /// there and here, or nowhere.
    ///
    /// # Errors
    ///
    /// As [`Mirror::put`].
    pub(crate) fn put_or_fail(
        &self,
        key: &str,
        record: &[u8],
        fds: &[(FdRole, BorrowedFd<'_>)],
    ) -> io::Result<()> {
        self.mirror.put(key, record, fds)?;
        self.tell(key, record, fds);
        Ok(())
    }

    fn tell(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) {
        #[cfg(feature = "next-version")]
        let record = &crate::next::record(record);
        let (roles, fds): (Vec<_>, Vec<_>) = fds.iter().copied().unzip();
        self.change(ToKeeper::Put { key: key.to_owned(), record: record.to_vec(), roles }, &fds);
    }

    /// Forgets an entry.
    pub(crate) fn delete(&self, key: &str) {
        self.mirror.delete(key);
        self.change(ToKeeper::Delete { key: key.to_owned() }, &[]);
    }

    /// Sends a change of the table, or adds it to those that go together.
    fn change(&self, message: ToKeeper, fds: &[BorrowedFd<'_>]) {
        let mut bundle = self.bundle.borrow_mut();
        if bundle.depth == 0 {
            return self.send(&message, fds);
        }
        // Two bytes more for its length, and two for the bundle itself.
        let length = message.encode().len() + 2;
        if bundle.length + length + 2 > MAX_PACKET || bundle.fds.len() + fds.len() > MAX_FDS {
            self.send_bundle(&mut bundle);
        }
        match fds.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<Vec<_>>>() {
            Ok(fds) => {
                bundle.messages.push(message);
                bundle.fds.extend(fds);
                bundle.length += length;
            }
            // Without descriptors to spare it goes alone.
            Err(_) => {
                self.send_bundle(&mut bundle);
                self.send(&message, fds);
            }
        }
    }

    /// A way to the keeper's table for another thread.
    pub(crate) fn notes(&self) -> io::Result<Notes> {
        Ok(Notes { socket: self.socket.try_clone()?, mirror: self.mirror.clone() })
    }

    /// Says that this master is alive.
    pub(crate) fn beat(&self) {
        // It is no step of anything.
        self.transmit(&ToKeeper::Beat, &[]);
    }

    /// Says that this master serves.
    pub(crate) fn adopted(&self) {
        self.send(&ToKeeper::Adopted, &[]);
        #[cfg(feature = "next-version")]
        {
            self.put("later:1", b"{}", &[(FdRole::Later(9), self.socket.as_fd())]);
            let _ = fdpass::send(&self.socket, &supervisor_protocol::keeper::LATER, &[]);
        }
    }

    /// Tells the service manager something.
    pub(crate) fn notify(&self, text: String) {
        self.send(&ToKeeper::Notify { text }, &[]);
    }

    /// Lets the keeper have masters of another binary, and become one.
    pub(crate) fn upgrade(&self, label: String, binary: BorrowedFd<'_>) {
        self.send(&ToKeeper::Upgrade { label }, &[binary]);
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
        let sent = send(&self.socket, message, fds);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            // Its patience is over. What was sent counts here, in the mirror.
            let _ = self.kill_keeper();
        }
        self.log(sent);
    }

    fn log(&self, sent: io::Result<()>) {
        if let Err(error) = sent
            && !self.lost
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
    mirror: Mirror,
}

impl Notes {
    /// Stores an entry in place of the one with the same key.
    pub(crate) fn put(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) {
        log_copy(key, self.mirror.put(key, record, fds));
        // It fails when the keeper is gone; then the mirror counts.
        let _ = put(&self.socket, key, record, fds);
    }

    /// Forgets an entry.
    pub(crate) fn delete(&self, key: &str) {
        self.mirror.delete(key);
        let _ = send(&self.socket, &ToKeeper::Delete { key: key.to_owned() }, &[]);
    }
}

/// The keeper has it, and nobody after that.
fn log_copy(key: &str, copied: io::Result<()>) {
    if let Err(error) = copied {
        tracing::error!("{key}: it would not survive the keeper: {error}");
    }
}

fn put(socket: &OwnedFd, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) -> io::Result<()> {
    let (roles, fds): (Vec<_>, Vec<_>) = fds.iter().copied().unzip();
    #[cfg(feature = "next-version")]
    let record = &crate::next::record(record);
    send(socket, &ToKeeper::Put { key: key.to_owned(), record: record.to_vec(), roles }, &fds)
}

/// It waits while the keeper's buffer is full; the keeper only ever reads and
/// never waits for us.
fn send(socket: &OwnedFd, message: &ToKeeper, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    fdpass::send(socket, &message.encode(), fds)
}
