//! The workers of a daemon of which nobody is left.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor_master::{forget_orphans, orphans};
use supervisor_sys::pidfd;
use supervisor_sys::signal::Signal;

use crate::home::Home;
use crate::terminal::Terminal;

/// How long they may take to end.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether there are some that a new daemon of this home can take over.
pub(super) fn are_there(home: &Home) -> bool {
    !orphans(home.runtime_dir()).is_empty()
}

/// Ends them: asks them, and kills what is left after a while, with all that
/// they have started. Returns whether there were any.
pub(super) fn end(home: &Home, now: bool) -> bool {
    let left = orphans(home.runtime_dir());
    if left.is_empty() {
        return false;
    }
    Terminal::say(&format!("ending {} workers of a daemon in {home} that has died", left.len()));
    let (asked, families): (Vec<_>, Vec<_>) = left.into_iter().map(|one| (one.process, one.family)).unzip();
    let signal = if now { Signal::KILL } else { Signal::TERM };
    for process in &asked {
        // The only failure is that it has just ended.
        let _ = pidfd::send_signal(process, signal);
    }
    let deadline = Instant::now() + GRACE;
    while asked.iter().any(runs) && Instant::now() < deadline {
        sleep(LOOK_EVERY);
    }
    let all: Vec<OwnedFd> = asked.into_iter().chain(families.into_iter().flatten()).collect();
    for process in &all {
        let _ = pidfd::send_signal(process, Signal::KILL);
    }
    let deadline = Instant::now() + GRACE;
    // What SIGKILL does not end, nothing does.
    while all.iter().any(runs) && Instant::now() < deadline {
        sleep(LOOK_EVERY);
    }
    forget_orphans(home.runtime_dir());
    true
}

/// Whether a process has not ended.
fn runs(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec::default())) == Ok(0)
}
