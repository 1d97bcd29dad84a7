//! Reloads whose workers take over together, and reloads that are taken back.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Finished, Home, finish, number, pids, text};
use crate::load::Load;
use crate::process;
use crate::programs::{fixture, installed, worker};
use crate::wait::until;

/// Settings of four workers that are reloaded so.
pub(crate) fn settings(home: &Home, reload: &str) -> String {
    format!(
        "command: [{}]\nmin_uptime: 50ms\ninstances: 4\nlisten: '{}'\nreload: {reload}",
        text(&worker()),
        home.address()
    )
}

/// The same in Node, which binds for itself.
pub(crate) fn captured(home: &Home, reload: &str) -> String {
    let address = home.address();
    format!(
        "command: [{}, {}]\nenv: {{HOST: '{}', PORT: '{}'}}\nready: listen\nmin_uptime: 50ms\ninstances: 4\nreload: {reload}",
        text(&installed("node")),
        text(&fixture("bind/server.js")),
        address.ip(),
        address.port()
    )
}

/// Long enough for anything that a test does meanwhile.
pub(crate) const CANARY: &str = "{mode: canary, steps: [10%, 60%, 100%], hold: 10m}";

/// The workers of one generation that get connections.
pub(crate) fn serving(app: &Value, generation: u64) -> Vec<process::Number> {
    let workers = app["workers"].as_array().unwrap().iter();
    let serve = workers.filter(|worker| worker["generation"] == generation && worker["in_rotation"] == true);
    serve.map(|worker| number(&worker["pid"])).collect()
}

/// What each worker weighs.
pub(crate) fn weights(app: &Value) -> Vec<u64> {
    app["workers"].as_array().unwrap().iter().filter_map(|worker| worker["weight"].as_u64()).collect()
}

/// Has a command reload the app, waits until it has canaries, and
/// returns how the command ended after `meanwhile`, which gets them.
fn with_canaries(home: &Home, args: &[&str], meanwhile: impl FnOnce(&[process::Number])) -> Finished {
    let reload = home.command(args).spawn().unwrap();
    let app = home.app_when("web", "has canaries", |app| !serving(app, 2).is_empty());
    meanwhile(&serving(&app, 2));
    finish(reload)
}

#[test]
fn all_take_over_in_one_moment() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "all"));
    let before = home.pids("web");
    let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let more = || {
        let enough = count.load(Ordering::Relaxed) + 5;
        until("the client is answered", || count.load(Ordering::Relaxed) >= enough);
    };
    let answers: Vec<process::Number> = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                answers.push(home.get("/pid").unwrap().parse().unwrap());
                count.fetch_add(1, Ordering::Relaxed);
            }
            answers
        });
        more();
        let reloaded = home.ok(&["-v", "reload", "web"]);
        assert!(reloaded.stderr.contains("web all: 4 of 4 workers, starting"), "{}", reloaded.stderr);
        assert!(reloaded.stderr.contains("web all: 4 of 4 workers take over"), "{}", reloaded.stderr);
        more();
        over.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
    // Each connection began after the one before was answered.
    let switch = answers.iter().position(|pid| !before.contains(pid)).unwrap_or(answers.len());
    assert!(
        switch > 0 && answers[switch..].iter().all(|pid| !before.contains(pid)),
        "{answers:?} {before:?}"
    );
}

#[test]
fn nobody_was_switched_when_one_of_all_fails() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "all"));
    let before = home.pids("web");
    // All others have begun by then, and none of them ever counts as stable.
    let script = "case $SUPERVISOR_INSTANCE in 3) sleep 0.3; exit 4;; esac; exec \"$0\"";
    let bad = settings(&home, "all").replace("command: [", &format!("command: [sh, -c, '{script}', "));
    home.write_app("web", &bad.replace("50ms", "1h"));
    let load = Load::start(home.address());
    let failed = home.ends(6, &["reload", "app.yaml"]);
    assert!(failed.stderr.contains("web:3 failed: exited with code 4"), "{}", failed.stderr);
    assert_eq!(load.finish(), Vec::<String>::new());
    let web = home.app_in_state("web", "online");
    assert_eq!((pids(&web), &web["generation"]), (before, &1.into()));
}

#[test]
fn canaries_get_their_share_and_go_when_they_are_told_to() {
    const CONNECTIONS: usize = 2000;
    let home = Home::new();
    for settings in [settings(&home, CANARY), captured(&home, CANARY)] {
        home.start_app("web", &settings);
        let before = home.pids("web");
        let ended = with_canaries(&home, &["reload", "web"], |canaries| {
            assert_eq!(canaries.len(), 1);
            let web = home.app("web");
            assert_eq!((web["state"].as_str(), serving(&web, 1).len()), (Some("reloading"), 4));
            assert_eq!(weights(&web), [9, 4, 9, 9, 9]);
            let answers = (0..CONNECTIONS).map(|_| home.get("/pid").unwrap());
            let answered = answers.filter(|pid| canaries[0].to_string() == *pid).count();
            // 200 are expected, and 70 are more than five standard deviations.
            assert!((130..270).contains(&answered), "{answered} of {CONNECTIONS}");

            let busy = home.ends(5, &["reload", "web"]);
            assert!(busy.stderr.contains("another order is under way, a reload that"), "{}", busy.stderr);
            assert!(busy.stderr.contains("`supervisor reload --abort web`"), "{}", busy.stderr);
            let load = Load::start(home.address());
            load.more(50);
            let aborted = home.ok(&["reload", "--abort", "web"]);
            assert!(aborted.stderr.contains("web reload aborted"), "{}", aborted.stderr);
            load.more(50);
            assert_eq!(load.finish(), Vec::<String>::new());
        });
        assert_eq!(ended.code, Some(6), "{ended:#?}");
        assert!(ended.stderr.contains("web canary 10 %: 1 of 4 workers, holding 10m"), "{}", ended.stderr);
        assert!(ended.stderr.contains("web failed: aborted by an order"), "{}", ended.stderr);
        let web = home.app_in_state("web", "online");
        assert_eq!((pids(&web), &web["generation"]), (before, &1.into()));
        home.ok(&["delete", "web"]);
    }
}

#[test]
fn nothing_is_lost() {
    let home = Home::new();
    let (node, server) = (installed("node"), fixture("server.js"));
    for reload in ["all", "{mode: canary, steps: [10%, 50%, 100%], hold: 100ms}"] {
        let address = home.address();
        let program = format!("command: [{}, {}]", text(&node), text(&server));
        home.start_app(
            "web",
            &format!("{program}\ninstances: 2\nmin_uptime: 100ms\nlisten: '{address}'\nreload: {reload}"),
        );
        let load = Load::with_clients(address, 16);
        for _ in 0..3 {
            load.more(50);
            home.ok(&["reload", "web"]);
        }
        load.more(50);
        assert_eq!(load.finish(), Vec::<String>::new());
        home.ok(&["delete", "web"]);
    }
}

#[test]
fn canaries_become_all() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "{mode: canary, steps: [25%, 50%, 100%], hold: 200ms}"));
    let before = home.pids("web");
    let reloaded = home.ok(&["--json", "reload", "web"]);
    let lines = reloaded.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<Value> = lines.filter(|line| line["event"] == "step").collect();
    let told: Vec<_> = steps
        .iter()
        .map(|step| {
            (step["step"].as_str().unwrap(), step["share_percent"].as_u64(), step["workers"].as_u64())
        })
        .collect();
    let expected = [
        ("introducing", 25, 1),
        ("holding", 25, 1),
        ("introducing", 50, 2),
        ("holding", 50, 2),
        ("introducing", 100, 4),
        ("switching", 100, 4),
    ];
    assert_eq!(told, expected.map(|(step, share, workers)| (step, Some(share), Some(workers))));
    assert_eq!((&steps[1]["of"], &steps[1]["hold_s"]), (&4.into(), &0.2.into()));
    assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
}

#[test]
fn a_canary_that_dies_is_the_end_of_it() {
    let home = Home::new();
    home.start_app("web", &settings(&home, CANARY));
    let before = home.pids("web");
    let ended = with_canaries(&home, &["reload", "web"], |canaries| process::kill(canaries[0]));
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    assert!(ended.stderr.contains("web:0 failed: killed by SIGKILL"), "{}", ended.stderr);
    assert_eq!(home.pids("web"), before);
    let load = Load::start(home.address());
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
}

#[test]
fn an_old_worker_that_dies_meanwhile_comes_back() {
    let home = Home::new();
    home.start_app("web", &settings(&home, CANARY));
    let before = home.pids("web");
    let ended = with_canaries(&home, &["reload", "web"], |canaries| {
        process::signal(before[0], Signal::KILL);
        let web = home.app_when("web", "has five workers again", |app| {
            serving(app, 1).len() == 4 && !serving(app, 1).contains(&before[0])
        });
        assert_eq!(serving(&web, 2), canaries);
        home.ok(&["reload", "--abort", "--all"]);
    });
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    assert_eq!(home.pids("web")[1..], before[1..]);
}

#[test]
fn a_rolling_reload_is_taken_back_too() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "rolling"));
    // The second of the new ones is never ready.
    let script = "case $SUPERVISOR_INSTANCE in 0) exec \"$0\" --ready-after 1;; esac; exec \"$0\"";
    let new = settings(&home, "rolling").replace("command: [", &format!("command: [sh, -c, '{script}', "));
    home.write_app("web", &format!("{new}\nready: notify"));
    home.ok(&["reload", "--no-wait", "app.yaml"]);
    home.app_when("web", "has one new worker", |app| serving(app, 2).len() == 1);
    home.ok(&["reload", "--abort", "app.yaml"]);
    home.app_when("web", "is as it was", |app| {
        app["state"] == "online" && serving(app, 1).len() == 4 && pids(app).len() == 4
    });
    let none = home.ends(1, &["reload", "--abort", "web"]);
    assert!(none.stderr.contains("no reload of it is under way"), "{}", none.stderr);
    let none = home.ends(1, &["reload", "--abort", "--all"]);
    assert!(none.stderr.contains("no reload is under way"), "{}", none.stderr);
    home.ends(2, &["reload", "--abort"]);
    home.ends(2, &["reload", "--abort", "web:1"]);
    home.ends(3, &["reload", "--abort", "api"]);
}

/// Whether every worker has the settings of the first release.
fn is_the_old_release(home: &Home) -> bool {
    home.pids("web").iter().all(|pid| {
        let environment = fs::read(process::path(*pid, "environ")).unwrap();
        !String::from_utf8_lossy(&environment).contains("RELEASE=new")
    })
}

#[test]
fn what_is_stopped_meanwhile_starts_with_what_was_proved() {
    for reload in ["rolling", "all", CANARY] {
        let home = Home::new();
        home.start_app("web", &settings(&home, reload));
        let new = format!("{}\nenv: {{RELEASE: new}}\nready: notify", settings(&home, reload));
        home.write_app("web", &new.replace("instances: 4", "instances: 5"));
        home.ok(&["reload", "--no-wait", "app.yaml"]);
        home.app_when("web", "has a new worker", |app| pids(app).len() > 4);
        home.ok(&["stop", "web"]);
        // The next daemon knows it as well.
        home.ok(&["kill"]);
        home.ok(&["start", "web"]);
        let web = home.app_in_state("web", "online");
        assert_eq!((pids(&web).len(), &web["generation"]), (4, &1.into()), "{reload}");
        assert!(is_the_old_release(&home));
    }
}

#[test]
fn a_daemon_that_ends_meanwhile_forgets_what_was_not_proved() {
    let home = Home::new();
    home.start_app("web", &settings(&home, "all"));
    home.write_app("web", &format!("{}\nenv: {{RELEASE: new}}\nready: notify", settings(&home, "all")));
    home.ok(&["reload", "--no-wait", "app.yaml"]);
    home.app_when("web", "has new workers", |app| pids(app).len() == 8);
    home.ok(&["kill"]);
    home.ok(&["start", "web"]);
    assert_eq!(home.app_in_state("web", "online")["generation"], 1);
    assert!(is_the_old_release(&home));
}

#[test]
fn a_hangup_meanwhile_changes_nothing() {
    let home = Home::new();
    home.start_app("web", &settings(&home, CANARY));
    let ended = with_canaries(&home, &["reload", "web"], |canaries| {
        let (keeper, _) = home.daemon();
        process::signal(keeper, Signal::HUP);
        home.until_logged("web is not reloaded: another order");
        assert_eq!(serving(&home.app("web"), 2), canaries);
        home.ok(&["delete", "web"]);
    });
    assert_eq!(ended.code, Some(5), "{ended:#?}");
}
