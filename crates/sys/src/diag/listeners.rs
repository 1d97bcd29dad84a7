//! Who listens, and what stands in the way of listening somewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::netlink::{Diag, DiagError, Question};

/// `TCP_LISTEN` of the kernel.
const LISTEN: u32 = 10;
/// `INET_DIAG_SKV6ONLY`, an attribute.
const V6ONLY: u16 = 11;

/// A TCP socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where. IPv4 in IPv6's notation (`::ffff:…`) if its socket is one of IPv6.
    pub local: SocketAddr,
    /// For a socket of IPv6: whether IPv4 is left out (`IPV6_V6ONLY`). The kernel sets it when a socket is
    /// bound to one address of IPv6.
    pub v6only: Option<bool>,
    /// The inode that `/proc/PID/fd` shows, see [`inodes_of`](super::inodes_of).
    pub inode: u64,
    /// The user that owns the socket; usually who made it.
    pub uid: u32,
    /// What the kernel calls the socket, and no other one ever (`SO_COOKIE` in `socket(7)`).
    pub cookie: u64,
    /// The index of the interface that it is bound to (`SO_BINDTODEVICE`, or a link-local address); 0 for any.
    pub interface: u32,
    /// How many connections wait to be accepted.
    pub queue: u32,
    /// How many may; one more than this fits.
    pub backlog: u32,
}

impl Diag {
    /// The TCP sockets that listen on this port, or on any, in no special order. Connections cost nothing, however many
    /// there are. Waits for a second at most.
    ///
    /// # Errors
    ///
    /// See [`DiagError`].
    pub fn listeners(&mut self, port: Option<u16>) -> Result<Vec<Listening>, DiagError> {
        let question = Question { states: 1 << LISTEN, port, extensions: 0 };
        self.ask(question, |message| {
            let v6only = message.attribute(V6ONLY).and_then(<[u8]>::first).map(|byte| *byte != 0);
            Some(Listening {
                local: message.local,
                v6only: v6only.filter(|_| message.local.is_ipv6()),
                inode: message.inode.into(),
                uid: message.uid,
                cookie: message.cookie,
                interface: message.interface,
                queue: message.receive_queue,
                backlog: message.send_queue,
            })
        })
    }
}

/// Those of the listeners that keep a socket without `SO_REUSEPORT` from being bound to this address
/// (`EADDRINUSE`): on the same port, and on the same address, or one of both on all addresses.
///
/// `v6only` says whether the socket leaves IPv4 out; it has no meaning for an address of IPv4.
#[must_use]
pub fn overlaps(address: SocketAddr, v6only: bool, listeners: &[Listening]) -> Vec<&Listening> {
    let wanted = Reach::of(address.ip(), v6only);
    let interface = match address {
        // As bind(2) does.
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() => address.scope_id(),
        SocketAddr::V6(_) | SocketAddr::V4(_) => 0,
    };
    let meets = |listener: &&Listening| {
        let taken = Reach::of(listener.local.ip(), listener.v6only == Some(true));
        listener.local.port() == address.port()
            && (interface == 0 || listener.interface == 0 || interface == listener.interface)
            && (both(wanted.v4, taken.v4, Ipv4Addr::UNSPECIFIED)
                || both(wanted.v6, taken.v6, Ipv6Addr::UNSPECIFIED))
    };
    listeners.iter().filter(meets).collect()
}

/// The addresses that a socket is bound to, in each family: none, one, or all of them.
struct Reach {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Reach {
    fn of(ip: IpAddr, v6only: bool) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self { v4: Some(v4), v6: None },
            IpAddr::V6(v6) if v6.is_unspecified() && !v6only => {
                Self { v4: Some(Ipv4Addr::UNSPECIFIED), v6: Some(v6) }
            }
            IpAddr::V6(v6) => Self { v4: None, v6: Some(v6) },
        }
    }
}

/// Whether both have an address in this family, and the same one or one of them all.
fn both<A: PartialEq + Copy>(one: Option<A>, other: Option<A>, all: A) -> bool {
    one.zip(other).is_some_and(|(one, other)| one == other || one == all || other == all)
}
