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
        let (listeners, link) = (Listeners::new().unwrap(), Link::new(ours));
        let mut bench = Self { listeners, settings, address, link, _keeper: keeper };
        seats.iter().for_each(|seat| bench.open(*seat));
        bench
    }

    fn open(&mut self, seat: SeatId) {
        self.listeners.open(seat, &self.settings, &self.link).unwrap();
    }

    fn rotate(&mut self, seats: &[SeatId]) {
        let seats: Vec<_> = seats.iter().map(|seat| (*seat, 1)).collect();
        self.listeners.rotate("web", &seats, &self.link);
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
fn one_in_rotation_that_was_shut_down_listens_again() {
    let mut bench = Bench::new(&A[..3]);
    bench.rotate(&A[..2]);
    bench.shut_down(A[0]);
    bench.listeners.look_after_hangups(&bench.link);
    let got = bench.connect(&A[..3]);
    assert!(got[0] > 0 && got[1] > 0 && got[2] == 0, "{got:?}");
    // One that gets no connections does not.
    bench.shut_down(A[2]);
    bench.listeners.look_after_hangups(&bench.link);
    assert!(!socket::is_listening(&*bench.socket(A[2])).unwrap());
    assert_eq!(bench.policy(), "random");
    // Nothing is left to be told.
    assert_eq!(bench.listeners.hangups.take(), []);
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
    let mut next = Listeners::new().unwrap();
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

/// What a master that died as one left had no time to say.
#[test]
fn a_number_that_is_found_is_written_down() {
    let mut bench = Bench::new(&[A[2], A[1], A[0]]);
    // The last one gets its number.
    bench.shut_down(A[1]);
    next_master(&mut bench, [2, 1, 0]);
    let number = |seat| {
        let held = bench.link.mirror().lock();
        let entry = held.table.get(&key(KEY_PREFIX, "web", seat, &bench.settings.app.listen[0])).unwrap();
        records::read::<MemberRecord>(&entry.record).unwrap().number.unwrap()
    };
    let numbers = [number(A[0]), number(A[1]), number(A[2])];
    assert_eq!(numbers, [1, 2, 0]);
    next_master(&mut bench, numbers);
    bench.rotate(&[A[0]]);
    assert_eq!(bench.connect(&A[..3]), [60, 0, 0]);
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

/// A client that is led to a seat's member, and its address.
fn led(bench: &mut Bench, to: SeatId) -> (OwnedFd, SocketAddr) {
    let options = TcpOptions { reuse_port: false, v6only: None };
    let socket = socket::bind_tcp((bench.address.ip(), 0).into(), options).unwrap();
    let own = socket::local_address(&socket).unwrap();
    let (group, key) = (bench.settings.app.listen[0].clone(), bench.listeners.members[&to][0].key.clone());
    bench.listeners.lead("web", &group, &key, own, &bench.link).unwrap();
    (socket, own)
}

impl Bench {
    fn release(&mut self, client: SocketAddr) -> bool {
        let group = self.settings.app.listen[0].clone();
        self.listeners.release("web", &group, client, &self.link)
    }
}

#[test]
fn who_is_led_reaches_one_member() {
    let mut bench = Bench::new(&A);
    bench.rotate(&A[..1]);
    let clients: Vec<_> = A.iter().map(|seat| led(&mut bench, *seat)).collect();
    // Nothing that happens to the rotation changes that.
    bench.rotate(&A[1..3]);
    for (socket, own) in &clients {
        rustix::net::connect(socket, &bench.address).unwrap();
        assert!(bench.release(*own));
        assert!(!bench.release(*own));
    }
    assert_eq!(A.map(|seat| bench.listeners.queue(seat)), [Some(1); 4]);
    let got = bench.connect(&A);
    assert_eq!((got[0], got[1] + got[2], got[3]), (0, 60, 0));
}

#[test]
fn who_may_have_been_led_astray_is_told() {
    let mut bench = Bench::new(&A);
    bench.rotate(&A[..2]);
    let [(_, first), (stays, third), (_, last)] = [0, 2, 3].map(|seat| led(&mut bench, A[seat]));
    // The last one gets the number of one that leaves.
    bench.listeners.close(A[0], &bench.link);
    rustix::net::connect(&stays, &bench.address).unwrap();
    assert_eq!(bench.listeners.queue(A[2]), Some(1));
    assert_eq!([first, third, last].map(|client| bench.release(client)), [false, true, false]);

    let (_, client) = led(&mut bench, A[2]);
    bench.shut_down(A[1]);
    assert!(!bench.release(client));
}

#[test]
fn a_worker_is_reached_through_its_own_socket() {
    let bench = Bench::new(&A);
    let reach = |address: Option<&str>, captured| {
        let address = address.map(|address| ListenAddress::Tcp {
            address: address.parse().unwrap(),
            dual_stack: address.starts_with("[::]"),
        });
        bench.listeners.reach(A[1], WorkerId(1), &bench.settings, address.as_ref(), captured)
    };
    let port = bench.address.port();
    for address in [None, Some(bench.address.to_string()), Some(format!("[::]:{port}"))] {
        let own = reach(address.as_deref(), true);
        let expected = bench.listeners.members[&A[1]][0].key.clone();
        assert!(
            matches!(&own, Reach::Own { to, key, .. } if (*to, key) == (bench.address, &expected)),
            "{own:?}"
        );
    }
    // What nobody of the app listens on.
    let open = reach(Some("127.0.0.1:1"), true);
    assert!(matches!(&open, Reach::Open(Endpoint::Tcp(to)) if to.port() == 1), "{open:?}");
}

fn spread(bench: &mut Bench, balance: Balance, weights: &[u32]) {
    let spread = Spread::of(balance, weights, 4);
    bench.listeners.spread_out("web", spread, &bench.link);
}

#[test]
fn slots_get_what_they_weigh() {
    let mut bench = Bench::new(&A[..3]);
    bench.rotate(&A[..3]);
    let weights = |bench: &Bench| A.map(|seat| bench.listeners.weight("web", seat));
    assert_eq!(weights(&bench), [Some(1), Some(1), Some(1), None]);
    spread(&mut bench, Balance::Weighted, &[0, 9]);
    assert_eq!((bench.policy(), weights(&bench)), ("weighted", [Some(0), Some(9), Some(1), None]));
    let got = bench.connect(&A[..3]);
    assert!(got[0] == 0 && got[1] > 30, "{got:?}");
    bench.rotate(&A[1..3]);
    assert_eq!(weights(&bench)[0], Some(0));
    // Shares of the rotation count, too.
    bench.listeners.rotate("web", &[(A[1], 1), (A[2], 0)], &bench.link);
    assert_eq!(bench.connect(&A[..3]), [0, 60, 0]);
    spread(&mut bench, Balance::Random, &[]);
    assert_eq!((bench.policy(), weights(&bench)[2]), ("random", Some(0)));
}

#[test]
fn the_kernel_chooses_only_among_all() {
    let mut bench = Bench::new(&A);
    spread(&mut bench, Balance::Kernel, &[]);
    bench.rotate(&A[..3]);
    assert_eq!(bench.connect(&A[3..]), [0]);
    bench.rotate(&A);
    assert!(bench.connect(&A).iter().all(|got| *got > 0));
    assert_eq!((bench.policy(), bench.listeners.weight("web", A[0])), ("kernel", None));
    // One that joins gets nothing all the same, nor does one that leaves its place.
    bench.open(SUCCESSOR);
    assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
    bench.rotate(&[SUCCESSOR, A[1], A[2], A[3]]);
    bench.listeners.close(A[0], &bench.link);
    let got = bench.connect(&[SUCCESSOR, A[1], A[2], A[3]]);
    assert!(got.iter().all(|got| *got > 0), "{got:?}");
}

#[test]
fn one_socket_can_be_for_all() {
    let mut bench = Bench::new(&[]);
    let mut app = bench.settings.app.clone();
    app.balance = Balance::Shared;
    let own = std::mem::replace(&mut bench.settings, Settings::new(app, 1));
    spread(&mut bench, Balance::Shared, &[]);
    A.iter().for_each(|seat| bench.open(*seat));
    bench.rotate(&A);
    let first = bench.socket(A[0]);
    assert!(A.iter().all(|seat| Rc::ptr_eq(&first, &bench.socket(*seat))));
    assert_eq!((bench.policy(), bench.listeners.queue(A[0])), ("shared", None));
    bench.listeners.close(A[0], &bench.link);
    assert!(socket::is_listening(&*first).unwrap());

    // Other settings give its slot a socket of its own beside it, and the other way round.
    let shared = std::mem::replace(&mut bench.settings, own);
    spread(&mut bench, Balance::Random, &[]);
    bench.open(SUCCESSOR);
    bench.rotate(&[SUCCESSOR]);
    assert_eq!(bench.connect(&[SUCCESSOR]), [60]);
    assert_eq!(socket::queue_length(&*first).unwrap().length, 0);
    A.iter().for_each(|seat| bench.listeners.close(*seat, &bench.link));
    assert!(!socket::is_listening(&*first).unwrap());
    bench.settings = shared;
    bench.open(A[0]);
    assert!(!Rc::ptr_eq(&bench.socket(A[0]), &bench.socket(SUCCESSOR)));
}
