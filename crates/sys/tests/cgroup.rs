//! A child in a cgroup of its own. It needs root and a mounted hierarchy of version 2; without the latter
//! only the end-to-end tests look, which mount one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use supervisor_sys::cgroup::{Cgroup, open_processes};
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::spawn::{Launcher, Plan, ProcessGroup, Program, Stage};

/// A new cgroup below our own; `None` where no hierarchy of version 2 is mounted.
fn new_cgroup(name: &str) -> Option<Cgroup> {
    let Some(own) = Cgroup::own() else {
        eprintln!("not run: no hierarchy of cgroup version 2 is mounted here");
        return None;
    };
    let cgroup = own.child(&format!("supervisor-{name}-{}", std::process::id()));
    cgroup.create().unwrap();
    Some(cgroup)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(1));
    }
}

fn shell<'fd>(script: &str, null: &'fd File) -> Plan<'fd> {
    let args = ["sh", "-c", script].map(Into::into).to_vec();
    Plan::new(Program::Path(PathBuf::from("/bin/sh")), args, [null.as_fd(); 3])
}

#[test]
fn a_child_is_born_in_its_cgroup_and_dies_with_it() {
    let Some(cgroup) = new_cgroup("born") else { return };
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let mut launcher = Launcher::new().unwrap();
    let folder = cgroup.open().unwrap();
    // The second one leaves the session, and so every group.
    let script = "setsid sleep 600 & sleep 600";
    let plan = Plan {
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cgroup: Some(folder.as_fd()),
        process_group: ProcessGroup::NewSession,
        ..shell(script, &null)
    };
    let child = launcher.spawn(&plan).unwrap();
    assert!(cgroup.processes().unwrap().contains(&Some(child.pid)));
    until("its children are in it", || cgroup.processes().unwrap().len() >= 2);
    assert!(open_processes(&cgroup.folder()).len() >= 2);
    assert!(cgroup.is_populated().unwrap());
    assert!(cgroup.remove().is_err());
    assert!(cgroup.can_be_killed() && !cgroup.is_delegated());
    cgroup.kill().unwrap();
    let killed = Exit::Signal { number: 9, core_dumped: false };
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), killed);
    until("it is empty", || !cgroup.is_populated().unwrap());
    until("it can be removed", || cgroup.remove().is_ok());
    assert!(cgroup.is_populated().is_err() && cgroup.kill().is_err());
}

#[test]
fn a_cgroup_that_is_gone_is_told() {
    let Some(cgroup) = new_cgroup("gone") else { return };
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let folder = cgroup.open().unwrap();
    cgroup.remove().unwrap();
    let mut launcher = Launcher::new().unwrap();
    let plan = Plan { cgroup: Some(folder.as_fd()), ..shell("exit 3", &null) };
    assert_eq!(launcher.spawn(&plan).unwrap_err().stage, Stage::Cgroup);
    // Others can still be started.
    let child = launcher.spawn(&shell("exit 3", &null)).unwrap();
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(3));
}

#[test]
fn a_failure_in_the_cgroup_comes_back() {
    let Some(cgroup) = new_cgroup("failure") else { return };
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let folder = cgroup.open().unwrap();
    let args = vec!["nothing".into()];
    let plan = Plan {
        cgroup: Some(folder.as_fd()),
        ..Plan::new(Program::Path("/nonexistent".into()), args, [null.as_fd(); 3])
    };
    assert_eq!(Launcher::new().unwrap().spawn(&plan).unwrap_err().stage, Stage::Exec);
    until("it can be removed", || cgroup.remove().is_ok());
}
