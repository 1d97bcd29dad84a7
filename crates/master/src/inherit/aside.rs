//! Apps of which a record is not understood, as a later version has written it.
//!
//! They are left alone: their workers run on, their sockets and records stay
//! with the keeper, for a master that understands them.

use std::collections::BTreeSet;

use super::Table;
use crate::records;

impl Table {
    /// Takes those apps out, and returns their names.
    pub(crate) fn set_aside(&mut self) -> BTreeSet<String> {
        let names: BTreeSet<String> =
            self.unreadable.iter().filter_map(|(key, _)| self.app_of(key)).collect();
        if names.is_empty() {
            return names;
        }
        let apps = &mut self.apps;
        apps.known.retain(|(app, _)| !names.contains(&app.name));
        apps.next.retain(|name, _| !names.contains(name));
        apps.memories.set_aside(&names);
        let is_its = |key: &str| key.split(':').nth(1).is_some_and(|name| names.contains(name));
        self.members.retain(|(key, _, _)| !is_its(key));
        apps.leftovers.set_aside(&names);
        names
    }

    /// The app that an entry is about.
    fn app_of(&self, key: &str) -> Option<String> {
        let (kind, rest) = key.split_once(':')?;
        let is = |of: &str| of.strip_suffix(':') == Some(kind);
        if is(records::APP) || is(records::NEXT) || is(records::MEMO) {
            return Some(rest.to_owned());
        }
        if is(records::SLOT) {
            return rest.rsplit_once(':').map(|(name, _)| name.to_owned());
        }
        let id = supervisor_core::WorkerId(rest.parse().ok()?);
        let of_record = self.apps.leftovers.workers.get(&id).map(|left| left.record.app.clone());
        of_record.or_else(|| self.apps.memories.app_with(id))
    }
}
