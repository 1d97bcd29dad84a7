//! What a worker says of itself: `sd_notify(3)`.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The notify socket, or nothing outside the supervisor.
#[derive(Debug, Clone)]
pub struct Notify {
    socket: Option<String>,
}

impl Notify {
    pub(crate) fn from_env() -> Self {
        Self { socket: super::variable("NOTIFY_SOCKET") }
    }

    /// The worker may take connections. It counts with `ready: notify`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be reached.
    pub fn ready(&self) -> io::Result<()> {
        self.say("READY=1")
    }

    /// What `status` shows: up to 256 characters.
    ///
    /// # Errors
    ///
    /// As [`Self::ready`].
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.say(&format!("STATUS={}", text.replace('\n', " ")))
    }

    /// The worker is alive.
    ///
    /// # Errors
    ///
    /// As [`Self::ready`].
    pub fn watchdog(&self) -> io::Result<()> {
        self.say("WATCHDOG=1")
    }

    /// The worker is about to end by its own choice.
    ///
    /// # Errors
    ///
    /// As [`Self::ready`].
    pub fn stopping(&self) -> io::Result<()> {
        self.say("STOPPING=1")
    }

    fn say(&self, message: &str) -> io::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(|_| ())
    }
}
