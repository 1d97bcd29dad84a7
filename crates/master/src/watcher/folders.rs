//! The folders of one app, and what inotify says of them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::Gitignore;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::Watched;

/// Folders of one app. The kernel keeps about 1 KiB for each.
const MAX_FOLDERS: usize = 20_000;

/// Events that are taken at a time, so that one app cannot hold up the others.
const EVENTS: usize = 1024;

/// What counts as a change: not what is only opened, or written by a program
/// that goes on writing.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// One app's folders.
#[derive(Debug)]
pub(super) struct Folders {
    inotify: OwnedFd,
    watched: Watched,
    ignored: Gitignore,
    folders: HashMap<i32, Folder>,
    /// Something that should be watched is not there.
    incomplete: bool,
}

/// A folder that is watched.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The files that matter; all without it.
    only: Option<BTreeSet<OsString>>,
}

impl Folders {
    /// Begins to watch. What cannot be watched yet is looked for again when this
    /// is `patient`.
    ///
    /// # Errors
    ///
    /// In words: the path that cannot be watched, and why.
    pub(super) fn new(watched: Watched, patient: bool) -> Result<Self, String> {
        let ignored =
            watched.watch.ignored(&watched.cwd).map_err(|error| format!("ignore_watch: {error}"))?;
        let mut folders =
            Self { inotify: init()?, watched, ignored, folders: HashMap::new(), incomplete: false };
        if patient {
            folders.complete();
        } else {
            folders.add_all()?;
        }
        Ok(folders)
    }

    pub(super) fn inotify(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Whether something that should be watched is not there.
    pub(super) const fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Takes some of what inotify has to say. Returns the first path that has
    /// changed.
    pub(super) fn read(&mut self) -> Option<PathBuf> {
        let mut changed = None;
        let mut anew = false;
        for (wd, what, name) in self.events() {
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                anew = true;
            } else if what.contains(ReadFlags::IGNORED) {
                self.folders.remove(&wd);
            } else if what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                anew |= self.is_root(wd);
            } else if let Some(name) = name {
                let path = self.hear(wd, &name, what);
                changed = changed.or(path);
            }
        }
        if anew {
            let path = self.complete();
            changed = changed.or(path);
        }
        changed
    }

    fn events(&self) -> Vec<(i32, ReadFlags, Option<OsString>)> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let next = || {
            let event = reader.next().ok()?;
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            Some((event.wd(), event.events(), name))
        };
        std::iter::from_fn(next).take(EVENTS).collect()
    }

    /// Watches everything anew. Returns the path to name as changed, because
    /// changes may have been missed; `None` when something is not there yet.
    pub(super) fn complete(&mut self) -> Option<PathBuf> {
        for (wd, _) in self.folders.drain() {
            // The only failure is that it is gone.
            let _ = inotify::remove_watch(&self.inotify, wd);
        }
        match self.add_all() {
            Ok(()) => {
                self.incomplete = false;
                self.watched.watch.paths.first().cloned()
            }
            Err(error) => {
                if !std::mem::replace(&mut self.incomplete, true) {
                    tracing::warn!("{error}; looking for it each second");
                }
                None
            }
        }
    }

    fn add_all(&mut self) -> Result<(), String> {
        for path in self.watched.watch.paths.clone() {
            let error = |source: &dyn std::fmt::Display| format!("watch {}: {source}", path.display());
            let kind = fs::metadata(&path).map_err(|source| error(&crate::words::errno(&source)))?;
            match (path.parent(), path.file_name()) {
                // A file is often replaced by another one of its name.
                (Some(parent), Some(name)) if !kind.is_dir() => {
                    self.add(parent, Some(name)).map_err(|source| error(&source))?;
                }
                (Some(_) | None, _) => self.add_tree(&path)?,
            }
        }
        Ok(())
    }

    /// Watches a folder and all below it that is not ignored. Links are not
    /// followed, so there is no way round.
    fn add_tree(&mut self, top: &Path) -> Result<(), String> {
        let mut left = vec![top.to_owned()];
        while let Some(folder) = left.pop() {
            let error = |source: &str| Err(format!("watch {}: {source}", folder.display()));
            // What vanishes meanwhile is no mistake.
            match self.add(&folder, None) {
                Ok(true) => {}
                Ok(false) if folder != top => continue,
                Ok(false) => return error("no such directory"),
                Err(source) => return error(&source),
            }
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return error(&crate::words::errno(&source)),
            };
            let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            left.extend(folders.map(|entry| entry.path()).filter(|path| !self.is_ignored(path, true)));
        }
        Ok(())
    }

    /// Watches one folder, or one name in it. Returns whether it is there.
    fn add(&mut self, path: &Path, only: Option<&OsStr>) -> Result<bool, String> {
        if self.folders.len() >= MAX_FOLDERS {
            return Err(format!(
                "these are more than {MAX_FOLDERS} folders; `ignore_watch` can leave some out"
            ));
        }
        let wd = match inotify::add_watch(&self.inotify, path, CHANGES) {
            Ok(wd) => wd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(Errno::NOSPC) => {
                return Err(
                    "the user has too many watches; raise the sysctl fs.inotify.max_user_watches".into()
                );
            }
            Err(error) => return Err(crate::words::errno(&error.into())),
        };
        let folder = self.folders.entry(wd);
        let known = matches!(folder, std::collections::hash_map::Entry::Occupied(_));
        let folder = folder.or_insert_with(|| Folder { path: path.to_owned(), only: Some(BTreeSet::new()) });
        match (only, &mut folder.only) {
            (Some(name), Some(names)) => {
                names.insert(name.to_owned());
            }
            (Some(_), None) => {}
            (None, names) => *names = None,
        }
        // Two names of one folder: the later one counts.
        if !known || only.is_none() {
            path.clone_into(&mut folder.path);
        }
        Ok(true)
    }

    /// Whether a watched folder is one that was named, or has one that was.
    fn is_root(&self, wd: i32) -> bool {
        self.folders
            .get(&wd)
            .is_some_and(|folder| folder.only.is_some() || self.watched.watch.paths.contains(&folder.path))
    }

    /// Takes news of a name in a folder. Returns the path if it is a change.
    fn hear(&mut self, wd: i32, name: &OsStr, what: ReadFlags) -> Option<PathBuf> {
        let folder = self.folders.get(&wd)?;
        if folder.only.as_ref().is_some_and(|only| !only.contains(name)) {
            return None;
        }
        let path = folder.path.join(name);
        let (is_folder, whole) = (what.contains(ReadFlags::ISDIR), folder.only.is_none());
        if self.is_ignored(&path, is_folder) {
            return None;
        }
        if is_folder && whole {
            if what.contains(ReadFlags::MOVED_FROM) {
                self.forget_tree(&path);
            }
            if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
                && let Err(error) = self.add_tree(&path)
                // It may be gone already.
                && path.is_dir()
            {
                tracing::warn!("{error}");
            }
        }
        Some(path)
    }

    /// A folder that was moved away takes its watches along.
    fn forget_tree(&mut self, top: &Path) {
        let Self { folders, inotify, .. } = self;
        folders.retain(|wd, folder| {
            let stays = !folder.path.starts_with(top);
            if !stays {
                let _ = inotify::remove_watch(&*inotify, *wd);
            }
            stays
        });
    }

    fn is_ignored(&self, path: &Path, is_folder: bool) -> bool {
        let named = self.watched.watch.paths.iter().any(|root| root == path);
        !named && (self.ignored.matched(path, is_folder).is_ignore() || self.is_log(path))
    }

    /// Whether it is the app's output, or was before it was rotated.
    fn is_log(&self, path: &Path) -> bool {
        self.watched.logs.iter().any(|log| {
            let rest = path.as_os_str().as_bytes().strip_prefix(log.as_os_str().as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
        })
    }
}

fn init() -> Result<OwnedFd, String> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|error| match error {
        Errno::MFILE => {
            "watch: the user has too many inotify instances; raise the sysctl fs.inotify.max_user_instances"
                .into()
        }
        _ => format!("watch: {}", crate::words::errno(&error.into())),
    })
}
