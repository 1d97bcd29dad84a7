//! `clone3(2)`, for a child that is born in another cgroup.
//!
//! Joining one later, by writing to its `cgroup.procs`, makes the kernel wait until no process of the
//! machine forks or exits: some 6 ms with the parent asleep, measured on kernel 6.18. Being born there
//! costs nothing. `clone(2)` cannot do it, and libc has no wrapper for `clone3(2)`: with memory and
//! stack as here it cannot be called from a function that returns twice, hence the few instructions.

use std::arch::asm;
use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`, which libc cuts to 32 bits.
const INTO_CGROUP: u64 = 1 << 33;

/// `struct clone_args` of `linux/sched.h`, as of Linux 5.7. Its size tells the kernel its version.
#[derive(Debug, Default)]
#[repr(C, align(8))]
struct Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    /// The lowest address of the stack.
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// As `clone(entry, stack + stack_size, flags, argument, pidfd)` of libc, with a child in `cgroup`, the
/// folder of one. Returns the child's pid. `flags` hold no signal: the child's end is a `SIGCHLD`.
///
/// # Errors
///
/// The errno.
///
/// # Safety
///
/// As for `clone(2)`: `stack` is memory for the child alone, its end aligned to 16 bytes; `entry` does not
/// return, and may run with `argument` beside the caller's other threads.
pub(super) unsafe fn into_cgroup(
    cgroup: BorrowedFd<'_>,
    flags: c_int,
    (stack, stack_size): (*mut c_void, usize),
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
    pidfd: &mut RawFd,
) -> Result<i32, i32> {
    let arguments = Arguments {
        flags: u64::from(flags.cast_unsigned()) | INTO_CGROUP,
        pidfd: address(ptr::from_mut(pidfd)),
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: address(stack),
        stack_size: stack_size as u64,
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..Arguments::default()
    };
    let result: c_long;
    // SAFETY: the kernel reads the arguments and writes the pidfd, which both live. In the parent the
    // instructions change but the registers that are named, and no memory of their own. The child goes on
    // with the same registers and an empty stack, where it enters a function that does not return.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<Arguments>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") &raw const arguments => result,
            in("x1") size_of::<Arguments>(),
            in("x20") argument,
            in("x21") entry,
            // Only the child changes it, but it must not hold an operand.
            lateout("x30") _,
        );
    }
    i32::try_from(result).map_err(|_| libc::EIO).and_then(|pid| if pid < 0 { Err(-pid) } else { Ok(pid) })
}

fn address<T>(pointer: *mut T) -> u64 {
    pointer.expose_provenance() as u64
}
