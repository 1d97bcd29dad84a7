//! A keeper that is killed: the service goes on. The master takes its place; a
//! service manager's next keeper takes over from the master; and when both are
//! dead, the next daemon finds the workers.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, pids, text};
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::{installed, supervisor, worker};
use crate::run::run_as_first;
use crate::wait::{eventually, until};

fn settings(home: &Home, instances: u32) -> String {
    let (worker, address) = (worker(), home.address());
    format!("command: [{}]\nmin_uptime: 50ms\ninstances: {instances}\nlisten: '{address}'", text(&worker))
}

/// Node workers that end when their channel does.
fn with_channel() -> String {
    let script = "process.on('disconnect', () => process.exit(9)); process.on('message', () => {})";
    format!("command: [{}, -e, \"{script}\"]\nmin_uptime: 50ms\ninstances: 2", text(&installed("node")))
}

/// Kills the keeper, and waits until the master has taken its place and another
/// one serves.
#[track_caller]
fn replace_keeper(home: &Home) {
    let (keeper, master) = home.daemon();
    process::kill_and_wait(keeper);
    let status = eventually("another master", || {
        home.try_status().ok().filter(|status| status["daemon"]["pid"] != master)
    });
    assert_eq!(status["daemon"]["keeper_pid"], master);
}

/// Kills keeper and master at the same time, as far as that goes.
#[track_caller]
pub(crate) fn kill_both(home: &Home) {
    let (keeper, master) = home.daemon();
    // A stopped master would go on when its keeper ends: the kernel continues those whose session is left to itself.
    process::stop_and_wait(keeper);
    process::kill_and_wait(master);
    process::kill_and_wait(keeper);
    // The kernel may close what a process had a little after its end.
    until("nobody listens", || UnixStream::connect(home.socket()).is_err());
}

fn ledger(home: &Home) -> PathBuf {
    home.daemon_folder().join("run/workers.ledger")
}

/// Waits until these workers of an app that was just started can be found
/// again, and are known to be ready: messages are for such alone.
#[track_caller]
pub(crate) fn until_written(home: &Home, workers: &[Number]) {
    until("the ledger has the workers, and that their start is over", || {
        let text = fs::read_to_string(ledger(home)).unwrap_or_default();
        let is_there = |pid| text.contains(&format!("\\\"pid\\\":{pid},"));
        workers.iter().all(is_there) && text.contains("\\\"operation\\\":null")
    });
}

/// The worker of this slot.
fn slot(app: &Value, slot: usize) -> &Value {
    &app["workers"][slot]
}

#[test]
fn the_master_becomes_the_keeper() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("web", &settings(&home, 2)), ("node", &with_channel())]);
    home.ok(&["start", "app.yaml"]);
    let known = || (home.pids("web"), home.pids("node"));
    let before = known();
    let load = Load::start(home.address());
    for _ in 0..3 {
        load.more(50);
        replace_keeper(&home);
        assert_eq!(known(), before);
    }
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
    home.get("/out?still-read").unwrap();
    let log = || home.log("web-out-0.log") + &home.log("web-out-1.log");
    until("its line arrives", || log().contains("still-read\n"));
    // These workers are nobody's children here, and yet it is known how they end.
    assert_ne!(process::parent(before.0[0]), home.daemon().0);
    process::signal(before.0[0], Signal::KILL);
    let app = home.app_when("web", "is whole again", |app| app["restarts"] == 1 && app["state"] == "online");
    assert_eq!(slot(&app, 0)["last_exit"]["signal"], "SIGKILL", "{app:#}");
    // The new ones are.
    replace_keeper(&home);
    let own = pids(&home.app("web"))[0];
    assert_eq!(process::parent(own), home.daemon().0);
    process::signal(own, Signal::KILL);
    home.app_when("web", "is whole again", |app| app["restarts"] == 2 && app["state"] == "online");
    // It is the only daemon of its home, and ends as ever.
    home.ends(5, &["run"]);
    let (keeper, master) = home.daemon();
    process::signal(keeper, Signal::TERM);
    until("all have ended", || ![keeper, master].into_iter().any(process::is_alive));
    assert!(before.1.iter().all(|pid| !process::is_alive(*pid)));
    home.until_refused();
    home.ends(4, &["status"]);
}

/// Where nobody reaps what has lost its parent: in a container whose first process has no mind for that.
#[test]
fn without_a_process_that_reaps_it_is_known_how_workers_end() {
    let home = Home::new();
    home.write_app("web", &settings(&home, 2));
    let mut first = home.program(installed("unshare"));
    first.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
    first.args(["\"$0\" start app.yaml; exec sleep infinity", text(&supervisor())]);
    let unshare = first.spawn().unwrap();
    let first = eventually("it has a child", || process::children(unshare.id()).first().copied());
    home.app_in_state("web", "online");
    let pids = home.pids("web");
    // The first master's workers are the keeper's children when it has died, and strangers when the keeper has.
    for victim in ["pid", "keeper_pid"] {
        let number = home.status()["daemon"][victim].clone();
        let kill = format!("kill -9 {number}");
        let inside = ["--pid", "--target", &first.to_string(), "sh", "-c", &kill];
        assert!(home.program(installed("nsenter")).args(inside).status().unwrap().success());
        eventually("its successor", || {
            let daemon = home.try_status().ok()?["daemon"].clone();
            (daemon["keeper_pid"].is_number() && daemon[victim] != number).then_some(())
        });
    }
    assert_eq!(home.pids("web"), pids);
    home.get("/exit?0").unwrap_or_default();
    let app = home.app_when("web", "is whole again", |app| app["restarts"] == 1 && app["state"] == "online");
    let workers = app["workers"].as_array().unwrap();
    let last: Vec<&Value> =
        workers.iter().map(|one| &one["last_exit"]).filter(|last| !last.is_null()).collect();
    assert!(matches!(last[..], [last] if last["code"] == 0), "{app:#}");
    process::signal(first, Signal::KILL);
    finish(unshare);
}

#[test]
fn it_does_so_in_the_foreground() {
    let home = Home::new();
    home.write_app("web", &settings(&home, 2));
    let run = home.command(&["run", "app.yaml"]).spawn().unwrap();
    let app = home.app_in_state("web", "online");
    assert_eq!(home.daemon().0, run.id());
    replace_keeper(&home);
    assert_eq!(home.pids("web"), pids(&app));
    home.get("/pid").unwrap();
    home.ok(&["reload", "web"]);
    home.ok(&["kill"]);
    assert_eq!(finish(run).code, None);
    home.until_refused();
}

#[test]
fn as_the_first_process_it_takes_everything_with_it() {
    let home = Home::new();
    home.write_app("web", &settings(&home, 2));
    let (unshare, first) = run_as_first(&home);
    home.app_in_state("web", "online");
    let all = [vec![first], process::descendants(first)].concat();
    assert_eq!(all.len(), 4);
    process::signal(first, Signal::KILL);
    finish(unshare);
    assert!(all.iter().all(|pid| !process::is_alive(*pid)));
    home.until_refused();
}

#[test]
fn the_next_daemon_finds_the_workers_of_one_that_died_whole() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let before = home.pids("web");
    until_written(&home, &before);
    let load = Load::start(home.address());
    load.more(50);
    kill_both(&home);
    // They serve without anybody.
    load.more(50);
    let started = home.ok(&["start", "app.yaml"]);
    let notice = "keeper and master of the daemon before have died; 2 of its workers go on";
    assert!(started.stderr.contains(notice), "{}", started.stderr);
    assert!(started.stderr.contains("web unchanged"), "{}", started.stderr);
    let app = home.app("web");
    assert_eq!((&app["restarts"], pids(&app)), (&Value::from(0), before.clone()));
    load.more(50);
    home.get("/out?read-again").unwrap();
    let log = || home.log("web-out-0.log") + &home.log("web-out-1.log");
    until("its line arrives", || log().contains("read-again\n"));
    // What is lost is said.
    let description = home.ok(&["describe", "web"]).stdout;
    assert!(description.contains("cannot bind"), "{description}");
    // All is as ever from here on.
    home.ok(&["reload", "web"]);
    assert_eq!(load.finish(), Vec::<String>::new());
    assert!(!home.ok(&["describe", "web"]).stdout.contains("cannot bind"));
    process::signal(home.pids("web")[0], Signal::KILL);
    home.app_when("web", "is whole again", |app| app["restarts"] == 1 && app["state"] == "online");
    home.ok(&["kill"]);
    home.until_refused();
    assert!(!ledger(&home).exists());
}

#[test]
fn kill_ends_the_workers_of_a_daemon_that_died_whole() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let workers = home.pids("web");
    until_written(&home, &workers);
    kill_both(&home);
    let killed = home.ok(&["kill"]);
    assert!(killed.stderr.contains("ending 2 workers of a daemon"), "{}", killed.stderr);
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
    home.until_refused();
    home.ends(4, &["kill"]);
    // The next one begins as ever.
    home.ok(&["start", "app.yaml"]);
    home.get("/pid").unwrap();
}

#[test]
fn nobody_is_taken_for_a_worker_that_is_none() {
    // Each makes the ledger untrue.
    type Lie = fn(&str) -> String;
    let other_boot: Lie = |text| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")
    };
    let other_processes: Lie = |text| text.replace("\\\"start_time\\\":", "\\\"start_time\\\":1");
    let damaged: Lie = |text| text.replacen("\"key\"", "key", 1);
    let cut: Lie = |text| text[..40].to_owned();
    let lies = [
        ("another boot", other_boot),
        ("pids of others", other_processes),
        ("damaged", damaged),
        ("cut", cut),
    ];
    for (what, lie) in lies {
        let home = Home::new();
        home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1");
        let before = home.pids("web");
        until_written(&home, &before);
        kill_both(&home);
        let text = fs::read_to_string(ledger(&home)).unwrap();
        fs::write(ledger(&home), lie(&text)).unwrap();
        home.ends(4, &["kill"]);
        let started = home.ok(&["start", "app.yaml"]);
        assert!(!started.stderr.contains("go on"), "{what}: {}", started.stderr);
        let is_unreadable = what == "damaged" || what == "cut";
        let says = started.stderr.contains("cannot be taken over");
        assert_eq!(says, is_unreadable, "{what}: {}", started.stderr);
        // Nothing was done to a process that might be somebody else's.
        assert!(process::is_alive(before[0]), "{what}");
        assert_ne!(home.pids("web"), before, "{what}");
        process::kill(before[0]);
        home.ok(&["kill"]);
    }
}
