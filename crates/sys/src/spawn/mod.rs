//! Starting a child process, fast and without surprises.
//!
//! # How it works
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`, as `posix_spawn(3)` does it: it borrows the
//! parent's memory, and the calling thread sleeps until the child has called `exec` or has failed. So
//! no page table is copied, whatever the parent's size, and a failure comes back through memory,
//! with its [`Stage`] and errno. The child calls nothing but raw system calls on data that the parent
//! has prepared: no allocation, no lock, no libc function that would act on the parent's threads.
//!
//! The table of descriptors is shared as well (`CLONE_FILES`), because copying it would cost hundreds
//! of microseconds in a parent with ten thousand of them. Instead a [`Launcher`] reserves a short range
//! of numbers when it is made. For each spawn the parent duplicates the child's descriptors into that
//! range; the child's first call is `close_range(end of what is used, MAX, UNSHARE)`, which gives it a
//! private table of just the low numbers. There it moves its descriptors into place and marks all else
//! close-on-exec, and the parent takes its duplicates back.
//!
//! A child that is to be in a cgroup of its own is born there, by `clone3(2)`.
//!
//! # Why the parent's other threads are safe
//!
//! - They may open and close descriptors at any time. The reserved numbers are always open, so the
//!   kernel never hands them out; the other low numbers that the child's table happens to copy are
//!   overwritten or marked close-on-exec *in the child's private table*.
//! - Until the table is private the child makes no call that changes it.
//! - Only the calling thread sleeps. Signals are blocked in it (and so in the child, where the
//!   parent's handlers must not run) and restored afterwards; other threads go on taking them.
//! - A `Launcher` is used by one thread at a time: [`Launcher::spawn`] takes `&mut self`.
//!
//! # What to know
//!
//! - A `chdir` or `exec` on a dead network file system blocks the calling thread with the child.
//! - Until its `exec` the child has copies of the parent's lowest descriptors: another thread that closes
//!   one of those may see the effect (the end of a pipe, the release of a lock) a moment late.
//! - If the parent is killed meanwhile, the child goes on and executes its program. What it needs is
//!   then known to whoever holds the other end of [`Plan::introduce`].
//! - When [`Plan::credentials`] changes the uid, the kernel takes the "dumpable" flag from the shared
//!   memory (which keeps processes of the new uid from tracing the child while it still borrows our
//!   memory). The parent's flag is put back after the child has left it. With the sysctl
//!   `fs.suid_dumpable` set to 1 that protection is off, as its documentation warns.
//! - A script without `#!` is refused (`ENOEXEC`), as by the kernel; no shell is guessed.

mod block;
mod child;
mod clone;
mod launcher;
mod plan;
mod resolve;
mod staging;

use std::fmt;
use std::io;

pub(crate) use child::errno;
pub use launcher::{Child, Launcher};
pub use plan::{Credentials, MAX_CPUS, MAX_FDS, Plan, ProcessGroup, Program};
pub use resolve::{DEFAULT_PATH, ResolveError, resolve_program};

/// How far a spawn came: the step that failed, in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// In the parent: the plan itself (a NUL byte in a string, no argument, too many fds).
    Plan = 1,
    /// In the parent: duplicating the descriptors for the child.
    Staging,
    /// In the parent: `clone(2)`, for example `EAGAIN` at the limit of processes.
    Process,
    /// In the parent: `clone3(2)` into [`Plan::cgroup`], which is gone or may not be joined, or the
    /// call is not there.
    Cgroup,
    /// Making the table of descriptors private, or moving descriptors into place.
    Fds,
    /// Sending the child's pid to [`Plan::introduce`].
    Introduce,
    /// `setsid(2)` or `setpgid(2)`.
    Session,
    /// Resetting signal dispositions or the signal mask.
    Signals,
    /// Writing `/proc/self/oom_score_adj`.
    OomScoreAdj,
    /// `prlimit(2)`.
    Limits,
    /// `setpriority(2)`.
    Nice,
    /// `sched_setaffinity(2)`: `EINVAL` when none of the CPUs may be used.
    CpuAffinity,
    /// `setgroups(2)`.
    Groups,
    /// `setresgid(2)`.
    Gid,
    /// `setresuid(2)`.
    Uid,
    /// `chdir(2)`, with the rights of the new user.
    Chdir,
    /// `execve(2)` or `execveat(2)`, with the rights of the new user.
    Exec,
}

impl Stage {
    const ALL: [Stage; 17] = [
        Stage::Plan,
        Stage::Staging,
        Stage::Process,
        Stage::Cgroup,
        Stage::Fds,
        Stage::Introduce,
        Stage::Session,
        Stage::Signals,
        Stage::OomScoreAdj,
        Stage::Limits,
        Stage::Nice,
        Stage::CpuAffinity,
        Stage::Groups,
        Stage::Gid,
        Stage::Uid,
        Stage::Chdir,
        Stage::Exec,
    ];

    fn from_raw(raw: u8) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| *stage as u8 == raw)
    }

    /// The stage as one lower-case word, for logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Plan => "plan",
            Stage::Staging => "staging",
            Stage::Process => "process",
            Stage::Cgroup => "cgroup",
            Stage::Fds => "fds",
            Stage::Introduce => "introduce",
            Stage::Session => "session",
            Stage::Signals => "signals",
            Stage::OomScoreAdj => "oom_score_adj",
            Stage::Limits => "limits",
            Stage::Nice => "nice",
            Stage::CpuAffinity => "cpu_affinity",
            Stage::Groups => "groups",
            Stage::Gid => "gid",
            Stage::Uid => "uid",
            Stage::Chdir => "chdir",
            Stage::Exec => "exec",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A child that could not be started. Nothing is left of it: it has been reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnError {
    /// The step that failed.
    pub stage: Stage,
    /// The error number of that step, as in `errno(3)`.
    pub errno: i32,
}

impl fmt::Display for SpawnError {
    /// For example `exec: No such file or directory (os error 2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {cause}", self.stage)
    }
}

impl std::error::Error for SpawnError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_survive_the_way_through_memory() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_raw(stage as u8), Some(stage));
        }
        assert_eq!(Stage::from_raw(0), None);
    }

    #[test]
    fn errors_read_as_fragments() {
        let error = SpawnError { stage: Stage::Exec, errno: libc::ENOENT };
        assert_eq!(error.to_string(), "exec: No such file or directory (os error 2)");
    }
}
