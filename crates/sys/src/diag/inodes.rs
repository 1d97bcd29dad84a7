//! Whose sockets are whose.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::process::is_ending;

/// How many sockets processes may have together.
const MOST: usize = 1 << 18;

/// The inodes of all sockets that these processes have open (`/proc/PID/fd` in `proc(5)`), as
/// [`Connection`](super::Connection) and [`Listening`](super::Listening) show them. About 3 µs for each
/// descriptor.
///
/// It is no snapshot of one instant. A process that has ended has no sockets, which is no error. Threads
/// with a table of descriptors of their own (`unshare(2)`) are not looked into.
///
/// # Errors
///
/// `EACCES` for a process of another user, or with more rights, unless one has `CAP_SYS_PTRACE`; `EMFILE`;
/// `ENOMEM` when they have more than 262,144.
pub fn inodes_of(pids: impl IntoIterator<Item = Pid>) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for pid in pids {
        match add_sockets_of(pid, &mut inodes) {
            Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(Errno::ACCESS) if is_ending(pid) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(inodes)
}

fn add_sockets_of(pid: Pid, inodes: &mut HashSet<u64>) -> Result<(), Errno> {
    let path = format!("/proc/{}/fd", pid.as_raw_pid());
    let folder = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&folder, &mut buffer);
    while let Some(entry) = entries.next() {
        // "." and ".." are no links.
        let inode = match socket_inode(folder.as_fd(), entry?.file_name()) {
            Ok(Some(inode)) => inode,
            Ok(None) | Err(Errno::NOENT | Errno::INVAL) => continue,
            Err(error) => return Err(error),
        };
        if inodes.len() == MOST {
            return Err(Errno::NOMEM);
        }
        inodes.insert(inode);
    }
    Ok(())
}

/// The inode of a socket; `None` for other files.
fn socket_inode(folder: BorrowedFd<'_>, name: &CStr) -> Result<Option<u64>, Errno> {
    // Longer than any `socket:[4294967295]`; what is cut off belongs to other files.
    let mut buffer = [0_u8; 40];
    let length = readlinkat_raw(folder, name, &mut buffer)?;
    let inode = buffer[..length].strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
    Ok(inode.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()))
}
