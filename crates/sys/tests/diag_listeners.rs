//! Listeners, as the kernel tells of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use supervisor_sys::diag::{Diag, Listening, overlaps};
use supervisor_sys::socket::{self, TcpOptions};

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

fn cookie(socket: impl AsFd) -> u64 {
    rustix::net::sockopt::socket_cookie(socket).unwrap()
}

#[test]
fn listeners_are_found_by_port() {
    let mut diag = Diag::new().unwrap();
    let options = TcpOptions { reuse_port: true, v6only: None };
    let first = socket::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), options).unwrap();
    let address = socket::local_address(&first).unwrap();
    assert_eq!(diag.listeners(Some(address.port())).unwrap(), [], "bound only");
    let second = socket::bind_tcp(address, options).unwrap();
    socket::listen(&first, 7).unwrap();
    socket::listen(&second, 9).unwrap();
    let of = |socket: &OwnedFd, backlog| Listening {
        local: address,
        v6only: None,
        inode: inode(socket),
        uid: rustix::process::getuid().as_raw(),
        cookie: cookie(socket),
        interface: 0,
        queue: 0,
        backlog,
    };
    let mut wanted = [of(&first, 7), of(&second, 9)];
    wanted.sort_by_key(|listener| listener.cookie);
    assert_eq!(diag.listeners(Some(address.port())).unwrap(), wanted);

    drop(second);
    let _clients = [address, address].map(|address| TcpStream::connect(address).unwrap());
    assert_eq!(diag.listeners(Some(address.port())).unwrap(), [Listening { queue: 2, ..of(&first, 7) }]);
    assert!(diag.listeners(None).unwrap().contains(&Listening { queue: 2, ..of(&first, 7) }));
}

/// The forms in which loopback can be bound: the address, and `IPV6_V6ONLY`.
const FORMS: [(&str, bool); 6] = [
    ("127.0.0.1", false),
    ("0.0.0.0", false),
    ("::", false),
    ("::", true),
    ("::1", false),
    ("::ffff:127.0.0.1", false),
];

/// Binds as a program does that shares nothing.
fn try_bind((ip, v6only): (&str, bool), port: u16) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(ip.parse().unwrap(), port);
    socket::bind_tcp(address, TcpOptions { reuse_port: false, v6only: Some(v6only) })
}

#[test]
fn what_overlaps_is_what_the_kernel_refuses() {
    let mut diag = Diag::new().unwrap();
    // A machine without IPv6 has less to show.
    let forms: Vec<_> = FORMS.into_iter().filter(|form| try_bind(*form, 0).is_ok()).collect();
    assert!(forms.len() >= 2);
    for taken in forms.iter().copied() {
        let listener = try_bind(taken, 0).unwrap();
        let port = socket::local_address(&listener).unwrap().port();
        socket::listen(&listener, 1).unwrap();
        let listeners = diag.listeners(Some(port)).unwrap();
        // Somebody else may listen on the port elsewhere, but not in the way of ours.
        let ours = listeners.iter().find(|found| found.cookie == cookie(&listener)).unwrap();
        let v6only = |v6: bool| v6.then(|| rustix::net::sockopt::ipv6_v6only(&listener).unwrap());
        assert_eq!(ours.v6only, v6only(taken.0.contains(':')), "{taken:?}");
        for wanted in forms.iter().copied() {
            let address = SocketAddr::new(wanted.0.parse().unwrap(), port);
            let overlapping = overlaps(address, wanted.1, &listeners);
            let refused = match try_bind(wanted, port) {
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => true,
                Err(error) => panic!("{wanted:?}: {error}"),
            };
            assert_eq!(!overlapping.is_empty(), refused, "{wanted:?} beside {taken:?}: {overlapping:?}");
        }
    }
}
