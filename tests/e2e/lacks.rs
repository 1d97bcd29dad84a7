//! What the machine may lack: descriptors, processes, room on a disk. The daemon
//! tells, and goes on when it is over.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Finished, Home, finish, number, pids, text};
use crate::load::Load;
use crate::mounts::{ReadOnly, Tmpfs};
use crate::process::{self, Number};
use crate::programs::{installed, supervisor, worker};
use crate::reload_together::serving;
use crate::wait::{eventually, until};

/// Settings of a worker at [`Home::address`].
fn settings(home: &Home) -> String {
    let worker = worker();
    format!(
        "command: [{}]\nmin_uptime: 50ms\nrestart_delay: 50ms\ninstances: 1\nlisten: '{}'",
        text(&worker),
        home.address()
    )
}

/// A soft limit of a running process that is changed for as long as this lives.
struct Limited {
    pid: Number,
    name: &'static str,
    before: String,
}

impl Limited {
    #[track_caller]
    fn to(pid: Number, name: &'static str, limit: u64) -> Self {
        let this = Self { pid, name, before: prlimit(pid, &["--noheadings", "--output=SOFT", name]) };
        this.set(&limit.to_string());
        this
    }

    #[track_caller]
    fn set(&self, limit: &str) {
        prlimit(self.pid, &[&format!("{}={limit}:", self.name)]);
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.set(self.before.trim());
    }
}

/// Who may change a process's limits is its own user.
#[track_caller]
fn prlimit(pid: Number, args: &[&str]) -> String {
    let user = fs::metadata(process::path(pid, "")).unwrap().uid();
    let mut command = Command::new(installed("setpriv"));
    command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
    let output = command.arg("prlimit").arg(format!("--pid={pid}")).args(args).output().unwrap();
    assert!(output.status.success(), "prlimit {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What does not work, as `status` has it.
fn problems(home: &Home) -> Option<Vec<String>> {
    let status = home.try_status().ok()?;
    let problems = status["daemon"]["problems"].as_array()?;
    Some(problems.iter().map(|problem| problem.as_str().unwrap().to_owned()).collect())
}

#[track_caller]
fn until_told(home: &Home, what: &str) -> String {
    eventually(what, || problems(home)?.into_iter().find(|problem| problem.contains(what)))
}

#[track_caller]
fn until_solved(home: &Home) {
    until("nothing is wrong", || problems(home).is_some_and(|problems| problems.is_empty()));
}

/// The number of the next descriptor that a process opens.
fn lowest_free(pid: Number) -> u64 {
    let numbers: BTreeSet<u64> = fs::read_dir(process::path(pid, "fd"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    (0..).find(|number| !numbers.contains(number)).unwrap()
}

#[test]
fn without_descriptors() {
    let home = Home::new();
    home.start_app("web", &settings(&home));
    let (_, master) = home.daemon();
    let victim = home.pids("web")[0];
    // No number below the limit is free, so nothing can be opened any more. Whatever was open for a moment
    // is closed when the same one is free again and again.
    let mut limit = lowest_free(master);
    let mut looks = 0;
    until("nothing is open for a moment", || {
        let now = lowest_free(master);
        looks = if now == limit { looks + 1 } else { 0 };
        limit = now;
        looks == 10
    });
    let limited = Limited::to(master, "--nofile", limit);
    home.status();
    home.until_logged("control socket: cannot accept: too many open files");
    process::kill_and_wait(victim);
    let app = home.app_when("web", "tells why", |app| {
        app["workers"][0]["last_exit"]["reason"]
            .as_str()
            .is_some_and(|why| why.contains("too many open files"))
    });
    let reason = app["workers"][0]["last_exit"]["reason"].as_str().unwrap();
    assert!(reason.contains("raise the daemon's limit"), "{reason}");
    let refused = home.ends(5, &["scale", "web", "2"]);
    assert!(refused.stderr.contains("descriptors, but the daemon's limit is"), "{}", refused.stderr);
    drop(limited);
    home.app_in_state("web", "online");
    assert_eq!(home.daemon().1, master);
}

/// A daemon of a user whom nobody else is.
struct Plain {
    home: Home,
    user: u32,
}

impl Plain {
    fn new() -> Self {
        let home = Home::new();
        home.let_others_in();
        let user = 100_000 + home.number();
        home.copy("supervisor", &supervisor());
        home.copy("worker", &worker());
        fs::create_dir(home.path("own")).unwrap();
        chown(home.path("own"), Some(user), Some(user)).unwrap();
        Self { home, user }
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        self.run_limited(args, "")
    }

    /// Runs it under limits, as `prlimit` takes them.
    #[track_caller]
    fn run_limited(&self, args: &[&str], limits: &str) -> Finished {
        let mut command = self.home.program(installed("prlimit"));
        command.args(limits.split_whitespace()).arg(installed("setpriv"));
        command.args([format!("--reuid={}", self.user), format!("--regid={}", self.user)]);
        command.arg("--clear-groups").arg(self.home.path("supervisor")).args(args);
        command.env("SUPERVISOR_HOME", self.home.path("own/d")).env("HOME", self.home.path("own"));
        finish(command.spawn().unwrap())
    }

    /// The settings of [`settings`], for workers of this user.
    fn settings(&self) -> String {
        settings(&self.home).replace(text(&worker()), text(&self.home.path("worker")))
    }

    #[track_caller]
    fn status(&self) -> Value {
        let finished = self.run(&["status", "--json"]);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.run(&["kill", "--now"]);
    }
}

#[test]
fn without_processes() {
    let plain = Plain::new();
    let home = &plain.home;
    home.write_app("web", &plain.settings());
    let started = plain.run(&["start", "app.yaml"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let status = plain.status();
    let master = number(&status["daemon"]["pid"]);
    let before = pids(&status["apps"][0]);
    let limited = Limited::to(master, "--nproc", 1);
    process::kill_and_wait(before[0]);
    let reason = eventually("it tells why", || {
        let status = plain.status();
        let reason = status["apps"][0]["workers"][0]["last_exit"]["reason"].as_str()?.to_owned();
        reason.contains("temporarily unavailable").then_some(reason)
    });
    assert!(reason.contains("process: ") && reason.contains("pids.max"), "{reason}");
    // What takes a thread fails, and says so.
    let failed = plain.run(&["env", "web"]);
    assert!(failed.code == Some(0) || failed.stderr.contains("temporarily unavailable"), "{failed:?}");
    let failed = plain.run(&["reset", "web"]);
    assert_eq!(failed.code, Some(0), "{failed:?}");
    let failed = plain.run(&["stop", "web"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("the next daemon will not know of it"), "{}", failed.stderr);
    let shown = plain.run(&["status"]).stdout;
    assert!(shown.contains("what was changed last would be forgotten"), "{shown}");
    drop(limited);
    until("nothing is wrong", || plain.status()["daemon"]["problems"] == Value::Array(Vec::new()));
    let started = plain.run(&["start", "web"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    assert_eq!(number(&plain.status()["daemon"]["pid"]), master);
    home.get("/pid").unwrap();
}

/// A worker of a release that could not be taken back is not one of the next
/// release.
#[test]
fn without_a_process_to_go_back_to() {
    let plain = Plain::new();
    let home = &plain.home;
    let script = format!(
        "test -e {0} && test $SUPERVISOR_INSTANCE = 1 && exec sleep 600; exec {1} --ready-after 0",
        home.path("slow").display(),
        home.path("worker").display()
    );
    let settings = format!(
        "command: [sh, -c, {}]\nready: notify\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'",
        Value::from(script),
        home.address()
    );
    home.write_app("web", &settings);
    let started = plain.run(&["start", "app.yaml"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let web = || plain.status()["apps"][0].take();

    home.write("slow", "");
    let limited = std::thread::scope(|scope| {
        let reload = scope.spawn(|| plain.run(&["reload", "web"]));
        let slow = eventually("its second worker is waited for", || {
            let web = web();
            let of_release = serving(&web, 2);
            let workers = web["workers"].as_array().unwrap();
            let slow = workers.iter().find(|one| one["generation"] == 2 && one["state"] == "starting")?;
            (of_release.len() == 1).then(|| number(&slow["pid"]))
        });
        let limited = Limited::to(number(&plain.status()["daemon"]["pid"]), "--nproc", 1);
        process::kill_and_wait(slow);
        let failed = reload.join().unwrap();
        assert_eq!(failed.code, Some(6), "{failed:?}");
        assert!(failed.stderr.contains("web:0 could not be taken back and runs on"), "{failed:?}");
        limited
    });
    let left = serving(&web(), 2);
    assert_eq!(left.len(), 1, "{:#}", web());
    fs::remove_file(home.path("slow")).unwrap();
    drop(limited);
    let reloaded = plain.run(&["reload", "web"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    let after = web();
    assert_eq!(serving(&after, 3).len(), 2, "{after:#}");
    assert!(!pids(&after).contains(&left[0]));
}

/// Nobody can raise a hard limit but root.
#[test]
fn with_few_descriptors_for_a_user() {
    const LIMIT: &str = "--nofile=700:700";
    let plain = Plain::new();
    let home = &plain.home;
    home.write_app("web", &plain.settings());
    let started = plain.run_limited(&["start", "app.yaml"], LIMIT);
    assert_eq!(started.code, Some(0), "{started:?}");
    let refused = plain.run(&["scale", "web", "40"]);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("but the daemon's limit is 700"), "{}", refused.stderr);
    for order in [&["scale", "web", "12"][..], &["reload", "web"]] {
        let done = plain.run(order);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let status = plain.status();
    let before = pids(&status["apps"][0]);
    assert_eq!(before.len(), 12);
    // There is room for all that a next master has to hold at once.
    process::kill_and_wait(number(&status["daemon"]["pid"]));
    until("another master", || plain.status()["daemon"]["pid"] != status["daemon"]["pid"]);
    let status = plain.status();
    assert_eq!(
        (pids(&status["apps"][0]), &status["daemon"]["problems"]),
        (before, &Value::Array(Vec::new()))
    );
    home.get("/pid").unwrap();
}

/// A master that gets no memory dies of it, and so do those after it, until
/// there is some.
#[test]
fn without_memory() {
    let home = Home::new();
    home.start_app("web", &settings(&home).replace("instances: 1", "instances: 2"));
    let (keeper, master) = home.daemon();
    let before = home.pids("web");
    let load = Load::start(home.address());
    let size = |pid| {
        let status = fs::read_to_string(process::path(pid, "status")).unwrap();
        let size = process::field(&status, "VmSize").unwrap().trim_end_matches(" kB").parse::<u64>();
        size.unwrap() * 1024
    };
    // A master needs far more than that; the keeper itself needs a little.
    let limited = Limited::to(keeper, "--as", size(keeper) + (2 << 20));
    process::kill_and_wait(master);
    until("masters fail", || home.log("keeper.log").contains("the next one starts in"));
    load.more(50);
    drop(limited);
    let app = home.app_in_state("web", "online");
    assert_eq!((pids(&app), home.daemon().0), (before, keeper));
    load.more(50);
    assert_eq!(load.finish(), Vec::<String>::new());
    home.ok(&["reload", "web"]);
}

#[test]
fn without_room_for_the_state() {
    let home = Home::new();
    let disk = Tmpfs::mount(home.daemon_folder().join("state"));
    home.start_app("web", &settings(&home));
    let full = disk.0.join("full");
    let mut file = File::create(&full).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let failed = home.ends(1, &["scale", "web", "2"]);
    assert!(failed.stderr.contains("the next daemon will not know of it"), "{}", failed.stderr);
    assert_eq!(home.app_in_state("web", "online")["instances"]["ready"], 2);
    let told = until_told(&home, "state.json");
    assert!(home.ok(&["status"]).stdout.starts_with(&told));
    home.until_logged(&told);
    fs::remove_file(full).unwrap();
    drop(file);
    until_solved(&home);
    home.ok(&["kill"]);
    let state = fs::read_to_string(disk.0.join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["apps"][0]["instances"], 2);
}

#[test]
fn a_master_begins_though_nothing_can_be_written() {
    let home = Home::new();
    home.start_app("web", &settings(&home));
    let (keeper, master) = home.daemon();
    let before = home.pids("web");
    let read_only = ReadOnly::over(home.daemon_folder());
    process::kill_and_wait(master);
    until("there is another master", || process::children(keeper).iter().any(|pid| *pid != before[0]));
    // It looks after its workers, though nobody can ask it anything.
    process::kill_and_wait(before[0]);
    until("another worker answers", || home.get("/pid").is_ok_and(|pid| pid != before[0].to_string()));
    until("it tells that it cannot", || home.log("keeper.log").contains("no log is written in"));
    drop(read_only);
    let app = home.app_in_state("web", "online");
    assert_ne!(pids(&app), before);
    until_solved(&home);
    home.until_logged("lines before this one may be missing");
}
