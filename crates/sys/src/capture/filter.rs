//! The filter, and how a child installs it.

use std::ffi::{c_int, c_long, c_ulong};
use std::os::fd::RawFd;

use libc::{sock_filter, sock_fprog};

/// Which machine the numbers of system calls are for (`AUDIT_ARCH_…` in `linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// The length of the addresses of netlink sockets, which libraries bind often. A Unix socket's path of
/// nine or ten bytes may have it, too.
const NETLINK_ADDRESS: u32 = 12;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The lower half of the third argument, on a machine that puts it first.
const THIRD: u32 = 32;

/// Reports `listen`, and `bind` to an address that may be one of IPv4, IPv6 or a Unix socket.
static FILTER: [sock_filter; 9] = [
    load(ARCH),
    unless_equal(ARCHITECTURE, 5),
    load(NUMBER),
    if_equal(syscall(libc::SYS_listen), 4),
    unless_equal(syscall(libc::SYS_bind), 2),
    load(THIRD),
    unless_equal(NETLINK_ADDRESS, 1),
    give(libc::SECCOMP_RET_ALLOW),
    give(libc::SECCOMP_RET_USER_NOTIF),
];

/// Installs the filter in the calling thread and gives its notify descriptor, close-on-exec. A process
/// without `CAP_SYS_ADMIN` loses the right to gain any by `exec` (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
///
/// `EBUSY` when somebody else gets the calls of this process already, `ENOSYS`, `EINVAL`, `ENOMEM`,
/// `EMFILE`.
///
/// # Safety
///
/// Only in a child before its program runs: from then on each `bind` of the thread and its descendants
/// waits for an answer. It makes raw system calls only, and no memory is allocated.
pub(crate) unsafe fn install() -> Result<RawFd, i32> {
    // SAFETY: as promised by the caller.
    match unsafe { set_filter() } {
        Err(libc::EACCES) => {
            // SAFETY: acts on the calling thread and takes no memory.
            let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            if result == -1 {
                return Err(crate::spawn::errno());
            }
            // SAFETY: as promised by the caller.
            unsafe { set_filter() }
        }
        result => result,
    }
}

/// # Safety
///
/// As [`install`].
unsafe fn set_filter() -> Result<RawFd, i32> {
    const FLAGS: c_ulong = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    #[expect(clippy::cast_possible_truncation, reason = "there are nine")]
    let program = sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions, and writes to none.
    let fd: c_long =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, FLAGS, &raw const program) };
    if fd == -1 { Err(crate::spawn::errno()) } else { c_int::try_from(fd).map_err(|_| libc::EBADF) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of calls are small")]
const fn syscall(number: c_long) -> u32 {
    number as u32
}

const fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Skips so many instructions when the value is this one.
const fn if_equal(value: u32, skip: u8) -> sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, 0, value)
}

/// Skips so many instructions when the value is another one.
const fn unless_equal(value: u32, skip: u8) -> sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value)
}

const fn give(action: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

#[expect(clippy::cast_possible_truncation, reason = "the codes are below 0x100")]
const fn statement(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call.
    fn run(arch: u32, number: c_long, third: u32) -> u32 {
        let (mut a, mut at) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = FILTER[at];
            at += 1;
            match u32::from(code) {
                0x20 => {
                    a = match k {
                        NUMBER => syscall(number),
                        ARCH => arch,
                        THIRD => third,
                        _ => panic!("{k}"),
                    }
                }
                0x15 => at += usize::from(if a == k { jt } else { jf }),
                0x06 => return k,
                code => panic!("an unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn only_what_may_be_ours_is_reported() {
        let check = |arch, number, third, expected| {
            assert_eq!(run(arch, number, third), expected, "{number} {third}")
        };
        check(ARCHITECTURE, libc::SYS_listen, 0, libc::SECCOMP_RET_USER_NOTIF);
        check(ARCHITECTURE, libc::SYS_bind, 16, libc::SECCOMP_RET_USER_NOTIF);
        check(ARCHITECTURE, libc::SYS_bind, 28, libc::SECCOMP_RET_USER_NOTIF);
        check(ARCHITECTURE, libc::SYS_bind, 14, libc::SECCOMP_RET_USER_NOTIF);
        check(ARCHITECTURE, libc::SYS_bind, 12, libc::SECCOMP_RET_ALLOW);
        check(ARCHITECTURE, libc::SYS_connect, 16, libc::SECCOMP_RET_ALLOW);
        check(0x4000_0003, libc::SYS_listen, 16, libc::SECCOMP_RET_ALLOW);
    }
}
