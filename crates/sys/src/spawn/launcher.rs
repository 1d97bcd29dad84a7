//! The parent's side of a spawn.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;
use rustix::process::{DumpableBehavior, Pid, dumpable_behavior, set_dumpable_behavior};

use super::child::{ChildSteps, errno, set_mask};
use super::clone;
use super::plan::Plan;
use super::staging::Staging;
use super::{SpawnError, Stage};
use crate::pidfd;

/// A started child: its program runs, or has run.
#[derive(Debug)]
pub struct Child {
    /// The process id. It stays reserved until the child is reaped.
    pub pid: Pid,
    /// The process itself, see [`pidfd`]. Close-on-exec.
    pub pidfd: OwnedFd,
    /// Why its calls are not reported although [`Plan::capture`] asks for it: the errno of `seccomp(2)`.
    pub uncaptured: Option<i32>,
}

/// Starts children. A process makes one, early; the [module](super) says how it works.
///
/// It holds a short range of descriptor numbers (about [`MAX_FDS`](super::MAX_FDS), from 16 up) and a
/// stack for the child, so that a spawn needs no free number in the table but that of the pidfd.
#[derive(Debug)]
pub struct Launcher {
    staging: Staging,
    stack: Stack,
}

impl Launcher {
    /// Reserves what spawning needs.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `EINVAL` when the range does not fit under the limit of open files, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { staging: Staging::new()?, stack: Stack::new()? })
    }

    /// Starts a child and returns once its program has taken over, or a step has failed.
    ///
    /// A child that is killed before its program runs counts as started: its exit tells. The calling
    /// process must not ignore `SIGCHLD`, or the kernel reaps its children unseen.
    ///
    /// # Errors
    ///
    /// The stage that failed and its errno. The child is reaped then; a `SIGCHLD` may still arrive.
    pub fn spawn(&mut self, plan: &Plan<'_>) -> Result<Child, SpawnError> {
        let mut steps = ChildSteps::prepare(plan).map_err(at(Stage::Plan))?;
        let staged = self.staging.stage(plan).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            at(Stage::Staging)(errno)
        })?;
        steps.set_layout(staged.layout());

        let dumpable = Dumpable::remember(plan);
        let cloned = self.stack.run_child(&steps, plan.cgroup);
        drop(dumpable);
        drop(staged);

        let child = cloned.map_err(|errno| {
            // What is short with or without a cgroup.
            let short = plan.cgroup.is_none() || [libc::EAGAIN, libc::ENOMEM, libc::EMFILE].contains(&errno);
            at(if short { Stage::Process } else { Stage::Cgroup })(errno)
        })?;
        match steps.failure() {
            None => Ok(Child { uncaptured: steps.uncaptured(), ..child }),
            Some(error) => {
                // It has left our memory, so it is all but gone: this waits for microseconds. It can
                // fail only if somebody else has reaped it, which is as good.
                let _ = pidfd::wait(&child.pidfd);
                Err(error)
            }
        }
    }
}

fn at(stage: Stage) -> impl Fn(i32) -> SpawnError {
    move |errno| SpawnError { stage, errno }
}

/// A stack for one child at a time, with a page below it that must not be touched.
#[derive(Debug)]
struct Stack {
    mapping: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread has a special claim to it.
unsafe impl Send for Stack {}

impl Stack {
    /// Far more than the child's few frames need. Pages never touched are never there.
    const SIZE: usize = 64 * 1024;

    fn new() -> io::Result<Self> {
        let guard = page_size();
        let len = guard + Self::SIZE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::STACK | MapFlags::NORESERVE;
        // SAFETY: a new mapping where the kernel likes overlaps with nothing.
        let mapping = unsafe { mmap_anonymous(ptr::null_mut(), len, prot, flags)? };
        let mapping = NonNull::new(mapping).ok_or(io::ErrorKind::OutOfMemory)?;
        let stack = Self { mapping, len };
        // SAFETY: the first page of our own mapping, which nobody uses.
        unsafe { mprotect(mapping.as_ptr(), guard, MprotectFlags::empty())? };
        Ok(stack)
    }

    /// Makes a child that takes these steps, in that cgroup, and sleeps until its program has taken
    /// over or it has ended.
    ///
    /// # Errors
    ///
    /// The errno of `clone(2)`. A failure of the child is in `steps`.
    fn run_child(&mut self, steps: &ChildSteps, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, i32> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_PIDFD;
        let mut pidfd: RawFd = -1;
        let blocked = BlockedSignals::new()?;
        // SAFETY: the child runs `entry` on our stack, which no other child uses (`&mut self`), with
        // data that outlives it, as this call returns only after the child has left the memory. It
        // has a table of signal handlers of its own, and no signal can reach it. The kernel writes
        // the pidfd to a living variable.
        let result = unsafe {
            let argument = ptr::from_ref(steps).cast_mut().cast();
            match cgroup {
                Some(cgroup) => {
                    let stack = (self.mapping.as_ptr(), self.len);
                    clone::into_cgroup(cgroup, flags, stack, entry, argument, &mut pidfd)
                }
                None => {
                    let top = self.mapping.as_ptr().byte_add(self.len);
                    match libc::clone(entry, top, flags | libc::SIGCHLD, argument, &raw mut pidfd) {
                        -1 => Err(errno()),
                        pid => Ok(pid),
                    }
                }
            }
        };
        drop(blocked);

        let pid = result?;
        let pid = Pid::from_raw(pid).ok_or(libc::EIO)?;
        // SAFETY: the kernel has just opened it for us, close-on-exec.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Child { pid, pidfd, uncaptured: None })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; a child that used it has left it. Unmapping what was mapped does
        // not fail.
        let _ = unsafe { munmap(self.mapping.as_ptr(), self.len) };
    }
}

/// Where a child begins.
extern "C" fn entry(steps: *mut c_void) -> c_int {
    // SAFETY: `run_child` passes its steps and keeps them alive, and clones with the flags that `run`
    // asks for.
    unsafe { (*steps.cast::<ChildSteps>()).run() }
}

/// All signals of the calling thread, blocked until this is dropped.
#[derive(Debug)]
struct BlockedSignals {
    former: u64,
}

impl BlockedSignals {
    fn new() -> Result<Self, i32> {
        // SAFETY: restored when the value is dropped.
        let former = unsafe { set_mask(&u64::MAX)? };
        Ok(Self { former })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: back to what the thread had. Setting a mask that was in force does not fail.
        let _ = unsafe { set_mask(&self.former) };
    }
}

/// Puts the "dumpable" flag back that a change of uid in the child takes from the shared memory.
#[derive(Debug)]
struct Dumpable {
    restore: bool,
}

impl Dumpable {
    fn remember(plan: &Plan<'_>) -> Self {
        let restore = plan.credentials.is_some() && dumpable_behavior() == Ok(DumpableBehavior::Dumpable);
        Self { restore }
    }
}

impl Drop for Dumpable {
    fn drop(&mut self) {
        if self.restore {
            // Only values that the kernel does not know are refused.
            let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
    }
}
