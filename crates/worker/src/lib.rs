//! For workers in Rust: what the supervisor gives a worker, as types.
//!
//! ```no_run
//! use supervisor_worker::{Message, Worker};
//!
//! fn main() -> std::io::Result<()> {
//!     let worker = Worker::start()?;
//!     for listener in worker.listeners { /* accept */ }
//!     worker.notify.ready()?;
//!     if let Some((channel, messages)) = worker.channel {
//!         channel.subscribe(&["cache.*"])?;
//!         channel.publish("cache.users", &7)?;
//!         for message in messages {
//!             if let Message::Published { topic, data, .. } = message? {
//!                 println!("{topic}: {data}");
//!             }
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Outside the supervisor there is nothing of all this: no listener, no channel,
//! and what is said to the notify socket goes nowhere. The feature `tokio` adds
//! `asynchronous`, the same channel for tokio.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod channel;
mod message;
mod notify;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

pub use channel::{Channel, Messages, Pending};
pub use message::{Message, Reply};
pub use notify::Notify;

/// What a worker was started with.
#[derive(Debug)]
pub struct Worker {
    /// The listening sockets of `listen:`, in its order.
    pub listeners: Vec<Listener>,
    /// The channel to the other workers, and what comes on it.
    pub channel: Option<(Channel, Messages)>,
    /// For what it says of itself.
    pub notify: Notify,
}

/// A listening socket. `std::net::TcpListener::from(listener.socket)` makes it
/// one of the library's.
#[derive(Debug)]
pub struct Listener {
    /// `tcp-8080`, `unix-web.sock`.
    pub name: String,
    /// The socket; blocking and close-on-exec.
    pub socket: OwnedFd,
}

impl Worker {
    /// Takes over what the supervisor passed. For the start of `main`: it takes
    /// every descriptor above 2 that came over `exec`, and closes those that mean
    /// nothing to a worker.
    ///
    /// # Errors
    ///
    /// When `/proc/self/fd` cannot be read, or a socket is none.
    pub fn start() -> io::Result<Self> {
        let mut passed = supervisor_sys::inherited::take()?;
        let channel = take_channel(&mut passed)?.map(Channel::new).transpose()?;
        Ok(Self { listeners: take_listeners(&mut passed), channel, notify: Notify::from_env() })
    }
}

/// The slot of this worker, from 0; `None` outside the supervisor.
#[must_use]
pub fn slot() -> Option<u32> {
    variable("SUPERVISOR_INSTANCE")?.parse().ok()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `sd_listen_fds(3)`: what was meant for another process is none of ours.
fn take_listeners(passed: &mut BTreeMap<RawFd, OwnedFd>) -> Vec<Listener> {
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let numbers = (3..).take(number("LISTEN_FDS").unwrap_or(0) as usize);
    numbers
        .filter_map(|number| {
            let name = names.next().unwrap_or_default().to_owned();
            Some(Listener { name, socket: passed.remove(&number)? })
        })
        .collect()
}

/// The channel, if its descriptor is the one that `SUPERVISOR_IPC` tells of: a
/// grandchild has the variable, too.
fn take_channel(passed: &mut BTreeMap<RawFd, OwnedFd>) -> io::Result<Option<UnixStream>> {
    let Some(name) = variable("SUPERVISOR_IPC") else { return Ok(None) };
    let numbers: Vec<u64> = name.split(':').filter_map(|number| number.parse().ok()).collect();
    let [number, device, inode] = numbers[..] else { return Ok(None) };
    let Some(socket) = RawFd::try_from(number).ok().and_then(|number| passed.remove(&number)) else {
        return Ok(None);
    };
    let stat = rustix::fs::fstat(&socket)?;
    Ok((stat.st_dev == device && stat.st_ino == inode).then(|| socket.into()))
}
