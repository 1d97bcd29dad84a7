//! Steering of real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use supervisor_sys::socket::{self, TcpOptions};
use supervisor_sys::steering::{self, By, MAX_PROBES, Pick, Probe, Share, unsteer};

/// Members of one group, in the order of their numbers.
struct Group {
    address: SocketAddr,
    members: Vec<OwnedFd>,
}

impl Group {
    fn new(count: usize) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), count)
    }

    fn at(ip: IpAddr, count: usize) -> Self {
        let any = SocketAddr::from((ip, 0));
        let first = bind(any);
        let address = socket::local_address(&first).unwrap();
        let mut group = Self { address, members: Vec::new() };
        group.join(first);
        for _ in 1..count {
            group.join(bind(address));
        }
        group
    }

    fn join(&mut self, member: OwnedFd) {
        socket::listen(&member, 511).unwrap();
        self.members.push(member);
    }

    /// Makes this many connections. Returns how many wait for each member.
    fn connect(&self, count: usize) -> Vec<u32> {
        let before = self.waiting();
        for _ in 0..count {
            // What is closed by its client stays in the queue.
            drop(TcpStream::connect(self.address).unwrap());
        }
        self.waiting().into_iter().zip(before).map(|(after, before)| after - before).collect()
    }

    fn waiting(&self) -> Vec<u32> {
        let length = |member| socket::queue_length(member).map_or(0, |queue| queue.length);
        self.members.iter().map(length).collect()
    }
}

/// Lets chance choose among these.
fn steer(socket: impl AsFd, probes: &[Probe], numbers: &[u32]) -> std::io::Result<()> {
    let shares: Vec<Share> =
        numbers.iter().map(|number| Share { number: *number, weight: 1, home: 0 }).collect();
    let pick = (!shares.is_empty()).then_some(Pick { by: By::Chance, homes: 0, shares });
    steering::steer(socket, probes, pick.as_ref())
}

fn bind(address: SocketAddr) -> OwnedFd {
    socket::bind_tcp(address, TcpOptions { reuse_port: true, v6only: None }).unwrap()
}

#[test]
fn only_the_named_get_connections() {
    let mut group = Group::new(4);
    steer(&group.members[2], &[], &[1, 3]).unwrap();
    let got = group.connect(100);
    assert_eq!((got[0], got[2], got[1] + got[3]), (0, 0, 100));
    assert!(got[1] > 10 && got[3] > 10, "{got:?}");

    // Who joins later gets none until its number is named.
    group.join(bind(group.address));
    assert_eq!(group.connect(50)[4], 0);
    steer(&group.members[0], &[], &[4]).unwrap();
    assert_eq!(group.connect(50), [0, 0, 0, 0, 50]);

    unsteer(&group.members[0]).unwrap();
    unsteer(&group.members[0]).unwrap();
    let got = group.connect(200);
    assert!(got.iter().all(|got| *got > 0), "{got:?}");
}

#[test]
fn the_last_one_takes_the_number_of_one_that_leaves() {
    let mut group = Group::new(4);
    assert!(socket::is_listening(&group.members[1]).unwrap());
    // Somebody else may hold it, too.
    let held = group.members[1].try_clone().unwrap();
    socket::stop_listening(&group.members[1]).unwrap();
    assert!(!socket::is_listening(held).unwrap());
    let left = group.members.swap_remove(1);
    steer(&group.members[0], &[], &[1]).unwrap();
    assert_eq!(group.connect(50), [0, 50, 0]);

    // It can come back, as the last one.
    group.join(left);
    steer(&group.members[0], &[], &[3]).unwrap();
    assert_eq!(group.connect(50), [0, 0, 0, 50]);
}

#[test]
fn one_address_alone_cannot_be_steered() {
    let alone =
        socket::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), TcpOptions { reuse_port: false, v6only: None })
            .unwrap();
    socket::listen(&alone, 1).unwrap();
    steer(&alone, &[], &[0]).unwrap_err();
    steer(&alone, &[], &[]).unwrap_err();
}

/// A client that is known before it connects, and the connection that it makes.
fn client(to: SocketAddr) -> (OwnedFd, SocketAddr) {
    let socket =
        socket::bind_tcp((to.ip(), 0).into(), TcpOptions { reuse_port: false, v6only: None }).unwrap();
    let own = socket::local_address(&socket).unwrap();
    (socket, own)
}

#[test]
fn a_probe_reaches_its_member_and_nobody_else_does() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let group = Group::at(ip, 4);
        // Out of the rotation, in it, and with no rotation at all.
        for (index, policy) in [(0, &[1, 2][..]), (1, &[1, 2]), (3, &[])] {
            let (socket, client) = client(group.address);
            let decoy = Probe { client: "192.0.2.1:1".parse().unwrap(), index: 2 };
            steer(&group.members[0], &[decoy, Probe { client, index }], policy).unwrap();
            let before = group.waiting();
            rustix::net::connect(&socket, &group.address).unwrap();
            let got: Vec<u32> =
                group.waiting().iter().zip(&before).map(|(after, before)| after - before).collect();
            let expected: Vec<u32> = (0..4).map(|number| u32::from(number == index)).collect();
            assert_eq!(got, expected);
            let others = group.connect(50);
            if !policy.is_empty() {
                assert_eq!((others[0], others[3]), (0, 0));
            }
        }
    }
    let alone = Group::new(1);
    let probe = Probe { client: alone.address, index: 0 };
    steer(&alone.members[0], &[probe; MAX_PROBES], &[0]).unwrap();
    steer(&alone.members[0], &[probe; MAX_PROBES + 1], &[0]).unwrap_err();
}

/// The members that connections from these addresses come to.
fn homes(group: &Group, clients: &[SocketAddr]) -> Vec<usize> {
    let member = |client: &SocketAddr| {
        let before = group.waiting();
        let socket = socket::bind_tcp(*client, TcpOptions::default()).unwrap();
        rustix::net::connect(&socket, &group.address).unwrap();
        group.waiting().iter().zip(before).position(|(after, before)| *after > before).unwrap()
    };
    clients.iter().map(member).collect()
}

#[test]
fn clients_have_a_home() {
    let group = Group::new(4);
    let clients: Vec<SocketAddr> = (1..=100).map(|last| SocketAddr::from(([127, 3, 0, last], 0))).collect();
    let steer = |lost: Option<u32>| {
        let shares = (0..4).filter(|number| Some(*number) != lost);
        let shares = shares.map(|number| Share { number, weight: 1, home: number }).collect();
        let pick = Pick { by: By::Source, homes: 4, shares };
        steering::steer(&group.members[0], &[], Some(&pick)).unwrap();
        homes(&group, &clients)
    };
    let all = steer(None);
    assert!((0..4).all(|number| all.contains(&number)), "{all:?}");
    let others = steer(Some(2));
    assert!(!others.contains(&2));
    assert!(all.iter().zip(&others).all(|(before, after)| before == after || *before == 2));
    assert_eq!(steer(None), all);
}
