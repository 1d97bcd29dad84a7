//! Putting a socket of ours in place of one that a program made.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::process::Pid;

use super::rights::look;
use super::{Request, raw};

/// Where a program has the socket of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its number is close-on-exec.
    pub cloexec: bool,
    /// The same socket's other numbers.
    pub others: Vec<RawFd>,
    /// An epoll instance has it: that would go on watching the socket that is replaced.
    pub in_epoll: bool,
}

/// Looks where else the program of a call has its socket.
///
/// # Errors
///
/// `ENOENT` when the thread is gone, `EACCES` where it may not be traced.
pub fn standing(request: &Request) -> io::Result<Standing> {
    look(request.thread, || find_standing(request))
}

fn find_standing(request: &Request) -> io::Result<Standing> {
    let folder = format!("/proc/{}", request.thread.as_raw_pid());
    let link = |fd: RawFd| fs::read_link(format!("{folder}/fd/{fd}"));
    let own = link(request.fd)?;
    let mut standing = Standing { cloexec: false, others: Vec::new(), in_epoll: false };
    let mut polls = Vec::new();
    for entry in fs::read_dir(format!("{folder}/fd"))? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // It may be closed at any moment by another thread.
        let Ok(target) = link(fd) else { continue };
        if target == own && fd != request.fd {
            standing.others.push(fd);
        } else if target.as_os_str() == "anon_inode:[eventpoll]" {
            polls.push(fd);
        }
    }
    let info = |fd: RawFd| fs::read_to_string(format!("{folder}/fdinfo/{fd}"));
    let flags = field(&info(request.fd)?, "flags:").and_then(|text| i32::from_str_radix(text, 8).ok());
    standing.cloexec = flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
    let is_own = |fd: RawFd| fd == request.fd || standing.others.contains(&fd);
    standing.in_epoll = polls.into_iter().filter_map(|poll| info(poll).ok()).any(|info| {
        let watched = info.lines().filter_map(|line| field(line, "tfd:")?.parse().ok());
        watched.into_iter().any(is_own)
    });
    Ok(standing)
}

/// The word after a name.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.split_whitespace().next())
}

/// Whether a process has this socket open, by its inode.
///
/// # Errors
///
/// `ENOENT` when it is gone, `EACCES` where it may not be traced.
pub fn has_socket(process: Pid, inode: u64) -> io::Result<bool> {
    let own = format!("socket:[{inode}]");
    look(process, || {
        for entry in fs::read_dir(format!("/proc/{}/fd", process.as_raw_pid()))? {
            if fs::read_link(entry?.path()).is_ok_and(|target| target.as_os_str() == own.as_str()) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Whether a thread of a process is in one of the calls that are reported. It waits for an answer then:
/// the calls themselves take no time.
#[must_use]
pub fn is_calling(process: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.as_raw_pid())) else { return false };
    let call = |path: std::path::PathBuf| -> Option<i64> {
        // The number of the call, its arguments, and two registers.
        let text = look(process, || fs::read_to_string(path.join("syscall"))).ok()?;
        text.split(' ').next()?.trim().parse().ok()
    };
    let mut calls = threads.flatten().filter_map(|thread| call(thread.path()));
    calls.any(|call| [libc::SYS_bind, libc::SYS_listen].contains(&call))
}

/// Puts a socket in place of what the program of a waiting call has under a number, which is closed
/// there. The open file is shared with the program from then on.
///
/// # Errors
///
/// `ENOENT` when nobody waits any more, `EMFILE`, `EBADF`.
pub fn place(
    notify: impl AsFd,
    request: &Request,
    socket: impl AsFd,
    fd: RawFd,
    cloexec: bool,
) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 1")]
    let mut order = libc::seccomp_notif_addfd {
        id: request.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: socket.as_fd().as_raw_fd().cast_unsigned(),
        newfd: fd.cast_unsigned(),
        newfd_flags: if cloexec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: a whole structure of the size that the request names.
    let result = unsafe { libc::ioctl(raw(&notify), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut order) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_fdinfo() {
        let text = "pos:\t0\nflags:\t02000002\ntfd:        5 events:       19 data: 5\n";
        assert_eq!(field(text, "flags:"), Some("02000002"));
        assert_eq!(field(text, "tfd:"), Some("5"));
        assert_eq!(field(text, "none:"), None);
    }
}
