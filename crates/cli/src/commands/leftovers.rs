//! What an earlier daemon of the same systemd unit has left behind.
//!
//! The unit kills nothing but the keeper (`KillMode=process`). When the master
//! is gone as well, nobody is left who could end the workers: they would keep
//! their addresses, and unsupervised. systemd put them, and nobody else's
//! processes, into the unit's control group, so that they need not be guessed.
//! systemd before version 248 does not tell enough for this; nothing is done
//! there.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use supervisor_sys::pidfd;
use supervisor_sys::signal::Signal;

use crate::terminal::Terminal;
use crate::unit;

/// How long they may take to end.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends what is left, if this is the process that systemd started for the unit:
/// a supervisor that is a worker itself is in the same group.
pub(super) fn end() {
    let started = std::env::var("SYSTEMD_EXEC_PID").ok().and_then(|pid| pid.parse().ok());
    if started != Some(std::process::id()) {
        return;
    }
    let Some(list) = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| members(&text)) else {
        return;
    };
    let mut deadline = Instant::now() + GRACE;
    let mut signal = Signal::TERM;
    let mut asked = false;
    loop {
        let left = others(&list);
        if left.is_empty() {
            return;
        }
        if !asked {
            let count = left.len();
            Terminal::say(&format!(
                "ending {count} processes that an earlier daemon of this unit left behind"
            ));
        }
        let late = Instant::now() >= deadline;
        if !asked || late {
            if late && signal == Signal::KILL {
                // What SIGKILL does not end, nothing does.
                return;
            }
            if late {
                signal = Signal::KILL;
                deadline += GRACE;
            }
            for process in &left {
                let _ = pidfd::send_signal(process, signal);
            }
            asked = true;
        }
        sleep(LOOK_EVERY);
    }
}

/// The other processes on a list.
fn others(list: &Path) -> Vec<OwnedFd> {
    let read = || -> Vec<Pid> {
        let text = fs::read_to_string(list).unwrap_or_default();
        let pids = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        pids.filter(|pid| *pid != rustix::process::getpid()).collect()
    };
    let opened: Vec<_> = read().into_iter().filter_map(|pid| Some((pid, pidfd::open(pid).ok()?))).collect();
    // A pid that is still there belongs to the process that was opened.
    let still = read();
    opened.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, process)| process).collect()
}

/// The list of the unit's processes, by what `/proc/self/cgroup` says:
/// `cgroups(7)`.
fn members(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let mounts: &[&str] = match controllers {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            "name=systemd" => &["/sys/fs/cgroup/systemd"],
            _ => return None,
        };
        if Path::new(path).file_name()?.to_str()? != unit::NAME {
            return None;
        }
        let list = |mount: &&str| PathBuf::from(format!("{mount}{path}/cgroup.procs"));
        mounts.iter().map(list).find(|list| list.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unit_s_own_group_counts() {
        for text in
            ["", "nonsense", "0::/", "0::/user.slice/session-1.scope", "3:cpu:/supervisor-cluster.service"]
        {
            assert_eq!(members(text), None, "{text}");
        }
        // There is no such group here.
        assert_eq!(members("0::/nowhere/supervisor-cluster.service"), None);
    }
}
