//! Connections, as the kernel tells of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use supervisor_sys::Pid;
use supervisor_sys::diag::{Connection, Diag, State, inodes_of};

/// More than a tick of any kernel, milliseconds.
const TICKS: u32 = 30;

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

fn cookie(socket: impl AsFd) -> u64 {
    rustix::net::sockopt::socket_cookie(socket).unwrap()
}

/// A server in this process, which has one connection.
struct Server {
    listener: TcpListener,
    port: u16,
    diag: Diag,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port, diag: Diag::new().unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    /// What there is, as soon as it is as wanted.
    #[track_caller]
    fn wait_for_all(&mut self, wanted: impl Fn(&[Connection]) -> bool) -> Vec<Connection> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = self.diag.connections(self.port).unwrap();
            if wanted(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{found:?}");
            std::thread::yield_now();
        }
    }

    /// The only connection, as soon as it is as wanted.
    #[track_caller]
    fn wait_for(&mut self, wanted: impl Fn(&Connection) -> bool) -> Connection {
        self.wait_for_all(|found| found.len() == 1 && wanted(&found[0])).remove(0)
    }
}

#[test]
fn a_connection_belongs_to_who_accepts_it() {
    let mut server = Server::new();
    let client = server.connect();
    let waiting = server.wait_for(|_| true);
    assert_eq!(waiting.inode, 0);
    assert_eq!(waiting.local, client.peer_addr().unwrap());
    assert_eq!(waiting.peer, client.local_addr().unwrap());
    assert_eq!((waiting.state, waiting.bytes_received, waiting.bytes_sent), (State::Established, 0, 0));
    assert!(waiting.is_in_flight(None) || waiting.last_received_ms > 900, "it is young");

    let accepted = server.accept();
    let found = server.wait_for(|found| found.inode != 0);
    assert_eq!((found.inode, found.cookie), (inode(&accepted), cookie(&accepted)));
    assert_eq!(found.cookie, waiting.cookie);
    let own = inodes_of([rustix::process::getpid()]).unwrap();
    assert!(
        [inode(&accepted), inode(&client), inode(&server.listener)].iter().all(|inode| own.contains(inode))
    );

    // Both sides' names are gone, though the client still has its end.
    drop(accepted);
    server.wait_for_all(<[_]>::is_empty);
}

#[test]
fn a_request_is_in_flight_until_its_answer_has_arrived() {
    let mut server = Server::new();
    let mut client = server.connect();
    let mut accepted = server.accept();
    client.write_all(b"question").unwrap();
    let unread = server.wait_for(|found| found.receive_queue == 8);
    assert_eq!(unread.bytes_received, 8);
    assert!(unread.is_in_flight(None));
    accepted.read_exact(&mut [0; 8]).unwrap();
    let unanswered = server.wait_for(|found| found.receive_queue == 0 && found.last_received_ms > TICKS);
    assert!(unanswered.is_in_flight(Some(&unread)));
    assert!(!unanswered.is_busy_within(Duration::from_millis(TICKS.into())));

    accepted.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let answered = server.wait_for(|found| found.send_queue == 0 && found.last_sent_ms > TICKS);
    assert_eq!((answered.bytes_received, answered.bytes_sent), (8, 6));
    assert!(!answered.is_in_flight(None), "{answered:?}");

    // Again, on the same connection.
    client.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    let unanswered = server.wait_for(|found| found.bytes_received == 16);
    assert!(unanswered.is_in_flight(Some(&answered)), "{unanswered:?}");
    server.wait_for(|found| found.last_received_ms > TICKS);
    accepted.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let answered = server.wait_for(|found| found.send_queue == 0);
    assert!(!answered.is_in_flight(Some(&unanswered)), "{answered:?}");
    assert!(answered.is_busy_within(Duration::from_secs(3600)));
}

#[test]
fn idle_ones_are_known_even_when_they_were_fast() {
    let mut server = Server::new();
    let mut client = server.connect();
    let mut accepted = server.accept();
    let idle = loop {
        for _ in 0..20 {
            client.write_all(b"question").unwrap();
            accepted.read_exact(&mut [0; 8]).unwrap();
            accepted.write_all(b"answer").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        // The client acknowledges the last answer when it has had no next request to do it with, within 200 ms;
        // but at once after a pause, which a busy machine may make: then there is another try.
        let found = server.wait_for(|found| found.send_queue == 0 && found.last_sent_ms > 400);
        if found.last_acknowledged_ms < found.last_received_ms {
            break found;
        }
    };
    assert!(!idle.is_in_flight(None), "{idle:?}");

    // An answer, and the next request at once.
    client.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    accepted.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    client.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    let unanswered = server.wait_for(|found| found.last_received_ms > 300);
    assert!(unanswered.is_in_flight(None), "{unanswered:?}");
}

#[test]
fn an_answer_that_is_not_taken_is_in_flight() {
    let mut server = Server::new();
    let mut client = server.connect();
    let mut accepted = server.accept();
    client.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    accepted.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match accepted.write(&[b'x'; 65536]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    let full = server.wait_for(|found| found.last_received_ms > TICKS);
    assert!(
        full.send_queue > 0 && full.is_in_flight(None) && full.is_busy_within(Duration::ZERO),
        "{full:?}"
    );
    client.read_exact(&mut vec![0; written]).unwrap();
    let taken = server.wait_for(|found| found.send_queue == 0);
    assert!(taken.bytes_sent >= written as u64);
    assert!(!taken.is_in_flight(Some(&full)));
}

#[test]
fn the_end_of_a_stream_is_no_byte() {
    let mut server = Server::new();
    let client = server.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let ended = server.wait_for(|found| found.state == State::CloseWait);
    assert_eq!((ended.receive_queue, ended.bytes_received), (0, 0));
    assert!(!ended.is_in_flight(None), "nothing more can come: {ended:?}");
    let mut accepted = server.accept();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    let read = server.wait_for(|_| true);
    assert_eq!((read.receive_queue, read.bytes_received), (0, 0));
    drop(accepted);
    server.wait_for_all(<[_]>::is_empty);

    // A request whose client says that it was the last one still wants its answer.
    let mut client = server.connect();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let ended = server.wait_for(|found| found.state == State::CloseWait);
    assert_eq!((ended.receive_queue, ended.bytes_received), (8, 8));
    let mut accepted = server.accept();
    accepted.read_to_end(&mut Vec::new()).unwrap();
    let unanswered = server.wait_for(|found| found.receive_queue == 0 && found.last_received_ms > TICKS);
    assert_eq!(unanswered.bytes_received, 8);
    assert!(unanswered.is_in_flight(None));
    accepted.write_all(b"answer").unwrap();
    let answered = server.wait_for(|found| found.send_queue == 0 && found.bytes_sent == 6);
    assert!(!answered.is_in_flight(None), "{answered:?}");
}

#[test]
fn who_has_ended_its_side_owes_nothing() {
    let mut server = Server::new();
    let mut client = server.connect();
    let accepted = server.accept();
    accepted.shutdown(Shutdown::Write).unwrap();
    let ended = server.wait_for(|found| found.state == State::FinWait2);
    assert!(!ended.is_in_flight(None), "{ended:?}");
    client.write_all(b"question").unwrap();
    let unread = server.wait_for(|found| found.receive_queue == 8);
    assert!(unread.is_in_flight(None));
}

#[test]
fn whose_sockets_are_whose() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let held = inode(&listener);
    // The child has it as its standard input.
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
    let mut child = Command::new("sleep")
        .arg("600")
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let found = inodes_of([pid]);
    child.kill().unwrap();
    // While it is a zombie and when it is gone it has none.
    let zombie = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), zombie).unwrap();
    let of_zombie = inodes_of([pid]).unwrap();
    child.wait().unwrap();
    assert_eq!(found.unwrap(), HashSet::from([held]));
    assert_eq!(of_zombie, HashSet::new());
    assert_eq!(inodes_of([pid]).unwrap(), HashSet::new());
}
