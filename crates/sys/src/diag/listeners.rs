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
    /// The TCP sockets that listen on this port, or on any, in no special order. Waits for a second at
    /// most; takes 30 µs, however many connections there are.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(local: &str, v6only: Option<bool>, interface: u32) -> Listening {
        let local = local.parse().unwrap();
        Listening { local, v6only, inode: 1, uid: 0, cookie: 1, interface, queue: 0, backlog: 1 }
    }

    #[test]
    fn what_is_in_the_way() {
        let check = |wanted: &str, v6only, taken: Listening, expected| {
            let taken = [taken];
            let found = overlaps(wanted.parse().unwrap(), v6only, &taken);
            assert_eq!(found.len(), usize::from(expected), "{wanted} {v6only} beside {taken:?}");
        };
        let v4 = |local| listening(local, None, 0);
        check("127.0.0.1:80", false, v4("127.0.0.1:80"), true);
        check("127.0.0.1:80", false, v4("127.0.0.1:81"), false);
        check("127.0.0.1:80", false, v4("127.0.0.2:80"), false);
        check("127.0.0.1:80", true, v4("0.0.0.0:80"), true);
        check("0.0.0.0:80", false, v4("127.0.0.2:80"), true);
        check("[::]:80", false, v4("127.0.0.2:80"), true);
        check("[::]:80", true, v4("127.0.0.2:80"), false);
        check("[::1]:80", false, v4("0.0.0.0:80"), false);
        check("[::ffff:127.0.0.1]:80", false, v4("127.0.0.1:80"), true);
        check("[::ffff:0.0.0.0]:80", false, v4("127.0.0.1:80"), true);

        let v6 = |local, v6only| listening(local, Some(v6only), 0);
        check("127.0.0.1:80", false, v6("[::]:80", false), true);
        check("127.0.0.1:80", false, v6("[::]:80", true), false);
        check("127.0.0.1:80", false, v6("[::1]:80", true), false);
        check("127.0.0.1:80", false, v6("[::ffff:127.0.0.1]:80", false), true);
        check("[::]:80", true, v6("[::]:80", true), true);
        check("[::2]:80", true, v6("[::]:80", true), true);
        check("[::2]:80", false, v6("[::1]:80", true), false);
        // What the kernel does not say is taken for the wider form.
        check("127.0.0.1:80", false, listening("[::]:80", None, 0), true);

        // On one interface.
        check("[fe80::1%2]:80", false, listening("[fe80::1%2]:80", Some(true), 2), true);
        check("[fe80::1%3]:80", false, listening("[fe80::1%2]:80", Some(true), 2), false);
        check("[fe80::1%3]:80", false, v6("[::]:80", false), true);
        check("127.0.0.1:80", false, listening("127.0.0.1:80", None, 2), true);
    }

    #[test]
    fn only_those_in_the_way_are_named() {
        let taken = ["127.0.0.1:80", "127.0.0.2:80", "0.0.0.0:81"].map(|local| listening(local, None, 0));
        let found = overlaps("0.0.0.0:80".parse().unwrap(), false, &taken);
        assert_eq!(found, [&taken[0], &taken[1]]);
    }
}
