//! Masters that die whenever they adopt one app: safe mode stands in for them.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, pids, text};
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::worker;
use crate::wait::{eventually, until};

/// A daemon in the foreground with the apps `web` and `poor`. Who adopts the
/// latter can be made to die of it.
struct Poisoned {
    home: Home,
    run: Child,
}

impl Poisoned {
    #[track_caller]
    fn new(poor: &str) -> Self {
        Self::with(poor, |_, _| {})
    }

    /// The same, with changes of the command that runs it.
    #[track_caller]
    fn with(poor: &str, change: impl Fn(&Home, &mut Command)) -> Self {
        let home = Home::new();
        let web = format!(
            "command: [{}]\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'",
            text(&worker()),
            home.address()
        );
        home.write_apps("app.yaml", &[("web", &web), ("poor", poor)]);
        let stderr = File::create(home.path("stderr")).unwrap();
        let mut run = home.command(&["run", "app.yaml"]);
        change(&home, &mut run);
        let run = run.env("SUPERVISOR_FAULT", home.path("fault")).stdout(Stdio::null()).stderr(stderr);
        let run = run.spawn().unwrap();
        home.app_in_state("web", "online");
        home.app_in_state("poor", "online");
        Self { home, run }
    }

    /// Has all masters die, and waits for safe mode. Returns the status.
    #[track_caller]
    fn poison(&self) -> Value {
        self.home.write("fault", "poison poor");
        process::kill_and_wait(self.home.daemon().1);
        eventually("safe mode", || {
            let status = self.home.try_status().ok()?;
            (!status["daemon"]["safe_mode"].is_null()).then_some(status)
        })
    }

    fn cure(&self) {
        fs::remove_file(self.home.path("fault")).unwrap();
    }

    /// Waits for an ordinary master.
    #[track_caller]
    fn until_ordinary(&self) {
        until("an ordinary master serves", || {
            self.home.try_status().is_ok_and(|status| status["daemon"]["safe_mode"].is_null())
        });
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.home.path("stderr")).unwrap()
    }

    /// All processes of the daemon.
    fn all(&self) -> Vec<Number> {
        let keeper = self.run.id();
        [vec![keeper], process::descendants(keeper)].concat()
    }

    #[track_caller]
    fn until_gone(self, all: &[Number], code: i32) {
        assert_eq!(finish(self.run).code, Some(code));
        until("all are gone", || all.iter().all(|pid| !process::is_alive(*pid)));
        self.home.until_refused();
    }
}

fn app<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["apps"].as_array().unwrap().iter().find(|app| app["name"] == name).unwrap()
}

const SLEEP: &str = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1";

#[test]
fn workers_go_on_and_stop_is_the_way_out() {
    let daemon = Poisoned::new(SLEEP);
    let home = &daemon.home;
    let (web, poor) = (home.pids("web"), home.pids("poor"));
    let load = Load::with_clients(home.address(), 4);
    let status = daemon.poison();
    let reason = status["daemon"]["safe_mode"].as_str().unwrap();
    assert!(reason.contains("masters in a row ended before they served"), "{reason}");
    assert!(reason.contains("exit code 101: panicked at") && reason.contains("poisoned"), "{reason}");
    for told in [reason, "safe mode: workers go on"] {
        until("standard error has it", || daemon.stderr().contains(told));
    }
    let known = app(&status, "web");
    assert_eq!((&known["state"], pids(known)), (&"online".into(), web.clone()), "{known:#}");
    assert_eq!(known["workers"][0]["state"], "ready");
    assert_eq!(known["listeners"][0]["address"], home.address().to_string());
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());

    // Who ends is seen, and not replaced.
    process::kill_and_wait(poor[0]);
    home.app_when("poor", "is seen to have ended, and how", |app| {
        app["state"] == "errored" && app["workers"][0]["last_exit"]["signal"] == "SIGKILL"
    });

    let shown = home.ok(&["status"]).stdout;
    assert!(shown.starts_with("safe mode, in which only status, stop and kill work: "), "{shown}");
    for args in [&["reload", "web"][..], &["scale", "web", "3"], &["describe", "web"], &["logs"]] {
        let refused = home.ends(5, args);
        assert!(refused.stderr.contains("the daemon is in safe mode"), "{}", refused.stderr);
        assert!(refused.stderr.contains("poisoned"), "{}", refused.stderr);
    }
    home.ends(3, &["stop", "nobody"]);

    // All but the settings is forgotten, and with it the poison.
    home.ok(&["stop", "poor"]);
    daemon.until_ordinary();
    assert_eq!(home.app_in_state("poor", "stopped")["instances"]["wanted"], 0);
    let known = home.app_in_state("web", "online");
    assert_eq!((pids(&known), &known["restarts"]), (web, &0.into()));
    home.ok(&["start", "poor"]);
    let all = daemon.all();
    home.ok(&["kill", "--now"]);
    daemon.until_gone(&all, 0);
}

#[test]
fn it_is_left_when_the_cause_is_gone() {
    let daemon = Poisoned::new(&format!("command: [{}, --flood]\nmin_uptime: 50ms", text(&worker())));
    let home = &daemon.home;
    let before = home.pids("poor");
    daemon.poison();
    // More than its pipe holds: somebody reads.
    let written = process::written(before[0]);
    until("its output is drained", || process::written(before[0]) > written + (4 << 20));
    daemon.cure();
    daemon.until_ordinary();
    assert_eq!(home.pids("poor"), before);
    let lost = |app: &Value| app["workers"][0]["lost_log_bytes"].as_u64().unwrap();
    home.app_when("poor", "has lost output", |app| lost(app) > 4 << 20);
    assert!(home.ok(&["status"]).stdout.contains("lost while no master read it"));
    let told = |line: &str| -> Option<u64> {
        let (bytes, _) =
            line.split_once("poor:0: ")?.1.split_once(" bytes of its output were thrown away")?;
        bytes.parse().ok()
    };
    until("the log tells as much", || {
        home.daemon_log().lines().filter_map(told).sum::<u64>() == lost(&home.app("poor"))
    });
    let all = daemon.all();
    home.ok(&["kill", "--now"]);
    daemon.until_gone(&all, 0);
}

#[test]
fn everything_can_be_ended() {
    let deaf = format!(
        "command: [{}, --ignore-term, --ready-after, '0']\nready: notify\nkill_timeout: 200ms",
        text(&worker())
    );
    let daemon = Poisoned::new(&deaf);
    daemon.poison();
    let all = daemon.all();
    daemon.home.ok(&["kill"]);
    daemon.until_gone(&all, 0);
}

#[test]
fn a_signal_ends_everything_too() {
    let daemon = Poisoned::new(SLEEP);
    daemon.poison();
    let all = daemon.all();
    process::signal(daemon.run.id(), Signal::TERM);
    daemon.until_gone(&all, 0);
}

#[test]
fn who_stands_in_takes_the_place_of_a_keeper_that_dies() {
    let daemon = Poisoned::new(SLEEP);
    let home = &daemon.home;
    let known = || (home.pids("web"), home.pids("poor"));
    let before = known();
    let load = Load::with_clients(home.address(), 4);
    daemon.poison();
    for _ in 0..2 {
        let (keeper, stand_in) = home.daemon();
        process::kill_and_wait(keeper);
        eventually("safe mode under another keeper", || {
            let status = home.try_status().ok()?;
            let daemon = &status["daemon"];
            (daemon["keeper_pid"] == stand_in && !daemon["safe_mode"].is_null()).then_some(())
        });
        assert_eq!(known(), before);
    }
    daemon.cure();
    daemon.until_ordinary();
    home.app_in_state("web", "online");
    assert_eq!(known(), before);
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
    home.ok(&["kill", "--now"]);
    home.until_refused();
    assert_eq!(finish(daemon.run).code, None);
}

#[test]
fn who_stands_in_waits_for_the_next_keeper_of_a_service_manager() {
    let manager = |home: &Home, run: &mut Command| {
        run.env("NOTIFY_SOCKET", home.path("manager"));
    };
    let daemon = Poisoned::with(SLEEP, manager);
    let home = &daemon.home;
    let known = || (home.pids("web"), home.pids("poor"));
    let before = known();
    daemon.poison();
    let (keeper, stand_in) = home.daemon();
    process::kill_and_wait(keeper);
    until("it waits for another keeper", || home.daemon_folder().join("run/handover.sock").exists());
    let status = home.status();
    assert_eq!((&status["daemon"]["pid"], &status["daemon"]["keeper_pid"]), (&stand_in.into(), &Value::Null));
    assert_eq!(known(), before);
    daemon.cure();
    let mut run = home.command(&["run", "app.yaml"]);
    manager(home, &mut run);
    let run = run.spawn().unwrap();
    daemon.until_ordinary();
    assert_eq!((home.daemon().0, known()), (run.id(), before));
    home.ok(&["kill", "--now"]);
    assert_eq!(finish(run).code, Some(0));
    home.until_refused();
    assert_eq!(finish(daemon.run).code, None);
}
