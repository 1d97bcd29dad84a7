//! What becomes of the daemon when its keeper dies.
//!
//! This process has all that the keeper held (`link`). So it becomes the keeper
//! itself, by `exec`: its pid and its children stay, and the keeper that it is
//! then starts a master, which takes over as ever.
//!
//! In the midst of an upgrade the keeper that follows is of the version before,
//! which has proved itself as one.
//!
//! A keeper that a service manager has started is replaced by the manager, and
//! only that process counts there. So the master serves on until that one comes
//! for the table, hands it over, and leaves.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use supervisor_keeper::{handover, save};
use supervisor_protocol::keeper::{Hello, Upgrade};
use supervisor_sys::own;
use supervisor_sys::poll::{Interest, Poller};

use crate::link::Link;
use crate::records::FORMER;

/// When to try again after an `exec` has failed.
const AGAIN: Duration = Duration::from_secs(10);

/// Descriptors that becoming the keeper takes: the saved state, and the binary.
const SPARE: usize = 2;

/// What is to happen after the keeper's death.
#[derive(Debug)]
pub(crate) struct Succession {
    /// The command line of a keeper of this daemon, but for its state.
    keeper: Vec<OsString>,
    /// Where the next keeper of a service manager comes.
    path: PathBuf,
    waiting: Option<OwnedFd>,
    /// When to try to become the keeper.
    due: Option<Instant>,
    /// What masters are to be told then.
    news: Option<Upgrade>,
    /// Closed then, for what becoming the keeper takes: there may be no other
    /// descriptors.
    spare: Vec<OwnedFd>,
}

impl Succession {
    pub(crate) fn new(keeper: Vec<OsString>, path: PathBuf) -> Self {
        let spare = (0..SPARE).filter_map(|_| own_binary().ok()).collect();
        Self { keeper, path, waiting: None, due: None, news: None, spare }
    }

    /// Begins when the keeper is gone. Does not return if this process becomes
    /// the keeper, which tells masters these news; the poller tells of one that
    /// comes, by this token.
    pub(crate) fn begin(&mut self, link: &Link, news: Option<Upgrade>, poller: &Poller, token: u64) {
        if is_managed(link) {
            let waiting = handover::wait_at(&self.path)
                .and_then(|socket| poller.add(&socket, token, Interest::Read).map(|()| socket));
            match waiting {
                Ok(socket) => {
                    tracing::warn!("the keeper is gone; serving on until the service manager starts another");
                    self.waiting = Some(socket);
                    return;
                }
                Err(error) => tracing::error!("cannot wait for another keeper: {error}"),
            }
        }
        self.news = news;
        self.due = Some(Instant::now());
        self.look(link);
    }

    /// Becomes the keeper if it is time. To be called once a second.
    pub(crate) fn look(&mut self, link: &Link) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            tracing::warn!("the keeper is gone; becoming the keeper");
            let error = self.become_keeper(link);
            tracing::error!("cannot become the keeper, going on without one: {error}");
            self.due = Some(Instant::now() + AGAIN);
        }
    }

    /// Returns why not.
    fn become_keeper(&mut self, link: &Link) -> io::Error {
        self.spare.clear();
        let Some(hello) = link.hello() else { return io::ErrorKind::InvalidInput.into() };
        // Held until the end of this program: nobody changes it from now on.
        let held = link.mirror().lock();
        let saved = match save(&hello, &held.table, self.news.as_ref()) {
            Ok(saved) => saved,
            Err(error) => return error,
        };
        let former = held.table.get(FORMER).and_then(|entry| entry.fds.first());
        let error = match (former.map(|(_, fd)| fd.try_clone()).unwrap_or_else(own_binary), saved.pass_on()) {
            (Ok(binary), Ok(number)) => {
                let state_fd = ["--state-fd".into(), number.to_string().into()];
                let args: Vec<OsString> = self.keeper.iter().cloned().chain(state_fd).collect();
                own::become_program(binary.as_fd(), &args)
            }
            (Err(error), _) | (_, Err(error)) => error,
        };
        let _ = saved.take_back();
        error
    }

    /// Hands everything to a keeper that has come. Returns whether this process
    /// is to leave.
    pub(crate) fn hand_over(&self, link: &Link) -> bool {
        let (Some(waiting), Some(hello)) = (&self.waiting, link.hello()) else { return false };
        match handover::hand_over(waiting, &hello, &link.mirror().lock().table) {
            Ok(()) => {
                tracing::warn!("another keeper has taken over");
                let _ = fs::remove_file(&self.path);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::error!("another keeper has not taken over: {error}");
                false
            }
        }
    }
}

/// The binary that runs, whatever is at its path now.
pub(crate) fn own_binary() -> io::Result<OwnedFd> {
    Ok(openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether a service manager has started the keeper, and so starts the next.
pub(crate) fn is_managed(link: &Link) -> bool {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    link.hello().is_some_and(|keeper| is_managed_with(&keeper, |name| std::env::var(name).ok(), &cgroup))
}

/// systemd tells its services so in three ways: they may notify it; since
/// version 248 it names the process that it has started; before, there are only
/// the mark of a service, which its descendants inherit, and its cgroup.
fn is_managed_with(keeper: &Hello, variable: impl Fn(&str) -> Option<String>, cgroup: &str) -> bool {
    if keeper.service_manager {
        return true;
    }
    match variable("SYSTEMD_EXEC_PID") {
        Some(pid) => pid == keeper.keeper_pid.to_string(),
        None => variable("INVOCATION_ID").is_some() && cgroup.lines().any(|line| line.ends_with(".service")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_starts_the_next_keeper() {
        let check = |service_manager, variables: &[(&str, &str)], cgroup: &str, expected| {
            let keeper = Hello {
                keeper_pid: 7,
                nofile_soft: None,
                nofile_hard: None,
                oom_score_adj: None,
                service_manager,
            };
            let variable = |wanted: &str| {
                variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(is_managed_with(&keeper, variable, cgroup), expected, "{variables:?} {cgroup}");
        };
        let (unit, session) = ("0::/system.slice/web.service\n", "0::/user.slice/session-1.scope\n");
        check(true, &[], "", true);
        check(false, &[], unit, false);
        check(false, &[("INVOCATION_ID", "x")], unit, true);
        // A terminal of a desktop that systemd runs.
        check(false, &[("INVOCATION_ID", "x")], session, false);
        check(false, &[("INVOCATION_ID", "x"), ("SYSTEMD_EXEC_PID", "6")], unit, false);
        check(false, &[("INVOCATION_ID", "x"), ("SYSTEMD_EXEC_PID", "7")], unit, true);
    }
}
