//! `NOTIFY_SOCKET`: what workers say of themselves.

use std::os::unix::net::UnixDatagram;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, text};
use crate::programs::worker;
use crate::wait::{DEADLINE, eventually, until};
use crate::{http, process};

/// Our worker, which says what it is asked to.
fn settings(home: &Home, flags: &str, more: &str) -> String {
    let (worker, address) = (worker(), home.address());
    format!(
        "command: [{}{flags}]
        instances: 1
        min_uptime: 50ms
        listen: '{address}'
        {more}",
        text(&worker)
    )
}

#[test]
fn status_is_shown() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "", ""));
    assert_eq!(home.get("/notify?STATUS=warming%20up").unwrap(), "sent");
    home.app_when("web", "tells", |app| app["workers"][0]["message"] == "warming%20up");
}

#[test]
fn stopping_is_believed() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "", ""));
    home.get("/notify?STOPPING=1").unwrap();
    home.app_when("web", "is stopping", |app| app["workers"][0]["state"] == "stopping");
    home.get("/exit?0").unwrap_err();
    // It was not asked to: its slot wants a worker.
    home.app_when("web", "is back", |app| app["state"] == "online" && app["restarts"] == 1);
}

/// How long the first worker has lived, in seconds.
fn uptime(app: &serde_json::Value) -> f64 {
    app["workers"][0]["uptime_s"].as_f64().unwrap_or_default()
}

#[test]
fn more_time_to_start() {
    let home = Home::new();
    home.write_app("web", &settings(&home, "", "ready: notify\nlisten_timeout: 5s"));
    let start = home.command(&["start", "app.yaml"]).spawn().unwrap();
    eventually("it answers", || home.get("/notify?EXTEND_TIMEOUT_USEC=600000000").ok());
    home.app_when("web", "lives on", |app| uptime(app) > 5.5);
    home.get("/notify?READY=1").unwrap();
    let start = finish(start);
    assert_eq!(start.code, Some(0), "{start:?}");
}

#[test]
fn more_time_to_stop() {
    let home = Home::new();
    let flags = ", --ignore-term, --ready-after, '0'";
    home.start_app("web", &settings(&home, flags, "ready: notify\nkill_timeout: 5s"));
    let stop = home.command(&["stop", "web"]).spawn().unwrap();
    let begin = uptime(&home.app_in_state("web", "stopping"));
    home.get("/notify?EXTEND_TIMEOUT_USEC=600000000").unwrap();
    home.app_when("web", "lives on", |app| uptime(app) > begin + 5.5);
    home.get("/exit?4").unwrap_err();
    let stop = finish(stop);
    assert_eq!(stop.code, Some(0), "{stop:?}");
    assert_eq!(home.app("web")["workers"][0]["last_exit"]["code"], 4);
}

#[test]
fn ready_counts_only_where_it_is_waited_for() {
    let home = Home::new();
    let settings = settings(&home, ", --ready-after, '0'", "").replace("min_uptime: 50ms", "min_uptime: 10m");
    home.write_app("web", &settings);
    home.ok(&["start", "app.yaml", "--no-wait"]);
    eventually("it answers", || home.get("/notify?STATUS=here").ok());
    home.app_when("web", "tells", |app| app["workers"][0]["message"] == "here");
    assert_eq!(home.app("web")["state"], "starting");
}

#[test]
fn strangers_are_not_believed() {
    let home = Home::new();
    home.write_app("web", &settings(&home, "", "ready: notify"));
    home.ok(&["start", "app.yaml", "--no-wait"]);
    eventually("it answers", || home.get("/pid").ok());
    let pid = home.pids("web")[0];
    let environment = std::fs::read(process::path(pid, "environ")).unwrap();
    let socket = String::from_utf8(environment).unwrap();
    let socket = socket.split('\0').find_map(|line| line.strip_prefix("NOTIFY_SOCKET=@")).unwrap().to_owned();

    // A worker of another user with the first one's socket.
    home.let_others_in();
    let other = home.second_address();
    let stranger = home.copy("stranger", &worker());
    let stranger = format!(
        "command: [sh, -c, 'NOTIFY_SOCKET=@{socket} exec {}']
        instances: 1
        min_uptime: 50ms
        user: nobody
        listen: '{other}'",
        text(&stranger)
    );
    home.write_apps("other.yaml", &[("stranger", &stranger)]);
    home.ok(&["start", "other.yaml"]);
    for word in ["READY=1", "STATUS=stranger"] {
        assert_eq!(http::get(other, &format!("/notify?{word}")).unwrap(), "sent");
    }

    // Messages are read in order.
    home.get("/notify?STATUS=myself").unwrap();
    home.app_when("web", "tells", |app| app["workers"][0]["message"] == "myself");
    assert_eq!(home.app("web")["state"], "starting");
    home.get("/notify?READY=1").unwrap();
    until("it is online", || home.app("web")["state"] == "online");
}

#[test]
fn rubbish_is_passed_over() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "", ""));
    for text in ["", "=", "READY", "X=1", "EXTEND_TIMEOUT_USEC=soon", "WATCHDOG=1", &"x".repeat(10_000)] {
        assert_eq!(home.get(&format!("/notify?{text}")).unwrap(), "sent");
    }
    home.get("/notify?STATUS=fine").unwrap();
    home.app_when("web", "tells", |app| app["workers"][0]["message"] == "fine");
    assert_eq!(home.app("web")["state"], "online");
}

#[test]
fn a_service_manager_is_told() {
    let home = Home::new();
    let manager = UnixDatagram::bind(home.path("manager")).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let said = |word: &str| {
        while !next().lines().any(|line| line == word) {}
    };
    // One is not ready yet, the other fails.
    let ready = settings(&home, "", "ready: notify\nlisten_timeout: 10m");
    let failing = "command: ['false']\ninstances: 1\nrestart_delay: 10m";
    home.write_apps("app.yaml", &[("web", &ready), ("bad", failing)]);
    let run = home.command(&["run", "app.yaml"]).env("NOTIFY_SOCKET", home.path("manager")).spawn().unwrap();
    let first = next();
    assert!(
        first.contains("WATCHDOG=1\n") && first.contains("STATUS=starting: 0 of 2 workers ready"),
        "{first}"
    );
    assert!(first.contains("EXTEND_TIMEOUT_USEC=") && !first.contains("READY=1"), "{first}");
    eventually("it answers", || home.get("/notify?READY=1").ok());
    said("READY=1");
    assert_eq!(home.app("web")["state"], "online");
    // It beats, and nothing else.
    assert_eq!(next(), "WATCHDOG=1");
    process::signal(run.id(), Signal::TERM);
    said("STOPPING=1");
    assert_eq!(finish(run).code, Some(0));
}
