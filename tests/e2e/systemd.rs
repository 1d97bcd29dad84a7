//! A real systemd, as the first process of a namespace of its own, runs the
//! daemon.

use std::fs;
use std::process::{Child, Command, Stdio};

use supervisor_sys::signal::Signal;

use crate::harness::{Finished, Home, finish, pids, text};
use crate::hierarchy::TestCgroup;
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, next, supervisor, worker};
use crate::wait::{eventually, until};

const UNIT: &str = "supervisor-cluster.service";

/// A running systemd. It and all that it runs end with this.
struct Systemd<'a> {
    home: &'a Home,
    unshare: Child,
    first: Number,
    cgroup: TestCgroup<'a>,
}

impl<'a> Systemd<'a> {
    fn start(home: &'a Home) -> Self {
        let log = fs::File::create(home.path("systemd.log")).unwrap();
        let cgroup = TestCgroup::new(home);
        let mut unshare = home.program(installed("unshare"));
        unshare
            .args(["--fork", "--mount", "--pid", "--kill-child"])
            .arg(fixture("systemd.sh"))
            .arg(cgroup.name())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let unshare = unshare.spawn().unwrap();
        let first = eventually("it has a child", || process::children(unshare.id()).first().copied());
        let systemd = Self { home, unshare, first, cgroup };
        until("systemd runs", || systemd.run(&["systemctl", "is-system-running"]).stdout == "running\n");
        systemd
    }

    /// A command in its namespaces.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.program(installed("nsenter"));
        command.arg(format!("--wd={}", text(&self.home.path(""))));
        command.args(["--mount", "--pid", "--target", &self.first.to_string()]).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Finished {
        finish(self.command(args).spawn().unwrap())
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Finished {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {finished:#?}");
        finished
    }

    #[track_caller]
    fn supervisor(&self, args: &[&str]) -> Finished {
        self.ok(&[&[text(&supervisor())], args].concat())
    }

    /// A property of the unit.
    fn show(&self, property: &str) -> String {
        self.ok(&["systemctl", "show", "--value", "--property", property, UNIT]).stdout.trim().to_owned()
    }

    /// Writes `app.yaml`, installs the unit, and lets `start` start it.
    fn run_app(&self, instances: u32) {
        let (worker, address) = (worker(), self.home.address());
        self.home.write_app(
            "web",
            &format!(
                "command: [{}]\nmin_uptime: 50ms\ninstances: {instances}\nlisten: '{address}'",
                text(&worker)
            ),
        );
        self.supervisor(&["startup"]);
        let started = self.supervisor(&["start", "app.yaml"]);
        assert!(started.stderr.contains(&format!("starting {UNIT}")), "{}", started.stderr);
        until("the unit is active", || self.show("ActiveState") == "active");
    }
}

impl Drop for Systemd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "── systemd.log ──\n{}",
                fs::read_to_string(self.home.path("systemd.log")).unwrap_or_default()
            );
        }
        // Its namespace goes with the first process.
        process::kill(self.first);
        let _ = self.unshare.wait();
    }
}

#[test]
fn the_unit_is_sound() {
    let home = Home::new();
    for args in [&["startup", "--print"][..], &["startup", "--print", "--user"]] {
        let unit = home.write(UNIT, &home.ok(args).stdout);
        let mut verify = home.program(installed("systemd-analyze"));
        verify.arg("verify").arg(&unit).stdin(Stdio::null());
        let verified = finish(verify.spawn().unwrap());
        assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified:?}");
        // Workers may be anything, so little can be forbidden. It must not
        // become less unnoticed; a user's unit has nothing of the kind.
        let threshold = if args.contains(&"--user") { "--threshold=100" } else { "--threshold=90" };
        let mut security = home.program(installed("systemd-analyze"));
        let rated =
            finish(security.args(["security", "--offline=true", threshold]).arg(&unit).spawn().unwrap());
        assert_eq!(rated.code, Some(0), "{rated:?}");
    }
}

#[test]
fn an_upgrade_is_nothing_to_it() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    systemd.run_app(2);
    let seen = || ["MainPID", "NRestarts", "ActiveEnterTimestampMonotonic"].map(|name| systemd.show(name));
    let (before, workers) = (seen(), home.pids("web"));
    let load = Load::start(home.address());
    let next = next();
    let upgraded = systemd.supervisor(&["upgrade", "--binary", text(&next)]);
    assert!(upgraded.stderr.contains("version 0.2.0-next runs"), "{}", upgraded.stderr);
    load.more(20);
    assert_eq!((seen(), home.pids("web")), (before, workers));
    assert_eq!(load.finish(), Vec::<String>::new());
    // It still hears the keeper, and the keeper hears it.
    let says = |words: &str| systemd.show("StatusText").contains(words);
    systemd.ok(&[text(&next), "scale", "web", "3"]);
    until("the status goes on", || says("3 of 3 workers ready"));
    systemd.ok(&["systemctl", "stop", UNIT]);
    assert_eq!(systemd.show("Result"), "success");
}

#[test]
fn a_unit_is_installed_and_removed() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    let enabled = || systemd.run(&["systemctl", "is-enabled", UNIT]).stdout;
    systemd.supervisor(&["unstartup"]);
    for _ in 0..2 {
        systemd.supervisor(&["startup"]);
        assert_eq!(enabled(), "enabled\n");
    }
    systemd.supervisor(&["unstartup"]);
    assert_eq!(enabled(), "");
    // Another home is no business of this unit.
    systemd.supervisor(&["startup"]);
    let other = home.path("other");
    let mut start = systemd.command(&[text(&supervisor()), "start", "--", "sleep", "600"]);
    let started = finish(start.env("SUPERVISOR_HOME", &other).spawn().unwrap());
    assert_eq!(started.code, Some(0), "{started:?}");
    assert_eq!(systemd.show("ActiveState"), "inactive");
    // Nor is a unit that somebody else wrote ours.
    systemd.ok(&["sh", "-c", &format!("echo '[Unit]' > /etc/systemd/system/{UNIT}")]);
    for command in ["startup", "unstartup"] {
        assert_eq!(systemd.run(&[text(&supervisor()), command]).code, Some(5));
    }
}

#[test]
fn the_unit_of_a_package_is_used() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    let enabled = || systemd.run(&["systemctl", "is-enabled", UNIT]).stdout;
    let packaged = format!("/usr/lib/systemd/system/{UNIT}");
    systemd.ok(&["sh", "-c", &format!("{} startup --print > {packaged}", text(&supervisor()))]);
    systemd.ok(&["systemctl", "daemon-reload"]);
    assert_eq!(enabled(), "disabled\n");
    // Nothing is written beside it, and it is the one that `start` starts.
    systemd.run_app(1);
    assert_eq!(enabled(), "enabled\n");
    assert_eq!(systemd.show("FragmentPath"), packaged);
    systemd.supervisor(&["unstartup"]);
    assert_eq!(enabled(), "disabled\n");
    systemd.ok(&["systemctl", "stop", UNIT]);
    // One that says something else needs a file of its own.
    systemd.ok(&["sed", "-i", "s/^ExecStart=.*/ExecStart=true/", &packaged]);
    systemd.supervisor(&["startup"]);
    assert_eq!(systemd.show("FragmentPath"), format!("/etc/systemd/system/{UNIT}"));
    systemd.supervisor(&["unstartup"]);
    assert_eq!(systemd.show("FragmentPath"), packaged);
}

#[test]
fn it_stops_and_starts_with_the_unit() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    systemd.run_app(2);
    assert_eq!(home.app("web")["state"], "online");
    assert_eq!(home.daemon().0.to_string(), systemd.show("MainPID"));
    until("systemd is told", || systemd.show("StatusText") == "2 of 2 workers ready");
    systemd.ok(&["systemctl", "stop", UNIT]);
    assert_eq!((systemd.show("ActiveState"), systemd.show("Result")), ("inactive".into(), "success".into()));
    home.until_refused();
    home.until_logged("web:1: stopped as ordered, killed by SIGTERM");
    // As at the next boot: what is declared is ready when the unit is.
    systemd.ok(&["systemctl", "start", UNIT]);
    assert_eq!(home.app("web")["state"], "online");
    home.get("/pid").unwrap();
    // A person's `kill` is final.
    systemd.supervisor(&["kill"]);
    until("the unit has noticed", || systemd.show("ActiveState") == "inactive");
    assert_eq!(systemd.show("NRestarts"), "0");
    systemd.supervisor(&["start", "web"]);
    home.get("/pid").unwrap();
}

#[test]
fn a_reload_that_is_rolled_back_fails() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    let server = home.copy("server", &worker());
    home.write_app(
        "web",
        &format!("command: [{}]\nmin_uptime: 2s\ninstances: 2\nlisten: '{}'", text(&server), home.address()),
    );
    systemd.supervisor(&["startup"]);
    systemd.supervisor(&["start", "app.yaml"]);
    let before = home.pids("web");
    // Two slots take longer than the unit allows; the daemon asks for more.
    let drop_in = format!("/etc/systemd/system/{UNIT}.d");
    let short = "[Service]\\nTimeoutStartSec=3s\\n";
    systemd.ok(&["sh", "-c", &format!("mkdir {drop_in}; printf '{short}' > {drop_in}/short.conf")]);
    systemd.ok(&["systemctl", "daemon-reload"]);
    systemd.ok(&["systemctl", "reload", UNIT]);
    let after = home.pids("web");
    assert!(after.iter().all(|pid| !before.contains(pid)));
    // The next release is broken.
    fs::remove_file(&server).unwrap();
    home.copy("server", &installed("false"));
    assert_eq!(systemd.run(&["systemctl", "reload", UNIT]).code, Some(1));
    assert_eq!(home.pids("web"), after);
    assert_eq!(systemd.show("ActiveState"), "active");
    home.get("/pid").unwrap();
}

#[test]
fn it_comes_back_when_it_is_killed() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    systemd.run_app(2);
    let keeper = systemd.show("MainPID");
    let load = Load::start(home.address());
    // Inside, its pid is another one.
    let master = home.daemon().1;
    systemd.ok(&["sh", "-c", &format!("kill -KILL {master}")]);
    home.until_other_master(master);
    home.app_when("web", "is back", |app| app["state"] == "online" && app["instances"]["ready"] == 2);
    load.more(50);
    let failures = load.finish();
    assert!(failures.iter().all(|failure| !failure.contains("refused")), "{failures:?}");
    assert_eq!(systemd.show("MainPID"), keeper);
    // Without its keeper the master serves on, and hands over to the next one.
    let workers = home.pids("web");
    let load = Load::start(home.address());
    load.more(50);
    systemd.ok(&["systemctl", "kill", "--signal", &Signal::KILL.to_string(), "--kill-who=main", UNIT]);
    until("the unit is back", || systemd.show("NRestarts") == "1" && systemd.show("ActiveState") == "active");
    let app = home.app_when("web", "is back", |app| app["state"] == "online");
    assert_eq!(app["instances"]["ready"], 2);
    assert_eq!(home.daemon().0.to_string(), systemd.show("MainPID"));
    assert_eq!(pids(&app), workers);
    load.more(50);
    // When both are gone, the next ones find the workers.
    let (keeper, master) = home.daemon();
    systemd.ok(&["sh", "-c", &format!("kill -KILL {keeper} {master}")]);
    until("the unit is back", || systemd.show("NRestarts") == "2" && systemd.show("ActiveState") == "active");
    assert_eq!(home.pids("web"), workers);
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
    // What nobody knows any more is ended.
    let (keeper, master) = home.daemon();
    let forget = format!("rm {}", text(&home.daemon_folder().join("run/workers.ledger")));
    systemd.ok(&["sh", "-c", &format!("kill -STOP {master}; {forget}; kill -KILL {keeper} {master}")]);
    home.app_when("web", "has other workers", |app| {
        app["state"] == "online" && pids(app).iter().all(|pid| !workers.contains(pid))
    });
    home.get("/pid").unwrap();
    until("nothing is left of the one before", || {
        let tasks = systemd.ok(&["sh", "-c", "ls /proc | grep -c '^[0-9]'"]).stdout;
        tasks.trim().parse::<u32>().unwrap() < 20
    });
}

#[test]
fn a_slow_start_gets_its_time() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    let slow =
        "command: [sh, -c, 'sleep 6; systemd-notify --ready; exec sleep 600']\nready: notify\ninstances: 1";
    home.write_app("slow", slow);
    systemd.supervisor(&["startup"]);
    systemd.supervisor(&["start", "--no-wait", "app.yaml"]);
    // Less than the app needs; the drop-in counts from the next start on.
    let drop_in = format!("/etc/systemd/system/{UNIT}.d");
    let text = "[Service]\\nTimeoutStartSec=3s\\n";
    systemd.ok(&["sh", "-c", &format!("mkdir {drop_in}; printf '{text}' > {drop_in}/short.conf")]);
    systemd.ok(&["systemctl", "daemon-reload"]);
    systemd.ok(&["systemctl", "restart", UNIT]);
    assert_eq!(home.app("slow")["state"], "online");
}

#[test]
fn a_socket_of_systemd_is_used() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    systemd.run_app(2);
    systemd.ok(&["systemctl", "stop", UNIT]);
    home.until_refused();
    let (address, socket) = (home.address(), UNIT.replace(".service", ".socket"));
    let unit = format!("[Socket]\\nListenStream={address}\\n");
    systemd.ok(&["sh", "-c", &format!("printf '{unit}' > /etc/systemd/system/{socket}")]);
    systemd.ok(&["systemctl", "daemon-reload"]);
    systemd.ok(&["systemctl", "start", &socket]);
    // The first request starts the unit, and waits until somebody answers.
    home.get("/pid").unwrap();
    let app = home.app_in_state("web", "online");
    assert_eq!(app["listeners"][0]["policy"], "shared");
    assert!(app["workers"].as_array().unwrap().iter().all(|worker| worker["queue"].is_null()));
    // It outlives masters and daemons: nobody is ever refused.
    let load = Load::start(address);
    let master = home.daemon().1;
    systemd.ok(&["sh", "-c", &format!("kill -KILL {master}")]);
    home.until_other_master(master);
    load.more(50);
    home.app_in_state("web", "online");
    systemd.ok(&["systemctl", "restart", UNIT]);
    load.more(50);
    let failures = load.finish();
    assert!(failures.iter().all(|failure| !failure.contains("refused")), "{failures:?}");
}

#[test]
fn workers_are_in_cgroups_of_their_own() {
    let home = Home::new();
    let systemd = Systemd::start(&home);
    systemd.run_app(2);
    let unit = format!("/system.slice/{UNIT}");
    let members = |below: &str| systemd.cgroup.members(&format!("{unit}{below}")).len();
    let workers = || [members("/workers/web-1"), members("/workers/web-2")];
    assert_eq!(workers(), [1, 1]);
    let (keeper, master) = home.daemon();
    // Neither is moved, so that systemd finds the keeper where it put it.
    until("only keeper and master are in its own", || members("") == 2);
    // A lost keeper comes back, though workers are still there.
    systemd.ok(&["sh", "-c", &format!("kill -KILL {keeper} {master}")]);
    until("the unit is back", || systemd.show("NRestarts") == "1" && systemd.show("ActiveState") == "active");
    let app = home.app_when("web", "is back", |app| app["state"] == "online");
    assert_eq!(workers(), [1, 1], "{app:#}");
    systemd.ok(&["systemctl", "reload", UNIT]);
    systemd.ok(&["systemctl", "stop", UNIT]);
    assert_eq!(systemd.show("Result"), "success");
    until("nothing is left of it", || !systemd.cgroup.all().iter().any(|path| path.starts_with(&unit)));
}
