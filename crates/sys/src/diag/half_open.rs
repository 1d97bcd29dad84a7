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
    /// The half-open connections to this port, in no special order. Waits for a second at most;
    /// costs as much as [`Self::connections`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    #[test]
    fn a_handshake_that_waits_for_data() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let seconds: libc::c_int = 60;
        // SAFETY: the value is a number; its length is given.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                4,
            )
        };
        assert_eq!(result, 0);
        let address = listener.local_addr().unwrap();
        let mut diag = Diag::new().unwrap();
        assert_eq!(diag.half_open(address.port()).unwrap(), []);

        let mut clients = [address, address].map(|address| TcpStream::connect(address).unwrap());
        let found = diag.half_open(address.port()).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_ne!(found[0].cookie, found[1].cookie);
        for client in &clients {
            let peer = client.local_addr().unwrap();
            assert!(found.iter().any(|half| (half.local, half.peer) == (address, peer)), "{found:?}");
        }
        assert_eq!(diag.half_open(address.port()).unwrap(), found, "they keep their cookies");
        assert_eq!(diag.connections(address.port()).unwrap(), []);

        clients[0].write_all(b"question").unwrap();
        let gone = clients[0].local_addr().unwrap();
        let left: Vec<_> = found.into_iter().filter(|half| half.peer != gone).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while diag.half_open(address.port()).unwrap() != left {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(diag.connections(address.port()).unwrap().len(), 1);
    }
}
