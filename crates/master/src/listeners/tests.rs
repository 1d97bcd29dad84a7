//! Groups of real sockets: who gets new connections.

use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use supervisor_sys::fdpass;

use super::*;
use crate::state;

/// An app with one address, and a keeper that nobody reads.
struct Bench {
    listeners: Listeners,
    settings: Rc<Settings>,
    address: SocketAddr,
    link: Link,
    _keeper: OwnedFd,
}

const fn seat(index: u32, side: Side) -> SeatId {
    SeatId { slot: SlotId { app: AppId(1), index }, side }
}

const A: [SeatId; 4] = [seat(0, Side::A), seat(1, Side::A), seat(2, Side::A), seat(3, Side::A)];
const SUCCESSOR: SeatId = seat(0, Side::B);

impl Bench {
    fn new(seats: &[SeatId]) -> Self {
        let any = TcpOptions { reuse_port: false, v6only: None };
        let free = socket::bind_tcp(([127, 0, 0, 1], 0).into(), any).unwrap();
        let address = socket::local_address(&free).unwrap();
        drop(free);
        let app = json!({"schema": 1, "apps": [{"generation": 1, "instances": 4,
            "settings": {"name": "web", "command": ["true"], "cwd": "/"}}]});
        let (mut app, _) = state::decode(app.to_string().as_bytes()).unwrap().apps.remove(0);
        app.listen = vec![ListenAddress::Tcp { address, dual_stack: false }];
        let (ours, keeper) = fdpass::seqpacket_pair().unwrap();
        let settings = Settings::new(app, 1);
        let (listeners, link) = (Listeners::default(), Link::new(ours));
        let mut bench = Self { listeners, settings, address, link, _keeper: keeper };
        seats.iter().for_each(|seat| bench.open(*seat));
        bench
    }

    fn open(&mut self, seat: SeatId) {
        self.listeners.open(seat, &self.settings, &self.link).unwrap();
    }

    fn rotate(&mut self, seats: &[SeatId]) {
        self.listeners.rotate("web", seats, &self.link);
    }

    fn policy(&self) -> &'static str {
        self.listeners.policy("web", &self.settings.app.listen[0])
    }

    fn socket(&self, seat: SeatId) -> Rc<OwnedFd> {
        Rc::clone(&self.listeners.members[&seat][0].socket)
    }

    /// What a worker can do to its own socket.
    fn shut_down(&self, seat: SeatId) {
        socket::stop_listening(&*self.socket(seat)).unwrap();
    }

    /// Makes 60 connections. Returns how many of them each seat got.
    fn connect(&self, seats: &[SeatId]) -> Vec<u64> {
        let waiting = || seats.iter().map(|seat| self.listeners.queue(*seat).unwrap_or(0));
        let before: Vec<u64> = waiting().collect();
        for _ in 0..60 {
            // What is closed by its client stays in the queue.
            drop(TcpStream::connect(self.address).unwrap());
        }
        waiting().zip(before).map(|(after, before)| after - before).collect()
    }
}

#[test]
fn nobody_out_of_rotation_is_reached() {
    let mut bench = Bench::new(&A);
    assert_eq!(bench.policy(), "kernel");
    bench.rotate(&[A[0], A[1], A[3]]);
    assert_eq!(bench.policy(), "random");
    let got = bench.connect(&A);
    assert_eq!((got[2], got[0] + got[1] + got[3]), (0, 60), "{got:?}");

    // Nor one that joins, until it is named.
    bench.open(SUCCESSOR);
    assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
    bench.rotate(&[]);
    assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
    bench.rotate(&[SUCCESSOR]);
    assert_eq!(bench.connect(&[SUCCESSOR]), [60]);
}

#[test]
fn one_that_leaves_changes_nothing_for_the_others() {
    let mut bench = Bench::new(&A);
    bench.rotate(&[A[1], A[3]]);
    // The last one moves.
    let held = bench.socket(A[0]);
    bench.listeners.close(A[0], &bench.link);
    assert!(!socket::is_listening(&*held).unwrap(), "whoever else holds it");
    let got = bench.connect(&A[1..]);
    assert_eq!((got[1], got[0] + got[2]), (0, 60), "{got:?}");
}

#[test]
fn a_socket_that_was_shut_down_makes_no_room_in_the_rotation() {
    let mut bench = Bench::new(&A[..3]);
    bench.rotate(&A[..3]);
    bench.shut_down(A[0]);
    bench.open(SUCCESSOR);
    assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
    assert_eq!(bench.policy(), "random");
    // It comes back as the last one, and waits to be named.
    bench.listeners.hand_over(A[0], &bench.settings, &bench.link).unwrap();
    assert_eq!(bench.connect(&[A[0], SUCCESSOR]), [0, 0]);
    bench.rotate(&[A[0]]);
    assert_eq!(bench.connect(&A[..1]), [60]);
}

#[test]
fn an_unknown_order_is_left_to_the_kernel() {
    let mut bench = Bench::new(&A);
    bench.rotate(&A[..2]);
    bench.shut_down(A[0]);
    bench.shut_down(A[2]);
    bench.rotate(&[A[1]]);
    assert_eq!(bench.policy(), "kernel");
    let got = bench.connect(&[A[1], A[3]]);
    assert!(got.iter().all(|got| *got > 0), "{got:?}");
}

/// A new master's listeners, with the sockets and numbers of the one before.
fn next_master(bench: &mut Bench, numbers: [u32; 3]) {
    let mut next = Listeners::default();
    for (seat, number) in A.into_iter().zip(numbers) {
        let socket = bench.socket(seat).try_clone().unwrap();
        let key = key(KEY_PREFIX, "web", seat, &bench.settings.app.listen[0]);
        next.inherit(key, &to_json(&json!({"number": number})), socket);
    }
    bench.listeners = next;
    A[..3].iter().for_each(|seat| bench.open(*seat));
    bench.listeners.drop_inherited(&bench.link);
}

#[test]
fn the_next_master_goes_on_steering() {
    let mut bench = Bench::new(&A[..3]);
    bench.rotate(&A[..2]);
    next_master(&mut bench, [0, 1, 2]);
    bench.rotate(&[A[2]]);
    assert_eq!(bench.connect(&A[..3]), [0, 0, 60]);
}

#[test]
fn a_program_of_former_times_does_not_stay() {
    let mut bench = Bench::new(&A[..3]);
    bench.rotate(&[A[1]]);
    next_master(&mut bench, [0, 0, 0]);
    assert_eq!(bench.policy(), "kernel");
    let got = bench.connect(&A[..3]);
    assert!(got.iter().all(|got| *got > 0), "{got:?}");
}
