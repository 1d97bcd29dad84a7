//! Following and ending processes.
//!
//! A pidfd means one process for ever, where a pid may be used again: `pidfd_open(2)`. It becomes
//! readable when the process has ended.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal, test_kill_process_group,
};

use crate::signal::Signal;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It left with this status, 0 to 255.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The number of the signal; [`Signal::from_raw`] names it.
        number: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

impl Exit {
    /// What `wait(2)` would have said.
    pub(crate) const fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal { number: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

impl fmt::Display for Exit {
    /// `exit code 1`, `SIGKILL` or `SIGABRT, core dumped`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal { number, core_dumped } => {
                match Signal::from_raw(number) {
                    Some(signal) => write!(f, "{signal}")?,
                    None => write!(f, "signal {number}")?,
                }
                f.write_str(if core_dumped { ", core dumped" } else { "" })
            }
        }
    }
}

/// A pidfd of a process; close-on-exec.
///
/// It may mean another process than the one expected, if that has ended and been reaped: compare
/// [`start_time`](crate::process::start_time) afterwards.
///
/// # Errors
///
/// `ESRCH` without such a process, `EINVAL` for the id of a thread, `EMFILE`.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal to the process.
///
/// # Errors
///
/// `ESRCH` once it is reaped (a zombie still takes signals), `EPERM`.
pub fn send_signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    Ok(pidfd_send_signal(pidfd, signal.into())?)
}

/// Sends a signal to every process of a process group.
///
/// # Errors
///
/// `ESRCH` without such a group, `EPERM` if not a single member may be signalled, `InvalidInput` for the
/// group of init, whose number means *every* process to `kill(2)`.
pub fn signal_group(group: Pid, signal: Signal) -> io::Result<()> {
    if group.is_init() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(kill_process_group(group, signal.into())?)
}

/// Whether the group has a member, be it a zombie. That of init always has.
#[must_use]
pub fn group_exists(group: Pid) -> bool {
    group.is_init() || test_kill_process_group(group) != Err(Errno::SRCH)
}

/// How the child ended, if it has; it stays a zombie, to be reaped later. Never waits.
///
/// # Errors
///
/// `ECHILD` if it is no child of ours or has been reaped.
pub fn peek_exit(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    let which = Which::Process(&pidfd);
    Ok(waitid(&which, libc::WNOHANG | libc::WNOWAIT)?.map(|(_, exit)| exit))
}

/// How the child ended, if it has; it is gone then. Never waits.
///
/// # Errors
///
/// `ECHILD` if it is no child of ours or has been reaped.
pub fn reap(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    let which = Which::Process(&pidfd);
    Ok(waitid(&which, libc::WNOHANG)?.map(|(_, exit)| exit))
}

/// Waits for the end of the child, as long as it takes, and reaps it.
///
/// # Errors
///
/// `ECHILD` if it is no child of ours or has been reaped.
pub fn wait(pidfd: impl AsFd) -> io::Result<Exit> {
    loop {
        let which = Which::Process(&pidfd);
        match waitid(&which, 0) {
            Ok(Some((_, exit))) => return Ok(exit),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// How a process ended that is no child of ours, once its parent has reaped it; `None` until then.
///
/// # Errors
///
/// `ENOTTY`, `EINVAL` or `ESRCH` where the kernel does not tell: before Linux 6.15.
pub fn exit_of_stranger(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: a whole structure of the size that the request names.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO, &raw mut info) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & INFO_EXIT != 0).then(|| Exit::from_status(info.exit_code)))
}

/// `struct pidfd_info` of `linux/pidfd.h`, as long as it has been from the beginning.
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    /// What is asked for, and then what is answered.
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    /// As `wait(2)` has it.
    exit_code: i32,
}

/// The exit: `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: read and write, the size, the type 0xff, the number 11.
const GET_INFO: libc::Ioctl = (3 << 30) | ((size_of::<Info>() as libc::Ioctl) << 16) | (0xff << 8) | 11;
const _: () = assert!(size_of::<Info>() == 64);

/// Any child that has ended and how; it stays a zombie, and the answer the same, until it is reaped
/// (by [`reap_pid`]). Never waits.
///
/// # Errors
///
/// `ECHILD` without any child.
pub fn peek_any() -> io::Result<Option<(Pid, Exit)>> {
    waitid(&Which::<OwnedFd>::Any, libc::WNOHANG | libc::WNOWAIT)
}

/// Reaps a child, as [`reap`] does. Safe by pid only for a zombie that nobody else may reap.
///
/// # Errors
///
/// `ECHILD` if it is no child of ours or has been reaped.
pub fn reap_pid(pid: Pid) -> io::Result<Option<Exit>> {
    Ok(waitid(&Which::<OwnedFd>::Pid(pid), libc::WNOHANG)?.map(|(_, exit)| exit))
}

enum Which<'a, Fd> {
    Any,
    Pid(Pid),
    Process(&'a Fd),
}

/// `waitid(2)`: rustix's does not tell the pid.
fn waitid<Fd: AsFd>(which: &Which<'_, Fd>, options: i32) -> io::Result<Option<(Pid, Exit)>> {
    let (kind, id) = match which {
        Which::Any => (libc::P_ALL, 0),
        Which::Pid(pid) => (libc::P_PID, pid.as_raw_pid()),
        Which::Process(pidfd) => (libc::P_PIDFD, pidfd.as_fd().as_raw_fd()),
    };
    // SAFETY: a structure of integers and pointers, for which zero is a value. Zeroed because the
    // kernel writes nothing on "none has ended".
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // Pids and descriptors are never negative.
    let id = libc::id_t::try_from(id).unwrap_or_default();
    // SAFETY: `info` is a living siginfo_t.
    if unsafe { libc::waitid(kind, id, &raw mut info, options | libc::WEXITED) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zero, or filled in by the kernel for a SIGCHLD, which has these fields.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let exit = match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        code => Exit::Signal { number: status, core_dumped: code == libc::CLD_DUMPED },
    };
    Ok(Pid::from_raw(pid).map(|pid| (pid, exit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stranger_is_told_when_it_is_reaped() {
        use crate::process::{exit_of_zombie, start_time};
        use std::process::Stdio;

        for code in [3, 0] {
            let mut shell = std::process::Command::new("sh");
            let mut child =
                shell.args(["-c", &format!("read x; exit {code}")]).stdin(Stdio::piped()).spawn().unwrap();
            let pid = Pid::from_child(&child);
            let (pidfd, born) = (open(pid).unwrap(), start_time(pid).unwrap());
            assert_eq!(exit_of_zombie(pid, born), None, "it runs");
            drop(child.stdin.take());
            // It stays a zombie.
            while peek_exit(&pidfd).unwrap().is_none() {
                std::thread::yield_now();
            }
            assert_eq!(exit_of_zombie(pid, born), Some(Exit::Code(code)));
            assert_eq!(exit_of_zombie(pid, born + 1), None, "somebody else");
            assert!(!matches!(exit_of_stranger(&pidfd), Ok(Some(_))), "not yet");
            child.wait().unwrap();
            assert_eq!(exit_of_zombie(pid, born), None);
            // An older kernel does not tell.
            if let Ok(exit) = exit_of_stranger(&pidfd) {
                assert_eq!(exit, Some(Exit::Code(code)));
            }
        }
    }

    #[test]
    fn exits_read_well() {
        let check = |exit: Exit, text: &str| assert_eq!(exit.to_string(), text);
        check(Exit::Code(1), "exit code 1");
        let signal = |number, core_dumped| Exit::Signal { number, core_dumped };
        check(signal(9, false), "SIGKILL");
        check(signal(6, true), "SIGABRT, core dumped");
    }
}
