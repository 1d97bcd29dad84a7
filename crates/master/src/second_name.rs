//! A second name of a file, by which the first one is restored: many programs
//! remove the path of a Unix socket before they bind it, and when they end.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, statat, unlinkat};
use rustix::io::Errno;

/// A file with two names in one folder: `web.sock` and `.web.sock.supervisor`.
#[derive(Debug)]
pub(crate) struct SecondName {
    /// It is the folder that it was, whatever its path leads to later.
    folder: OwnedFd,
    first: OsString,
    second: OsString,
}

impl SecondName {
    /// Gives a file its second name.
    ///
    /// # Errors
    ///
    /// `EPERM` where the file system has no links, `EACCES`, `EROFS`.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let name = Self::of(path)?;
        if !name.is_same() {
            // That of a socket of former times.
            let _ = unlinkat(&name.folder, &name.second, AtFlags::empty());
            linkat(&name.folder, &name.first, &name.folder, &name.second, AtFlags::empty())?;
        }
        Ok(name)
    }

    /// Finds the second name that an earlier master gave a file, whose first one
    /// may be gone meanwhile; without one it gets one.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub(crate) fn again(path: &Path) -> io::Result<Self> {
        let name = Self::of(path)?;
        match name.restore() {
            Ok(_) => Ok(name),
            Err(_) => Self::new(path),
        }
    }

    /// Both names, whether or not they are there.
    fn of(path: &Path) -> io::Result<Self> {
        let (folder, first) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut second = OsString::from(".");
        second.push(first);
        second.push(".supervisor");
        Ok(Self { folder, first: first.to_owned(), second })
    }

    /// Gives the file its first name again, unless something has it. Returns
    /// whether that was necessary.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; `NotFound` when the second one is gone, too.
    pub(crate) fn restore(&self) -> io::Result<bool> {
        match linkat(&self.folder, &self.second, &self.folder, &self.first, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes both names of a file, as [`Self::remove`] does.
    pub(crate) fn remove_at(path: &Path) {
        // It fails where the folder is gone, and the names with it.
        if let Ok(name) = Self::of(path) {
            name.remove();
        }
    }

    /// Removes both names; the first only while it is this file's.
    pub(crate) fn remove(self) {
        if self.is_same() {
            let _ = unlinkat(&self.folder, &self.first, AtFlags::empty());
        }
        let _ = unlinkat(&self.folder, &self.second, AtFlags::empty());
    }

    /// Whether both names are there, for one file.
    fn is_same(&self) -> bool {
        let inode = |name| statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ino);
        matches!((inode(&self.first), inode(&self.second)), (Ok(first), Ok(second)) if first == second)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_that_is_removed_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        let name = SecondName::new(&path).unwrap();
        assert!(!name.restore().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(name.restore().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        name.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        // A name of former times is no hindrance.
        fs::write(folder.path().join(".file.supervisor"), "old").unwrap();
        let name = SecondName::new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        assert!(!name.restore().unwrap());
        name.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
    }
}
