//! Steering of real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use supervisor_sys::socket::{self, TcpOptions};
use supervisor_sys::steering::{steer, steer_weighted, unsteer};

/// Members of one group, in the order of their numbers.
struct Group {
    address: SocketAddr,
    members: Vec<OwnedFd>,
}

impl Group {
    fn new(count: usize) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
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

fn bind(address: SocketAddr) -> OwnedFd {
    socket::bind_tcp(address, TcpOptions { reuse_port: true, v6only: None }).unwrap()
}

#[test]
fn only_the_named_get_connections() {
    let mut group = Group::new(4);
    steer(&group.members[2], &[1, 3]).unwrap();
    let got = group.connect(100);
    assert_eq!((got[0], got[2], got[1] + got[3]), (0, 0, 100));
    assert!(got[1] > 10 && got[3] > 10, "{got:?}");

    // Who joins later gets none until its number is named.
    group.join(bind(group.address));
    assert_eq!(group.connect(50)[4], 0);
    steer(&group.members[0], &[4]).unwrap();
    assert_eq!(group.connect(50), [0, 0, 0, 0, 50]);

    unsteer(&group.members[0]).unwrap();
    unsteer(&group.members[0]).unwrap();
    let got = group.connect(200);
    assert!(got.iter().all(|got| *got > 0), "{got:?}");
}

#[test]
fn each_gets_as_many_as_it_weighs() {
    let group = Group::new(4);
    steer_weighted(&group.members[0], &[(0, 9), (1, 9), (3, 2)]).unwrap();
    let got = group.connect(400);
    // 180, 180 and 40 are expected, and the band is five standard deviations wide.
    assert!(got[2] == 0 && (130..230).contains(&got[0]) && (130..230).contains(&got[1]), "{got:?}");
    assert!((10..70).contains(&got[3]), "{got:?}");
    steer_weighted(&group.members[0], &[]).unwrap_err();
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
    steer(&group.members[0], &[1]).unwrap();
    assert_eq!(group.connect(50), [0, 50, 0]);

    // It can come back, as the last one.
    group.join(left);
    steer(&group.members[0], &[3]).unwrap();
    assert_eq!(group.connect(50), [0, 0, 0, 50]);
}

#[test]
fn one_address_alone_cannot_be_steered() {
    let alone =
        socket::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), TcpOptions { reuse_port: false, v6only: None })
            .unwrap();
    socket::listen(&alone, 1).unwrap();
    steer(&alone, &[0]).unwrap_err();
    steer(&alone, &[]).unwrap_err();
}
