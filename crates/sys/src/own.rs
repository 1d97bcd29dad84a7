//! What a process does to itself.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{getpid, set_child_subreaper, setsid};

use crate::limits::{self, Resource};

/// Names the calling thread; for the main thread that is the process, as `ps` and `/proc/PID/comm`
/// show it. Longer names are cut to 15 bytes. `PR_SET_NAME`
///
/// # Errors
///
/// `InvalidInput` for a NUL byte inside.
pub fn set_name(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    Ok(rustix::thread::set_name(&name)?)
}

/// Makes the calling process the parent of all descendants whose own parent ends, in place of init.
/// `PR_SET_CHILD_SUBREAPER`
///
/// # Errors
///
/// None that is known.
pub fn become_subreaper() -> io::Result<()> {
    // Any pid means "yes".
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Leads a new session, away from the terminal. `setsid(2)`
///
/// # Errors
///
/// `EPERM` for the leader of a process group.
pub fn set_session() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// Gives the table of descriptors room for this many, or as many as the soft limit allows. To be called
/// while the process has one thread: afterwards the kernel waits for all CPUs, 10 ms and more, each
/// time that the table has to grow. Costs 8 bytes of kernel memory a descriptor.
///
/// # Errors
///
/// `EMFILE` when not a single number is free, `ENOMEM`.
pub fn widen_fd_table(count: u64) -> io::Result<()> {
    let count = limits::get(Resource::Nofile).soft.map_or(count, |limit| limit.min(count));
    let last = RawFd::try_from(count.saturating_sub(1)).unwrap_or(RawFd::MAX);
    // The table keeps its size when they are closed again.
    let any = eventfd(0, EventfdFlags::CLOEXEC)?;
    fcntl_dupfd_cloexec(&any, last)?;
    Ok(())
}

/// Keeps the allocator to one arena, so that threads do not each add one. Early in `main`; only glibc's
/// allocator has arenas.
pub fn limit_malloc_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes a parameter of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory of the allocator back to the kernel. Takes milliseconds on a large heap: for
/// after a storm, not for the loop. Does nothing but with glibc's allocator.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: acts on free memory only, under the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_name_is_cut() {
        set_name("a name of more than fifteen bytes").unwrap();
        let seen = fs::read_to_string("/proc/thread-self/comm").unwrap();
        assert_eq!(seen, "a name of more \n");
        assert!(set_name("a\0b").is_err());
    }

    #[test]
    fn the_table_of_descriptors_is_widened() {
        let size = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            size.trim().parse::<u64>().unwrap()
        };
        let limit = limits::get(Resource::Nofile).soft.unwrap_or(u64::MAX);
        widen_fd_table(1024).unwrap();
        assert!(size() >= limit.min(1024), "{}", size());
        // Beyond the limit it is as much as may be.
        if limit <= 1 << 20 {
            widen_fd_table(u64::MAX).unwrap();
            assert!(size() >= limit, "{}", size());
        }
    }

    #[test]
    fn the_allocator_survives() {
        limit_malloc_arenas();
        drop(vec![1_u8; 1 << 20]);
        trim_heap();
    }
}
