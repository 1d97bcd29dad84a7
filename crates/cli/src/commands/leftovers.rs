//! What an earlier daemon of the same systemd unit has left behind.
//!
//! The unit kills nothing but the keeper (`KillMode=process`). When the master
//! is gone as well, nobody is left who could end the workers: they would keep
//! their addresses, and unsupervised. systemd put them, and nobody else's
//! processes, into the unit's control group, so that they need not be guessed.
//! systemd before version 248 does not tell enough for this; nothing is done
//! there.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use supervisor_sys::signal::Signal;
use supervisor_sys::{cgroup, pidfd};

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
    let Some(group) = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| unit_group(&text)) else {
        return;
    };
    let mut deadline = Instant::now() + GRACE;
    let mut signal = Signal::TERM;
    let mut asked = false;
    loop {
        let left = cgroup::open_processes(&group);
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

/// The unit's group, of which this process is a member, by what
/// `/proc/self/cgroup` says: `cgroups(7)`. It may be in a group below
/// (`DelegateSubgroup=`).
fn unit_group(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let mounts: &[&str] = match controllers {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            "name=systemd" => &["/sys/fs/cgroup/systemd"],
            _ => return None,
        };
        let own = Path::new(path);
        let is_unit = |group: &&Path| group.file_name().is_some_and(|name| name == unit::NAME);
        let group = [Some(own), own.parent()].into_iter().flatten().find(is_unit)?.strip_prefix("/").ok()?;
        mounts.iter().map(|mount| Path::new(mount).join(group)).find(|group| group.is_dir())
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
            assert_eq!(unit_group(text), None, "{text}");
        }
        // There is no such group here.
        assert_eq!(unit_group("0::/nowhere/supervisor-cluster.service"), None);
    }
}
