//! Who gets new connections, by `balance`.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use supervisor_sys::cpus::allowed_cpus;
use supervisor_sys::signal::Signal;
use supervisor_sys::socket::{self, TcpOptions};

use crate::claims::Port;
use crate::harness::{Home, number, text};
use crate::http;
use crate::process;
use crate::programs::{fixture, installed, worker};
use crate::wait::until;

/// The settings of our worker at an address.
fn settings(address: impl ToString, more: &str) -> String {
    let (worker, address) = (worker(), address.to_string());
    format!("command: [{}]\nmin_uptime: 50ms\nlisten: '{address}'\n{more}", text(&worker))
}

/// Addresses of IPv6 that are this machine's for the length of a test.
struct Network(Vec<Ipv6Addr>);

impl Network {
    fn new(home: &Home, count: u16) -> Self {
        // Its own, as far as the home's number is.
        let [a, b, c, d] = home.number().to_be_bytes().map(u16::from);
        let addresses = (1..=count).map(|number| Ipv6Addr::new(0xfd00, 0x2917, a, b, c, d, 0, number));
        let network = Self(addresses.collect());
        assert!(network.all("replace"), "addresses cannot be added");
        network
    }

    fn all(&self, what: &str) -> bool {
        let lines = self.0.iter().map(|address| format!("addr {what} {address}/128 dev lo\n"));
        let mut ip =
            Command::new(installed("ip")).args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let written = ip.stdin.take().map(|mut stdin| stdin.write_all(lines.collect::<String>().as_bytes()));
        written.is_some_and(|result| result.is_ok()) && ip.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.all("del");
    }
}

/// The slot that answers a client at this address.
fn slot_of(client: IpAddr, port: u16) -> io::Result<u32> {
    let server: IpAddr = match client {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = socket::bind_tcp((client, 0).into(), TcpOptions::default())?;
    rustix::net::connect(&socket, &SocketAddr::new(server, port))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /slot HTTP/1.1\r\nConnection: close\r\n\r\n")?;
    http::receive(stream)?.parse().map_err(io::Error::other)
}

#[test]
fn clients_stay_with_their_slot() {
    let home = Home::new();
    let network = Network::new(&home, 40);
    let claim = Port::claim();
    let port = claim.number();
    let v4 = (1..=200).map(|last| IpAddr::from(Ipv4Addr::new(127, 9, 0, last)));
    let clients: Vec<IpAddr> = v4.chain(network.0.iter().map(|address| IpAddr::from(*address))).collect();
    let slots = || -> Vec<u32> { clients.iter().map(|client| slot_of(*client, port).unwrap()).collect() };

    home.start_app("web", &settings(port, "instances: 4\nbalance: source-ip"));
    assert_eq!(home.app("web")["listeners"][0]["policy"], "source-ip");
    let all = slots();
    for (family, range) in [("IPv4", 0..200), ("IPv6", 200..240)] {
        assert!((0..4).all(|slot| all[range.clone()].contains(&slot)), "{family}: {:?}", &all[range]);
    }
    assert_eq!(slots(), all);

    home.ok(&["stop", "web:2"]);
    let others = slots();
    let moved = all.iter().zip(&others).filter(|(before, after)| before != after);
    assert!(moved.clone().all(|(before, _)| *before == 2), "{all:?} {others:?}");
    assert_eq!(moved.count(), all.iter().filter(|slot| **slot == 2).count());
    assert!([0, 1, 3].iter().all(|slot| all.iter().zip(&others).any(|moved| moved == (&2, slot))));

    // Nor does a crash of another worker move anybody.
    let [first, ..] = home.pids("web")[..] else { panic!("no worker") };
    process::signal(first, Signal::KILL);
    home.app_when("web", "has another worker", |app| {
        app["workers"][0]["state"] == "ready" && app["workers"][0]["pid"] != first
    });
    assert_eq!(slots(), others);
    home.ok(&["start", "web:2"]);
    assert_eq!(slots(), all);
    home.ok(&["reload", "web"]);
    assert_eq!(slots(), all);
}

/// The weights of the workers.
fn weights(app: &Value) -> Vec<Value> {
    app["workers"].as_array().unwrap().iter().map(|worker| worker["weight"].clone()).collect()
}

#[test]
fn weights_change_without_new_workers() {
    let home = Home::new();
    let slots = || -> Vec<String> { (0..30).map(|_| home.get("/slot").unwrap()).collect() };
    let with = |weights: &str| {
        settings(home.address(), &format!("instances: 3\nbalance: weighted\nweights: {weights}"))
    };
    home.start_app("web", &with("[0, 5, 0]"));
    let pids = home.pids("web");
    assert_eq!(weights(&home.app("web")), [0, 5, 0]);
    assert!(slots().iter().all(|slot| slot == "1"));

    let changed = home.start_app("web", &with("[0, 0]"));
    assert!(changed.stderr.contains("web changed") || changed.stdout.contains("web changed"), "{changed:?}");
    assert_eq!(weights(&home.app("web")), [0, 0, 1], "the rest weighs 1");
    assert!(slots().iter().all(|slot| slot == "2"));

    home.start_app("web", &settings(home.address(), "instances: 3\nbalance: kernel"));
    let app = home.app("web");
    assert_eq!((&app["listeners"][0]["policy"], weights(&app)), (&json!("kernel"), vec![Value::Null; 3]));
    home.start_app("web", &settings(home.address(), "instances: 3"));
    assert_eq!(weights(&home.app("web")), [1, 1, 1]);
    assert_eq!(home.pids("web"), pids);

    home.write_app("web", &settings(home.address(), "instances: 3\nweights: [1]"));
    let wrong = home.ends(2, &["start", "app.yaml"]);
    assert!(wrong.stderr.contains("`weights` is for `balance: weighted` only"), "{}", wrong.stderr);
}

#[test]
fn connections_stay_on_their_cpu() {
    let home = Home::new();
    let cpus = allowed_cpus().unwrap();
    let more = format!("instances: {}\nbalance: cpu\ncpu_affinity: auto", cpus.len());
    home.start_app("web", &settings(home.address(), &more));
    let address = home.address();
    for (slot, cpu) in cpus.into_iter().enumerate() {
        let client = thread::spawn(move || {
            let mut only = rustix::thread::CpuSet::new();
            only.set(cpu as usize);
            rustix::thread::sched_setaffinity(None, &only).unwrap();
            (0..20).map(|_| http::get(address, "/slot").unwrap()).collect::<Vec<String>>()
        });
        let slots = client.join().unwrap();
        assert!(slots.iter().all(|one| *one == slot.to_string()), "CPU {cpu}: {slots:?}");
    }
}

#[test]
fn who_joins_a_group_is_told() {
    let home = Home::new();
    home.start_app("web", &settings(home.address(), "instances: 2"));
    let policy = |wanted: &str| {
        home.app_when("web", wanted, |app| app["listeners"][0]["policy"] == wanted);
    };
    policy("random");
    // It is looked at after a change only, and that of the start is over when
    // nobody has been found in it for a while.
    let crash = || {
        let pid = home.pids("web")[0];
        process::signal(pid, Signal::KILL);
        home.app_when("web", "is whole again", |app| {
            app["state"] == "online" && number(&app["workers"][0]["pid"]) != pid
        });
    };
    let shared = TcpOptions { reuse_port: true, v6only: None };
    let stranger = socket::bind_tcp(home.address(), shared).unwrap();
    socket::listen(&stranger, 16).unwrap();
    crash();
    policy("kernel");
    let told = format!("web: another program (pid {}, ", std::process::id());
    let log = home.until_logged(&told);
    assert!(log.contains(&format!("listens on {}, too", home.address())), "{log}");
    assert_eq!(weights(&home.app("web")), [Value::Null, Value::Null]);
    drop(stranger);
    until("its leave is told", || {
        let log = home.daemon_log();
        log.contains("nobody else listens on") || log.contains("so their order is not known")
    });
    home.get("/pid").unwrap();
}

#[test]
fn who_does_not_accept_weighs_less() {
    let home = Home::new();
    home.start_app("web", &settings(home.address(), "instances: 2\nbalance: least-queue\nhang_timeout: 10m"));
    assert_eq!(home.app("web")["listeners"][0]["policy"], "least-queue");
    let [frozen, _] = home.pids("web")[..] else { panic!("two workers") };
    process::stop_and_wait(frozen);
    let mut clients = Vec::new();
    let weight = |app: &Value, slot: usize| app["workers"][slot]["weight"].as_u64().unwrap_or(0);
    until("connections avoid the frozen one", || {
        clients.push(http::send(home.address(), "/slot").unwrap());
        let app = home.app("web");
        weight(&app, 0) * 2 <= weight(&app, 1)
    });
    process::signal(frozen, Signal::CONT);
    for client in clients {
        http::receive(client).unwrap();
    }
    home.app_when("web", "is even again", |app| weight(app, 0) == weight(app, 1));
}

/// An app with one socket for all, through a crash and a reload.
#[track_caller]
fn shares(home: &Home, settings: &str) {
    let started = home.start_app("web", settings);
    assert!(started.stderr.contains("no worker can be taken out of rotation"), "{started:?}");
    let app = home.app_when("web", "listens", |app| app["listeners"][0]["policy"] == "shared");
    assert_eq!(weights(&app), [Value::Null, Value::Null]);
    let before = home.pids("web");
    home.get("/").unwrap();
    process::signal(before[0], Signal::KILL);
    home.app_when("web", "is whole again", |app| {
        app["state"] == "online" && app["workers"][0]["pid"] != before[0]
    });
    home.get("/").unwrap();
    home.ok(&["reload", "web"]);
    assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
    home.get("/").unwrap();
    // It is one socket: nobody else listens there.
    let listeners =
        Command::new(installed("ss")).args(["-Hltn", &format!("src {}", home.address())]).output().unwrap();
    let listeners = String::from_utf8(listeners.stdout).unwrap();
    assert_eq!(listeners.lines().count(), 1, "{listeners}");
}

#[test]
fn one_declared_socket_is_for_all() {
    let home = Home::new();
    shares(&home, &settings(home.address(), "instances: 2\nbalance: shared"));
    // A change to sockets of their own replaces the workers.
    let before = home.pids("web");
    home.start_app("web", &settings(home.address(), "instances: 2"));
    assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
    assert_eq!(home.app("web")["listeners"][0]["policy"], "random");
    home.get("/").unwrap();
}

#[test]
fn one_captured_socket_is_for_all() {
    let home = Home::new();
    let (node, script, address) = (installed("node"), fixture("bind/server.js"), home.address());
    let settings = format!(
        "command: [{}, {}]\ninstances: 2\nmin_uptime: 100ms\nbalance: shared\n\
         env: {{HOST: {}, PORT: '{}'}}",
        text(&node),
        text(&script),
        address.ip(),
        address.port()
    );
    shares(&home, &settings);
}
