//! The declared apps: names to ids, and settings.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use regex_lite::Regex;
use supervisor_config::{App, ListenAddress, closest};
use supervisor_core::{AppId, Generation, Order, Policy, Slots};
use supervisor_protocol::control::{ErrorCode, ErrorDetail, LastOrder};

use crate::records::{AppRecord, Origin};
use crate::settings::{Settings, address_text};

/// A declared app.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: AppId,
    pub(crate) settings: Rc<Settings>,
    /// The number of slots, which `scale` changes.
    pub(crate) instances: u32,
    /// The slots that a person stopped.
    pub(crate) stopped: BTreeSet<u32>,
    /// Where that comes from.
    pub(crate) origin: Origin,
    /// What it was declared as before, until the workers of the settings now
    /// have proved themselves: a worker that fails brings it back.
    pub(crate) before: Option<Box<Declaration>>,
    /// A worker of it was seen to listen on an address of its own.
    pub(crate) listened: bool,
    /// Why its workers' calls cannot be looked at, though they are reported.
    pub(crate) alone: Option<String>,
    /// It is about to be forgotten.
    pub(crate) deleted: bool,
    /// How the last order about it ended.
    pub(crate) last_order: Option<LastOrder>,
}

/// What an app is declared as.
#[derive(Debug, Clone)]
pub(crate) struct Declaration {
    pub(crate) settings: Rc<Settings>,
    pub(crate) instances: u32,
    pub(crate) stopped: BTreeSet<u32>,
    pub(crate) origin: Origin,
}

impl Declaration {
    /// What is known beside the settings.
    pub(crate) fn record(&self) -> AppRecord {
        AppRecord {
            generation: self.settings.generation,
            instances: self.instances,
            stopped: self.stopped.clone(),
            origin: self.origin.clone(),
        }
    }
}

impl Entry {
    pub(crate) fn declaration(&self) -> Declaration {
        Declaration {
            settings: Rc::clone(&self.settings),
            instances: self.instances,
            stopped: self.stopped.clone(),
            origin: self.origin.clone(),
        }
    }

    /// What outlives this master: settings that are not proved yet do not.
    pub(crate) fn lasting(&self) -> (Rc<Settings>, AppRecord) {
        let now = || self.declaration();
        let declaration = self.before.as_deref().cloned().unwrap_or_else(now);
        (Rc::clone(&declaration.settings), declaration.record())
    }

    /// The order that makes the app so; `capture` as in [`Settings::policy`].
    pub(crate) fn order(&self, capture: bool) -> Order {
        Order::Declare {
            generation: Generation(self.settings.generation),
            policy: self.policy(capture),
            instances: self.instances,
            start: self.running(),
        }
    }

    /// What the core needs to know; `capture` as in [`Settings::policy`].
    pub(crate) fn policy(&self, capture: bool) -> Policy {
        self.settings.policy(capture && self.alone.is_none(), self.listened)
    }

    /// The settings of a generation.
    pub(crate) fn settings_of(&self, generation: u64) -> &Rc<Settings> {
        match &self.before {
            Some(before) if before.settings.generation == generation => &before.settings,
            Some(_) | None => &self.settings,
        }
    }

    /// Makes it what it was before.
    pub(crate) fn revert(&mut self) {
        if let Some(before) = self.before.take() {
            let Declaration { settings, instances, stopped, origin } = *before;
            (self.settings, self.instances, self.stopped, self.origin) =
                (settings, instances, stopped, origin);
        }
    }

    /// The slots that should run.
    pub(crate) fn running(&self) -> Slots {
        Slots::Only((0..self.instances).filter(|index| !self.stopped.contains(index)).collect())
    }

    /// Whether a person stopped all of it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.instances > 0 && self.count_running() == 0
    }

    /// How many slots should run.
    pub(crate) fn count_running(&self) -> u32 {
        (0..self.instances).map(|index| u32::from(!self.stopped.contains(&index))).sum()
    }
}

/// All declared apps, in order of their names.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: BTreeMap<String, Entry>,
    names: BTreeMap<AppId, String>,
    next: u32,
}

impl Registry {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    pub(crate) fn by_id(&self, id: AppId) -> Option<&Entry> {
        self.entries.get(self.names.get(&id)?)
    }

    pub(crate) fn by_id_mut(&mut self, id: AppId) -> Option<&mut Entry> {
        self.entries.get_mut(self.names.get(&id)?)
    }

    /// An app's name; empty when it is forgotten.
    pub(crate) fn name(&self, id: AppId) -> &str {
        self.names.get(&id).map_or("", String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Declares a new app.
    pub(crate) fn insert(
        &mut self,
        settings: Rc<Settings>,
        origin: Origin,
        instances: u32,
        stopped: BTreeSet<u32>,
    ) -> AppId {
        let id = AppId(self.next);
        self.next += 1;
        let name = settings.app.name.clone();
        self.names.insert(id, name.clone());
        self.entries.insert(
            name,
            Entry {
                id,
                settings,
                instances,
                stopped,
                origin,
                before: None,
                listened: false,
                alone: None,
                last_order: None,
                deleted: false,
            },
        );
        id
    }

    /// Forgets an app.
    pub(crate) fn remove(&mut self, id: AppId) -> Option<Entry> {
        self.entries.remove(&self.names.remove(&id)?)
    }

    /// The apps and slots that selectors mean: `all`, an app, `app:slot`, a
    /// namespace, or `/regex/` over the apps' names.
    ///
    /// # Errors
    ///
    /// A selector that means nothing, or is malformed.
    pub(crate) fn select(&self, selectors: &[String]) -> Result<BTreeMap<AppId, Slots>, ErrorDetail> {
        let mut selected = BTreeMap::new();
        for selector in selectors {
            for (id, slots) in self.select_one(selector)? {
                match (selected.get_mut(&id), slots) {
                    (Some(Slots::Only(all)), Slots::Only(more)) => all.extend(more),
                    (Some(Slots::All), _) => {}
                    (_, slots) => {
                        selected.insert(id, slots);
                    }
                }
            }
        }
        Ok(selected)
    }

    fn select_one(&self, selector: &str) -> Result<Vec<(AppId, Slots)>, ErrorDetail> {
        if selector == "all" {
            return Ok(self.iter().map(|(_, entry)| (entry.id, Slots::All)).collect());
        }
        if let Some(entry) = self.entries.get(selector) {
            return Ok(vec![(entry.id, Slots::All)]);
        }
        if let Some(pattern) = selector.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            let regex = Regex::new(pattern).map_err(|error| {
                refuse(ErrorCode::Usage, format!("{selector} is no regular expression: {error}"))
            })?;
            return self.all_that(selector, |name, _| regex.is_match(name));
        }
        if let Some((name, slot)) = selector.rsplit_once(':')
            && let Some(entry) = self.entries.get(name)
        {
            let slot = slot.parse().map_err(|_| {
                refuse(
                    ErrorCode::Usage,
                    format!("{selector}: `{slot}` is no slot; write {name}:0 for the first one"),
                )
            })?;
            if slot >= entry.instances {
                let last = entry.instances.saturating_sub(1);
                let message = format!("{name} has no slot {slot}; its slots are 0 to {last}");
                return Err(refuse(ErrorCode::NoSuchApp, message));
            }
            return Ok(vec![(entry.id, Slots::Only(BTreeSet::from([slot])))]);
        }
        self.all_that(selector, |_, entry| entry.settings.app.namespace == selector)
    }

    fn all_that(
        &self,
        selector: &str,
        predicate: impl Fn(&str, &Entry) -> bool,
    ) -> Result<Vec<(AppId, Slots)>, ErrorDetail> {
        let found: Vec<_> = self
            .iter()
            .filter(|(name, entry)| predicate(name, entry))
            .map(|(_, entry)| (entry.id, Slots::All))
            .collect();
        if found.is_empty() { Err(self.unknown(selector)) } else { Ok(found) }
    }

    /// The refusal of a name that nothing has.
    pub(crate) fn unknown(&self, name: &str) -> ErrorDetail {
        const SHOWN: usize = 8;
        // A slot is a slip of its app's name.
        let app = name.split(':').next().unwrap_or(name);
        let close = closest(app, self.entries.keys().map(String::as_str));
        if let Some(close) = close.filter(|close| *close != app) {
            let message = format!("no app, slot or namespace is called `{name}`; did you mean `{close}`?");
            return refuse(ErrorCode::NoSuchApp, message);
        }
        let names: Vec<&str> = self.entries.keys().map(String::as_str).take(SHOWN).collect();
        let there = match (names.len(), self.entries.len()) {
            (0, _) => "no app is declared".to_owned(),
            (shown, all) if shown < all => format!("there are {} and {} more", names.join(", "), all - shown),
            (1, _) => format!("there is {}", names.join("")),
            _ => format!("there are {}", names.join(", ")),
        };
        refuse(ErrorCode::NoSuchApp, format!("no app, slot or namespace is called `{name}`; {there}"))
    }

    /// The other app that serves an address which an app asks for.
    pub(crate) fn conflict(&self, app: &App) -> Option<String> {
        self.iter().filter(|(name, _)| *name != app.name).find_map(|(name, entry)| {
            let taken = app
                .listen
                .iter()
                .find(|one| entry.settings.app.listen.iter().any(|two| overlap(one, two)))?;
            Some(format!("listen {}: app {name} has this address already", address_text(taken)))
        })
    }
}

pub(crate) fn refuse(code: ErrorCode, message: String) -> ErrorDetail {
    ErrorDetail { code, message }
}

/// Whether two addresses could get the same connections.
pub(crate) fn overlap(one: &ListenAddress, two: &ListenAddress) -> bool {
    match (one, two) {
        (ListenAddress::Unix(one), ListenAddress::Unix(two)) => one == two,
        (
            ListenAddress::Tcp { address: one, dual_stack: one_dual },
            ListenAddress::Tcp { address: two, dual_stack: two_dual },
        ) => {
            let covers = |wide: &std::net::SocketAddr, dual: bool, narrow: &std::net::SocketAddr| {
                wide.ip().is_unspecified() && (wide.is_ipv6() == narrow.is_ipv6() || dual)
            };
            one.port() == two.port()
                && (one.ip() == two.ip() || covers(one, *one_dual, two) || covers(two, *two_dual, one))
        }
        (ListenAddress::Unix(_), ListenAddress::Tcp { .. })
        | (ListenAddress::Tcp { .. }, ListenAddress::Unix(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: (&str, bool), two: (&str, bool), expected: bool) {
        let tcp = |(address, dual_stack): (&str, bool)| ListenAddress::Tcp {
            address: address.parse().unwrap(),
            dual_stack,
        };
        assert_eq!(overlap(&tcp(one), &tcp(two)), expected);
        assert_eq!(overlap(&tcp(two), &tcp(one)), expected);
    }

    #[test]
    fn wildcards_overlap() {
        check(("127.0.0.1:80", false), ("127.0.0.1:80", false), true);
        check(("127.0.0.1:80", false), ("127.0.0.1:81", false), false);
        check(("127.0.0.1:80", false), ("127.0.0.2:80", false), false);
        check(("0.0.0.0:80", false), ("127.0.0.1:80", false), true);
        check(("[::]:80", true), ("127.0.0.1:80", false), true);
        check(("[::]:80", false), ("127.0.0.1:80", false), false);
        check(("[::]:80", false), ("[::1]:80", false), true);
    }
}
