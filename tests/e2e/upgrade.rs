//! The daemon becomes another version of itself, and comes back when that one
//! is broken. The other version is built of the same source (`programs::next`):
//! there is no earlier release yet that could be upgraded from. It writes records,
//! entries and messages that this version does not know.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::adoption::replace_master;
use crate::harness::{Finished, Home, find, pids, text};
use crate::http;
use crate::load::Load;
use crate::process;
use crate::programs::{fixture, installed, next, supervisor, worker};
use crate::wait::{eventually, until};

/// The version of [`next`].
const NEXT: &str = "0.2.0-next";

/// Two workers at [`Home::address`], and two Node programs that bind
/// [`Home::second_address`] for themselves.
fn start(home: &Home) {
    let web = format!(
        "command: [{}]\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'",
        text(&worker()),
        home.address()
    );
    let address = home.second_address();
    let node = format!(
        "command: [{}, {}]\nmin_uptime: 100ms\ninstances: 2\nenv: {{HOST: {}, PORT: '{}'}}",
        text(&installed("node")),
        text(&fixture("bind/server.js")),
        address.ip(),
        address.port()
    );
    home.write_apps("app.yaml", &[("web", &web), ("node", &node)]);
    home.ok(&["start", "app.yaml"]);
    until("the program listens", || http::get(address, "/").is_ok());
}

/// A copy of the other version that fails as it is told: `STAGE exit`, `hang` or
/// `panic`.
fn broken(home: &Home, fault: &str) -> PathBuf {
    home.write("next.fault", fault);
    home.copy("next", &next())
}

fn upgrade(home: &Home, binary: &Path) -> Finished {
    home.run(&["upgrade", "--binary", text(binary)])
}

fn version(home: &Home) -> String {
    home.status()["daemon"]["version"].as_str().unwrap().to_owned()
}

/// The program that a process runs.
fn program(pid: process::Number) -> PathBuf {
    fs::read_link(process::path(pid, "exe")).unwrap()
}

/// What must not change.
#[track_caller]
fn workers(home: &Home) -> Workers {
    workers_in(&home.status())
}

/// The pids of `web` and `node`, and their restarts.
type Workers = (Vec<process::Number>, Vec<process::Number>, [Value; 2]);

fn workers_in(status: &Value) -> Workers {
    let [web, node] = ["web", "node"].map(|name| find(status, name).unwrap());
    (pids(&web), pids(&node), [web, node].map(|app| app["restarts"].clone()))
}

#[test]
fn there_and_back() {
    let home = Home::new();
    start(&home);
    let (before, own) = (workers(&home), version(&home));
    let (keeper, master) = home.daemon();
    let loads = [home.address(), home.second_address()].map(|address| Load::with_clients(address, 2));

    let there = upgrade(&home, &next());
    assert_eq!(there.code, Some(0), "{there:#?}");
    for words in ["tried out", "version 0.2.0-next runs"] {
        assert!(there.stderr.contains(words), "{words}: {}", there.stderr);
    }
    // It may be over before the command asks again.
    home.until_logged("the new binary restores a copy of what the daemon knows");
    assert_eq!(version(&home), NEXT);
    let now = home.daemon();
    assert_eq!(now.0, keeper, "the same process");
    assert_ne!(now.1, master);
    assert_eq!([program(now.0), program(now.1)], [next(), next()], "both are of the new binary");
    assert_eq!(workers(&home), before);
    loads.iter().for_each(|load| load.more(20));

    // What is kept for a later version survives one that does not know it.
    let back = upgrade(&home, &supervisor());
    assert_eq!(back.code, Some(0), "{back:#?}");
    assert_eq!(version(&home), own);
    assert_eq!(home.daemon().0, keeper);
    assert_eq!(program(keeper), supervisor());
    assert_eq!(workers(&home), before);
    home.until_logged("of another version are left with the keeper: later:1");
    loads.iter().for_each(|load| load.more(20));
    for load in loads {
        assert_eq!(load.finish(), Vec::<String>::new());
    }

    // The keeper still does what only it can do.
    process::kill_and_wait(home.daemon().1);
    home.app_when("web", "is there again", |app| app["state"] == "online");
    assert_eq!(workers(&home), before);
    process::kill_and_wait(before.0[0]);
    home.app_when("web", "has replaced it", |app| app["state"] == "online" && app["restarts"] == 1);
    home.ok(&["kill"]);
    until("the keeper has ended", || !process::is_alive(keeper));
}

/// Each broken binary: what it does, and what the command says of it.
#[track_caller]
fn goes_back(fault: &str, cause: &str) {
    let [before, after] = went_back(fault, cause);
    assert_eq!(after, before, "the same keeper");
}

/// The same. Returns the keeper before and after.
#[track_caller]
fn went_back(fault: &str, cause: &str) -> [process::Number; 2] {
    let home = Home::new();
    start(&home);
    let (before, own, keeper) = (workers(&home), version(&home), home.daemon().0);
    let load = Load::with_clients(home.address(), 2);
    let ended = upgrade(&home, &broken(&home, fault));
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    assert!(ended.stderr.contains(cause), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("rolled back: version {own} goes on")), "{}", ended.stderr);
    load.more(20);
    home.app_in_state("web", "online");
    home.app_in_state("node", "online");
    let after = home.daemon().0;
    assert_eq!((workers(&home), version(&home)), (before, own.clone()));
    assert_eq!(program(after), supervisor());
    assert_eq!(load.finish(), Vec::<String>::new());
    // It is told once, and not by every master from now on.
    replace_master(&home);
    assert_eq!(home.daemon_log().matches(&format!("version {own} goes on")).count(), 1);
    // Nothing is in the way of another try.
    home.write("next.fault", "");
    assert_eq!(upgrade(&home, &home.path("next")).code, Some(0));
    [keeper, after]
}

#[test]
fn one_that_exits_at_once() {
    goes_back("identify exit", "exit code 3");
}

#[test]
fn one_that_hangs() {
    goes_back("identify hang", "not done within 5s");
}

#[test]
fn one_that_panics_on_restore() {
    goes_back("restore panic", "it cannot take over what runs (exit code 101)");
}

#[test]
fn one_that_hangs_on_restore() {
    goes_back("rehearsal hang", "it was not done within 10s");
}

#[test]
fn one_whose_master_exits() {
    goes_back("master exit", "its master never served (exit code 3)");
}

#[test]
fn one_whose_master_panics() {
    goes_back("master panic", "a fault at master");
}

#[test]
fn one_whose_master_hangs() {
    goes_back("master hang", "it did not serve within 10s");
}

#[test]
fn one_that_serves_and_dies() {
    goes_back("serving exit", "its master served, and ended soon after (exit code 3)");
}

/// The master becomes the keeper, of the version that has proved itself as one.
#[test]
fn one_whose_keeper_exits() {
    let [before, after] = went_back("keeper exit", "the keeper died as it became the new binary");
    assert_ne!(after, before);
}

#[test]
fn one_whose_keeper_hangs() {
    let [before, after] = went_back("keeper hang", "the keeper hung as it became the new binary");
    assert_ne!(after, before);
}

#[test]
fn a_keeper_that_dies_while_a_version_is_tried_out() {
    let home = Home::new();
    start(&home);
    let (before, own) = (workers(&home), version(&home));
    let load = Load::with_clients(home.address(), 2);
    let tried = home.command(&["upgrade", "--binary", text(&next())]).spawn().unwrap();
    let status = eventually("the new version's master serves", || {
        home.try_status().ok().filter(|status| status["daemon"]["version"] == NEXT)
    });
    process::kill_and_wait(crate::harness::number(&status["daemon"]["keeper_pid"]));
    let ended = crate::harness::finish(tried);
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    assert!(ended.stderr.contains("the keeper has died"), "{}", ended.stderr);
    until("all is as it was", || {
        home.try_status().is_ok_and(|status| status["daemon"]["version"] == own.as_str())
            && workers(&home) == before
    });
    load.more(20);
    assert_eq!(load.finish(), Vec::<String>::new());
}

#[test]
fn one_that_is_no_program_of_ours() {
    let home = Home::new();
    start(&home);
    let (before, daemon) = (workers(&home), home.daemon());
    let script = home.write("script", "#!/bin/sh\nexit 0\n");
    let cases = [
        (installed("true"), 6, "it is no supervisor"),
        (installed("node"), 6, "node: exit code 1"),
        (script, 6, "it is no program: permission denied"),
        (home.path("missing"), 2, "cannot open"),
        (home.path(""), 2, "it is no file"),
    ];
    for (binary, code, cause) in cases {
        let ended = upgrade(&home, &binary);
        assert_eq!(ended.code, Some(code), "{ended:#?}");
        assert!(ended.stderr.contains(cause), "{binary:?}: {}", ended.stderr);
    }
    assert_eq!((workers(&home), home.daemon()), (before, daemon), "not even the master was replaced");
}

#[test]
fn what_the_old_one_cannot_read_keeps_it_away() {
    let home = Home::new();
    start(&home);
    let before = workers(&home);
    assert_eq!(upgrade(&home, &broken(&home, "")).code, Some(0));
    home.write("next.fault", "records strange");
    home.ok(&["scale", "web", "3"]);
    let back = upgrade(&home, &supervisor());
    assert_eq!(back.code, Some(6), "{back:#?}");
    assert!(back.stderr.contains("cannot read 1 of the daemon's records: memo:web"), "{}", back.stderr);
    assert_eq!(version(&home), NEXT);
    assert_eq!(home.pids("web")[..2], before.0);
}

/// A version that fails has left records that the one before cannot read: their
/// apps run on without a master.
#[test]
fn what_cannot_be_read_is_left_alone() {
    let home = Home::new();
    start(&home);
    let before = workers(&home);
    let load = Load::with_clients(home.address(), 2);
    let ended = upgrade(&home, &broken(&home, "records strange\nserving exit"));
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    home.until_logged("web: its records are of a later version");
    load.more(20);
    assert!(before.0.iter().chain(&before.1).all(|pid| process::is_alive(*pid)));
    let refused = home.ends(5, &["start", "app.yaml"]);
    assert!(refused.stderr.contains("a later version of the daemon has it"), "{}", refused.stderr);
    assert_eq!(load.finish(), Vec::<String>::new());
    home.ok(&["kill", "--now"]);
    until("nobody is left", || before.0.iter().chain(&before.1).all(|pid| !process::is_alive(*pid)));
}

#[test]
fn one_at_a_time() {
    let home = Home::new();
    start(&home);
    let binary = broken(&home, "identify hang");
    let first = home.command(&["upgrade", "--binary", text(&binary)]).spawn().unwrap();
    home.until_logged("is asked what it is");
    let second = home.ends(5, &["upgrade"]);
    assert!(second.stderr.contains("is under way"), "{}", second.stderr);
    assert_eq!(crate::harness::finish(first).code, Some(6));
}

#[test]
fn a_file_in_the_place_of_the_running_one_and_a_signal() {
    let home = Home::new();
    let path = home.copy("installed", &supervisor());
    let web = format!("command: [{}]\nmin_uptime: 50ms\nlisten: '{}'", text(&worker()), home.address());
    home.write_app("web", &web);
    let started = home.program(&path).args(["start", "app.yaml"]).spawn().unwrap();
    assert_eq!(crate::harness::finish(started).code, Some(0));
    let (keeper, pids) = (home.daemon().0, home.pids("web"));
    // As a package does it.
    let new = home.copy("new", &next());
    fs::rename(new, &path).unwrap();
    process::signal(keeper, Signal::USR2);
    until("the new version serves", || {
        home.try_status().is_ok_and(|status| status["daemon"]["version"] == NEXT)
    });
    until("the keeper is the new one, too", || program(keeper) == path);
    assert_eq!((home.daemon().0, home.pids("web")), (keeper, pids));
}

#[test]
fn a_reload_goes_on() {
    let home = Home::new();
    start(&home);
    let before = workers(&home);
    let load = Load::with_clients(home.address(), 2);
    let slow = fs::read_to_string(home.path("app.yaml")).unwrap().replace("50ms", "1s");
    home.write("app.yaml", &slow);
    let reload = home.command(&["reload", "app.yaml"]).spawn().unwrap();
    home.app_when("web", "is being reloaded", |app| app["state"] == "reloading" || app["generation"] == 2);
    let ended = upgrade(&home, &next());
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    // The command asks the new master when it loses its connection with the old one.
    let reloaded = crate::harness::finish(reload);
    assert_eq!(reloaded.code, Some(0), "{reloaded:#?}");
    let web = home.app_when("web", "is reloaded", |app| {
        app["state"] == "online" && pids(app).iter().all(|pid| !before.0.contains(pid))
    });
    assert_eq!((&web["generation"], &web["restarts"]), (&2.into(), &0.into()));
    assert_eq!(load.finish(), Vec::<String>::new());
}

#[test]
fn commands_of_another_version() {
    let home = Home::new();
    start(&home);
    let other = |args: &[&str]| crate::harness::finish(home.program(next()).args(args).spawn().unwrap());
    let mine = |args: &[&str]| home.run(args);
    let both = |run: &dyn Fn(&[&str]) -> Finished| {
        for args in [
            &["ping"][..],
            &["status"],
            &["status", "--json"],
            &["describe", "web"],
            &["start", "app.yaml"],
            &["scale", "web", "3"],
            &["scale", "web", "2"],
            &["restart", "web:0"],
            &["logs", "web", "--lines", "1"],
        ] {
            let ended = run(args);
            assert_eq!(ended.code, Some(0), "{args:?}: {ended:#?}");
        }
    };
    both(&other);
    // It sends what is not known.
    home.until_logged("a command of another version has sent");
    // Whoever says nothing of a version has made a mistake.
    let mistake =
        http::ask(&home.socket(), "POST", "/v1/stop", r#"{"selectors": ["web"], "later": 1}"#).unwrap();
    assert!(mistake.body.contains("unknown field `later`"), "{}", mistake.body);
    assert_eq!(upgrade(&home, &next()).code, Some(0));
    both(&mine);
    let version: Value = serde_json::from_str(&mine(&["ping", "--json"]).stdout).unwrap();
    assert_eq!(version["daemon"]["version"], NEXT);
}

#[test]
fn an_upgrade_as_json() {
    let home = Home::new();
    start(&home);
    let ended = home.ok(&["upgrade", "--binary", text(&next()), "--json"]);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stages: Vec<&str> = lines.iter().map(|line| line["upgrade"]["stage"].as_str().unwrap()).collect();
    assert_eq!(stages.first(), Some(&"checking"));
    assert_eq!(stages.last(), Some(&"done"));
    let last = &lines.last().unwrap()["upgrade"];
    assert_eq!(last["to"], NEXT);
    assert_eq!(eventually("it is remembered", || Some(last.clone())), {
        let answer = http::ask(&home.socket(), "GET", "/v1/upgrade", "").unwrap();
        serde_json::from_str::<Value>(&answer.body).unwrap()["upgrade"].clone()
    });
}
