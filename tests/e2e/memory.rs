//! Ceilings of memory.

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, pids};
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::worker;
use crate::wait::until;

fn settings(home: &Home, more: &str) -> String {
    format!("command: {}\nlisten: '{}'\nmin_uptime: 100ms\n{more}", worker().display(), home.address())
}

/// The last exits of all slots that had one.
fn last_exits(app: &Value) -> Vec<Value> {
    let workers = app["workers"].as_array().unwrap();
    workers.iter().map(|worker| worker["last_exit"].clone()).filter(|exit| !exit.is_null()).collect()
}

fn restarts(app: &Value) -> u64 {
    app["workers"].as_array().unwrap().iter().filter_map(|worker| worker["restarts"].as_u64()).sum()
}

/// Lets a worker use so many MiB, if it does not yet. It may be ended before it can answer.
fn grow(home: &Home, mebibytes: u32) {
    let _ = home.get(&format!("/grow?{mebibytes}"));
}

/// Waits until another worker than the one before serves alone.
#[track_caller]
fn another_worker(home: &Home, before: &[Number]) -> Value {
    home.app_when("web", "has another worker", |app| {
        app["state"] == "online" && pids(app).len() == 1 && pids(app) != before
    })
}

#[test]
fn who_uses_too_much_is_replaced_and_nobody_else() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "instances: 2\nmax_memory_restart: 100M"));
    let before = home.pids("web");
    grow(&home, 150);
    let app = home.app_when("web", "has replaced a worker", |app| {
        app["state"] == "online" && pids(app).len() == 2 && pids(app) != before
    });
    assert!(pids(&app).iter().any(|pid| before.contains(pid)), "{app:#}");
    assert_eq!(restarts(&app), 1, "{app:#}");
    let exits = last_exits(&app);
    assert_eq!(exits.len(), 1, "{app:#}");
    let reason = exits[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("used 1") && reason.contains("more than 100 MiB"), "{reason}");
    // The new one was ready before the old one was told to go.
    let log = home.until_logged("the old worker has ended");
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no `{what}` in {log}"));
    assert!(at("takes over") < at("draining"), "{log}");
}

#[test]
fn an_app_that_leaks_in_step_loses_no_request() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "instances: 2\nmax_memory_restart: 100M"));
    let before = home.pids("web");
    let load = Load::start(home.address());
    // Whoever answers leaks.
    let look = || {
        let app = home.app("web");
        assert_eq!(app["instances"]["ready"], 2, "{app:#}");
        app
    };
    let leaks = |worker: &Value| worker["memory_bytes"].as_u64() > Some(110 << 20);
    let is_old = |worker: &Value| before.iter().any(|pid| worker["pid"] == *pid);
    until("both leak", || {
        grow(&home, 150);
        look()["workers"].as_array().unwrap().iter().all(|worker| leaks(worker) || !is_old(worker))
    });
    until("both are replaced", || {
        let app = look();
        pids(&app).len() == 2 && pids(&app).iter().all(|pid| !before.contains(pid))
    });
    load.more(100);
    assert_eq!(load.finish(), [""; 0]);
    assert!(last_exits(&home.app("web")).iter().all(|exit| exit["reason"].as_str().unwrap().contains("MiB")));
    // One after the other: the second successor starts when the first old worker is gone.
    let log = home.until_logged("the old worker has ended");
    let starts: Vec<usize> = log.match_indices(": starting").map(|(at, _)| at).collect();
    let gone = log.find("the old worker has ended").unwrap();
    assert!(starts[2] < gone && starts[3..].iter().all(|start| *start > gone), "{log}");
}

#[test]
fn far_too_much_is_killed_at_once() {
    let home = Home::new();
    let ceilings = "instances: 1\nmax_memory_restart: 100M\nmax_memory_hard: 200M\nkill_timeout: 1h";
    let ignores_term = settings(&home, ceilings).replace("\nlisten", " --ignore-term\nlisten");
    home.start_app("web", &ignores_term);
    let before = home.pids("web");
    // Nobody looks before it has all.
    let (_, master) = home.daemon();
    process::stop_and_wait(master);
    grow(&home, 300);
    process::signal(master, Signal::CONT);
    let app = another_worker(&home, &before);
    let exits = last_exits(&app);
    assert_eq!(exits[0]["signal"], "SIGKILL", "{app:#}");
    let reason = exits[0]["reason"].as_str().unwrap();
    assert!(reason.contains("more than 200 MiB") && reason.contains("killed by SIGKILL"), "{reason}");
}

#[test]
fn the_whole_tree_counts() {
    let home = Home::new();
    // The worker itself is small; `tail` keeps all that it is told to.
    let command = "[sh, -c, 'head -c 80000000 /dev/zero | tail -c 80000000 | sleep 600']";
    home.start_app(
        "web",
        &format!("command: {command}\ninstances: 1\nmin_uptime: 50ms\nmax_memory_restart: 60M"),
    );
    home.app_when("web", "was replaced", |app| {
        last_exits(app).iter().any(|exit| exit["reason"].as_str().unwrap().contains("more than 60 MiB"))
    });
    // Nothing is left of the one before.
    home.ok(&["stop", "web"]);
    until("no worker is left", || home.pids("web").is_empty());
}

#[test]
fn a_release_that_uses_too_much_goes_back() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "instances: 2\nmax_memory_restart: 60M"));
    let before = home.pids("web");
    let load = Load::start(home.address());
    // Whichever of its workers is looked at first, it is long before one counts as stable.
    let greedy = "command: [sh, -c, 'head -c 80000000 /dev/zero | tail -c 80000000 | sleep 600']";
    let more = "instances: 2\nmin_uptime: 1h\nready: started\nmax_memory_restart: 60M";
    home.write_app("web", &format!("{greedy}\nlisten: '{}'\n{more}", home.address()));
    let reload = home.ends(6, &["reload", "app.yaml"]);
    assert!(reload.stderr.contains("of memory, more than 60 MiB"), "{reload:?}");
    assert_eq!(home.pids("web"), before);
    load.more(100);
    assert_eq!(load.finish(), [""; 0]);
}

#[test]
fn a_stopped_slot_stays_stopped() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "instances: 2\nmax_memory_restart: 100M"));
    home.ok(&["stop", "web:1"]);
    let before = home.pids("web");
    grow(&home, 150);
    let app = another_worker(&home, &before);
    assert_eq!(app["workers"][1]["state"], "stopped", "{app:#}");
}
