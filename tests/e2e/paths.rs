//! Programs that bind a Unix socket for themselves, unmodified: they share it.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, text};
use crate::http;
use crate::process::{self, Number};
use crate::programs::{fixture, in_python_environment, installed};
use crate::wait::{eventually, until};

/// The process that answers.
pub(crate) fn asked(socket: &Path) -> Option<Number> {
    http::ask(socket, "GET", "/pid", "").ok()?.body.trim().parse().ok()
}

/// Waits until each worker has answered.
#[track_caller]
pub(crate) fn all_answer(home: &Home, socket: &Path) {
    let mut missing: BTreeSet<Number> = home.pids("web").into_iter().collect();
    until("every worker has answered", || {
        // At once: of those who wait for a client at one socket the same may win each time.
        let answers: Vec<Option<Number>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| asked(socket))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        for pid in answers.into_iter().flatten() {
            // It may be a child of the worker.
            missing.retain(|one| *one != pid && *one != process::parent(pid));
        }
        missing.is_empty()
    });
}

/// The command of a Node program that serves at `$SOCKET`.
pub(crate) fn in_node(home: &Home) -> String {
    let script =
        "require('http').createServer((q, a) => a.end(String(process.pid))).listen(process.env.SOCKET)";
    format!("[{}, {}]", text(&installed("node")), text(&home.write("server.js", script)))
}

/// Two workers at one path, one of them killed, all replaced, all stopped.
#[track_caller]
fn check(home: &Home, command: &str) {
    let socket = home.path("web.sock");
    let settings = format!(
        "command: {command}\ninstances: 2\nmin_uptime: 100ms\nready: listen\nenv: {{SOCKET: web.sock}}"
    );
    home.start_app("web", &settings);
    all_answer(home, &socket);
    let listener = &home.app("web")["listeners"][0];
    assert_eq!(listener["address"], text(&std::fs::canonicalize(&socket).unwrap()));
    assert_eq!((&listener["origin"], &listener["policy"]), (&"captured".into(), &"shared".into()));

    let pids = home.pids("web");
    process::signal(pids[0], Signal::KILL);
    home.app_when("web", "has a replacement", |app| {
        app["state"] == "online" && app["workers"][0]["pid"] != pids[0]
    });
    all_answer(home, &socket);

    home.ok(&["reload", "web"]);
    assert!(home.pids("web").iter().all(|pid| !pids.contains(pid)));
    all_answer(home, &socket);

    home.ok(&["stop", "web"]);
    until("the path is gone", || !socket.exists());
    home.ok(&["start", "web"]);
    all_answer(home, &socket);
    home.ok(&["delete", "web"]);
    let left = |name: &std::ffi::OsStr| name.to_string_lossy().contains("web.sock");
    until("nothing is left", || {
        !std::fs::read_dir(home.path(".")).unwrap().any(|entry| left(&entry.unwrap().file_name()))
    });
}

#[test]
fn a_node_server() {
    let home = Home::new();
    check(&home, &in_node(&home));
}

#[test]
fn a_server_that_removes_its_path() {
    let home = Home::new();
    let python = in_python_environment("python");
    check(&home, &format!("[{}, {}]", text(&python), text(&fixture("bind/path.py"))));
}

#[test]
fn a_path_that_a_sibling_removes_before_anybody_listens() {
    let home = Home::new();
    let (python, socket) = (in_python_environment("python"), home.path("web.sock"));
    for when in ["before", "after"] {
        let settings = format!(
            "command: [{}, {}]\ninstances: 2\nready: listen\nenv: {{SOCKET: web.sock, WHEN: {when}}}",
            text(&python),
            text(&fixture("bind/race.py")),
        );
        home.start_app("web", &settings);
        all_answer(&home, &socket);
        assert!(!home.daemon_log().contains("cannot be restored"), "{}", home.daemon_log());
        std::fs::remove_file(&socket).unwrap();
        eventually("an answer", || asked(&socket));
        home.ok(&["delete", "web"]);
        until("the path is gone", || !socket.exists());
    }
}

#[test]
fn a_server_that_does_not_say_that_it_listens() {
    let home = Home::new();
    let (gunicorn, folder) = (in_python_environment("gunicorn"), fixture("."));
    check(
        &home,
        &format!(
            "[{}, --chdir, {}, --bind, 'unix:{}', wsgi]",
            text(&gunicorn),
            text(&folder),
            text(&home.path("web.sock"))
        ),
    );
}

#[test]
fn a_path_that_a_worker_removes_comes_back() {
    let home = Home::new();
    let socket = home.path("web.sock");
    let python = in_python_environment("python");
    let settings = format!(
        "command: [{}, {}]\ninstances: 2\nready: listen\nenv: {{SOCKET: {}}}",
        text(&python),
        text(&fixture("bind/path.py")),
        text(&socket)
    );
    home.start_app("web", &settings);
    all_answer(&home, &socket);
    std::fs::remove_file(&socket).unwrap();
    eventually("an answer", || asked(&socket));
    // Another app cannot have it.
    home.write_app("other", &settings.replace("instances: 2", "instances: 1\nlisten_timeout: 5s"));
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("app web has this address already"), "{failed:?}");
    home.ok(&["delete", "--now", "other"]);
    all_answer(&home, &socket);
}

#[test]
fn a_path_that_somebody_has_is_tried_again() {
    let home = Home::new();
    let socket = home.path("web.sock");
    let stranger = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let settings = format!(
        "command: {}\ninstances: 2\nmin_uptime: 100ms\nready: listen\nrestart_backoff: 1\nenv: {{SOCKET: {}}}",
        in_node(&home),
        text(&socket)
    );
    home.write_app("web", &settings);
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("EADDRINUSE"), "{failed:?}");
    home.app_when("web", "has failed again, for the same reason", |app| {
        let worker = &app["workers"][0];
        worker["restarts"].as_u64() > Some(2) && worker["last_exit"]["code"] == 1
    });
    drop(stranger);
    std::fs::remove_file(&socket).unwrap();
    home.app_in_state("web", "online");
    all_answer(&home, &socket);
}
