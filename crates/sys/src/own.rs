//! What a process does to itself.

use std::ffi::{CString, OsString, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use std::{mem, ptr, slice};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;
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

/// Lets the calling process go on as another program, from an open binary whatever has become of its
/// path: `execveat(2)`. Pid, children and environment stay, and so do the descriptors that are not
/// close-on-exec, and the signals that are blocked. It only returns when that has failed.
#[must_use]
pub fn become_program(binary: BorrowedFd<'_>, args: &[OsString]) -> io::Error {
    let strings = |all: Vec<Vec<u8>>| all.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let args = strings(args.iter().map(|arg| arg.as_bytes().to_vec()).collect());
    let variable = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let env = strings(std::env::vars_os().map(variable).collect());
    let (Ok(args), Ok(env)) = (args, env) else { return io::ErrorKind::InvalidInput.into() };
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args_list, env_list) = (pointers(&args), pointers(&env));
    // SAFETY: two lists of living strings, each with a null pointer at its end, and an empty path.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            binary.as_raw_fd(),
            c"".as_ptr(),
            args_list.as_ptr(),
            env_list.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Lets the calling thread have slices of this length, 0.1 to 100 ms, whenever CPUs are busy: with short
/// ones it waits less for a CPU and is taken off it sooner, and its share stays the same. Threads and
/// children that it starts inherit it. Linux 6.12; older kernels ignore it. `sched_setattr(2)`
///
/// # Errors
///
/// `EPERM` where a sandbox forbids the call.
pub fn set_slice(slice: Duration) -> io::Result<()> {
    schedule(|attributes| attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX))
}

/// Has the calling thread wait for its turn when it is woken, instead of taking the CPU from whoever woke
/// it: `SCHED_BATCH`. Its share stays the same. Threads and children that it starts inherit it. A thread
/// that is no ordinary one stays what it is. `sched(7)`
///
/// # Errors
///
/// `EPERM` where a sandbox forbids the call.
pub fn yield_to_wakers() -> io::Result<()> {
    schedule(|attributes| {
        if attributes.sched_policy == libc::SCHED_OTHER.cast_unsigned() {
            attributes.sched_policy = libc::SCHED_BATCH.cast_unsigned();
        }
    })
}

/// Changes how the calling thread is scheduled. `sched_setattr(2)`
fn schedule(change: impl FnOnce(&mut libc::sched_attr)) -> io::Result<()> {
    // SAFETY: zeros are valid numbers.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    let size = size_of_val(&attributes);
    // SAFETY: the kernel writes this thread's attributes, `size` bytes at most, to a living variable.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    change(&mut attributes);
    // SAFETY: the kernel reads a living variable, which says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

fn check(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// What comes back at a time of code that was dropped, bytes. Less would make more mappings, for each
/// of which the kernel keeps 200 bytes or so.
const PIECE: usize = 16 * 1024;

/// Takes the program's code and constants out of this process's memory; what is used comes back from
/// the page cache, a microsecond for each 16 KiB. For a process that has done something large and
/// goes on with something small.
///
/// While it ran, the kernel has mapped 64 KiB around whatever was touched, as far as the mapping goes
/// that this is in. What is small is all over the program, and would have half of it back soon. So the
/// mapping is cut into pieces, by something that makes no difference but keeps two apart: whether a
/// core dump has them, which leaves such pages out anyway unless somebody asks for them.
pub fn drop_code() {
    // SAFETY: the callback has the right type and takes no data. It is called during this call only.
    unsafe { libc::dl_iterate_phdr(Some(drop_code_of), ptr::null_mut()) };
}

/// Does it for one object, and ends the iteration: the first is the program.
extern "C" fn drop_code_of(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader passes a whole structure, whose headers live as long as the object.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    let page = page_size() as u64;
    // What is not writable has never been written to, by relocations neither.
    let constant =
        headers.iter().filter(|part| part.p_type == libc::PT_LOAD && part.p_flags & libc::PF_W == 0);
    for part in constant {
        let begin = (base + part.p_vaddr) & !(page - 1);
        let end = (base + part.p_vaddr + part.p_memsz).next_multiple_of(page);
        let (Ok(begin), Ok(length)) = (usize::try_from(begin), usize::try_from(end - begin)) else {
            continue;
        };
        // SAFETY: whole pages of a mapping of a file, which are the same when they are read again: the
        // kernel lets nobody write to a program that runs. It fails for nothing but other mappings.
        let _ = unsafe { madvise(ptr::with_exposed_provenance_mut(begin), length, Advice::LinuxDontNeed) };
        // The first piece is left as it is: its page with the headers is in core dumps.
        for at in (begin..begin + length).step_by(PIECE).skip(1).step_by(2) {
            let length = PIECE.min(begin + length - at);
            // SAFETY: the same pages; their contents do not change.
            let _ = unsafe { madvise(ptr::with_exposed_provenance_mut(at), length, Advice::LinuxDontDump) };
        }
    }
    1
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
    fn slices_are_set_and_nothing_else() {
        let seen = || fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
        let [policy, before] = ["policy", "se.slice"].map(|name| field(&seen(), name));
        set_slice(Duration::from_micros(300)).unwrap();
        assert_eq!(field(&seen(), "policy"), policy);
        // A kernel without the file, or without slices, shows none.
        if before.is_some() {
            assert_eq!(field(&seen(), "se.slice").as_deref(), Some("300000"));
        }
    }

    #[test]
    fn who_yields_is_no_ordinary_thread_any_more() {
        let policy = || field(&fs::read_to_string("/proc/thread-self/sched").unwrap_or_default(), "policy");
        let before = policy();
        yield_to_wakers().unwrap();
        // A kernel without the file shows none.
        if before.as_deref() == Some("0") {
            assert_eq!(policy().as_deref(), Some("3"));
        } else {
            assert_eq!(policy(), before);
        }
    }

    fn field(text: &str, name: &str) -> Option<String> {
        let line = text.lines().find(|line| line.split([' ', ':']).next() == Some(name))?;
        Some(line.split(':').next_back()?.trim().to_owned())
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
    fn code_comes_back() {
        drop_code();
        // `scripts/bench memory` shows that it was gone.
        the_name_is_cut();
    }

    #[test]
    fn the_allocator_survives() {
        limit_malloc_arenas();
        drop(vec![1_u8; 1 << 20]);
        trim_heap();
    }
}
