//! Following real processes. Apart from the tests of sockets and locks, because a child that is just being
//! started has copies of whatever its parent has open.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor_sys::Pid;
use supervisor_sys::pidfd::{
    Exit, group_exists, open, peek_any, peek_exit, reap, reap_pid, send_signal, signal_group, wait,
};
use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::process::{StatFile, StatmFile};
use supervisor_sys::signal::Signal;

#[expect(clippy::zombie_processes, reason = "the tests reap through the pidfd")]
fn child(script: &str) -> (Pid, OwnedFd) {
    let child =
        Command::new("sh").args(["-c", script]).process_group(0).stdin(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    (pid, open(pid).unwrap())
}

fn ended(pidfd: &OwnedFd) {
    let poller = Poller::new().unwrap();
    poller.add(pidfd, 0, Interest::Read).unwrap();
    let mut events = Vec::new();
    poller.wait(&mut events, Some(Duration::from_secs(60))).unwrap();
    assert_eq!(events.len(), 1, "the child ends");
}

#[test]
fn an_exit_is_peeked_then_reaped() {
    let (pid, pidfd) = child("exit 3");
    ended(&pidfd);
    for _ in 0..2 {
        assert_eq!(peek_exit(&pidfd).unwrap(), Some(Exit::Code(3)));
    }
    assert!(group_exists(pid));
    assert_eq!(reap(&pidfd).unwrap(), Some(Exit::Code(3)));
    let error = reap(&pidfd).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    assert!(!group_exists(pid));
    let error = send_signal(&pidfd, Signal::TERM).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn signals_reach_process_and_group() {
    let (_, pidfd) = child("exec sleep 1000");
    assert_eq!(peek_exit(&pidfd).unwrap(), None);
    assert_eq!(reap(&pidfd).unwrap(), None);
    send_signal(&pidfd, Signal::KILL).unwrap();
    let killed = |number: i32| Exit::Signal { number, core_dumped: false };
    assert_eq!(wait(&pidfd).unwrap(), killed(9));

    let (group, pidfd) = child("sleep 1000 & wait");
    signal_group(group, Signal::from_raw(64).unwrap()).unwrap();
    assert_eq!(wait(&pidfd).unwrap(), killed(64));
}

#[test]
fn a_zombie_is_reaped_by_pid() {
    let (pid, pidfd) = child("exit 255");
    ended(&pidfd);
    // Other tests have children of their own, so it need not be this one.
    assert!(peek_any().unwrap().is_some());
    assert_eq!(reap_pid(pid).unwrap(), Some(Exit::Code(255)));
    assert!(reap_pid(pid).is_err());
}

#[test]
fn kept_files_end_with_their_process() {
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (stat, statm) = (StatFile::open(pid).unwrap(), StatmFile::open(pid).unwrap());
    assert!(stat.read().is_ok() && statm.read().is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    for error in [stat.read().unwrap_err(), statm.read().unwrap_err()] {
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
    assert!(StatFile::open(pid).is_err());
}
