//! Handshakes that are not over.

use std::net::SocketAddr;

use super::netlink::{Diag, DiagError, Question};

/// `TCP_SYN_RECV`; the kernel takes it for `TCP_NEW_SYN_RECV`, too, and reports both as this.
const SYN_RECV: u32 = 3;

/// A connection that a listener has been asked for, and that is not in its queue yet: the client's last
/// packet of the handshake has not come, was lost, or waits for data (`TCP_DEFER_ACCEPT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpen {
    /// The address that the client asked for. Its listener may be one of all addresses, and the kernel
    /// does not say which member of a group it will be.
    pub local: SocketAddr,
    /// The client.
    pub peer: SocketAddr,
    /// What the kernel calls it: those that were there before a switch are known by it.
    pub cookie: u64,
}

impl Diag {
    /// The half-open connections to this port, in no special order. Waits for a second at most.
    ///
    /// # Errors
    ///
    /// See [`DiagError`].
    pub fn half_open(&mut self, port: u16) -> Result<Vec<HalfOpen>, DiagError> {
        let question = Question { states: 1 << SYN_RECV, port: Some(port), extensions: 0 };
        self.ask(question, |message| {
            Some(HalfOpen { local: message.local, peer: message.peer, cookie: message.cookie })
        })
    }
}
