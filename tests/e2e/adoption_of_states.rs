//! What is under way when a master is killed goes on with the next one: holds of
//! canaries, checks, hangs, sockets that are one for all workers.

use std::fs;

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::adoption::replace_master;
use crate::harness::{Home, finish, pids, text};
use crate::http;
use crate::load::Load;
use crate::paths::all_answer;
use crate::process;
use crate::programs::{fixture, in_python_environment, installed, worker};
use crate::reload_together::{CANARY, captured, serving, settings, weights};
use crate::wait::until;

/// Waits until the master has looked after everything that it looks after once
/// a second.
#[track_caller]
fn until_looked_after(home: &Home) {
    let uptime = || home.status()["daemon"]["uptime_s"].as_f64();
    until("the master has looked after its workers", || uptime() > Some(3.0));
}

/// Kills masters of workers that share a socket, then replaces the workers.
#[track_caller]
fn check_shared(home: &Home, answers: impl Fn()) {
    answers();
    let before = home.pids("web");
    for _ in 0..2 {
        replace_master(home);
        answers();
    }
    until_looked_after(home);
    answers();
    assert_eq!(home.pids("web"), before);
    assert!(!home.daemon_log().contains("does not listen on"), "{}", home.daemon_log());
    process::signal(before[0], Signal::KILL);
    home.app_when("web", "has a replacement", |app| {
        app["state"] == "online" && app["workers"][0]["pid"] != before[0]
    });
    replace_master(home);
    answers();
    home.ok(&["reload", "web"]);
    let after = home.pids("web");
    assert!(after.iter().all(|pid| !before.contains(pid)));
    // Whoever made the socket is gone.
    replace_master(home);
    until_looked_after(home);
    answers();
    assert_eq!(home.pids("web"), after);
    assert!(!home.daemon_log().contains("does not listen on"), "{}", home.daemon_log());
}

#[test]
fn a_unix_socket_of_the_workers_own() {
    let home = Home::new();
    let socket = home.path("web.sock");
    let python = in_python_environment("python");
    let settings = format!(
        "command: [{}, {}]\ninstances: 2\nmin_uptime: 100ms\nready: listen\nenv: {{SOCKET: {}}}",
        text(&python),
        text(&fixture("bind/path.py")),
        text(&socket)
    );
    home.start_app("web", &settings);
    check_shared(&home, || all_answer(&home, &socket));
    // A worker's path still comes back, and goes in the end.
    fs::remove_file(&socket).unwrap();
    until("the path comes back", || socket.exists());
    home.ok(&["stop", "web"]);
    until("the path is gone", || !socket.exists());
}

#[test]
fn a_socket_that_is_one_for_all() {
    let home = Home::new();
    let address = home.address();
    let own = format!(
        "command: [{}, {}]\nenv: {{HOST: '{}', PORT: '{}'}}\nready: listen",
        text(&installed("node")),
        text(&fixture("bind/server.js")),
        address.ip(),
        address.port()
    );
    let declared = format!("command: [{}]\nlisten: '{address}'", text(&worker()));
    for settings in [own, declared] {
        home.start_app("web", &format!("{settings}\nbalance: shared\ninstances: 3\nmin_uptime: 50ms"));
        check_shared(&home, || (0..20).for_each(|_| _ = http::get(address, "/").unwrap()));
        assert_eq!(home.app("web")["listeners"][0]["policy"], "shared");
        home.ok(&["delete", "web"]);
    }
}

#[test]
fn canaries_are_held_for_the_time_that_is_left() {
    let home = Home::new();
    for settings in [settings(&home, CANARY), captured(&home, CANARY)] {
        home.start_app("web", &settings);
        let before = home.pids("web");
        let load = Load::start(home.address());
        let reload = home.command(&["reload", "web"]).spawn().unwrap();
        let canaries = serving(&home.app_when("web", "has canaries", |app| !serving(app, 2).is_empty()), 2);
        replace_master(&home);
        let web = home.app("web");
        assert_eq!(
            (&web["state"], serving(&web, 2), serving(&web, 1).len()),
            (&"reloading".into(), canaries, 4)
        );
        assert_eq!(weights(&web), [9, 4, 9, 9, 9]);
        load.more(20);
        home.ok(&["reload", "--abort", "web"]);
        assert_eq!(finish(reload).code, Some(6));
        let web = home.app_in_state("web", "online");
        assert_eq!((pids(&web), &web["generation"]), (before, &1.into()));
        load.more(20);
        assert_eq!(load.finish(), Vec::<String>::new());
        home.ok(&["delete", "web"]);
    }
}

#[test]
fn canaries_become_all_under_the_next_master() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "{mode: canary, steps: [25%, 50%, 100%], hold: 2s}"));
    let before = home.pids("web");
    let load = Load::start(home.address());
    let reload = home.command(&["reload", "web"]).spawn().unwrap();
    home.app_when("web", "has canaries", |app| !serving(app, 2).is_empty());
    replace_master(&home);
    home.app_when("web", "has more of them", |app| serving(app, 2).len() > 1);
    replace_master(&home);
    let web = home.app_when("web", "is reloaded", |app| {
        app["state"] == "online" && pids(app).iter().all(|pid| !before.contains(pid))
    });
    assert_eq!((&web["generation"], &web["restarts"], pids(&web).len()), (&2.into(), &0.into(), 4));
    load.more(20);
    assert_eq!(load.finish(), Vec::<String>::new());
    let _ = finish(reload);
}

#[test]
fn who_is_not_ready_yet_is_checked_on() {
    let home = Home::new();
    home.write("ill", "");
    let check = "ready: http\nready_check: {path: /health, interval: 10ms}";
    let address = home.address();
    home.write_app(
        "web",
        &format!("command: [{}]\nlisten: '{address}'\ninstances: 2\n{check}", text(&worker())),
    );
    home.ok(&["start", "--no-wait", "app.yaml"]);
    let answered = |status: &str| {
        let log = home.log("web-out-0.log");
        log.matches(&format!("health {status}")).count()
    };
    until("it is checked", || answered("500") > 0);
    let before = home.pids("web");
    replace_master(&home);
    let known = answered("500");
    until("it is checked again", || answered("500") > known);
    let web = home.app("web");
    assert_eq!((&web["state"], pids(&web)), (&"starting".into(), before.clone()));
    fs::remove_file(home.path("ill")).unwrap();
    let web = home.app_in_state("web", "online");
    assert_eq!((&web["restarts"], pids(&web)), (&0.into(), before));
}

#[test]
fn who_hangs_is_ended_by_the_next_master() {
    let home = Home::new();
    let address = home.address();
    let settings = format!(
        "command: [{}, {}]\ninstances: 2\nready: listen\nenv: {{HOST: {}, PORT: '{}'}}",
        text(&installed("node")),
        text(&fixture("bind/server.js")),
        address.ip(),
        address.port()
    );
    // It has time to end until the next master has been looked at.
    let hang = "hang_timeout: 4s\nkill_timeout: 15s\nmin_uptime: 100ms";
    home.start_app("web", &format!("{settings}\n{hang}"));
    let stopped = home.pids("web")[0];
    process::stop_and_wait(stopped);
    let load = Load::with_clients(address, 4);
    let is_stopping = |worker: &Value| worker["state"] == "stopping";
    home.app_when("web", "has a successor", |app| {
        let workers = app["workers"].as_array().unwrap();
        workers.iter().any(is_stopping) && workers.iter().filter(|one| one["state"] == "ready").count() == 2
    });
    replace_master(&home);
    let successor = home.pids("web")[0];
    assert!(process::is_alive(stopped));
    load.more(20);
    home.app_when("web", "has lost it", |app| {
        app["state"] == "online" && !app["workers"].as_array().unwrap().iter().any(is_stopping)
    });
    let web = home.app("web");
    assert_eq!((pids(&web)[0], &web["workers"][0]["restarts"]), (successor, &1.into()), "{web:#}");
    load.more(20);
    assert_eq!(load.finish(), Vec::<String>::new());
}
