//! Workers in cgroups of their own, in a container's tree of them.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use supervisor_sys::process::process_table;
use supervisor_sys::signal::Signal;

use crate::harness::{Finished, Home, finish};
use crate::process::{self, Number};
use crate::programs::{fixture, installed, supervisor};
use crate::wait::until;

/// Who starts it is gone, and so is its session: nothing but the cgroup tells
/// whose it is.
const DAEMONISED: &str = "(setsid sh -c 'sleep 600 & sleep 600 & exit')";

/// A daemon in a cgroup of its own.
struct Container<'a> {
    home: &'a Home,
    /// Of the cgroup, for those outside.
    name: String,
}

impl<'a> Container<'a> {
    fn new(home: &'a Home) -> Self {
        fs::create_dir(home.path("cgroup")).unwrap();
        let [_, a, b, c] = match home.address().ip() {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(_) => unreachable!("the tests' addresses are of IPv4"),
        };
        Self { home, name: format!("supervisor-test-{a}-{b}-{c}") }
    }

    fn run(&self) -> Child {
        self.run_by(&[])
    }

    /// `run app.yaml`, started by a command that shares the cgroup.
    fn run_by(&self, starter: &[&str]) -> Child {
        let mut unshare = self.home.program(installed("unshare"));
        unshare.arg("--mount").arg(fixture("cgroup.sh")).arg(self.home.path("cgroup")).arg(&self.name);
        unshare.args(starter).arg(supervisor()).args(["run", "app.yaml"]);
        unshare.spawn().unwrap()
    }

    /// The processes in a cgroup of the container.
    fn members(&self, cgroup: &str) -> Vec<Number> {
        let line = format!("0::/{}{cgroup}", self.name);
        let all = process_table().unwrap().into_iter().filter(|entry| !entry.zombie);
        all.map(|entry| entry.pid.as_raw_pid().unsigned_abs())
            .filter(|pid| {
                let text = fs::read_to_string(process::path(*pid, "cgroup")).unwrap_or_default();
                text.lines().any(|own| own == line)
            })
            .collect()
    }

    /// The cgroups of workers that are there, as a process of the daemon sees
    /// them.
    fn workers(&self, seen_by: Number) -> Vec<String> {
        let folder = self.home.path("cgroup/workers");
        let folder: PathBuf = process::path(seen_by, "root").join(folder.strip_prefix("/").unwrap());
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The cgroups that are left, for those outside.
    fn left(&self) -> String {
        self.outside(r#"cd "$1" && find . -mindepth 1 -type d"#).stdout
    }

    /// A script in the hierarchy's folder; `$1` is the cgroup.
    fn outside(&self, script: &str) -> Finished {
        let script = format!("mount -t cgroup2 none \"$0\" && cd \"$0\" && {script}");
        let mut unshare = self.home.program(installed("unshare"));
        unshare.args(["--mount", "sh", "-c", &script]).arg(self.home.path("cgroup")).arg(&self.name);
        finish(unshare.spawn().unwrap())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let remove = r#"echo 1 >"$1/cgroup.kill"
            for _ in $(seq 100); do
                [ -d "$1" ] || exit 0
                find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null
                sleep 0.05
            done"#;
        self.outside(remove);
    }
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

#[test]
fn what_a_worker_has_started_ends_with_it() {
    let home = Home::new();
    let container = Container::new(&home);
    write_app(&home, DAEMONISED, "");
    let run = container.run();
    home.app_in_state("web", "online");
    let (keeper, master) = home.daemon();
    let first = home.pids("web");
    until("all are in its cgroup", || container.members("/workers/web-1").len() == 3);
    assert!(container.members("/workers/web-1").contains(&first[0]));
    assert!([keeper, master].iter().all(|pid| !container.members("/workers/web-1").contains(pid)));
    // It crashes.
    process::kill(first[0]);
    home.app_when("web", "is back", |app| app["state"] == "online" && app["workers"][0]["restarts"] == 1);
    until("the first one's are gone", || container.members("/workers/web-1").is_empty());
    until("its cgroup is gone", || container.workers(keeper) == ["web-2"]);
    until("all are in the second's", || container.members("/workers/web-2").len() == 3);
    // A person stops it.
    home.ok(&["stop", "web"]);
    assert_eq!(container.members("/workers/web-2"), [] as [Number; 0]);
    until("no cgroup is left", || container.workers(keeper).is_empty());
    let log = home.daemon_log();
    assert!(!log.contains("did not end in time"), "{log}");
    home.ok(&["start", "web"]);
    end(&home, run);
    assert!(!container.left().contains("workers"), "{}", container.left());
}

#[test]
fn whoever_ignores_the_signal_is_killed() {
    let home = Home::new();
    let container = Container::new(&home);
    let deaf = "(trap '' TERM; setsid sh -c 'sleep 600 & exit')";
    write_app(&home, &format!("{deaf}; trap - TERM"), "kill_timeout: 300ms");
    let run = container.run();
    home.app_in_state("web", "online");
    until("all are in its cgroup", || container.members("/workers/web-1").len() == 2);
    home.ok(&["stop", "web"]);
    assert_eq!(container.members("/workers/web-1"), [] as [Number; 0]);
    let log = home.daemon_log();
    assert!(log.contains("did not end in time"), "{log}");
    end(&home, run);
}

#[test]
fn a_new_master_ends_what_the_last_one_s_workers_left() {
    let home = Home::new();
    let container = Container::new(&home);
    write_app(&home, DAEMONISED, "");
    let run = container.run();
    home.app_in_state("web", "online");
    let (keeper, master) = home.daemon();
    until("all are in its cgroup", || container.members("/workers/web-1").len() == 3);
    process::kill_and_wait(master);
    until("all of the first one's are gone", || container.members("/workers/web-1").is_empty());
    home.app_in_state("web", "online");
    assert!(home.daemon().1 != master);
    let names = container.workers(keeper);
    assert!(names.len() == 1 && names[0] != "web-1", "{names:?}");
    end(&home, run);
    assert!(!container.left().contains("workers"), "{}", container.left());
}

#[test]
fn a_cgroup_that_others_share_is_left_alone() {
    let home = Home::new();
    let container = Container::new(&home);
    write_app(&home, DAEMONISED, "");
    let run = container.run_by(&["sh", "-c", "sleep 600 >/dev/null 2>&1 & exec \"$@\"", "sh"]);
    home.app_in_state("web", "online");
    assert_eq!(container.left(), "");
    assert!(container.members("").contains(&home.pids("web")[0]));
    end(&home, run);
}
