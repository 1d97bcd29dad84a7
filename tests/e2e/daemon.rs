//! The daemon itself: how it begins, what it outlives, how it ends.

use std::fs;
use std::os::unix::fs::chown;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, pids, text};
use crate::load::Load;
use crate::process;
use crate::programs::{installed, supervisor, worker};
use crate::terminal::Terminal;
use crate::wait::until;

fn settings(home: &Home, instances: u32) -> String {
    let (worker, address) = (worker(), home.address());
    format!("command: [{}]\nmin_uptime: 50ms\ninstances: {instances}\nlisten: '{address}'", text(&worker))
}

#[test]
fn it_outlives_the_session_that_started_it() {
    let home = Home::new();
    home.write_app("web", &settings(&home, 2));
    // The terminal closes as soon as the command has ended.
    let line = format!("{} start app.yaml", text(&supervisor()));
    let started = Terminal::start(&home, &line).finish();
    assert_eq!(started.code, Some(0), "{started:?}");
    let (keeper, master) = home.daemon();
    for pid in [keeper, master] {
        let stat = fs::read_to_string(process::path(pid, "stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        assert_eq!(
            (fields[3], fields[4]),
            (&*keeper.to_string(), "0"),
            "a session of its own, and no terminal"
        );
        assert_eq!(fs::read_link(process::path(pid, "cwd")).unwrap(), std::path::Path::new("/"));
    }
    assert_eq!(home.app("web")["state"], "online");
    home.get("/pid").unwrap();
    assert_eq!(home.daemon(), (keeper, master));
}

#[test]
fn nobody_is_refused_while_masters_are_killed() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let load = Load::start(home.address());
    for _ in 0..3 {
        load.more(50);
        let (keeper, master) = home.daemon();
        let workers = home.pids("web");
        process::kill_and_wait(master);
        let app = home.app_in_state("web", "online");
        assert_eq!(pids(&app), workers);
        let (same, another) = home.daemon();
        assert_eq!(same, keeper);
        assert_ne!(another, master);
    }
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
}

#[test]
fn what_a_person_wanted_outlives_the_master() {
    let home = Home::new();
    let sleep = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 2";
    home.write_apps("app.yaml", &[("off", sleep), ("wide", sleep), ("half", sleep)]);
    home.ok(&["start", "app.yaml"]);
    home.ok(&["stop", "off", "half:0"]);
    home.ok(&["scale", "wide", "3"]);
    let (_, master) = home.daemon();
    process::kill_and_wait(master);
    home.app_when("wide", "is back", |app| app["state"] == "online" && app["instances"]["ready"] == 3);
    assert_eq!(home.app("off")["state"], "stopped");
    let half = home.app_when("half", "is back", |app| app["instances"]["ready"] == 1);
    assert_eq!(half["workers"][0]["state"], "stopped");
    // It still knows which file they came from.
    let second = home.ok(&["start", "app.yaml"]);
    assert!(second.stderr.contains("wide scaled to 2 workers"), "{}", second.stderr);
    assert!(second.stderr.contains("off started"), "{}", second.stderr);
}

#[test]
fn a_master_that_hangs_is_replaced() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 1));
    let (keeper, master) = home.daemon();
    let workers = home.pids("web");
    let load = Load::with_clients(home.address(), 4);
    process::stop_and_wait(master);
    until("there is another master", || {
        !process::is_alive(master)
            && process::children(keeper).iter().any(|pid| *pid != master && !workers.contains(pid))
    });
    assert_eq!(pids(&home.app_in_state("web", "online")), workers);
    until("the keeper tells why", || home.log("keeper.log").contains("does not answer any more"));
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
}

#[test]
fn kill_ends_everything() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let (keeper, _) = home.daemon();
    let all = [vec![keeper], process::descendants(keeper)].concat();
    assert_eq!(all.len(), 4);
    let killed = home.ok(&["kill"]);
    assert!(killed.stderr.contains("the daemon has ended"), "{}", killed.stderr);
    until("all are gone", || all.iter().all(|pid| !process::is_alive(*pid)));
    home.until_refused();
    assert!(!home.socket().exists());
    home.ends(4, &["status"]);
    home.ends(4, &["kill"]);
    // The next one begins with the same app.
    home.ok(&["start", "app.yaml"]);
    home.get("/pid").unwrap();
}

#[test]
fn sigterm_ends_it_gracefully() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2));
    let (keeper, _) = home.daemon();
    process::signal(keeper, Signal::TERM);
    until("it has ended", || !process::is_alive(keeper));
    home.until_logged("web:0: stopped as ordered, killed by SIGTERM");
    home.until_logged("everything has ended");
    home.ends(4, &["status"]);
}

#[test]
fn two_that_start_at_the_same_time_share_one_daemon() {
    let home = Home::new();
    for name in ["one", "two", "three"] {
        let settings = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1";
        home.write_apps(&format!("{name}.yaml"), &[(name, settings)]);
    }
    let starts = ["one", "two", "three"]
        .map(|name| home.command(&["start", &format!("{name}.yaml")]).spawn().unwrap());
    for start in starts {
        let start = finish(start);
        assert_eq!(start.code, Some(0), "{start:?}");
    }
    assert_eq!(home.status()["apps"].as_array().unwrap().len(), 3);
    let folder = home.daemon_folder();
    until("there is one keeper and one master", || process::with_argument_below(&folder).len() == 2);
}

#[test]
fn a_plain_user_has_a_daemon_of_its_own() {
    const NOBODY: u32 = 65534;
    let home = Home::new();
    home.let_others_in();
    let (program, worker) = (home.copy("supervisor", &supervisor()), home.copy("worker", &worker()));
    let own = home.path("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    home.write_app(
        "web",
        &format!(
            "command: [{}]\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'",
            text(&worker),
            home.address()
        ),
    );
    let command = |args: &[&str]| {
        let mut command = home.program(installed("setpriv"));
        command
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
            .arg(&program)
            .args(args)
            .env_remove("SUPERVISOR_HOME")
            .env("HOME", &own)
            .env("XDG_RUNTIME_DIR", &own);
        finish(command.spawn().unwrap())
    };
    let ok = |args: &[&str]| {
        let finished = command(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
        finished.stdout
    };
    ok(&["start", "app.yaml"]);
    home.get("/pid").unwrap();
    let status: serde_json::Value = serde_json::from_str(&ok(&["status", "--json"])).unwrap();
    let app = &status["apps"][0];
    assert_eq!(app["state"], "online");
    for pid in pids(app) {
        let status = fs::read_to_string(process::path(pid, "status")).unwrap();
        assert_eq!(process::field(&status, "Uid").unwrap().split('\t').next(), Some("65534"));
    }
    home.get("/out?hello").unwrap();
    until("its line arrives", || ok(&["logs"]).contains(" | hello\n"));
    assert!(own.join(".local/state/supervisor-cluster/log").is_dir());
    ok(&["restart", "web"]);
    ok(&["scale", "web", "1"]);
    ok(&["stop", "web"]);
    // Another user's name is not for it to take.
    home.write_app("root", "command: [sleep, '600']\nuser: root\ninstances: 1");
    let failed = command(&["start", "app.yaml"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("operation not permitted"), "{failed:?}");
    ok(&["kill"]);
    assert!(!own.join("supervisor-cluster/control.sock").exists());
}
