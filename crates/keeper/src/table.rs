//! What is held for the next master.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::OwnedFd;

use supervisor_protocol::keeper::FdRole;

/// The most entries. The limit of open files is usually reached before.
const MAX_ENTRIES: usize = 65_536;

/// A record and the descriptors that belong to it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Box<[u8]>,
    /// In the order in which they were given.
    pub(crate) fds: Box<[(FdRole, OwnedFd)]>,
}

/// Entries by their keys.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<Box<str>, Entry>);

impl Table {
    /// Holds an entry in place of the one with the same key, whose descriptors
    /// are closed. Returns whether there was room.
    pub(crate) fn put(&mut self, key: &str, entry: Entry) -> bool {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(key) {
            return false;
        }
        self.0.insert(key.into(), entry);
        true
    }

    /// Forgets an entry and closes its descriptors.
    pub(crate) fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// The first entry whose key comes after this one; the very first for
    /// `None`.
    pub(crate) fn after(&self, key: Option<&str>) -> Option<(&str, &Entry)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range::<str, _>((start, Bound::Unbounded)).next().map(|(key, entry)| (&**key, entry))
    }

    /// All descriptors of one role.
    pub(crate) fn with_role(&self, wanted: FdRole) -> impl Iterator<Item = &OwnedFd> {
        self.0
            .values()
            .flat_map(|entry| &entry.fds)
            .filter(move |(role, _)| *role == wanted)
            .map(|(_, fd)| fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(record: &[u8]) -> Entry {
        Entry { record: record.into(), fds: Box::default() }
    }

    fn keys(table: &Table) -> Vec<&str> {
        let mut keys = Vec::new();
        while let Some((key, _)) = table.after(keys.last().copied()) {
            keys.push(key);
        }
        keys
    }

    #[test]
    fn entries_are_walked_in_order_of_their_keys() {
        let mut table = Table::default();
        for key in ["b", "a", "c"] {
            assert!(table.put(key, entry(b"1")));
        }
        assert_eq!(keys(&table), ["a", "b", "c"]);
        table.delete("b");
        table.delete("nothing");
        assert_eq!(keys(&table), ["a", "c"]);
    }

    #[test]
    fn an_entry_is_replaced_whole() {
        let mut table = Table::default();
        let pipe = std::fs::File::open("/dev/null").unwrap();
        let fds = Box::new([(FdRole::Drain, OwnedFd::from(pipe))]);
        table.put("a", Entry { record: b"1"[..].into(), fds });
        assert_eq!(table.with_role(FdRole::Drain).count(), 1);
        table.put("a", entry(b"2"));
        assert_eq!(table.with_role(FdRole::Drain).count(), 0);
        assert_eq!(&*table.after(None).unwrap().1.record, b"2");
    }

    #[test]
    fn it_is_bounded() {
        let mut table = Table::default();
        for number in 0..MAX_ENTRIES {
            assert!(table.put(&number.to_string(), entry(b"")));
        }
        assert!(!table.put("one more", entry(b"")));
        assert!(table.put("0", entry(b"known keys still change")));
    }
}
