//! Declared listeners: bound before the workers, kept beyond their lives.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;

use supervisor_sys::signal::Signal;

use crate::claims::Port;
use crate::harness::{Home, finish, text};
use crate::http;
use crate::load::Load;
use crate::paths::all_answer;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, worker};
use crate::wait::until;

/// The settings of our worker at the home's address.
fn settings(home: &Home, instances: u32) -> String {
    let worker = worker();
    let (worker, address) = (text(&worker), home.address());
    format!(
        "command: [{worker}]\nmin_uptime: 50ms\ninstances: {instances}\nhang_timeout: 10m\nlisten: '{address}'"
    )
}

#[test]
fn connections_spread_over_all_workers() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 4));
    let mut missing = home.pids("web");
    until("every worker has answered", || {
        let pid: Number = home.get("/pid").unwrap().parse().unwrap();
        missing.retain(|one| *one != pid);
        missing.is_empty()
    });
}

#[test]
fn the_queue_of_a_killed_worker_is_answered_by_its_replacement() {
    const CLIENTS: u64 = 20;
    let home = Home::new();
    home.start_app("web", &settings(&home, 1));
    let [old] = home.pids("web")[..] else { panic!("one worker") };
    process::stop_and_wait(old);
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| http::send(home.address(), "/pid").unwrap()).collect();
    home.app_when("web", "has a queue", |app| app["workers"][0]["queue"] == CLIENTS);
    process::signal(old, Signal::KILL);

    let app = home.app_when("web", "has another worker", |app| {
        app["workers"][0]["pid"].as_u64().is_some_and(|pid| pid != u64::from(old))
    });
    let new = app["workers"][0]["pid"].to_string();
    for client in clients {
        assert_eq!(http::receive(client).unwrap(), new);
    }
    let app = home.app_in_state("web", "online");
    assert_eq!(app["restarts"], 1);
    assert_eq!(app["workers"][0]["restarts"], 1);
    assert_eq!(app["workers"][0]["queue"], 0);
    assert_eq!(app["workers"][0]["last_exit"]["signal"], "SIGKILL");
    assert_eq!(app["workers"][0]["last_exit"]["reason"], "killed by SIGKILL");
}

#[test]
fn only_the_killed_workers_queue_moves() {
    const CLIENTS: usize = 40;
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let [dies, stays] = home.pids("web")[..] else { panic!("two workers") };
    process::stop_and_wait(dies);
    process::stop_and_wait(stays);
    let clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| http::send(home.address(), "/slot").unwrap()).collect();
    let queue = |app: &serde_json::Value, slot: usize| app["workers"][slot]["queue"].as_u64().unwrap_or(0);
    let app = home.app_when("web", "has queues", |app| queue(app, 0) + queue(app, 1) == CLIENTS as u64);
    process::signal(dies, Signal::KILL);
    process::signal(stays, Signal::CONT);
    let answers: Vec<String> = clients.into_iter().map(|client| http::receive(client).unwrap()).collect();
    let by = |slot| answers.iter().filter(|answer| *answer == slot).count() as u64;
    assert_eq!((by("0"), by("1")), (queue(&app, 0), queue(&app, 1)));
    assert_eq!(home.pids("web")[1], stays);
}

#[test]
fn a_crash_while_draining_after_scale_loses_no_queue() {
    const CLIENTS: usize = 40;
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let [stays, dies] = home.pids("web")[..] else { panic!("two workers") };
    process::stop_and_wait(dies);
    let clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| http::send(home.address(), "/slot").unwrap()).collect();
    let app = home.app_when("web", "has a queue", |app| app["workers"][1]["queue"].as_u64() > Some(0));
    let queue = app["workers"][1]["queue"].as_u64().unwrap();
    let scale = home.command(&["scale", "web", "1"]).spawn().unwrap();
    home.app_when("web", "drains", |app| app["workers"][1]["state"] == "draining");
    process::signal(dies, Signal::KILL);
    let answers: Vec<String> = clients.into_iter().map(|client| http::receive(client).unwrap()).collect();
    assert!(answers.iter().filter(|answer| *answer == "1").count() as u64 >= queue, "{answers:?}");
    let scale = finish(scale);
    assert_eq!(scale.code, Some(0), "{}", scale.stderr);
    assert_eq!(home.pids("web"), [stays]);
}

#[test]
fn a_crash_while_draining_in_a_reload_loses_no_queue() {
    const CLIENTS: u64 = 20;
    let home = Home::new();
    home.start_app("web", &settings(&home, 1));
    let [old] = home.pids("web")[..] else { panic!("one worker") };
    process::stop_and_wait(old);
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| http::send(home.address(), "/pid").unwrap()).collect();
    home.app_when("web", "has a queue", |app| app["workers"][0]["queue"] == CLIENTS);
    let reload = home.command(&["reload", "web"]).spawn().unwrap();
    home.until_logged("draining");
    process::signal(old, Signal::KILL);
    let mut answers: Vec<String> = clients.into_iter().map(|client| http::receive(client).unwrap()).collect();
    let reload = finish(reload);
    assert_eq!(reload.code, Some(0), "{}", reload.stderr);
    let new = home.pids("web")[0].to_string();
    answers.dedup();
    // Somebody who came for them alone.
    assert!(answers.len() == 1 && answers[0] != new && answers[0] != old.to_string(), "{answers:?} {new}");
    assert_eq!(home.app("web")["restarts"], 0);
}

#[test]
fn nobody_is_refused_while_workers_are_killed() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let load = Load::start(home.address());
    for _ in 0..5 {
        load.more(100);
        let pids = home.pids("web");
        process::signal(pids[0], Signal::KILL);
        home.app_when("web", "has two other workers", |app| {
            app["state"] == "online" && app["workers"][0]["pid"] != pids[0]
        });
    }
    load.more(100);
    let failures = load.finish();
    // What a killed worker had accepted is lost; a refusal would say so.
    assert!(failures.iter().all(|failure| !failure.contains("refused")), "{failures:?}");
    assert!(failures.len() <= 20, "{failures:?}");
    assert_eq!(home.app("web")["restarts"], 5);
}

#[test]
fn a_stopped_app_refuses_and_a_started_one_serves() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    home.get("/pid").unwrap();
    home.ok(&["stop", "web"]);
    home.until_refused();
    home.ok(&["start", "web"]);
    home.get("/pid").unwrap();
    home.ok(&["delete", "web"]);
    home.until_refused();
}

#[test]
fn a_restart_loses_no_connection() {
    let home = Home::new();
    home.start_app(
        "web",
        &format!(
            "command: [{}, {}]
            instances: 2
            min_uptime: 500ms
            listen: '{}'",
            text(&installed("node")),
            text(&fixture("server.js")),
            home.address()
        ),
    );
    let before = home.pids("web");
    let load = Load::start(home.address());
    load.more(100);
    home.ok(&["restart", "web"]);
    load.more(100);
    assert_eq!(load.finish(), [""; 0]);
    assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
}

#[test]
fn a_bare_port_takes_both_protocols() {
    let home = Home::new();
    let claim = Port::claim();
    let port = claim.number();
    home.start_app("web", &format!("command: [{}]\nmin_uptime: 50ms\nlisten: {port}", text(&worker())));
    assert_eq!(home.app("web")["listeners"][0]["address"], format!("[::]:{port}"));
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        http::get(address.parse().unwrap(), "/pid").unwrap();
    }
}

#[test]
fn a_port_that_the_worker_could_not_bind() {
    let home = Home::new();
    home.let_others_in();
    let worker = home.copy("worker", &worker());
    let address = home.address_with(917);
    home.start_app(
        "web",
        &format!(
            "command: [{}]\nmin_uptime: 50ms\ninstances: 2\nuser: nobody\nlisten: '{address}'",
            text(&worker)
        ),
    );
    let pid: Number = http::get(address, "/pid").unwrap().parse().unwrap();
    let status = fs::read_to_string(process::path(pid, "status")).unwrap();
    assert_eq!(process::field(&status, "Uid"), Some("65534\t65534\t65534\t65534"));
}

#[test]
fn a_unix_socket_is_shared_by_all_workers() {
    let home = Home::new();
    let path = home.path("web.sock");
    home.start_app(
        "web",
        &format!("command: [{}]\nmin_uptime: 50ms\ninstances: 2\nlisten: ./web.sock", text(&worker())),
    );
    let app = home.app("web");
    assert_eq!(app["listeners"][0]["address"], text(&path));
    assert_eq!(app["listeners"][0]["policy"], "shared");
    all_answer(&home, &path);
    let before = home.pids("web");
    before.iter().for_each(|pid| process::kill_and_wait(*pid));
    // It goes on listening, so this waits for a replacement.
    let body = http::ask(&path, "GET", "/pid", "").unwrap().body;
    assert!(before.iter().all(|pid| pid.to_string() != body));
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    home.ok(&["stop", "web"]);
    until("the path is gone", || !path.exists());
}

#[test]
fn two_apps_cannot_have_the_same_address() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 1));
    home.write_apps("other.yaml", &[("other", &settings(&home, 1))]);
    let failed = home.ends(1, &["start", "other.yaml"]);
    let told = format!("listen {}: app web has this address already", home.address());
    assert!(failed.stderr.contains(&told), "{}", failed.stderr);
    home.get("/pid").unwrap();
}

#[test]
fn what_workers_are_told_of_their_sockets() {
    let home = Home::new();
    let second = home.second_address();
    home.start_app(
        "web",
        &format!(
            "command: [sh, -c, 'echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; exec sleep 600']
            min_uptime: 50ms
            instances: 1
            listen: ['{}', '{second}', ./web.sock]",
            home.address(),
        ),
    );
    let pid = home.pids("web")[0];
    let expected =
        format!("{pid} {pid} 3 tcp-{}:tcp-{}:unix-web.sock\n", home.address().port(), second.port());
    until("it has told", || home.log("web-out-0.log") == expected);
}

#[test]
fn a_changed_address_moves() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let second = home.second_address();
    let changed = settings(&home, 2).replace(&home.address().to_string(), &second.to_string());
    home.start_app("web", &changed);
    http::get(second, "/pid").unwrap();
    home.until_refused();
}
