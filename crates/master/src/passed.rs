//! Sockets that the service manager has opened (`sd_listen_fds(3)`): they take
//! the place of those that would be bound here for the same address.
//!
//! Such a socket is one for all slots of an app. It goes on listening when
//! nobody serves it: it is the service manager's to close.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use supervisor_config::ListenAddress;
use supervisor_sys::socket::{self, Endpoint};

use crate::settings::address_text;

/// A socket that the daemon was given.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) address: ListenAddress,
    pub(crate) socket: Rc<OwnedFd>,
    /// Where the keeper has it.
    pub(crate) key: String,
}

impl Passed {
    /// `None`, and a line in the log, if it cannot serve an app.
    pub(crate) fn new(key: String, socket: OwnedFd) -> Option<Self> {
        let address = match socket::listening_at(&socket) {
            Ok(Some(Endpoint::Tcp { address, v6only })) => {
                let every = address.is_ipv6() && address.ip().is_unspecified();
                ListenAddress::Tcp { address, dual_stack: every && !v6only }
            }
            Ok(Some(Endpoint::Unix(path))) => ListenAddress::Unix(path),
            Ok(None) => {
                tracing::warn!("a socket of the service manager ({key}) is no listening stream socket");
                return None;
            }
            Err(error) => {
                tracing::warn!("a socket of the service manager ({key}) cannot be used: {error}");
                return None;
            }
        };
        tracing::info!("the service manager listens at {}", address_text(&address));
        Some(Self { address, socket: Rc::new(socket), key })
    }
}
