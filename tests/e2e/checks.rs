//! `ready: http`, `tcp` and `exec`: who is ready is found out by asking.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};

use serde_json::Value;

use crate::claims::Port;
use crate::harness::{Home, pids, text};
use crate::load::Load;
use crate::process;
use crate::programs::worker;
use crate::wait::{eventually, until};

/// Who makes the workers' sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listeners {
    /// The daemon, because of `listen`.
    Declared,
    /// Each worker, and the daemon sees it.
    Captured,
}

const BOTH: [Listeners; 2] = [Listeners::Declared, Listeners::Captured];

/// Settings of workers that serve an address.
fn serving(listeners: Listeners, address: SocketAddr, flags: &str, more: &str) -> String {
    let worker = worker();
    let (flags, listen) = match listeners {
        Listeners::Declared => (flags.to_owned(), format!("listen: '{address}'")),
        Listeners::Captured => (format!(", --bind, '{address}'{flags}"), String::new()),
    };
    format!("command: [{}{flags}]\nmin_uptime: 50ms\n{listen}\n{more}", text(&worker))
}

/// How many checks a slot's worker has answered so.
fn answered(home: &Home, slot: u32, status: u16) -> usize {
    home.log(&format!("web-out-{slot}.log")).matches(&format!("health {status}")).count()
}

fn states(app: &Value) -> Vec<&str> {
    app["workers"].as_array().unwrap().iter().map(|worker| worker["state"].as_str().unwrap()).collect()
}

#[test]
fn a_release_that_answers_500_is_rolled_back() {
    for listeners in BOTH {
        let home = Home::new();
        let address = home.address();
        let checked = "instances: 4\nready_check: {path: /health}";
        home.start_app("web", &serving(listeners, address, "", checked));
        let before = home.pids("web");
        let load = Load::start(address);
        load.more(100);
        home.write("ill-generation-2", "");
        home.write_app("web", &format!("{}\nlisten_timeout: 5s", serving(listeners, address, "", checked)));
        let reloaded = home.ends(6, &["reload", "app.yaml"]);
        let cause = format!(
            "web:0 failed: not ready within 5s: GET http://{address}/health answered 500 Internal Server Error, \
             wanted 200-399"
        );
        assert!(reloaded.stderr.contains(&cause), "{}", reloaded.stderr);
        load.more(100);
        assert_eq!(load.finish(), [""; 0]);
        let web = home.app_in_state("web", "online");
        assert_eq!((pids(&web), &web["generation"]), (before, &1.into()));
    }
}

#[test]
fn the_first_check_that_passes_makes_ready() {
    for listeners in BOTH {
        let home = Home::new();
        home.write("ill", "");
        // What the worker says of itself does not count.
        let more =
            "instances: 1\nready: http\nready_check: {path: /health, interval: 10ms}\nlisten_timeout: 10m";
        home.write_app("web", &serving(listeners, home.address(), ", --ready-after, '0'", more));
        home.ok(&["start", "--no-wait", "app.yaml"]);
        until("it is checked again and again", || answered(&home, 0, 500) >= 3);
        let web = home.app("web");
        assert_eq!(states(&web), ["starting"]);
        fs::remove_file(home.path("ill")).unwrap();
        home.app_in_state("web", "online");
        until("its answer is in the log", || answered(&home, 0, 200) > 0);
        // Nobody has lost patience.
        assert_eq!(pids(&home.app("web")), pids(&web));
    }
}

/// Three of four answer well. The fourth is not ready, wherever its connections
/// might have gone.
#[track_caller]
fn a_sibling_does_not_answer(home: &Home, listeners: Listeners, address: SocketAddr) {
    home.write("ill-slot-2", "");
    let more = "instances: 4\nready_check: {path: /health, interval: 10ms}\nlisten_timeout: 10m";
    home.write_app("web", &serving(listeners, address, "", more));
    home.ok(&["start", "--no-wait", "app.yaml"]);
    home.app_when("web", "has three that are ready", |app| app["instances"]["ready"] == 3);
    until("the fourth is checked", || answered(home, 2, 500) >= 20);
    assert_eq!(states(&home.app("web")), ["ready", "ready", "starting", "ready"]);
    fs::remove_file(home.path("ill-slot-2")).unwrap();
    home.app_in_state("web", "online");
    // Each has answered for itself. Whom others have moved meanwhile was asked again.
    until("their answers are in the logs", || (0..4).all(|slot| answered(home, slot, 200) > 0));
    assert_eq!([0, 1, 3].map(|slot| answered(home, slot, 500)), [0; 3]);
}

#[test]
fn no_sibling_answers() {
    for listeners in BOTH {
        let home = Home::new();
        a_sibling_does_not_answer(&home, listeners, home.address());
    }
}

#[test]
fn no_sibling_answers_with_ipv6() {
    for listeners in BOTH {
        // There is one address, so the port is its own.
        let port = Port::claim();
        a_sibling_does_not_answer(&Home::new(), listeners, (Ipv6Addr::LOCALHOST, port.number()).into());
    }
}

#[test]
fn a_connection_has_to_be_taken() {
    for listeners in BOTH {
        let home = Home::new();
        let address = home.address();
        let more = "instances: 2\nready: tcp\nready_check: {timeout: 100ms}";
        home.start_app("web", &serving(listeners, address, "", more));
        let more = format!("{more}\nlisten_timeout: 5s");
        home.write_app("web", &serving(listeners, address, ", --hold", &more));
        let reloaded = home.ends(6, &["reload", "app.yaml"]);
        let cause = format!("not ready within 5s: connect {address}: not accepted within 100ms");
        assert!(reloaded.stderr.contains(&cause), "{}", reloaded.stderr);
    }
}

#[test]
fn a_unix_socket() {
    let home = Home::new();
    home.start_app(
        "web",
        &format!(
            "command: [{}]\ninstances: 2\nlisten: ./web.sock\nready_check: {{path: /health}}",
            text(&worker())
        ),
    );
    // Who has the socket may answer for the other.
    until("their answers are in the logs", || answered(&home, 0, 200) + answered(&home, 1, 200) >= 2);
}

#[test]
fn nobody_listens() {
    let home = Home::new();
    let address = home.address();
    for (more, cause) in [
        (
            format!("exec_mode: fork\nready: http\nready_check: {{address: '{address}'}}"),
            format!("GET http://{address}/: connection refused"),
        ),
        (format!("ready_check: {{address: '{address}'}}"), format!("connect {address}: connection refused")),
        ("ready: tcp".to_owned(), "it does not listen on a port yet".to_owned()),
    ] {
        home.write_app("web", &format!("command: [sleep, '600']\ninstances: 1\nlisten_timeout: 2s\n{more}"));
        let started = home.ends(1, &["start", "app.yaml"]);
        let cause = format!("not ready within 2s: {cause}; ");
        assert!(started.stderr.contains(&cause), "{cause} {}", started.stderr);
        home.app_when("web", "tells the cause", |app| {
            app["workers"][0]["last_exit"]["reason"].as_str().is_some_and(|reason| reason.contains(&cause))
        });
        home.ok(&["delete", "web"]);
    }
}

#[test]
fn a_program_checks_as_the_worker_would() {
    let home = Home::new();
    home.let_others_in();
    let say = "echo first; echo \"$(id -un) $(pwd) $COLOUR $SUPERVISOR_INSTANCE pid:$SUPERVISOR_WORKER_PID \
               ${NOTIFY_SOCKET:-none}\" >&2; exit 3";
    home.write("check.sh", say);
    home.write_app(
        "web",
        "command: [sleep, '600']\ninstances: 1\nuser: nobody\nenv: {COLOUR: blue}\nlisten_timeout: 6s\n\
         ready_check: {command: sh check.sh, timeout: 10s}",
    );
    home.ok(&["start", "--no-wait", "app.yaml"]);
    let pid = eventually("a worker", || home.pids("web").first().copied());
    let web = home.app_when("web", "has failed", |app| !app["workers"][0]["last_exit"].is_null());
    let folder = fs::canonicalize(home.path(".")).unwrap();
    let cause =
        format!("not ready within 6s: sh: exit code 3: nobody {} blue 0 pid:{pid} none; ", text(&folder));
    let reason = web["workers"][0]["last_exit"]["reason"].as_str().unwrap();
    assert!(reason.contains(&cause), "{reason}");
    home.write("check.sh", "exit 0");
    home.app_in_state("web", "online");
}

/// A check whose program stays, and the number of that.
fn staying(home: &Home, timeout: &str) -> process::Number {
    home.write("check.sh", "echo $$ > number; mv number pid; sleep 600");
    home.write_app(
        "web",
        &format!(
            "command: [sleep, '600']\ninstances: 1\nlisten_timeout: 1h\n\
             ready_check: {{command: sh check.sh, timeout: {timeout}}}"
        ),
    );
    home.ok(&["start", "--no-wait", "app.yaml"]);
    eventually("a check", || fs::read_to_string(home.path("pid")).ok()?.trim().parse().ok())
}

#[test]
fn a_program_that_stays_is_killed() {
    let home = Home::new();
    let check = staying(&home, "2s");
    until("it has ended", || !process::is_alive(check));
}

#[test]
fn what_a_program_leaves_is_killed() {
    let home = Home::new();
    home.write("check.sh", "yes & echo $! > pid");
    home.start_app(
        "web",
        "command: [sleep, '600']\ninstances: 1\nready_check: {command: sh check.sh, timeout: 10s}",
    );
    let left = fs::read_to_string(home.path("pid")).unwrap().trim().parse().unwrap();
    until("it has ended", || !process::is_alive(left));
}

#[test]
fn a_check_ends_with_its_worker() {
    for order in [&["stop", "web"][..], &["delete", "--now", "web"]] {
        let home = Home::new();
        let check = staying(&home, "10m");
        assert!(process::is_alive(check));
        home.ok(order);
        until("it has ended", || !process::is_alive(check));
    }
    let home = Home::new();
    let check = staying(&home, "10m");
    process::kill(home.pids("web")[0]);
    until("it has ended", || !process::is_alive(check));
}
