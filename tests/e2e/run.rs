//! `run`: the daemon in the foreground.

use std::process::Child;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, text};
use crate::http;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, next, supervisor, worker};
use crate::terminal::Terminal;
use crate::wait::{eventually, until};

/// Node, which finishes what it is at when it is asked to end.
fn write_node(home: &Home) {
    home.write_app(
        "web",
        &format!(
            "command: [{}, {}]\ninstances: 2\nmin_uptime: 300ms\nlisten: '{}'",
            text(&installed("node")),
            text(&fixture("server.js")),
            home.address()
        ),
    );
}

/// `run` as the first process of a pid namespace. Returns `unshare` and the
/// first process, as it is known outside.
pub(crate) fn run_as_first(home: &Home) -> (Child, Number) {
    let mut unshare = home.program(installed("unshare"));
    unshare
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(supervisor())
        .args(["run", "app.yaml"]);
    let unshare = unshare.spawn().unwrap();
    let first = eventually("it has a child", || process::children(unshare.id()).first().copied());
    (unshare, first)
}

#[test]
fn as_the_first_process_it_is_upgraded() {
    let home = Home::new();
    write_node(&home);
    let (unshare, first) = run_as_first(&home);
    home.app_in_state("web", "online");
    let before = home.pids("web");
    home.ok(&["upgrade", "--binary", text(&next())]);
    let daemon = &home.status()["daemon"];
    assert_eq!((&daemon["keeper_pid"], &daemon["version"]), (&1.into(), &"0.2.0-next".into()));
    assert_eq!(home.pids("web"), before);
    process::signal(first, Signal::TERM);
    let ended = finish(unshare);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("everything has ended"), "{}", ended.stderr);
}

#[test]
fn as_the_first_process_it_drains_on_sigterm() {
    let home = Home::new();
    write_node(&home);
    let (unshare, first) = run_as_first(&home);
    home.app_in_state("web", "online");
    assert_eq!(home.status()["daemon"]["keeper_pid"], 1);
    let pids = home.pids("web");
    let slow = http::send(home.address(), "/slow?500").unwrap();
    // A worker has taken it as soon as no queue holds it.
    home.app_when("web", "has taken it", |app| {
        app["workers"].as_array().unwrap().iter().all(|worker| worker["queue"] == 0)
    });
    process::signal(first, Signal::TERM);
    assert!(pids.contains(&http::receive(slow).unwrap().parse().unwrap()));
    let ended = finish(unshare);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopped as ordered, exited with code 0"), "{}", ended.stderr);
    assert!(ended.stderr.contains("everything has ended"), "{}", ended.stderr);
    home.until_refused();
}

#[test]
fn as_the_first_process_it_reaps_orphans() {
    let home = Home::new();
    // Each shell leaves children behind, which outlive their parents.
    let script = "for n in 1 2 3; do (sh -c \"sleep 0.2\" &) ; done; exec sleep 600";
    home.write_app("web", &format!("command: [sh, -c, '{script}']\ninstances: 2\nmin_uptime: 50ms"));
    let (unshare, first) = run_as_first(&home);
    home.app_in_state("web", "online");
    // The master and two workers are left: no orphan and no zombie.
    until("orphans are gone", || process::descendants(first).len() == 3);
    process::signal(first, Signal::TERM);
    assert_eq!(finish(unshare).code, Some(0));
}

#[test]
fn a_second_signal_ends_what_does_not_end() {
    let home = Home::new();
    let command = format!("command: [{}, --ignore-term, --ready-after, '0']\nready: notify", text(&worker()));
    home.write_app("web", &format!("{command}\ninstances: 2\nmin_uptime: 50ms\nkill_timeout: 10m"));
    let run = home.command(&["run", "app.yaml"]).spawn().unwrap();
    home.app_in_state("web", "online");
    let workers = home.pids("web");
    let keeper = run.id();
    process::signal(keeper, Signal::TERM);
    home.app_in_state("web", "stopping");
    // It may come as an echo of the first, so it is sent until it counts.
    until("it has ended", || {
        let alive = process::is_alive(keeper);
        if alive {
            process::signal(keeper, Signal::TERM);
        }
        !alive
    });
    assert_eq!(finish(run).code, Some(0));
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
fn one_ctrl_c_is_graceful() {
    let home = Home::new();
    write_node(&home);
    let line = format!("exec {} run app.yaml", text(&supervisor()));
    let mut terminal = Terminal::start(&home, &line);
    home.app_in_state("web", "online");
    // Who answers knows what to do when it is asked to end.
    let mut missing = home.pids("web");
    until("every worker has answered", || {
        let pid: Number = home.get("/").unwrap().parse().unwrap();
        missing.retain(|one| *one != pid);
        missing.is_empty()
    });
    terminal.press(b"\x03");
    let ended = terminal.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // The workers were asked, by the daemon alone.
    assert!(ended.stdout.contains("web:0: stopped as ordered, exited with code 0"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("killing"), "{}", ended.stdout);
}

#[test]
fn it_keeps_its_pid_and_tells_what_happens() {
    let home = Home::new();
    home.write_app("web", "command: [sleep, '600']\ninstances: 1\nmin_uptime: 50ms");
    let run = home.command(&["run", "app.yaml"]).spawn().unwrap();
    home.app_in_state("web", "online");
    assert_eq!(home.daemon().0, run.id());
    home.ok(&["stop", "web"]);
    process::signal(run.id(), Signal::INT);
    let ended = finish(run);
    assert_eq!(ended.code, Some(0));
    for step in ["web:0: starting", "web:0: ready after ", "web:0: stopping", "everything has ended"] {
        assert!(ended.stderr.contains(step), "{step:?} is not in {}", ended.stderr);
    }
    assert_eq!(ended.stdout, "");
    home.ends(4, &["status"]);
}

#[test]
fn what_workers_write_is_shown() {
    let home = Home::new();
    let script = "trap \"echo last; exit\" TERM; echo err >&2; echo out $SUPERVISOR_INSTANCE; \
                  while :; do sleep 0.01; done";
    home.write_app("web", &format!("command: [sh, -c, '{script}']\ninstances: 2\nmin_uptime: 50ms"));
    // The traps are set when they speak, so in each life they say one thing more.
    let until_heard = |lives: usize| {
        let said = |slot: u32| home.log(&format!("web-out-{slot}.log")).matches("out ").count();
        until("both have spoken", || said(0) == lives && said(1) == lives);
        home.app_in_state("web", "online");
    };
    let (unshare, first) = run_as_first(&home);
    until_heard(1);
    process::signal(first, Signal::TERM);
    let ended = finish(unshare);
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["last", "last", "out 0", "out 1"]);
    assert_eq!(ended.stderr.lines().filter(|line| *line == "err").count(), 2);
    assert_eq!(home.log("web-out-0.log"), "out 0\nlast\n");

    let named = home.command(&["run", "app.yaml", "--output", "named"]).spawn().unwrap();
    until_heard(2);
    process::signal(named.id(), Signal::TERM);
    let named = finish(named);
    assert!(named.stdout.contains("web:1 | out 1\n") && named.stderr.contains("web:0 | err\n"), "{named:?}");

    let none = home.command(&["run", "app.yaml", "--output", "none"]).spawn().unwrap();
    until_heard(3);
    process::signal(none.id(), Signal::TERM);
    assert_eq!(finish(none).stdout, "");
}

#[test]
fn nobody_waits_for_a_reader_of_what_is_shown() {
    let home = Home::new();
    home.write_app(
        "web",
        "command: [sh, -c, 'seq 1 2000000; exec sleep 600']
        instances: 1
        min_uptime: 50ms
        log_max_size: 0",
    );
    // Its pipes are full after the first of many lines.
    let run = home.command(&["run", "app.yaml"]).spawn().unwrap();
    until("all has arrived in the file", || home.log("web-out-0.log").ends_with("\n2000000\n"));
    home.app_in_state("web", "online");
    process::signal(run.id(), Signal::TERM);
    until("it has ended", || !process::is_alive(run.id()));
    assert_eq!(finish(run).code, Some(0));
}

#[test]
fn a_command_without_a_file() {
    let home = Home::new();
    let (address, worker) = (home.address().to_string(), worker());
    let run = home.command(&["run", "--listen", &address, "-i", "2", "--", text(&worker)]).spawn().unwrap();
    eventually("it answers", || home.get("/pid").ok());
    process::signal(run.id(), Signal::TERM);
    assert_eq!(finish(run).code, Some(0));
}

#[test]
fn it_goes_on_when_a_worker_fails() {
    let home = Home::new();
    home.write_app("web", "command: [/nowhere]\ninstances: 1\nrestart_delay: 10ms");
    let run = home.command(&["run", "app.yaml"]).spawn().unwrap();
    home.app_when("web", "is tried again", |app| app["restarts"].as_u64() >= Some(3));
    process::signal(run.id(), Signal::TERM);
    let ended = finish(run);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("exec /nowhere: no such file or directory"), "{}", ended.stderr);
}

#[test]
fn a_bad_file_starts_nothing() {
    let home = Home::new();
    home.write_app("web", "comand: [sleep, '600']");
    home.ends(2, &["run", "app.yaml"]);
    home.ends(2, &["run", "nowhere.yaml"]);
    home.ends(4, &["status"]);
}

#[test]
fn one_daemon_a_home() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\ninstances: 1\nmin_uptime: 50ms");
    let before = home.daemon();
    let refused = home.ends(5, &["run", "app.yaml"]);
    let told = format!("another daemon (pid {})", before.0);
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    assert_eq!(home.daemon(), before);
    assert_eq!(home.app("web")["state"], "online");
}
