//! The child's side: from `clone` to `exec`, in the parent's memory.
//!
//! [`ChildSteps::prepare`] is the parent, making ready whatever the child will hand to the kernel.
//! [`ChildSteps::run`] is the child: raw system calls on that data, and nothing that could allocate,
//! lock or panic.

use std::convert::Infallible;
use std::ffi::{c_char, c_int, c_long};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::{mem, ptr};

use super::block::{Block, Offset, Strings};
use super::plan::{Credentials, MAX_CPUS, MAX_FDS, Plan, ProcessGroup, Program};
use super::staging::Layout;
use super::{SpawnError, Stage};
use crate::capture;

/// Digits of the largest `i32`; a pid is smaller.
const PID_DIGITS: usize = 10;

/// The exit status of a child that failed. Nobody sees it: the [`Report`] says more.
const FAILED: c_int = 127;

/// A step that failed, with its errno.
type Failure = (Stage, i32);

/// All that the child needs, as the kernel wants it.
#[derive(Debug)]
pub(super) struct ChildSteps {
    /// Keeps alive what the pointers below point to.
    _strings: Strings,
    /// Null when the program is given by descriptor.
    program: *const c_char,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Where the digits of `LISTEN_PID` go, or null.
    listen_pid: *mut u8,
    /// Null to stay.
    cwd: *const c_char,
    /// The text for `/proc/self/oom_score_adj`, or null, and its length.
    oom_score_adj: *const c_char,
    oom_score_adj_len: usize,
    process_group: ProcessGroup,
    limits: Vec<(c_int, [u64; 2])>,
    nice: Option<i32>,
    /// A bit for each CPU; empty to keep the parent's.
    cpu_mask: Vec<u64>,
    credentials: Option<Credentials>,
    umask: Option<u32>,
    capture: bool,
    layout: Layout,
    report: Report,
}

/// How the child ended, written by the child and read by the parent after it.
#[derive(Debug, Default)]
struct Report {
    /// 0 while nothing has failed.
    stage: AtomicU8,
    errno: AtomicI32,
    /// Why no filter was installed; 0 when one was, or none was wanted.
    uncaptured: AtomicI32,
}

impl ChildSteps {
    /// Translates a plan.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a NUL byte in a string, an empty argument list or a CPU that cannot be, `E2BIG` for
    /// too many fds.
    pub(super) fn prepare(plan: &Plan<'_>) -> Result<Self, i32> {
        if plan.args.is_empty() {
            return Err(libc::EINVAL);
        }
        if plan.fds.len() > MAX_FDS {
            return Err(libc::E2BIG);
        }

        let mut block = Block::default();
        let program = match &plan.program {
            Program::Path(path) => Some(block.push(&[path.as_os_str().as_bytes()])?),
            Program::Binary(_) => None,
        };
        let args = plan
            .args
            .iter()
            .map(|arg| block.push(&[arg.as_bytes()]))
            .collect::<Result<Vec<Offset>, i32>>()?;
        let mut env = Vec::with_capacity(plan.env.len() + 1);
        for (name, value) in &plan.env {
            if !(plan.listen_pid && name == "LISTEN_PID") {
                env.push(block.push(&[name.as_bytes(), b"=", value.as_bytes()])?);
            }
        }
        let mut listen_pid = None;
        if plan.listen_pid {
            let (entry, digits) = block.push_with_room(b"LISTEN_PID=", PID_DIGITS)?;
            env.push(entry);
            listen_pid = Some(digits);
        }
        let cwd = match &plan.cwd {
            Some(cwd) => Some(block.push(&[cwd.as_os_str().as_bytes()])?),
            None => None,
        };
        let oom_text = plan.oom_score_adj.map(|score| score.to_string());
        let oom_score_adj = match &oom_text {
            Some(text) => Some(block.push(&[text.as_bytes()])?),
            None => None,
        };

        let strings = block.finish();
        let pointer = |offset: Option<Offset>| offset.map_or(ptr::null(), |offset| strings.pointer(offset));
        Ok(Self {
            program: pointer(program),
            argv: strings.pointers(&args),
            envp: strings.pointers(&env),
            listen_pid: listen_pid.map_or(ptr::null_mut(), |offset| strings.pointer_mut(offset)),
            cwd: pointer(cwd),
            oom_score_adj: pointer(oom_score_adj),
            oom_score_adj_len: oom_text.map_or(0, |text| text.len()),
            process_group: plan.process_group,
            limits: plan.limits.iter().map(|(resource, limit)| (resource.as_raw(), limit.as_raw())).collect(),
            nice: plan.nice,
            cpu_mask: cpu_mask(&plan.cpus)?,
            credentials: plan.credentials.clone(),
            umask: plan.umask,
            capture: plan.capture && plan.introduce.is_some(),
            layout: Layout::default(),
            report: Report::default(),
            _strings: strings,
        })
    }

    /// Says where the parent has staged the child's descriptors.
    pub(super) fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
    }

    /// Why the child failed, once it has left the parent's memory.
    pub(super) fn failure(&self) -> Option<SpawnError> {
        let stage = Stage::from_raw(self.report.stage.load(Ordering::Relaxed))?;
        let errno = self.report.errno.load(Ordering::Relaxed);
        Some(SpawnError { stage, errno })
    }

    /// Why its calls are not reported, once it has left the parent's memory.
    pub(super) fn uncaptured(&self) -> Option<i32> {
        Some(self.report.uncaptured.load(Ordering::Relaxed)).filter(|errno| *errno != 0)
    }

    /// The whole life of the child before its program; returns to nobody.
    ///
    /// # Safety
    ///
    /// Only in a child made with `CLONE_VM | CLONE_VFORK | CLONE_FILES` and without `CLONE_SIGHAND`
    /// and `CLONE_FS`, with all signals blocked, while [`Self::set_layout`] describes the range.
    pub(super) unsafe fn run(&self) -> ! {
        // SAFETY: as promised by the caller.
        let Err((stage, errno)) = unsafe { self.steps() };
        // The kernel orders these before the parent's waking.
        self.report.errno.store(errno, Ordering::Relaxed);
        self.report.stage.store(stage as u8, Ordering::Relaxed);
        loop {
            // SAFETY: ends this process alone, which has no other thread.
            unsafe { libc::syscall(libc::SYS_exit_group, FAILED) };
        }
    }

    /// The steps. Each has a comment only where its place in the order matters.
    ///
    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn steps(&self) -> Result<Infallible, Failure> {
        // SAFETY: each call acts on this child alone, under the conditions of `run`: descriptors are
        // private after the first step, the rest is per process. The pointers are to prepared data,
        // which lives in the parent's frame until the parent wakes.
        unsafe {
            self.unshare_fds().map_err(at(Stage::Fds))?;
            // While it is privileged: otherwise it would have to give up what set-user-id programs gain.
            let notify = self.install_filter();
            self.introduce(notify).map_err(at(Stage::Introduce))?;
            self.join_session().map_err(at(Stage::Session))?;
            // Before the mask is emptied: no handler of the parent may run here.
            reset_dispositions().map_err(at(Stage::Signals))?;
            // While it is privileged, and before a limit could forbid opening a file.
            self.write_oom_score_adj().map_err(at(Stage::OomScoreAdj))?;
            self.set_limits().map_err(at(Stage::Limits))?;
            self.set_nice().map_err(at(Stage::Nice))?;
            self.set_cpu_affinity().map_err(at(Stage::CpuAffinity))?;
            self.change_user()?;
            self.set_umask();
            // With the rights of the new user, as for everything that the program itself opens.
            self.change_folder().map_err(at(Stage::Chdir))?;
            self.place_fds().map_err(at(Stage::Fds))?;
            self.write_listen_pid();
            empty_mask().map_err(at(Stage::Signals))?;
            self.exec().map_err(at(Stage::Exec))
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn unshare_fds(&self) -> Result<(), i32> {
        // SAFETY: closes descriptors in the private copy that the flag asks for, not in the parent.
        let result = unsafe {
            libc::syscall(libc::SYS_close_range, self.layout.end, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE)
        };
        check(result)
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn install_filter(&self) -> Option<RawFd> {
        if !self.capture {
            return None;
        }
        // SAFETY: this is the child, and its program does not run yet.
        match unsafe { capture::install() } {
            Ok(notify) => Some(notify),
            Err(errno) => {
                self.report.uncaptured.store(errno, Ordering::Relaxed);
                None
            }
        }
    }

    /// Sends the pid, and the notify descriptor if there is one, which is closed then.
    ///
    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn introduce(&self, notify: Option<RawFd>) -> Result<(), i32> {
        let Some(socket) = self.layout.introduce else {
            return Ok(());
        };
        let mut pid = own_pid();
        let mut bytes = libc::iovec { iov_base: (&raw mut pid).cast(), iov_len: size_of_val(&pid) };
        let mut rights = Rights::new(notify.unwrap_or(-1));
        // SAFETY: zeros are null pointers and numbers.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut bytes;
        message.msg_iovlen = 1;
        if notify.is_some() {
            message.msg_control = (&raw mut rights).cast();
            message.msg_controllen = Rights::LEN.into();
        }
        // SAFETY: sends four bytes and at most one descriptor of living variables, without an address.
        unsafe {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            check(libc::syscall(libc::SYS_sendmsg, socket, &raw const message, flags))?;
            match notify {
                Some(notify) => check(libc::syscall(libc::SYS_close, notify)),
                None => Ok(()),
            }
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn join_session(&self) -> Result<(), i32> {
        // SAFETY: both act on the calling process and take no memory.
        let result = unsafe {
            match self.process_group {
                ProcessGroup::Inherit => 0,
                ProcessGroup::NewGroup => libc::syscall(libc::SYS_setpgid, 0, 0),
                ProcessGroup::NewSession => libc::syscall(libc::SYS_setsid),
            }
        };
        check(result)
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn write_oom_score_adj(&self) -> Result<(), i32> {
        if self.oom_score_adj.is_null() {
            return Ok(());
        }
        // SAFETY: the path is a terminated string; the text has the stated length. The descriptor is
        // new and close-on-exec. A vforked child's score is its own, although the memory is shared.
        unsafe {
            let file = libc::syscall(
                libc::SYS_openat,
                libc::AT_FDCWD,
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            check(file)?;
            check(libc::syscall(libc::SYS_write, file, self.oom_score_adj, self.oom_score_adj_len))
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn set_limits(&self) -> Result<(), i32> {
        for (resource, limit) in &self.limits {
            // SAFETY: `limit` is a `struct rlimit64`: two u64; the old value is not asked for.
            let result = unsafe {
                libc::syscall(libc::SYS_prlimit64, 0, *resource, limit.as_ptr(), ptr::null_mut::<u64>())
            };
            check(result)?;
        }
        Ok(())
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn set_nice(&self) -> Result<(), i32> {
        let Some(nice) = self.nice else {
            return Ok(());
        };
        // SAFETY: acts on the calling process and takes no memory.
        check(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) })
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn set_cpu_affinity(&self) -> Result<(), i32> {
        if self.cpu_mask.is_empty() {
            return Ok(());
        }
        let size = self.cpu_mask.len() * size_of::<u64>();
        // SAFETY: acts on the calling process; the mask has the stated size in bytes.
        check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, self.cpu_mask.as_ptr()) })
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn change_user(&self) -> Result<(), Failure> {
        let Some(Credentials { uid, gid, groups }) = &self.credentials else {
            return Ok(());
        };
        // SAFETY: raw calls change the calling thread only, which is this child's only one; the list
        // has the stated length. The uid goes last, as it ends the right to change the others.
        unsafe {
            let count = groups.len();
            check(libc::syscall(libc::SYS_setgroups, count, groups.as_ptr())).map_err(at(Stage::Groups))?;
            check(libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid)).map_err(at(Stage::Gid))?;
            check(libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid)).map_err(at(Stage::Uid))
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn set_umask(&self) {
        if let Some(mask) = self.umask {
            // SAFETY: acts on the calling process, takes no memory and always succeeds.
            unsafe { libc::syscall(libc::SYS_umask, mask) };
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn change_folder(&self) -> Result<(), i32> {
        if self.cwd.is_null() {
            return Ok(());
        }
        // SAFETY: a terminated string.
        check(unsafe { libc::syscall(libc::SYS_chdir, self.cwd) })
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn place_fds(&self) -> Result<(), i32> {
        // SAFETY: the table is private, so whatever these numbers meant before is closed here only.
        unsafe {
            for target in 0..self.layout.count {
                let source = self.layout.first + target;
                check(libc::syscall(libc::SYS_dup3, source, target, 0))?;
            }
            // The program by descriptor is still needed, hence not closed at once.
            check(libc::syscall(
                libc::SYS_close_range,
                self.layout.count,
                RawFd::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            ))
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn write_listen_pid(&self) {
        if !self.listen_pid.is_null() {
            // SAFETY: the place has room for the digits and a NUL, and nobody else uses it.
            unsafe { write_decimal(self.listen_pid, own_pid()) };
        }
    }

    /// # Safety
    ///
    /// As [`Self::run`].
    unsafe fn exec(&self) -> Result<Infallible, i32> {
        // SAFETY: terminated strings, in arrays that end with a null.
        let result = unsafe {
            match self.layout.binary {
                Some(binary) => libc::syscall(
                    libc::SYS_execveat,
                    binary,
                    c"".as_ptr(),
                    self.argv.as_ptr(),
                    self.envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                ),
                None => libc::syscall(libc::SYS_execve, self.program, self.argv.as_ptr(), self.envp.as_ptr()),
            }
        };
        // It returns only to fail.
        check(result)?;
        Err(libc::EIO)
    }
}

/// A control message with one descriptor (`cmsg(3)`, `SCM_RIGHTS`), as the kernel wants it.
#[repr(C)]
struct Rights {
    length: usize,
    level: c_int,
    kind: c_int,
    fd: RawFd,
    /// To the next multiple of eight.
    padding: u32,
}

impl Rights {
    /// Its size: the field for it has another type with each libc.
    const LEN: u8 = 24;

    const fn new(fd: RawFd) -> Self {
        const { assert!(size_of::<Self>() == Self::LEN as usize) };
        let length = mem::offset_of!(Self, padding);
        Self { length, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fd, padding: 0 }
    }
}

/// The kernel's bit mask of these CPUs.
fn cpu_mask(cpus: &[u32]) -> Result<Vec<u64>, i32> {
    let mut mask = Vec::new();
    for cpu in cpus {
        if *cpu >= MAX_CPUS {
            return Err(libc::EINVAL);
        }
        let word = (*cpu / u64::BITS) as usize;
        if mask.len() <= word {
            mask.resize(word + 1, 0);
        }
        mask[word] |= 1 << (*cpu % u64::BITS);
    }
    Ok(mask)
}

fn at(stage: Stage) -> impl Fn(i32) -> Failure {
    move |errno| (stage, errno)
}

/// The result of a raw system call.
fn check(result: c_long) -> Result<(), i32> {
    if result == -1 { Err(errno()) } else { Ok(()) }
}

/// The errno of the calling thread; in the child that is the sleeping parent thread's.
pub(crate) fn errno() -> i32 {
    // SAFETY: the location is valid as long as its thread.
    unsafe { *libc::__errno_location() }
}

fn own_pid() -> i32 {
    // SAFETY: takes no memory. Not libc's `getpid`, which may remember the parent's.
    let pid = unsafe { libc::syscall(libc::SYS_getpid) };
    i32::try_from(pid).unwrap_or_default()
}

/// All dispositions to `SIG_DFL`, which `exec` does for caught signals but not for ignored ones.
///
/// # Safety
///
/// Only in a process that does not share its signal handlers.
unsafe fn reset_dispositions() -> Result<(), i32> {
    /// The kernel's `struct sigaction`: handler, flags, restorer, mask; all zero means the default.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the structure is whole, and the set has the kernel's size; the old value is not
        // asked for.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
        check(result)?;
    }
    Ok(())
}

/// # Safety
///
/// Only once all dispositions are at their default.
unsafe fn empty_mask() -> Result<(), i32> {
    // SAFETY: as promised by the caller, no handler can run.
    unsafe { set_mask(&0) }.map(|_| ())
}

/// Sets the calling thread's signal mask and gives the former one. Signal `n` is bit `n − 1`.
///
/// Unlike `pthread_sigmask(3)` it covers the two signals that libc keeps for itself: their handlers
/// must not run in a child that borrows the thread's memory.
///
/// # Safety
///
/// Whoever blocks signals must restore the mask before the thread goes on with anything else.
pub(super) unsafe fn set_mask(mask: &u64) -> Result<u64, i32> {
    let mut former = 0_u64;
    // SAFETY: both sets have the kernel's size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(mask),
            &raw mut former,
            size_of::<u64>(),
        )
    };
    check(result).map(|()| former)
}

/// Writes a decimal number and a NUL.
///
/// # Safety
///
/// `start` has room for [`PID_DIGITS`] bytes and the NUL. `value` is not negative.
unsafe fn write_decimal(start: *mut u8, value: i32) {
    let mut length = 1;
    let mut rest = value / 10;
    while rest > 0 {
        length += 1;
        rest /= 10;
    }
    // SAFETY: `length` is at most ten for an i32, and the loop goes down from there to `start`.
    unsafe {
        start.add(length).write(0);
        let mut rest = value;
        for place in (0..length).rev() {
            start.add(place).write(b'0' + (rest % 10) as u8);
            rest /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_bits() {
        assert_eq!(cpu_mask(&[]), Ok(vec![]));
        assert_eq!(cpu_mask(&[2, 0]), Ok(vec![0b101]));
        assert_eq!(cpu_mask(&[63, 64, 129]), Ok(vec![1 << 63, 1, 2]));
        assert_eq!(cpu_mask(&[MAX_CPUS]), Err(libc::EINVAL));
    }

    #[test]
    fn pids_become_digits() {
        for value in [0, 1, 9, 10, 4_194_304, i32::MAX] {
            let mut room = [b'x'; PID_DIGITS + 1];
            // SAFETY: the array is the room.
            unsafe { write_decimal(room.as_mut_ptr(), value) };
            let text = room.split(|byte| *byte == 0).next().unwrap();
            assert_eq!(text, value.to_string().as_bytes());
        }
    }
}
