//! What the core has decided, with the keeper, before anything follows from it.
//!
//! A turn is remembered whole or not at all: one slot that changed is a record
//! of its own, everything else makes a new account of the whole app. Both have
//! numbers, so a record that is older than the account says nothing.

mod text;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use supervisor_core::{AppId, AppMemo, SlotMemo, Supervisor};
use supervisor_protocol::keeper::FdRole;

pub(crate) use text::ExitText;
use text::{AppText, SlotText};

use crate::control::to_json;
use crate::link::Link;
use crate::records;
use crate::registry::Registry;

/// What the keeper was told last.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    apps: BTreeMap<AppId, Known>,
    /// The number of the last record.
    number: u64,
}

/// An app as the keeper knows it.
#[derive(Debug)]
struct Known {
    app: AppMemo,
    slots: Vec<SlotMemo>,
}

/// An app as an earlier master has left it.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) app: AppMemo,
    pub(crate) slots: Vec<SlotMemo>,
}

/// The account of an app: a file in memory.
#[derive(Debug, Serialize, Deserialize)]
struct Account<A, S> {
    number: u64,
    app: A,
    slots: Vec<S>,
}

/// The record of a slot that changed since.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SlotRecord<S> {
    number: u64,
    slot: S,
}

/// The accounts and records of an earlier master, as they come.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    accounts: BTreeMap<String, Account<AppText, SlotText>>,
    slots: BTreeMap<(String, u32), SlotRecord<SlotText>>,
    /// The keys under which there is something, each with its app's name.
    keys: Vec<(String, String)>,
}

impl Memory {
    /// Remembers what has changed in the core.
    pub(crate) fn note(&mut self, core: &mut Supervisor, registry: &Registry, link: &Link) {
        for id in core.take_touched() {
            // One that is to be forgotten stays until that is done.
            let Some(app) = core.memo(id) else { continue };
            let name = registry.name(id);
            if let Some(known) = self.apps.get_mut(&id)
                && known.app == app
                && core.slot_memos(id).count() == known.slots.len()
            {
                let mut changed = (0..)
                    .zip(core.slot_memos(id))
                    .filter(|(index, slot)| known.slots.get(*index as usize) != Some(slot));
                let Some((index, slot)) = changed.next() else { continue };
                if changed.next().is_none() {
                    self.number += 1;
                    let record = SlotRecord { number: self.number, slot: SlotText::from(slot.clone()) };
                    link.put(&records::slot_key(name, index), &to_json(&record), &[]);
                    known.slots[index as usize] = slot;
                    continue;
                }
            }
            let slots: Vec<SlotMemo> = core.slot_memos(id).collect();
            self.number += 1;
            match account(self.number, &app, &slots) {
                Ok(fd) => link.put(&records::memo_key(name), &[], &[(FdRole::Hold, fd.as_fd())]),
                Err(error) => {
                    tracing::error!("{name}: what it does cannot be kept for another master: {error}");
                }
            }
            let before = self.apps.insert(id, Known { app, slots }).map_or(0, |known| known.slots.len());
            let now = self.apps.get(&id).map_or(0, |known| known.slots.len());
            for (index, _) in (0..).zip(0..before).skip(now) {
                link.delete(&records::slot_key(name, index));
            }
        }
    }

    /// Forgets an app.
    pub(crate) fn forget(&mut self, id: AppId, name: &str, link: &Link) {
        let Some(known) = self.apps.remove(&id) else { return };
        for (index, _) in (0..).zip(&known.slots) {
            link.delete(&records::slot_key(name, index));
        }
        link.delete(&records::memo_key(name));
    }

    /// Goes on counting where an earlier master was.
    pub(crate) fn count_from(&mut self, memories: &Memories) {
        let accounts = memories.accounts.values().map(|account| account.number);
        let slots = memories.slots.values().map(|record| record.number);
        self.number = accounts.chain(slots).max().unwrap_or(0);
    }
}

fn account(number: u64, app: &AppMemo, slots: &[SlotMemo]) -> io::Result<OwnedFd> {
    let slots = slots.iter().cloned().map(SlotText::from).collect();
    records::store_json(&Account { number, app: AppText::from(app), slots })
}

impl Memories {
    /// Takes an entry of the keeper's table. Returns whether it was one of these.
    pub(crate) fn take(&mut self, key: &str, record: &[u8], fds: &mut Vec<OwnedFd>) -> bool {
        let unreadable = |error: io::Error| tracing::error!("{key}: cannot read the record: {error}");
        if let Some(name) = key.strip_prefix(records::MEMO) {
            let account = fds.pop().ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(records::load);
            if let Ok(account) = account.inspect_err(|error: &io::Error| unreadable(error.kind().into())) {
                self.accounts.insert(name.to_owned(), account);
            }
        } else if let Some(place) = key.strip_prefix(records::SLOT) {
            if let Some((name, index)) = place.rsplit_once(':')
                && let Ok(index) = index.parse()
                && let Ok(record) = records::read(record).map_err(unreadable)
            {
                self.slots.insert((name.to_owned(), index), record);
            }
        } else {
            return false;
        }
        let place = key.strip_prefix(records::MEMO);
        let name = place.or_else(|| Some(key.strip_prefix(records::SLOT)?.rsplit_once(':')?.0));
        self.keys.push((name.unwrap_or_default().to_owned(), key.to_owned()));
        true
    }

    /// The keys of what is about other apps than these.
    pub(crate) fn of_others(&self, is_known: impl Fn(&str) -> bool) -> Vec<String> {
        self.keys.iter().filter(|(name, _)| !is_known(name)).map(|(_, key)| key.clone()).collect()
    }

    /// What there is of an app.
    pub(crate) fn of(&mut self, name: &str) -> Option<Remembered> {
        let Account { number, app, slots } = self.accounts.remove(name)?;
        let slots = (0..).zip(slots).map(|(index, slot)| {
            let later = self.slots.remove(&(name.to_owned(), index));
            later.filter(|record| record.number > number).map_or(slot, |record| record.slot).into()
        });
        let slots = slots.collect();
        Some(Remembered { app: app.into(), slots })
    }
}
