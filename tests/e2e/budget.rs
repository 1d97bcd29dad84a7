//! Descriptors: what a worker costs, and what there is room for.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Finished, Home, finish, number, text};
use crate::process::{self, Number};
use crate::programs::{fixture, installed, worker};
use crate::wait::{eventually, until};

/// A command of root that cannot raise its limit of open files, or of a user
/// who cannot either.
fn limited(home: &Home, limit: u64, args: &[&str]) -> Command {
    let mut command = home.program(installed("prlimit"));
    command.arg(format!("--nofile={limit}:{limit}"));
    command.arg(installed("setpriv")).args(["--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]);
    command.arg(crate::programs::supervisor()).args(args);
    command
}

#[track_caller]
fn run_limited(home: &Home, limit: u64, args: &[&str]) -> Finished {
    finish(limited(home, limit, args).spawn().unwrap())
}

fn open(pid: Number) -> usize {
    fs::read_dir(process::path(pid, "fd")).unwrap().count()
}

#[test]
fn what_a_worker_costs() {
    const MORE: usize = 20;
    let home = Home::new();
    let address = |port| home.address_with(port).to_string();
    let worker = worker();
    let own = |more: &str| format!("command: [{}{more}]\nmin_uptime: 50ms\ninstances: 1", text(&worker));
    let node = format!(
        "command: [{}, {}]\nmin_uptime: 50ms\ninstances: 1\nexec_mode: fork\nenv: {{HOST: {}, PORT: '29173'}}",
        text(&installed("node")),
        text(&fixture("bind/server.js")),
        home.address().ip()
    );
    home.write_apps(
        "app.yaml",
        &[
            ("captured", &own(&format!(", --bind, '{}'", address(29_171)))),
            ("declared", &(own("") + &format!("\nlisten: '{}'", address(29_172)))),
            ("alone", &node),
        ],
    );
    home.ok(&["start", "app.yaml"]);
    let (keeper, master) = home.daemon();
    let mut before = [keeper, master].map(open);
    for app in ["captured", "declared"] {
        home.ok(&["scale", app, &format!("+{MORE}")]);
        // A little more for what is under way at the moment.
        let room = [7 * MORE + 8, 17 * MORE];
        let costs = eventually("the costs are within the budget", || {
            let now = [keeper, master].map(open);
            let costs = [0, 1].map(|process| now[process].saturating_sub(before[process]));
            (costs[0] <= room[0] && costs[1] <= room[1]).then_some(costs)
        });
        println!("{app}: {MORE} workers cost the keeper {} descriptors, the master {}", costs[0], costs[1]);
        before = [keeper, master].map(open);
    }
}

#[test]
fn nothing_is_begun_that_there_is_no_room_for() {
    let home = Home::new();
    let settings =
        |instances: u32| format!("command: [sleep, '600']\nmin_uptime: 50ms\ninstances: {instances}");
    home.write_apps("app.yaml", &[("web", &settings(80)), ("api", &settings(1))]);
    let refused = run_limited(&home, 1024, &["start", "app.yaml"]);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    let told = "83 workers may need 1811 descriptors, but the daemon's limit is 1024";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    assert!(refused.stderr.contains("LimitNOFILE="), "{}", refused.stderr);
    assert_eq!(home.status()["apps"], Value::Array(Vec::new()));

    home.write_apps("app.yaml", &[("web", &settings(4)), ("api", &settings(1))]);
    home.ok(&["start", "app.yaml"]);
    let before = home.pids("web");
    let refused = home.ends(5, &["scale", "web", "+76"]);
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    home.write_apps("app.yaml", &[("web", &settings(80)), ("api", &settings(2))]);
    home.ends(5, &["start", "app.yaml"]);
    assert_eq!(home.pids("web"), before);
    assert_eq!(number(&home.app("api")["instances"]["wanted"]), 1);
    home.ok(&["scale", "web", "6"]);
}

#[test]
fn a_full_table_is_told_of() {
    let home = Home::new();
    let script = "import os, socket, time\n\
                  held = []\n\
                  for port in range(20000, 20000 + int(os.environ['PORTS'])):\n\
                  \x20   one = socket.socket()\n\
                  \x20   one.bind((os.environ['HOST'], port))\n\
                  \x20   one.listen()\n\
                  \x20   held.append(one)\n\
                  open(os.environ['DONE'], 'w').close()\n\
                  time.sleep(600)\n";
    let script = home.write("ports.py", script);
    let done = home.path("done");
    home.write_app(
        "wide",
        &format!(
            "command: [{}, {}]\ninstances: 1\nmin_uptime: 50ms\nready: started\nkill_timeout: 1s\n\
             env: {{HOST: {}, PORTS: '300', DONE: {}}}",
            text(&installed("python3")),
            text(&script),
            home.address().ip(),
            text(&done)
        ),
    );
    let started = run_limited(&home, 760, &["start", "app.yaml"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    until("all are bound", || done.exists());
    let problem = eventually("it is told", || {
        let problems = home.try_status().ok()?["daemon"]["problems"].clone();
        Some(problems[0].as_str()?.to_owned())
    });
    assert!(problem.contains("the keeper has no room for it"), "{problem}");
    assert!(home.ok(&["status"]).stdout.starts_with(&problem));
    // A worker that the keeper does not know must not live.
    home.write_app(
        "more",
        "command: [sleep, '600']\ninstances: 1\nmin_uptime: 1s\nrestart_backoff: 1\nmax_restarts: 10000",
    );
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("the keeper has no room for it"), "{}", failed.stderr);
    // When there is room again, all is well.
    home.ok(&["delete", "wide", "--now"]);
    home.app_in_state("more", "online");
}
