//! All processes at once.

use std::io;
use std::mem::MaybeUninit;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::process::Pid;

use super::stat;

/// A process and its place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessEntry {
    /// Its id.
    pub pid: Pid,
    /// Its parent's id; `None` for those that the kernel or another pid namespace started.
    pub parent: Option<Pid>,
    /// Its process group; `None` if that is of another pid namespace.
    pub group: Option<Pid>,
    /// Its session, likewise.
    pub session: Option<Pid>,
    /// It has ended and waits for its parent to take note.
    pub zombie: bool,
    /// When it started, in clock ticks since boot, see [`start_time`](super::start_time).
    pub start_time: u64,
}

/// Every process that can be seen, threads and those that end meanwhile aside, in the order of pids.
/// About 10 µs for each. It is no snapshot of one instant: a parent may be missing.
///
/// # Errors
///
/// When `/proc` cannot be read, `EMFILE`.
pub fn process_table() -> io::Result<Vec<ProcessEntry>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let proc = openat(CWD, c"/proc", flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut folder = RawDir::new(&proc, &mut buffer);
    let mut processes = Vec::new();
    while let Some(entry) = folder.next() {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().ok().and_then(pid) else {
            continue;
        };
        let path = format!("{}/stat", pid.as_raw_pid());
        // A process that ends in between is nobody's mistake.
        let stat = match openat(&proc, path, flags, Mode::empty()) {
            Ok(file) => match stat::read(file) {
                Ok(stat) => stat,
                Err(_) => continue,
            },
            Err(rustix::io::Errno::MFILE) => return Err(rustix::io::Errno::MFILE.into()),
            Err(_) => continue,
        };
        processes.push(ProcessEntry {
            pid,
            parent: known(stat.parent),
            group: known(stat.group),
            session: known(stat.session),
            zombie: stat.zombie,
            start_time: stat.start_time,
        });
    }
    Ok(processes)
}

/// A process that was being reaped as it was looked at has group and session -1.
fn known(raw: i32) -> Option<Pid> {
    Pid::from_raw(raw.max(0))
}

fn pid(name: &str) -> Option<Pid> {
    Pid::from_raw(name.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::start_time;
    use rustix::process::{getpid, getppid};

    #[test]
    fn we_are_in_it() {
        let table = process_table().unwrap();
        // SAFETY: they only return a number. rustix takes it for a pid, but in
        // a pid namespace entered from outside both are 0.
        let (group, session) = unsafe { (libc::getpgrp(), libc::getsid(0)) };
        let own = ProcessEntry {
            pid: getpid(),
            parent: getppid(),
            group: Pid::from_raw(group),
            session: Pid::from_raw(session),
            zombie: false,
            start_time: start_time(getpid()).unwrap(),
        };
        assert!(table.contains(&own));
        assert!(table.is_sorted_by_key(|entry| entry.pid.as_raw_pid()));
    }
}
