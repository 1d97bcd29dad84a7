//! Workers' output.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, text};
use crate::process;
use crate::programs::worker;
use crate::wait::until;

/// Our worker, which writes what it is asked to.
fn start(home: &Home, flags: &str, settings: &str) {
    let (worker, address) = (worker(), home.address());
    home.start_app(
        "web",
        &format!("command: [{}{flags}]\nmin_uptime: 50ms\nlisten: '{address}'\n{settings}", text(&worker)),
    );
}

#[test]
fn both_streams_of_all_slots_are_shown() {
    let home = Home::new();
    home.start_app(
        "web",
        "command: [sh, -c, 'echo out $SUPERVISOR_INSTANCE; echo err $SUPERVISOR_INSTANCE >&2; exec sleep 60']
        min_uptime: 50ms
        instances: 2",
    );
    until("all has arrived", || home.ok(&["logs"]).stdout.lines().count() == 4);
    let sorted = |args: &[&str]| {
        let mut lines: Vec<String> = home.ok(args).stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&["logs"]), ["web:0 ! err 0", "web:0 | out 0", "web:1 ! err 1", "web:1 | out 1"]);
    assert_eq!(sorted(&["logs", "web:1"]), ["web:1 ! err 1", "web:1 | out 1"]);
    assert_eq!(sorted(&["logs", "--err"]), ["web:0 ! err 0", "web:1 ! err 1"]);
    assert_eq!(sorted(&["logs", "--out"]), ["web:0 | out 0", "web:1 | out 1"]);
    let json = home.ok(&["logs", "web:0", "--out", "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"event": "line", "app": "web", "slot": 0, "stream": "out", "line": "out 0"})
    );
}

#[test]
fn the_last_lines_of_each_file() {
    let home = Home::new();
    home.start_app("web", "command: [sh, -c, 'seq 1 1000; exec sleep 60']\nmin_uptime: 50ms\ninstances: 1");
    until("all has arrived", || home.log("web-out-0.log").lines().count() == 1000);
    let lines = |args: &[&str]| home.ok(args).stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&["logs", "--lines", "2"]), ["web:0 | 999", "web:0 | 1000"]);
    assert_eq!(lines(&["logs"]).len(), 15);
    assert_eq!(lines(&["logs", "--lines", "0"]), [""; 0]);
    assert_eq!(lines(&["logs", "--lines", "5000"]).len(), 1000);
}

/// `logs -f` at work.
struct Follow {
    logs: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follow {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut logs = home.command(&[&["logs", "-f"], args].concat()).spawn().unwrap();
        let lines = BufReader::new(logs.stdout.take().unwrap()).lines();
        Self { logs, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

#[test]
fn new_lines_are_followed() {
    let home = Home::new();
    start(&home, "", "instances: 1");
    home.get("/out?before").unwrap();
    let mut follow = Follow::start(&home, &["web"]);
    assert_eq!(follow.next(), "web:0 | before");
    home.get("/out?one").unwrap();
    assert_eq!(follow.next(), "web:0 | one");
    home.get("/error?two").unwrap();
    assert_eq!(follow.next(), "web:0 ! two");
    // Over the end of a life, too.
    process::kill_and_wait(home.pids("web")[0]);
    home.get("/out?three").unwrap();
    assert_eq!(follow.next(), "web:0 | three");
    process::signal(follow.logs.id(), Signal::INT);
    assert_eq!(finish(follow.logs).code, Some(0));
    assert_eq!(home.log("web-out-0.log"), "before\none\nthree\n");
}

#[test]
fn following_ends_with_the_daemon() {
    let home = Home::new();
    start(&home, "", "instances: 1");
    home.get("/out?before").unwrap();
    let mut follow = Follow::start(&home, &[]);
    follow.next();
    home.ok(&["kill"]);
    let followed = finish(follow.logs);
    assert_eq!(followed.code, Some(1), "{followed:?}");
}

#[test]
fn files_of_the_apps_own() {
    let home = Home::new();
    start(&home, "", "instances: 1\nout_file: own/out.log\nerror_file: /dev/null");
    home.get("/error?nowhere").unwrap();
    home.get("/out?hello").unwrap();
    let read = |name: &str| std::fs::read_to_string(home.path(name)).unwrap_or_default();
    until("it has arrived", || read("own/out.log") == "hello\n");
    assert!(!home.daemon_folder().join("log/web-error-0.log").exists());
    assert_eq!(home.ok(&["logs"]).stdout, "web:0 | hello\n");

    // Several workers do not share a file.
    start(&home, "", "instances: 2\nout_file: own/both.log");
    until("both have written", || {
        home.get("/out?hello").unwrap();
        !read("own/both-0.log").is_empty() && !read("own/both-1.log").is_empty()
    });
}

#[test]
fn lines_that_are_odd() {
    let home = Home::new();
    // Bytes that are no text, escape codes, a carriage return, no end.
    let script = r#"printf "\377\376\n\033[31mred\033[0m\ncr\r\nno end"; exec sleep 60"#;
    home.start_app("web", &format!("command: [sh, -c, '{script}']\nmin_uptime: 50ms\ninstances: 1"));
    until("all has arrived", || {
        std::fs::read(home.daemon_folder().join("log/web-out-0.log")).unwrap_or_default().ends_with(b"no end")
    });
    let shown = home.ok(&["logs"]).stdout;
    assert_eq!(shown.lines().count(), 4, "{shown:?}");
    assert!(shown.contains("web:0 | cr\n") && shown.contains("web:0 | no end\n"), "{shown:?}");
}

#[test]
fn a_flood_delays_nobody() {
    let home = Home::new();
    let worker = worker();
    let flood = format!(
        "command: [{}, --flood]
min_uptime: 50ms
instances: 2",
        text(&worker)
    );
    let calm = format!(
        "command: [{}]
min_uptime: 50ms
instances: 1
listen: '{}'",
        text(&worker),
        home.address()
    );
    home.write_apps("app.yaml", &[("flood", &flood), ("calm", &calm)]);
    home.ok(&["start", "app.yaml"]);
    for restarts in 1..=3 {
        process::kill_and_wait(home.pids("calm")[0]);
        home.get("/out?still here").unwrap();
        home.app_when("calm", "is back", |app| app["restarts"] == restarts && app["state"] == "online");
    }
    until("its lines arrive", || home.log("calm-out-0.log").lines().count() == 3);
    home.ok(&["stop", "flood"]);
}
