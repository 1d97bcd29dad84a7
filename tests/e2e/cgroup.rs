//! Workers in cgroups of their own, in a container's tree of them.

use std::fs;
use std::process::Child;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish};
use crate::hierarchy::TestCgroup;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, supervisor};
use crate::wait::until;

/// Who starts it is gone, and so is its session: nothing but the cgroup tells
/// whose it is.
const DAEMONISED: &str = "(setsid sh -c 'sleep 600 & sleep 600 & exit')";

/// A daemon in a cgroup of its own, the highest that it can see.
fn run(home: &Home, cgroup: &TestCgroup<'_>) -> Child {
    run_by(home, cgroup, &[])
}

/// The daemon, started by a command that shares the cgroup.
fn run_by(home: &Home, cgroup: &TestCgroup<'_>, starter: &[&str]) -> Child {
    let mut unshare = home.program(installed("unshare"));
    unshare.arg("--mount").arg(fixture("cgroup.sh")).arg(home.path("cgroup")).arg(cgroup.name());
    unshare.args(starter).arg(supervisor()).args(["run", "app.yaml"]);
    unshare.spawn().unwrap()
}

fn write_app(home: &Home, script: &str, settings: &str) {
    let command = format!("command: [sh, -c, \"{script}; exec sleep 600\"]");
    home.write_app("web", &format!("{command}\nmin_uptime: 50ms\ninstances: 1\n{settings}"));
}

fn end(home: &Home, run: Child) {
    process::signal(home.daemon().0, Signal::TERM);
    let ended = finish(run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Waits until a worker's cgroup has this many processes, each of which has become a `sleep`: then all that
/// starts others is over.
#[track_caller]
fn until_asleep(cgroup: &TestCgroup<'_>, worker: &str, count: usize) {
    until("all are in its cgroup", || {
        let members = cgroup.members(&format!("/workers/{worker}"));
        let name = |pid: &Number| fs::read_to_string(process::path(*pid, "comm")).unwrap_or_default();
        members.len() == count && members.iter().all(|pid| name(pid) == "sleep\n")
    });
}

#[test]
fn what_a_worker_has_started_ends_with_it() {
    let home = Home::new();
    let cgroup = TestCgroup::new(&home);
    write_app(&home, DAEMONISED, "");
    let run = run(&home, &cgroup);
    home.app_in_state("web", "online");
    let (keeper, master) = home.daemon();
    let first = home.pids("web");
    until_asleep(&cgroup, "web-1", 3);
    assert!(cgroup.members("/workers/web-1").contains(&first[0]));
    assert_eq!(home.app("web")["workers"][0]["cgroup"], "/workers/web-1");
    let described = home.ok(&["describe", "web"]).stdout;
    assert!(described.contains("0: /workers/web-1"), "{described}");
    assert!([keeper, master].iter().all(|pid| !cgroup.members("/workers/web-1").contains(pid)));
    // It crashes.
    process::kill(first[0]);
    home.app_when("web", "is back", |app| app["state"] == "online" && app["workers"][0]["restarts"] == 1);
    until("the first one's are gone", || cgroup.members("/workers/web-1").is_empty());
    until("its cgroup is gone", || cgroup.workers() == ["web-2"]);
    until_asleep(&cgroup, "web-2", 3);
    // A person stops it.
    home.ok(&["stop", "web"]);
    until("the second one's are gone", || cgroup.members("/workers/web-2").is_empty());
    until("no cgroup is left", || cgroup.workers().is_empty());
    let log = home.daemon_log();
    assert!(!log.contains("did not end in time"), "{log}");
    home.ok(&["start", "web"]);
    end(&home, run);
    // Where the kernel can limit memory, keeper and master were in there.
    until("nothing else is left", || cgroup.all().iter().all(|path| path == "/daemon"));
}

#[test]
fn whoever_ignores_the_signal_is_killed() {
    let home = Home::new();
    let cgroup = TestCgroup::new(&home);
    let deaf = "(trap '' TERM; setsid sh -c 'sleep 600 & exit')";
    write_app(&home, &format!("{deaf}; trap - TERM"), "kill_timeout: 300ms");
    let run = run(&home, &cgroup);
    home.app_in_state("web", "online");
    until_asleep(&cgroup, "web-1", 2);
    home.ok(&["stop", "web"]);
    until("all are gone", || cgroup.members("/workers/web-1").is_empty());
    home.until_logged("did not end in time");
    end(&home, run);
}

#[test]
fn a_new_master_takes_cgroups_over() {
    let home = Home::new();
    let cgroup = TestCgroup::new(&home);
    write_app(&home, DAEMONISED, "");
    let run = run(&home, &cgroup);
    home.app_in_state("web", "online");
    let (master, before) = (home.daemon().1, home.pids("web"));
    until_asleep(&cgroup, "web-1", 3);
    process::kill_and_wait(master);
    let app = home.app_when("web", "is known to another master", |_| home.daemon().1 != master);
    assert_eq!(crate::harness::pids(&app), before);
    assert!(app["workers"][0]["cgroup"].as_str().unwrap().ends_with("/workers/web-1"), "{app:#}");
    assert_eq!((cgroup.members("/workers/web-1").len(), cgroup.workers()), (3, vec!["web-1".to_owned()]));
    // What a crash leaves is ended, as ever.
    process::kill_and_wait(before[0]);
    until("all of the first one's are gone", || cgroup.members("/workers/web-1").is_empty());
    home.app_when("web", "has another worker", |app| app["state"] == "online" && app["restarts"] == 1);
    end(&home, run);
    // Where the kernel can limit memory, keeper and master were in there.
    until("nothing else is left", || cgroup.all().iter().all(|path| path == "/daemon"));
}

#[test]
fn a_cgroup_that_others_share_is_left_alone() {
    let home = Home::new();
    let cgroup = TestCgroup::new(&home);
    write_app(&home, DAEMONISED, "");
    let run = run_by(&home, &cgroup, &["sh", "-c", "sleep 600 >/dev/null 2>&1 & exec \"$@\"", "sh"]);
    home.app_in_state("web", "online");
    assert_eq!(cgroup.all(), [] as [&str; 0]);
    assert!(home.app("web")["workers"][0]["cgroup"].is_null());
    assert!(cgroup.members("").contains(&home.pids("web")[0]));
    end(&home, run);
}
