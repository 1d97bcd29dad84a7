//! A copy of all that the keeper holds, in this process: what it had is not lost
//! with it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::{DupFlags, Errno, dup3};
use supervisor_keeper::{Entry, Table};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::limits::{self, Resource};

/// Keys of changes that nobody has asked for yet; beyond, all may have changed.
const MOST_CHANGED: usize = 65_536;

/// The copy. Its clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Mirror(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: Mutex<Held>,
    changes: Condvar,
}

/// What is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) table: Table,
    changed: Changed,
    /// Nobody is to be told of changes any more.
    closed: bool,
}

/// What has changed since somebody asked.
#[derive(Debug)]
pub(crate) enum Changed {
    Keys(BTreeSet<String>),
    All,
}

impl Mirror {
    pub(crate) fn new() -> Self {
        let held = Held { table: Table::new(usize::MAX), changed: Changed::All, closed: false };
        Self(Arc::new(Shared { held: Mutex::new(held), changes: Condvar::new() }))
    }

    /// What is held: nothing changes as long as the caller has this.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Held> {
        // No change can be left half done.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an entry in place of the one with the same key, with duplicates of
    /// these descriptors. They take the places of those that it had, so that only
    /// what is added needs any.
    ///
    /// # Errors
    ///
    /// When there are no descriptors to spare for what is added: nothing changes.
    pub(crate) fn put(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) -> io::Result<()> {
        let mut held = self.lock();
        let before = held.table.get(key).map_or(&[][..], |entry| &entry.fds);
        let (placed, added) = fds.split_at(before.len().min(fds.len()));
        // Beyond a limit that has been lowered no place can be taken.
        if !placed.is_empty() {
            let limit = limits::get(Resource::Nofile).soft.unwrap_or(u64::MAX);
            if before
                .iter()
                .take(placed.len())
                .any(|(_, fd)| u64::from(fd.as_raw_fd().unsigned_abs()) >= limit)
            {
                return Err(Errno::MFILE.into());
            }
        }
        let added = added.iter().map(|(role, fd)| Ok((*role, fd.try_clone_to_owned()?)));
        let added: Vec<(FdRole, OwnedFd)> = added.collect::<io::Result<_>>()?;
        let places = held.table.take(key).map(|entry| entry.fds.into_vec()).unwrap_or_default();
        let placed = placed.iter().zip(places).map(|((role, fd), (_, mut place))| {
            dup3(fd, &mut place, DupFlags::CLOEXEC)?;
            Ok((*role, place))
        });
        let fds = placed.chain(added.into_iter().map(Ok)).collect::<io::Result<_>>()?;
        held.table.put(key, Entry { record: record.into(), fds });
        self.note(&mut held, key);
        Ok(())
    }

    /// Whether there is an entry with this key.
    pub(crate) fn holds(&self, key: &str) -> bool {
        self.lock().table.get(key).is_some()
    }

    /// Forgets an entry.
    pub(crate) fn delete(&self, key: &str) {
        let mut held = self.lock();
        held.table.delete(key);
        self.note(&mut held, key);
    }

    /// Waits until something changes, and takes what has. At first that is
    /// everything. `None` when there is no more to come.
    pub(crate) fn changed(&self) -> Option<Changed> {
        let mut held = self.lock();
        while !held.closed && matches!(&held.changed, Changed::Keys(keys) if keys.is_empty()) {
            held = self.0.changes.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        let none = Changed::Keys(BTreeSet::new());
        (!held.closed).then(|| std::mem::replace(&mut held.changed, none))
    }

    /// Has everything told again.
    pub(crate) fn tell_all(&self) {
        self.lock().changed = Changed::All;
    }

    /// Nobody is to be told of changes any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.0.changes.notify_all();
    }

    fn note(&self, held: &mut Held, key: &str) {
        if let Changed::Keys(keys) = &mut held.changed {
            keys.insert(key.to_owned());
            if keys.len() > MOST_CHANGED {
                held.changed = Changed::All;
            }
        }
        self.0.changes.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use supervisor_sys::limits::Limit;

    use super::*;

    #[test]
    fn changes_are_told_once() {
        let mirror = Mirror::new();
        let null = std::fs::File::open("/dev/null").unwrap();
        mirror.put("a", b"1", &[(FdRole::Hold, null.as_fd())]).unwrap();
        assert!(matches!(mirror.changed(), Some(Changed::All)));
        mirror.put("a", b"2", &[]).unwrap();
        mirror.delete("b");
        let Some(Changed::Keys(keys)) = mirror.changed() else { panic!("all") };
        assert_eq!(Vec::from_iter(keys), ["a", "b"]);
        assert_eq!(mirror.lock().table.size(), (1, 0));
        mirror.close();
        assert!(mirror.changed().is_none());
    }

    #[test]
    fn what_takes_a_place_needs_no_descriptor() {
        let mirror = Mirror::new();
        let [null, zero] = ["/dev/null", "/dev/zero"].map(|path| std::fs::File::open(path).unwrap());
        let numbers = |mirror: &Mirror| {
            let held = mirror.lock();
            held.table.get("a").unwrap().fds.iter().map(|(_, fd)| fd.as_raw_fd()).collect::<Vec<_>>()
        };
        mirror.put("a", b"1", &[(FdRole::Drain, null.as_fd()), (FdRole::Hold, null.as_fd())]).unwrap();
        let places = numbers(&mirror);
        mirror.put("a", b"2", &[(FdRole::Hold, zero.as_fd()), (FdRole::Process, null.as_fd())]).unwrap();
        assert_eq!(numbers(&mirror), places);
        mirror.put("a", b"3", &[(FdRole::Hold, zero.as_fd())]).unwrap();
        assert_eq!(numbers(&mirror), places[..1]);

        let held = mirror.lock();
        let entry = held.table.get("a").unwrap();
        let inode = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).unwrap().st_rdev;
        assert_eq!((entry.fds[0].0, inode(&entry.fds[0].1)), (FdRole::Hold, inode(&zero)));
        assert_eq!(held.table.size(), (1, 1));
    }

    #[test]
    fn a_place_beyond_the_limit_stays_as_it_is() {
        let mirror = Mirror::new();
        let null = std::fs::File::open("/dev/null").unwrap();
        mirror.put("a", b"1", &[(FdRole::Hold, null.as_fd())]).unwrap();
        let place = mirror.lock().table.get("a").unwrap().fds[0].1.as_raw_fd();
        let before = limits::get(Resource::Nofile);
        let lowered = Limit { soft: Some(u64::from(place.unsigned_abs())), ..before };
        limits::set(Resource::Nofile, lowered).unwrap();
        let put = mirror.put("a", b"2", &[(FdRole::Hold, null.as_fd())]);
        limits::set(Resource::Nofile, before).unwrap();
        assert_eq!(put.unwrap_err().raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        let held = mirror.lock();
        let entry = held.table.get("a").unwrap();
        assert_eq!((&*entry.record, entry.fds.len()), (&b"1"[..], 1));
    }

    #[test]
    fn too_many_changes_are_everything() {
        let mirror = Mirror::new();
        mirror.changed();
        for number in 0..=MOST_CHANGED {
            mirror.delete(&number.to_string());
        }
        assert!(matches!(mirror.changed(), Some(Changed::All)));
    }
}
