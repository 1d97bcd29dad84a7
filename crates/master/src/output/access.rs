//! Whose rights count where a log file is.
//!
//! Log files are made and renamed by path. In a folder where only the daemon, or
//! somebody else whom its operator named, can put things, that is done with the
//! daemon's rights: workers need none there. Where the app's user could replace the
//! file, or a folder on the way, by a link to a file of the daemon's, it is done with
//! that user's rights, so that a link leads nowhere that the user could not write
//! anyway. Where everybody may put things, a link is refused besides.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, OFlags, accessat};
use rustix::io::Errno;
use rustix::process::geteuid;
use supervisor_sys::file_rights::with_rights_of;
use supervisor_sys::spawn::Credentials;

/// As many symbolic links as the kernel follows.
const MAX_LINKS: u32 = 40;
/// The bit of a folder where everybody may rename and remove only what is theirs.
const STICKY: u32 = 0o1000;
/// Everybody may write.
const OTHERS_WRITE: u32 = 0o002;

/// Whose rights to an app's log files count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The user of the app, when it is another one than the daemon's.
    user: Option<Arc<Credentials>>,
}

/// What the folder of a file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody can have put a link there whom the operator does not trust.
    Safe,
    /// The app's user or anybody can.
    Open,
}

/// What somebody who is not trusted may do to a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Nothing,
    /// Put new things there.
    Add,
    /// Replace what is there, too.
    Replace,
}

impl Access {
    pub(crate) fn new(user: Option<&Credentials>) -> Self {
        let own = geteuid();
        // Only root can lend itself another's rights.
        let user = user.filter(|user| own.is_root() && user.uid != own.as_raw());
        Self { user: user.map(|user| Arc::new(user.clone())) }
    }

    /// Does `work`, which makes, opens, renames or removes `path` and files beside
    /// it, with the rights that count there.
    ///
    /// # Errors
    ///
    /// Those of `work`, and of changing users.
    pub(crate) fn reach<T>(&self, path: &Path, work: impl FnOnce(Place) -> io::Result<T>) -> io::Result<T> {
        if path.parent().is_none_or(|folder| self.is_safe(folder)) {
            return work(Place::Safe);
        }
        match &self.user {
            Some(user) => with_rights_of(user, || work(Place::Open))?,
            None => work(Place::Open),
        }
    }

    /// Whether nobody can replace the folder, nor what is in it: follows the path
    /// as the kernel does, and looks at each folder on the way.
    fn is_safe(&self, folder: &Path) -> bool {
        let mut here = PathBuf::from("/");
        let mut names: VecDeque<OsString> = names(folder).collect();
        let mut links = 0;
        loop {
            let Ok(metadata) = fs::symlink_metadata(&here) else { return false };
            let reach = self.reach_of(&here, &metadata);
            let Some(name) = names.pop_front() else { return reach == Reach::Nothing };
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(name);
            let found = match fs::symlink_metadata(&next) {
                Ok(found) => found,
                // The daemon will make it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return reach == Reach::Nothing,
                Err(_) => return false,
            };
            match reach {
                Reach::Nothing => {}
                Reach::Add if is_ours(&found) => {}
                Reach::Add | Reach::Replace => return false,
            }
            if !found.is_symlink() {
                here = next;
                continue;
            }
            links += 1;
            let Ok(target) = fs::read_link(&next) else { return false };
            if links > MAX_LINKS {
                return false;
            }
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            names = self::names(&target).chain(names).collect();
        }
    }

    fn reach_of(&self, folder: &Path, metadata: &Metadata) -> Reach {
        let owner = metadata.uid();
        let may_write = match &self.user {
            // An owner can always give itself the right to write.
            Some(user) if user.uid == owner => return Reach::Replace,
            // The kernel knows of groups and access lists. Without the right to
            // become the user, the user is not to be told from others.
            Some(user) => with_rights_of(user, || may_write(folder)).unwrap_or(true),
            None => metadata.mode() & OTHERS_WRITE != 0,
        };
        match may_write {
            false => Reach::Nothing,
            true if metadata.mode() & STICKY != 0 => Reach::Add,
            true => Reach::Replace,
        }
    }
}

impl Place {
    /// Opens a file of this place.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`; for a link in an open place, in words.
    pub(crate) fn open(self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        // A pipe that nobody reads, or writes, must not hold up the others' output.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = match self {
            Self::Safe => flags,
            Self::Open => flags | OFlags::NOFOLLOW,
        };
        let file = match options.custom_flags(flags.bits().cast_signed()).open(path) {
            Err(error) if self == Self::Open && Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                return Err(refused("symbolic"));
            }
            opened => opened?,
        };
        if self == Self::Open && file.metadata().is_ok_and(|it| it.is_file() && it.nlink() > 1) {
            return Err(refused("hard"));
        }
        Ok(file)
    }
}

fn refused(kind: &str) -> io::Error {
    io::Error::other(format!(
        "it is a {kind} link in a folder where the app's user may put one; \
         use a folder that only the daemon's user may write to, or remove the link"
    ))
}

/// With the calling thread's rights to files.
fn may_write(folder: &Path) -> bool {
    accessat(CWD, folder, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// It belongs to root, or to the daemon's user.
fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == geteuid().as_raw()
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const USER: u32 = 43210;

    /// `root` and `users` are folders of theirs, `shared` is everybody's.
    struct Folders(tempfile::TempDir);

    impl Folders {
        fn new() -> Self {
            let folders = Self(tempfile::tempdir().unwrap());
            folders.make(".", 0o755, 0);
            folders.make("root", 0o755, 0);
            folders.make("users", 0o755, USER);
            folders.make("shared", 0o1777, 0);
            fs::write(folders.path("root/file"), "").unwrap();
            folders
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn make(&self, name: &str, mode: u32, owner: u32) {
            fs::create_dir_all(self.path(name)).unwrap();
            fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
            chown(self.path(name), Some(owner), None).unwrap();
        }

        /// Writes a line as a sink does.
        fn write(&self, access: &Access, name: &str) -> io::Result<()> {
            let path = self.path(name);
            access.reach(&path, |place| {
                place.open(&path, OpenOptions::new().append(true).create(true))?.write_all(b"line\n")
            })
        }

        fn owner(&self, name: &str) -> u32 {
            fs::metadata(self.path(name)).unwrap().uid()
        }
    }

    fn of_user() -> Access {
        Access::new(Some(&Credentials { uid: USER, gid: USER, groups: vec![USER] }))
    }

    #[test]
    fn files_belong_to_whoever_can_replace_them() {
        if !geteuid().is_root() {
            return;
        }
        let folders = Folders::new();
        folders.make("group", 0o775, 0);
        chown(folders.path("group"), None, Some(USER)).unwrap();
        folders.make("other-group", 0o775, 0);
        folders.make("other", 0o755, 12345);
        folders.make("users/roots", 0o755, 0);
        folders.make("shared/roots", 0o755, 0);
        symlink(folders.path("root"), folders.path("link")).unwrap();
        let check = |name: &str, owner: u32| {
            folders.write(&of_user(), name).unwrap();
            assert_eq!(folders.owner(name), owner, "{name}");
        };
        for name in ["root/a", "other-group/a", "other/a", "shared/roots/a", "link/b", "root/../root/c"] {
            check(name, 0);
        }
        for name in ["users/a", "group/a", "shared/a"] {
            check(name, USER);
        }
        // The user could put another folder in its place.
        let denied = folders.write(&of_user(), "users/roots/a").unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        // Without a user of its own an app's files are the daemon's.
        folders.write(&Access::default(), "users/b").unwrap();
        assert_eq!(folders.owner("users/b"), 0);
    }

    #[test]
    fn links_that_were_put_there_lead_nowhere() {
        if !geteuid().is_root() {
            return;
        }
        let folders = Folders::new();
        symlink(folders.path("root/file"), folders.path("users/link")).unwrap();
        symlink(folders.path("root"), folders.path("users/folder")).unwrap();
        symlink(folders.path("root/file"), folders.path("shared/link")).unwrap();
        chown(folders.path("root/file"), Some(USER), None).unwrap();
        fs::hard_link(folders.path("root/file"), folders.path("users/hard")).unwrap();
        let check = |access: &Access, name: &str, message: &str| {
            let error = folders.write(access, name).unwrap_err().to_string();
            assert!(error.contains(message), "{name}: {error}");
        };
        check(&of_user(), "users/link", "it is a symbolic link");
        check(&of_user(), "users/hard", "it is a hard link");
        check(&of_user(), "users/folder/new", "ermission denied");
        check(&Access::default(), "shared/link", "it is a symbolic link");
        assert_eq!(fs::read_to_string(folders.path("root/file")).unwrap(), "");
        // Where only root puts links, they are followed.
        symlink(folders.path("root/file"), folders.path("root/link")).unwrap();
        folders.write(&of_user(), "root/link").unwrap();
        assert_eq!(fs::read_to_string(folders.path("root/file")).unwrap(), "line\n");
    }
}
