//! Processes as `/proc` shows them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, pidfd, process};

use crate::wait::{DEADLINE, until};

/// A pid as JSON and `/proc` have it.
pub(crate) type Number = u32;

fn pid(number: Number) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

/// Sends a signal.
#[track_caller]
pub(crate) fn signal(number: Number, signal: Signal) {
    let pidfd = pidfd::open(pid(number)).unwrap_or_else(|error| panic!("process {number}: {error}"));
    pidfd::send_signal(pidfd, signal).unwrap();
}

/// Sends SIGKILL to what may be gone already.
pub(crate) fn kill(number: Number) {
    if let Ok(pidfd) = pidfd::open(pid(number)) {
        let _ = pidfd::send_signal(pidfd, Signal::KILL);
    }
}

/// Whether a process runs; a zombie does not.
pub(crate) fn is_alive(number: Number) -> bool {
    state(number).is_some_and(|state| !"ZX".contains(&state))
}

/// The letter of its state in `proc_pid_status(5)`; `None` when there is no
/// such process.
pub(crate) fn state(number: Number) -> Option<String> {
    let status = fs::read_to_string(path(number, "status")).ok()?;
    Some(field(&status, "State")?.chars().take(1).collect())
}

/// A field of `proc_pid_status(5)`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// A file of a process in `/proc`.
pub(crate) fn path(number: Number, file: &str) -> PathBuf {
    format!("/proc/{number}/{file}").into()
}

/// Sends SIGSTOP and waits until all threads of the process stand still: until
/// then one may still accept a connection.
#[track_caller]
pub(crate) fn stop_and_wait(number: Number) {
    signal(number, Signal::STOP);
    until("it stands still", || {
        let threads = fs::read_dir(path(number, "task")).unwrap();
        let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).ok();
        let stands = |status: String| field(&status, "State").is_some_and(|state| state.starts_with('T'));
        threads.flatten().all(|thread| status(thread).is_some_and(stands))
    });
}

/// Sends SIGKILL and waits until the process has ended, with all its threads:
/// until then it may still accept a connection. Whether it has been reaped is
/// up to its parent.
#[track_caller]
pub(crate) fn kill_and_wait(number: Number) {
    let pidfd = pidfd::open(pid(number)).unwrap_or_else(|error| panic!("process {number}: {error}"));
    pidfd::send_signal(&pidfd, Signal::KILL).unwrap();
    let poller = Poller::new().unwrap();
    poller.add(&pidfd, 0, Interest::Read).unwrap();
    let mut ended = Vec::new();
    poller.wait(&mut ended, Some(DEADLINE)).unwrap();
    assert_eq!(ended.len(), 1, "process {number} does not end");
}

/// The parent of a process.
#[track_caller]
pub(crate) fn parent(number: Number) -> Number {
    let status = fs::read_to_string(path(number, "status")).unwrap();
    field(&status, "PPid").and_then(|pid| pid.parse().ok()).unwrap()
}

/// How many bytes a process has written, wherever to.
pub(crate) fn written(number: Number) -> u64 {
    let io = fs::read_to_string(path(number, "io")).unwrap_or_default();
    field(&io, "wchar").and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// The process group that a process is in.
pub(crate) fn group(number: Number) -> Option<Number> {
    let stat = fs::read_to_string(path(number, "stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// Whether this process has a capability (`capabilities(7)`), by its number.
pub(crate) fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let all = field(&status, "CapEff").and_then(|all| u64::from_str_radix(all, 16).ok()).unwrap();
    all >> number & 1 == 1
}

/// The processes whose parent this one is.
pub(crate) fn children(parent: Number) -> Vec<Number> {
    let table = process::process_table().unwrap();
    let parent = Some(pid(parent));
    table.iter().filter(|entry| entry.parent == parent).map(|entry| number(entry.pid)).collect()
}

/// All processes below this one.
pub(crate) fn descendants(ancestor: Number) -> Vec<Number> {
    let table = process::process_table().unwrap();
    let mut family = vec![pid(ancestor)];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(table.iter().filter(|entry| entry.parent == Some(parent)).map(|entry| entry.pid));
        next += 1;
    }
    family.into_iter().skip(1).map(number).collect()
}

/// The processes that have a path in this folder as an argument.
pub(crate) fn with_argument_below(folder: &Path) -> Vec<Number> {
    let table = process::process_table().unwrap();
    let has = |number: &Number| {
        let arguments = fs::read(path(*number, "cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|word| Path::new(OsStr::from_bytes(word)).starts_with(folder))
    };
    table.iter().map(|entry| number(entry.pid)).filter(has).collect()
}

fn number(pid: Pid) -> Number {
    pid.as_raw_pid().unsigned_abs()
}
