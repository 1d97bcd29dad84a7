//! Descriptors that the process was started with.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Takes over every descriptor above 2 that came over `exec`, by number; from now on close-on-exec.
/// Those that are dropped are closed: keep what was meant for the program, and nobody else's pipe stays
/// open by accident.
///
/// For the start of `main`. An inherited descriptor is known by its missing close-on-exec flag: this
/// crate and Rust's library set it on all that they open. So there is nothing left to find in a second
/// call, and nothing that somebody in this process owns, unless a flag was cleared on purpose.
///
/// # Errors
///
/// When `/proc/self/fd` cannot be read.
pub fn take() -> io::Result<BTreeMap<RawFd, OwnedFd>> {
    let mut taken = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if number > 2
            && let Some(fd) = take_one(number)?
        {
            taken.insert(number, fd);
        }
    }
    Ok(taken)
}

fn take_one(number: RawFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: used for nothing but asking for and setting the flag, which a closed number answers
    // with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match fcntl_getfd(fd) {
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => Ok(None),
        Ok(flags) => {
            fcntl_setfd(fd, flags | FdFlags::CLOEXEC)?;
            // SAFETY: open, and without an owner in this process, as the flag was missing. It is set
            // now, so no second call finds the number.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
        }
        // Closed between the listing and here.
        Err(Errno::BADF) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
