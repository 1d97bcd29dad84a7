//! The rights that it takes to look at a program of another user.
//!
//! `pidfd_getfd(2)` and `process_vm_readv(2)` are for whoever may trace the process (`ptrace(2)`): with
//! `CAP_SYS_PTRACE`, or with the same *real* user and group. What `/proc` tells of its descriptors is for
//! those with that capability, or the same user and group for *files*. Root without it can still become
//! anybody.

use std::io;
use std::thread;

use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::file_rights::with_rights_of;
use crate::spawn::Credentials;

/// Looks at a thread's process with our own rights or, where they do not suffice, with its user's.
///
/// A thread of our own gets those for the moment, and ends with it: while somebody has a user's real
/// uid, that user may send them signals, which must not reach the process that way.
///
/// # Errors
///
/// `EPERM` or `EACCES` where neither suffices; those of `look`.
pub(super) fn look<T: Send>(thread: Pid, look: impl Fn() -> io::Result<T> + Sync) -> io::Result<T> {
    let refused = match look() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        result => return result,
    };
    let Some(owner) = owner(thread) else { return Err(refused) };
    let as_owner = || {
        set_thread_res_gid(Gid::from_raw(owner.gid), None, None)?;
        set_thread_res_uid(Uid::from_raw(owner.uid), None, None)?;
        with_rights_of(&owner, &look)?
    };
    let result = thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, as_owner).map(thread::ScopedJoinHandle::join)
    });
    result?.unwrap_or(Err(refused))
}

/// The real user and group of a thread's process.
fn owner(thread: Pid) -> Option<Credentials> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", thread.as_raw_pid())).ok()?;
    let id = |name: &str| -> Option<u32> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(Credentials { uid: id("Uid:")?, gid: id("Gid:")?, groups: Vec::new() })
}
