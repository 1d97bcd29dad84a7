//! Workers that do nothing any more: their queues are answered by others, and
//! they are ended.

use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Home, text};
use crate::http;
use crate::process;
use crate::programs::{fixture, installed, worker};
use crate::wait::{eventually, until};

/// What a slot's last worker ended of.
fn reason(app: &Value, slot: usize) -> String {
    app["workers"][slot]["last_exit"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Sends requests until one waits in the queue of a slot.
fn until_one_waits(home: &Home, slot: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    until("a client waits", || {
        clients.push(eventually("a connection", || http::send(home.address(), "/pid").ok()));
        home.app("web")["workers"][slot]["queue"].as_u64() > Some(0)
    });
    clients
}

/// One of the workers is stopped, so that nothing of it moves.
#[track_caller]
fn check(home: &Home, settings: &str, slot: usize) {
    home.start_app("web", &format!("{settings}\nhang_timeout: 4s\nkill_timeout: 10s\nmin_uptime: 100ms"));
    let stopped = home.pids("web")[slot];
    process::stop_and_wait(stopped);
    let clients = until_one_waits(home, slot);
    // It still has its time to end when its successor answers.
    let app = home.app_when("web", "has a successor", |app| {
        app["workers"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "stopping"))
    });
    assert!(process::is_alive(stopped), "{app:#}");
    for client in clients {
        let pid: process::Number = http::receive(client).unwrap().parse().unwrap();
        assert_ne!(pid, stopped);
    }
    let app = home.app_when("web", "has lost it", |app| {
        app["state"] == "online" && reason(app, slot).contains("killed by SIGKILL")
    });
    let why = "hung: took no connection from its queue for 4s; ";
    assert!(reason(&app, slot).starts_with(why), "{app:#}");
    assert_eq!(app["workers"][slot]["restarts"], 1, "{app:#}");
    let log = home.until_logged("hangs, aborting it");
    // What it had was its successor's by then.
    assert!(!log.contains("does not listen"), "{log}");
}

#[test]
fn a_stopped_worker_of_three() {
    let home = Home::new();
    check(&home, &format!("command: [{}]\ninstances: 3\nlisten: '{}'", text(&worker()), home.address()), 1);
}

#[test]
fn a_stopped_worker_of_its_own_sockets() {
    let home = Home::new();
    let (address, node) = (home.address(), installed("node"));
    let settings = format!(
        "command: [{}, {}]\ninstances: 2\nready: listen\nenv: {{HOST: {}, PORT: '{}'}}",
        text(&node),
        text(&fixture("bind/server.js")),
        address.ip(),
        address.port()
    );
    check(&home, &settings, 0);
}

#[test]
fn a_stopped_worker_without_siblings() {
    let home = Home::new();
    check(&home, &format!("command: [{}]\ninstances: 1\nlisten: '{}'", text(&worker()), home.address()), 0);
}

#[test]
fn who_works_hard_does_not_hang() {
    let home = Home::new();
    let node = installed("node");
    // A loop that accepts nothing, but uses the CPU; and one that is looked at by nobody.
    let busy = "require(`net`).createServer().listen({fd: 3}); for (;;) {}";
    let app = |address, more: &str| {
        format!("command: [{}, -e, '{busy}']\ninstances: 1\nlisten: '{address}'\n{more}", text(&node))
    };
    home.write_apps(
        "app.yaml",
        &[
            ("busy", &app(home.address(), "hang_timeout: 1s")),
            ("unseen", &app(home.second_address(), "hang_timeout: 0")),
        ],
    );
    home.ok(&["start", "app.yaml"]);
    let clients = [home.address(), home.second_address()].map(|address| http::send(address, "/").unwrap());
    let hang = format!(
        "command: [{}, --hold]\ninstances: 1\nlisten: '{}'",
        text(&worker()),
        home.address_with(29_172)
    );
    home.write_apps("other.yaml", &[("web", &format!("{hang}\nhang_timeout: 3s\nkill_timeout: 100ms"))]);
    home.ok(&["start", "other.yaml"]);
    // Its hang is found later than theirs would be.
    let client = http::send(home.address_with(29_172), "/").unwrap();
    home.app_when("web", "has hung", |app| reason(app, 0).contains("hung"));
    for name in ["busy", "unseen"] {
        assert_eq!(home.app(name)["workers"][0]["restarts"], 0, "{name}");
    }
    drop((clients, client));
}

#[test]
fn who_does_not_say_that_it_is_alive() {
    let home = Home::new();
    let listen = format!("listen: '{}'", home.address());
    let settings = "ready: notify\nwatchdog: 3s\ninstances: 1\nmin_uptime: 100ms";
    let command = format!("command: [{}, --ready-after, '1', --alive]", text(&worker()));
    home.start_app("web", &format!("{command}\n{listen}\n{settings}"));
    let app = home.app_when("web", "has lived on", |app| app["workers"][0]["uptime_s"].as_f64() > Some(7.0));
    assert_eq!(app["workers"][0]["restarts"], 0, "{app:#}");
    home.get("/silent").unwrap();
    let app = home.app_when("web", "has another", |app| {
        app["workers"][0]["restarts"] == 1 && reason(app, 0).contains("SIGABRT")
    });
    assert_eq!(reason(&app, 0), "hung: no WATCHDOG=1 for 3s; killed by SIGABRT");
}
