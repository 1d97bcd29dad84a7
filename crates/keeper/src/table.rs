//! What is held for the next master.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::OwnedFd;

use supervisor_protocol::keeper::{FdRole, MAX_ENTRIES};
use supervisor_sys::own;

use crate::state::Section;

/// A record and the descriptors that belong to it.
#[derive(Debug)]
pub struct Entry {
    /// Opaque.
    pub record: Box<[u8]>,
    /// In the order in which they were given.
    pub fds: Box<[(FdRole, OwnedFd)]>,
}

/// Entries by their keys.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<Box<str>, Entry>,
    /// What a keeper of another version had beside them.
    unknown: Vec<Section>,
    /// Descriptors in all of these.
    fds: usize,
    max_fds: usize,
}

impl Table {
    /// An empty table that will hold at most so many descriptors.
    #[must_use]
    pub const fn new(max_fds: usize) -> Self {
        Self { entries: BTreeMap::new(), unknown: Vec::new(), fds: 0, max_fds }
    }

    /// Lets it hold at most so many descriptors from now on. What it has, it keeps.
    pub(crate) fn limit(&mut self, max_fds: usize) {
        self.max_fds = max_fds;
    }

    /// Keeps what only a keeper of another version understands.
    pub(crate) fn keep(&mut self, section: Section) {
        self.fds += section.fds.len();
        self.unknown.push(section);
    }

    /// What was kept in this way.
    pub(crate) fn unknown(&self) -> &[Section] {
        &self.unknown
    }

    /// The entry with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Holds an entry in place of the one with the same key, whose descriptors
    /// are closed. Returns whether there was room; without, nothing changes.
    pub fn put(&mut self, key: &str, entry: Entry) -> bool {
        let former = self.entries.get(key);
        let entries = self.entries.len() + usize::from(former.is_none());
        let fds = self.fds - former.map_or(0, |former| former.fds.len()) + entry.fds.len();
        if entries > MAX_ENTRIES || fds > self.max_fds {
            return false;
        }
        self.fds = fds;
        self.entries.insert(key.into(), entry);
        true
    }

    /// Forgets an entry and closes its descriptors.
    pub fn delete(&mut self, key: &str) {
        self.take(key);
    }

    /// Forgets an entry, which is the caller's then.
    pub fn take(&mut self, key: &str) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.fds -= entry.fds.len();
        Some(entry)
    }

    /// The first entry whose key comes after this one; the very first for
    /// `None`.
    #[must_use]
    pub fn after(&self, key: Option<&str>) -> Option<(&str, &Entry)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.entries.range::<str, _>((start, Bound::Unbounded));
        later.next().map(|(key, entry)| (&**key, entry))
    }

    /// All descriptors of one role.
    pub(crate) fn with_role(&self, wanted: FdRole) -> impl Iterator<Item = &OwnedFd> {
        let fds = self.entries.values().flat_map(|entry| &entry.fds);
        fds.filter(move |(role, _)| *role == wanted).map(|(_, fd)| fd)
    }

    /// All workers' pipes, each with the key of its entry.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        let of_entry = |(key, entry)| {
            let entry: &Entry = entry;
            let pipes = entry.fds.iter().filter(|(role, _)| *role == FdRole::Drain);
            pipes.map(move |(_, pipe)| (key, pipe))
        };
        self.entries.iter().map(|(key, entry)| (&**key, entry)).flat_map(of_entry)
    }

    /// Puts the entries side by side in memory. Between them are holes, of entries
    /// that are gone, in pages that cannot be given back for the sake of the others.
    pub(crate) fn pack(&mut self) {
        let (mut keys, mut records, mut fds) = (String::new(), Vec::new(), Vec::new());
        let mut lengths = Vec::new();
        for (key, entry) in std::mem::take(&mut self.entries) {
            lengths.push((key.len(), entry.record.len(), entry.fds.len()));
            keys.push_str(&key);
            records.extend(entry.record);
            fds.extend(entry.fds);
        }
        // What is free becomes whole.
        own::trim_heap();
        let (mut keys, mut records, mut fds) = (&*keys, &*records, fds.into_iter());
        let entries = lengths.into_iter().map(|(key, record, count)| {
            let (key, later_keys) = keys.split_at(key);
            let (record, later_records) = records.split_at(record);
            (keys, records) = (later_keys, later_records);
            (key.into(), Entry { record: record.into(), fds: fds.by_ref().take(count).collect() })
        });
        self.entries = entries.collect();
    }

    /// How many entries there are, and how many descriptors in them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.fds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(record: &[u8], roles: &[FdRole]) -> Entry {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Entry { record: record.into(), fds: roles.iter().map(|role| (*role, null())).collect() }
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
        let mut table = Table::new(0);
        for key in ["b", "a", "c"] {
            assert!(table.put(key, entry(b"1", &[])));
        }
        assert_eq!(keys(&table), ["a", "b", "c"]);
        table.delete("b");
        table.delete("nothing");
        assert_eq!(keys(&table), ["a", "c"]);
        assert_eq!(table.after(Some("b")).unwrap().0, "c", "the place of one that is gone");
    }

    #[test]
    fn an_entry_is_replaced_whole() {
        let mut table = Table::new(9);
        table.put("a", entry(b"1", &[FdRole::Drain]));
        assert_eq!(table.with_role(FdRole::Drain).count(), 1);
        table.put("a", entry(b"2", &[]));
        assert_eq!(table.with_role(FdRole::Drain).count(), 0);
        assert_eq!(&*table.after(None).unwrap().1.record, b"2");
        assert_eq!(table.size(), (1, 0));
    }

    #[test]
    fn packing_changes_nothing() {
        use FdRole::{Drain, Hold, Process};
        let mut table = Table::new(9);
        table.put("a", entry(b"one", &[Hold, Drain]));
        table.put("b", entry(b"", &[]));
        table.put("c", entry("drei äü".as_bytes(), &[Process]));
        table.delete("b");
        table.put("ä", entry(b"", &[Drain]));
        // It has keys, records, roles and the numbers of descriptors.
        let before = format!("{table:?}");
        table.pack();
        assert_eq!(format!("{table:?}"), before);
        assert!(table.put("a", entry(b"2", &[])));
        assert_eq!(table.size(), (3, 2));
    }

    #[test]
    fn entries_are_bounded() {
        let mut table = Table::new(0);
        for number in 0..MAX_ENTRIES {
            assert!(table.put(&number.to_string(), entry(b"", &[])));
        }
        assert!(!table.put("one more", entry(b"", &[])));
        assert!(table.put("0", entry(b"known keys still change", &[])));
    }

    #[test]
    fn descriptors_are_bounded() {
        use FdRole::{Drain, Hold, Process};
        let mut table = Table::new(4);
        assert!(table.put("a", entry(b"1", &[Hold, Hold, Drain])));
        assert!(!table.put("b", entry(b"1", &[Hold, Hold])));
        assert!(!table.put("a", entry(b"2", &[Hold; 5])));
        assert_eq!(&*table.after(None).unwrap().1.record, b"1", "refused whole");
        assert!(table.put("a", entry(b"3", &[Process, Drain])));
        assert!(table.put("b", entry(b"1", &[Hold, Hold])));
        assert_eq!(table.size(), (2, 4));
        table.delete("a");
        assert_eq!(table.size(), (1, 2));
    }
}
