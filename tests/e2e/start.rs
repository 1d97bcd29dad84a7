//! `start`: what it waits for, and how it fails.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Home, finish, pids, text};
use crate::process;
use crate::programs::worker;
use crate::wait::until;

#[test]
fn it_waits_until_every_worker_is_ready() {
    let home = Home::new();
    let started = home.start_app(
        "web",
        &format!(
            "command: [{}, --ready-after, '300']
            instances: 2
            ready: notify
            min_uptime: 10ms",
            text(&worker())
        ),
    );
    let app = home.app("web");
    assert_eq!(app["state"], "online", "{started:?}");
    assert_eq!(app["instances"], serde_json::json!({"wanted": 2, "ready": 2, "running": 2}));
    assert!(started.stderr.contains("web:1 ready"), "{}", started.stderr);
    assert!(started.stderr.contains("web started, 2 workers ready"), "{}", started.stderr);
    assert_eq!(started.stdout, "");
}

#[test]
fn it_need_not_wait() {
    let home = Home::new();
    home.write_app("web", &format!("command: [{}]\nready: notify\nlisten_timeout: 10m", text(&worker())));
    home.ok(&["start", "app.yaml", "--no-wait"]);
    assert_eq!(home.app("web")["state"], "starting");
}

/// A start whose first life fails: exit code 1, and the cause as the last
/// reason in the status.
#[track_caller]
fn check_failure(home: &Home, settings: &str, cause: &str) {
    home.write_app("web", &format!("{settings}\ninstances: 1"));
    let failed = home.ends(1, &["start", "app.yaml"]);
    let line = format!("web:0 failed: {cause}");
    assert!(failed.stderr.lines().any(|told| told == line), "{line:?} is not in {}", failed.stderr);
    assert!(failed.stderr.contains("the daemon keeps trying"), "{}", failed.stderr);
    home.app_when("web", "tells the cause", |app| {
        app["workers"][0]["last_exit"]["reason"].as_str().is_some_and(|reason| reason == cause)
    });
}

#[test]
fn a_program_that_is_not_there() {
    let home = Home::new();
    check_failure(&home, "command: [/nowhere/nodee]", "exec /nowhere/nodee: no such file or directory");
    let home = Home::new();
    home.write_app("web", "command: [no-such-program]");
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("web:0 failed: exec no-such-program: not found in PATH"), "{failed:?}");
}

#[test]
fn a_program_that_is_not_executable() {
    let home = Home::new();
    let file = home.write("server", "#!/bin/sh\n");
    let cause = format!("exec {}: not an executable file", file.display());
    check_failure(&home, &format!("command: [{}]", text(&file)), &cause);
}

#[test]
fn a_file_that_is_no_program() {
    let home = Home::new();
    let file = home.write("server", "just text\n");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    let cause = format!("exec {}: exec format error", file.display());
    check_failure(&home, &format!("command: [{}]", text(&file)), &cause);
}

#[test]
fn a_working_directory_that_is_not_there() {
    check_failure(
        &Home::new(),
        "command: [sleep, '600']\ncwd: /nowhere/at/all",
        "chdir /nowhere/at/all: no such file or directory",
    );
}

#[test]
fn a_user_or_group_that_is_unknown() {
    for kind in ["user", "group"] {
        let home = Home::new();
        home.write_app("web", &format!("command: [sleep, '600']\n{kind}: no-such-name"));
        let failed = home.ends(1, &["start", "app.yaml"]);
        assert!(failed.stderr.contains(&format!("web:0 failed: {kind}: ")), "{}", failed.stderr);
        assert!(failed.stderr.contains("no-such-name"), "{}", failed.stderr);
    }
}

#[test]
fn what_the_apps_user_may_not_enter_or_execute() {
    let home = Home::new();
    home.let_others_in();
    let closed = home.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let settings = format!("command: [sleep, '600']\nuser: nobody\ncwd: {}", text(&closed));
    check_failure(&home, &settings, &format!("chdir {}: permission denied", closed.display()));

    let home = Home::new();
    home.let_others_in();
    let program = home.copy("worker", &worker());
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    let settings = format!("command: [{}]\nuser: nobody", text(&program));
    check_failure(&home, &settings, &format!("exec {}: permission denied", program.display()));
}

#[test]
fn a_limit_that_cannot_be_set() {
    check_failure(
        &Home::new(),
        "command: [sleep, '600']\nlimits: {nofile: 2000000000}",
        "limits: operation not permitted",
    );
}

#[test]
fn an_address_that_is_taken() {
    let home = Home::new();
    let _taken = TcpListener::bind(home.address()).unwrap();
    let settings = format!("command: [sleep, '600']\nlisten: '{}'", home.address());
    check_failure(&home, &settings, &format!("listen {}: address already in use", home.address()));
}

#[test]
fn a_program_that_ends_at_once() {
    let home = Home::new();
    home.write_app(
        "web",
        &format!(
            "command: [{}, --say, cannot find the database, --exit-after, '10', --code, '3']
            min_uptime: 1h
            instances: 1",
            text(&worker())
        ),
    );
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(
        failed.stderr.contains("web:0 failed: exited with code 3\n    cannot find the database\n"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains("web failed"), "{failed:?}");
}

#[test]
fn a_program_that_a_signal_ends() {
    check_failure(&Home::new(), "command: [sh, -c, kill -KILL $$]\nmin_uptime: 1h", "killed by SIGKILL");
}

#[test]
fn a_program_that_never_gets_ready() {
    let settings = format!("command: [{}]\nready: notify\nlisten_timeout: 200ms", text(&worker()));
    check_failure(&Home::new(), &settings, "not ready within 200ms, killed by SIGTERM");
}

#[test]
fn one_failure_does_not_stop_other_apps() {
    let home = Home::new();
    let good = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1";
    let bad = "command: [/nowhere]\ninstances: 1";
    home.write_apps("app.yaml", &[("bad", bad), ("good", good)]);
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(
        failed.stderr.contains("bad:0 failed: exec /nowhere: no such file or directory"),
        "{}",
        failed.stderr
    );
    home.app_in_state("good", "online");
}

#[test]
fn a_command_without_a_file() {
    let home = Home::new();
    let address = home.address().to_string();
    let worker = worker();
    home.ok(&[
        "start",
        "--name",
        "one",
        "-i",
        "2",
        "--listen",
        &address,
        "--",
        text(&worker),
        "--ready-after",
        "0",
    ]);
    let app = home.app("one");
    assert_eq!(app["instances"]["ready"], 2);
    assert_eq!(app["listeners"][0]["address"], address);
    assert!(home.pids("one").contains(&home.get("/pid").unwrap().parse().unwrap()));
    // A bare command has one worker and the program's name.
    home.ok(&["start", "--", "sleep", "600"]);
    assert_eq!(home.app("sleep")["instances"]["wanted"], 1);
}

#[test]
fn a_program_by_its_path() {
    let home = Home::new();
    let file = home.write("program", "#!/bin/sh\necho \"started with $*\"\nexec sleep 600\n");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    home.ok(&["start", "./program", "--", "a", "b"]);
    until("its output arrives", || home.log("program-out-0.log") == "started with a b\n");
    home.write("script.sh", "echo \"a script\"\nexec sleep 600\n");
    home.ok(&["start", "./script.sh"]);
    until("its output arrives", || home.log("script-out-0.log") == "a script\n");
}

#[test]
fn a_name_starts_what_was_stopped() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 2");
    home.ok(&["stop", "web"]);
    assert_eq!(home.app("web")["instances"]["running"], 0);
    home.ok(&["start", "web:1"]);
    let app = home.app("web");
    assert_eq!(app["workers"][0]["state"], "stopped");
    assert_eq!(app["workers"][1]["state"], "ready");
    home.ok(&["start", "web"]);
    assert_eq!(home.app("web")["state"], "online");
}

#[test]
fn a_name_that_nothing_has() {
    let home = Home::new();
    let failed = home.ends(4, &["start", "wbe"]);
    assert!(failed.stderr.contains("no daemon is running"), "{}", failed.stderr);
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms");
    let failed = home.ends(3, &["start", "wbe"]);
    assert!(failed.stderr.contains("wbe") && failed.stderr.contains("web"), "{}", failed.stderr);
}

#[test]
fn a_folder_without_a_file() {
    let failed = Home::new().ends(2, &["start"]);
    assert!(failed.stderr.contains("supervisor init"), "{}", failed.stderr);
}

#[test]
fn the_file_of_this_folder() {
    let home = Home::new();
    home.write_app("web", "command: [sleep, '600']\nmin_uptime: 50ms");
    fs::rename(home.path("app.yaml"), home.path("ecosystem.yaml")).unwrap();
    home.ok(&["start"]);
    assert_eq!(home.app("web")["state"], "online");
}

#[test]
fn a_client_that_leaves_does_not_end_the_start() {
    let home = Home::new();
    let settings = format!("command: [{}]\ninstances: 1\nready: notify\nmin_uptime: 10ms", text(&worker()));
    home.write_app("web", &format!("{settings}\nlisten: '{}'", home.address()));
    let mut start = home.command(&["start", "app.yaml"]).spawn().unwrap();
    home.app_in_state("web", "starting");
    start.kill().unwrap();
    finish(start);
    home.get("/notify?READY=1").unwrap();
    let web = home.app_in_state("web", "online");
    assert!(pids(&web).into_iter().all(process::is_alive));
}

#[test]
fn a_hundred_workers() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 100");
    let app = home.app("web");
    assert_eq!(app["instances"]["ready"], 100);
    let all = pids(&app);
    assert_eq!(all.len(), 100);
    home.ok(&["scale", "web", "10"]);
    assert_eq!(home.pids("web"), all[..10]);
    home.ok(&["kill"]);
    assert!(all.iter().all(|pid| !process::is_alive(*pid)));
}
