//! One holder at a time: `flock(2)` on a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// An exclusive lock, held until the last duplicate of its descriptor is closed, hence at the latest
/// when its process ends. The file stays.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, without waiting. The file is made if need be, with mode 0600.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] by another, in this process or elsewhere; [`LockError::Io`].
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let fail = |source: io::Error| LockError::Io { path: path.to_owned(), source };
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(fail)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(LockError::Held(path.to_owned())),
                Err(error) => return Err(fail(error.into())),
            }
            // A cleaner of old files may have removed it in between: then this lock is of a file that
            // nobody else will find, and it takes another attempt.
            let locked = file.metadata().map_err(fail)?;
            match path.metadata() {
                Ok(found) if (found.dev(), found.ino()) == (locked.dev(), locked.ino()) => {
                    return Ok(Self { file });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Lock> for OwnedFd {
    /// The descriptor that holds the lock.
    fn from(lock: Lock) -> Self {
        lock.file.into()
    }
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it.
    Held(PathBuf),
    /// The file could not be opened or locked.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held(path) => {
                write!(f, "lock {} is held by another process", path.display())
            }
            LockError::Io { path, source } => {
                write!(f, "cannot lock {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for LockError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert!(matches!(error, LockError::Held(_)), "{error}");
        drop(lock);
        let lock = Lock::acquire(&path).unwrap();
        // The lock belongs to the open file, not to the value.
        let duplicate = lock.as_fd().try_clone_to_owned().unwrap();
        drop(lock);
        assert!(Lock::acquire(&path).is_err());
        drop(duplicate);
        assert!(Lock::acquire(&path).is_ok());
    }

    #[test]
    fn a_removed_file_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let _old = Lock::acquire(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(Lock::acquire(&path).is_ok());
    }

    #[test]
    fn errors_name_the_path() {
        let error = Lock::acquire(Path::new("/nonexistent/lock")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot lock /nonexistent/lock: No such file"), "{text}");
    }
}
