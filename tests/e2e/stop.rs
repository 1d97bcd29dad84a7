//! `stop`, and how workers end.

use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, text};
use crate::process;
use crate::programs::worker;
use crate::wait::{eventually, until};

#[test]
fn what_ignores_the_signal_is_killed_with_its_whole_family() {
    let home = Home::new();
    let command = format!("command: [{}, --ignore-term, --grandchildren, '4']", text(&worker()));
    home.start_app("web", &format!("{command}\nmin_uptime: 50ms\ninstances: 1\nkill_timeout: 300ms"));
    let worker = home.pids("web")[0];
    // Two of them have left the process group.
    let family = eventually("four children have started", || {
        let family = process::descendants(worker);
        (family.len() == 4).then_some(family)
    });
    let stopped = home.ok(&["stop", "web"]);
    assert!(stopped.stderr.contains("did not end in time, killing it"), "{}", stopped.stderr);
    assert!(!process::is_alive(worker));
    until("the family is gone", || family.iter().all(|pid| !process::is_alive(*pid)));
    let slot = &home.app("web")["workers"][0];
    assert_eq!(slot["state"], "stopped");
    assert_eq!(slot["last_exit"]["signal"], "SIGKILL");
    assert_eq!(slot["last_exit"]["reason"], "stopped as ordered, killed by SIGKILL");
    let (keeper, master) = home.daemon();
    until("no zombie is left", || process::descendants(keeper) == [master]);
}

/// Settings of workers that end when they are killed, and no sooner.
fn deaf() -> String {
    let flags = "--ignore-term, --ready-after, '0'";
    format!("command: [{}, {flags}]\nready: notify\nmin_uptime: 50ms\nkill_timeout: 10m", text(&worker()))
}

#[test]
fn now_means_at_once() {
    let home = Home::new();
    home.start_app("web", &format!("{}\ninstances: 2", deaf()));
    let pids = home.pids("web");
    home.ok(&["stop", "web", "--now"]);
    assert!(pids.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
fn a_second_stop_may_be_in_more_of_a_hurry() {
    let home = Home::new();
    home.start_app("web", &format!("{}\ninstances: 1", deaf()));
    let first = home.command(&["stop", "web"]).spawn().unwrap();
    home.app_in_state("web", "stopping");
    home.ok(&["stop", "web", "--now"]);
    let first = finish(first);
    assert_eq!(first.code, Some(5), "{first:?}");
    assert!(first.stderr.contains("a later order took its place"), "{first:?}");
}

#[test]
fn the_apps_own_signal_is_sent() {
    let home = Home::new();
    let script = "trap \"echo bye; exit 3\" USR2; echo ready; while :; do sleep 0.05; done";
    home.start_app(
        "web",
        &format!("command: [sh, -c, '{script}']\nmin_uptime: 50ms\ninstances: 1\nkill_signal: SIGUSR2"),
    );
    until("its trap is set", || home.log("web-out-0.log") == "ready\n");
    home.ok(&["stop", "web"]);
    let exit = &home.app("web")["workers"][0]["last_exit"];
    assert_eq!(exit["code"], 3);
    assert_eq!(exit["reason"], "stopped as ordered, exited with code 3");
    until("it has said goodbye", || home.log("web-out-0.log") == "ready\nbye\n");
}

#[test]
fn one_slot_alone() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 3");
    let before = home.pids("web");
    home.ok(&["stop", "web:1"]);
    assert_eq!(home.pids("web"), [before[0], before[2]]);
    let app = home.app("web");
    assert_eq!(app["workers"][1]["state"], "stopped");
    assert_eq!(app["instances"]["wanted"], 2);
    home.ends(3, &["stop", "web:7"]);
}

#[test]
fn a_stop_takes_the_place_of_a_start() {
    let home = Home::new();
    home.write_app("web", &format!("command: [{}]\nready: notify\nlisten_timeout: 10m", text(&worker())));
    let start = home.command(&["start", "app.yaml"]).spawn().unwrap();
    home.app_in_state("web", "starting");
    // Anything else has to wait.
    let busy = home.ends(5, &["restart", "web"]);
    assert!(busy.stderr.contains("another order is under way, a start that began"), "{}", busy.stderr);
    home.ok(&["stop", "web"]);
    assert_eq!(finish(start).code, Some(5));
    assert_eq!(home.app("web")["state"], "stopped");
}

#[test]
fn signals_are_forwarded() {
    let home = Home::new();
    let script = "trap \"echo hup\" HUP; echo ready; while :; do sleep 0.05; done";
    home.start_app("web", &format!("command: [sh, -c, '{script}']\nmin_uptime: 50ms\ninstances: 2"));
    let log = |slot| home.log(&format!("web-out-{slot}.log"));
    until("the traps are set", || log(0) == "ready\n" && log(1) == "ready\n");
    let sent = home.ok(&["signal", "HUP", "web:1"]);
    assert!(sent.stderr.contains("SIGHUP sent to 1 worker"), "{}", sent.stderr);
    until("it has arrived", || log(1) == "ready\nhup\n");
    assert_eq!(log(0), "ready\n");
    home.ok(&["signal", "1", "web"]);
    until("both have it", || log(0) == "ready\nhup\n" && log(1) == "ready\nhup\nhup\n");
    home.ends(2, &["signal", "NOSUCH", "web"]);
    home.ends(3, &["signal", "HUP", "api"]);
    // A signal that ends a worker is a crash like any other.
    process::signal(home.pids("web")[0], Signal::KILL);
    home.app_when("web", "has a replacement", |app| app["restarts"] == 1);
}
