//! Files with somebody else's rights, for one thread and one piece of work.
//!
//! The kernel has a user and a group for each thread that count for files only (`setfsuid(2)`), so a
//! thread of root can act as a user without giving its own rights up. With them go the capabilities
//! that override the permissions of files, and the supplementary groups.

use std::io;

use rustix::fs::Gid;
use rustix::process::{DumpableBehavior, dumpable_behavior, getgroups, set_dumpable_behavior};

use crate::spawn::Credentials;

/// Does `work` with the rights to files that `user` has. The other threads keep theirs.
///
/// # Errors
///
/// `EPERM` without the right to change users (`CAP_SETUID`, `CAP_SETGID`); nothing was done then.
pub fn with_rights_of<T>(user: &Credentials, work: impl FnOnce() -> T) -> io::Result<T> {
    let own = Own::remember()?;
    set_groups(&user.groups)?;
    set_file_gid(user.gid);
    set_file_uid(user.uid);
    // These two calls tell of no failure.
    if (file_uid(), file_gid()) != (user.uid, user.gid) {
        return Err(rustix::io::Errno::PERM.into());
    }
    let result = work();
    drop(own);
    Ok(result)
}

/// The thread's own rights, which it gets back when this is dropped.
#[derive(Debug)]
struct Own {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Changing users takes this flag from the process.
    is_dumpable: bool,
}

impl Own {
    fn remember() -> io::Result<Self> {
        Ok(Self {
            uid: file_uid(),
            gid: file_gid(),
            groups: getgroups()?.into_iter().map(Gid::as_raw).collect(),
            is_dumpable: dumpable_behavior() == Ok(DumpableBehavior::Dumpable),
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        set_file_uid(self.uid);
        set_file_gid(self.gid);
        // Whoever could change them can change them back.
        let _ = set_groups(&self.groups);
        if self.is_dumpable {
            // Only values that the kernel does not know are refused.
            let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
    }
}

/// Of the calling thread only, unlike libc's function.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list has the stated length, and is only read.
    match unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_file_uid(uid: u32) {
    // SAFETY: takes a number, and changes the calling thread only.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
}

fn set_file_gid(gid: u32) {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
}

/// The user that counts for files now: the call gives the former one, and the number that is nobody's
/// changes nothing.
fn file_uid() -> u32 {
    // SAFETY: as above.
    let uid = unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) };
    u32::try_from(uid & i64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn file_gid() -> u32 {
    // SAFETY: as above.
    let gid = unsafe { libc::syscall(libc::SYS_setfsgid, u32::MAX) };
    u32::try_from(gid & i64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn rights_are_lent_and_come_back() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (closed, open) = (folder.path().join("closed"), folder.path().join("open"));
        for (path, mode) in [(folder.path(), 0o755), (&closed, 0o700), (&open, 0o777)] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let user = Credentials { uid: 43210, gid: 54321, groups: vec![54321] };
        let before = (file_uid(), file_gid(), getgroups().unwrap(), dumpable_behavior().unwrap());
        with_rights_of(&user, || {
            assert_eq!(getgroups().unwrap(), [Gid::from_raw(54321)]);
            let denied = fs::write(closed.join("file"), "").unwrap_err();
            assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
            fs::write(open.join("file"), "").unwrap();
        })
        .unwrap();
        let made = fs::metadata(open.join("file")).unwrap();
        assert_eq!((made.uid(), made.gid()), (43210, 54321));
        let after = (file_uid(), file_gid(), getgroups().unwrap(), dumpable_behavior().unwrap());
        assert_eq!(before, after);
        fs::write(closed.join("file"), "").unwrap();
    }
}
