//! What other processes have open.

use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Pid;

/// An open file that has no path, by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nameless {
    /// A socket.
    Socket(u64),
    /// A pipe: both of its ends have the same inode.
    Pipe(u64),
}

/// The sockets and pipes that a process has open, with the numbers of their descriptors
/// (`/proc/PID/fd` in `proc(5)`). It is no snapshot of one instant.
///
/// # Errors
///
/// `ENOENT` when it is gone, `EACCES` where it may not be traced.
pub fn nameless(process: Pid) -> io::Result<Vec<(RawFd, Nameless)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", process.as_raw_pid()))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be closed at any moment.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        found.extend(target.to_str().and_then(parse).map(|file| (number, file)));
    }
    Ok(found)
}

/// Opens a pipe that another process has open, to read from it, though nobody else may hold a reading
/// end any more. Non-blocking and close-on-exec.
///
/// # Errors
///
/// `ENOENT` when the process is gone or has closed it, `EACCES` where it may not be traced.
pub fn open_pipe(process: Pid, fd: RawFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/{}/fd/{fd}", process.as_raw_pid());
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// `socket:[123]` or `pipe:[123]`.
fn parse(target: &str) -> Option<Nameless> {
    let (kind, rest) = target.split_once(":[")?;
    let inode = rest.strip_suffix(']')?.parse().ok()?;
    match kind {
        "socket" => Some(Nameless::Socket(inode)),
        "pipe" => Some(Nameless::Pipe(inode)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_read_again() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inode = fstat(&writer).unwrap().st_ino;
        drop(reader);
        assert!(writer.write_all(b"lost").is_err());
        let own = rustix::process::getpid();
        let place = (writer.as_raw_fd(), Nameless::Pipe(inode));
        assert!(nameless(own).unwrap().contains(&place));
        let mut reader = std::fs::File::from(open_pipe(own, place.0).unwrap());
        assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        writer.write_all(b"found").unwrap();
        let mut text = [0; 8];
        assert_eq!(reader.read(&mut text).unwrap(), 5);
    }

    #[test]
    fn names_of_links() {
        assert_eq!(parse("socket:[12]"), Some(Nameless::Socket(12)));
        assert_eq!(parse("pipe:[12]"), Some(Nameless::Pipe(12)));
        for other in ["/dev/null", "anon_inode:[pidfd]", "pipe:[x]", "pipe:[1"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
