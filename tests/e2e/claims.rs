//! Numbers that no other test has, whatever process, pid namespace or run of the
//! suite it belongs to: they are taken in the network that all of them share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// The port on which an address is claimed. It is of UDP, so it is in nobody's way.
const CLAIMS: u16 = 29_169;
/// Ports for those who want one on all addresses: clients' ports are taken from
/// elsewhere, and so are the ports that tests use on addresses of their own.
const PORTS: std::ops::Range<u16> = 10_000..20_000;
/// How many addresses there are to choose from.
const ADDRESSES: u32 = 1 << 22;
/// How many are tried.
const TRIES: u32 = 1_000;

/// An address of the loopback network that is one test's for as long as this lives.
#[derive(Debug)]
pub(crate) struct Address {
    number: u32,
    _claim: UdpSocket,
}

impl Address {
    #[track_caller]
    pub(crate) fn claim() -> Self {
        let claimed = candidates().find_map(|number| {
            let number = number % ADDRESSES;
            let claim = UdpSocket::bind((ip(number), CLAIMS)).ok()?;
            Some(Self { number, _claim: claim })
        });
        claimed.expect("one of many addresses is free")
    }

    pub(crate) fn ip(&self) -> Ipv4Addr {
        ip(self.number)
    }

    /// A number below four million that no other claim has.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }
}

/// One of 127.128.0.0/10.
const fn ip(number: u32) -> Ipv4Addr {
    let [_, high, middle, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 128 | high, middle, low)
}

/// A port that is one test's on all addresses, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    pub(crate) const fn number(&self) -> u16 {
        self.number
    }

    #[track_caller]
    pub(crate) fn claim() -> Self {
        let claimed = candidates().find_map(|number| {
            let length = u32::from(PORTS.end - PORTS.start);
            let number = PORTS.start + u16::try_from(number % length).ok()?;
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, number));
            let claim = UdpSocket::bind(any).ok()?;
            // Another program may listen there.
            TcpListener::bind(any).ok()?;
            Some(Self { number, _claim: claim })
        });
        claimed.expect("one of many ports is free")
    }
}

/// Where to begin: elsewhere for each process, and for each claim of a process.
fn candidates() -> impl Iterator<Item = u32> {
    static CLAIMED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(61).wrapping_add(CLAIMED.fetch_add(1, Ordering::Relaxed));
    (0..TRIES).map(move |tried| first.wrapping_add(tried))
}
