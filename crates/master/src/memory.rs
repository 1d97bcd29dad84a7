//! What the core has decided, with the keeper, before anything follows from it.
//!
//! A turn is remembered whole or not at all. A few slots that changed are records
//! of their own, everything else makes a new account of the whole app. Both have
//! numbers: a record that is older than the account says nothing; and one of a
//! turn whose last record has not come says what was before.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize, Serializer};
use supervisor_core::{AppId, AppMemo, SlotMemo, Supervisor, WorkerId};
use supervisor_protocol::keeper::{FdRole, MAX_RECORD};

pub(crate) use text::ExitText;
use text::{AppText, SlotText};

use crate::control::to_json;
use crate::link::Link;
use crate::records;
use crate::registry::Registry;

/// So many slots that change in one turn get records of their own.
const FEW: usize = 16;

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
struct Account<S> {
    number: u64,
    app: AppText,
    slots: S,
}

/// Slots as an account has them.
struct Slots<'a>(&'a [SlotMemo]);

/// The record of a slot that changed since.
#[derive(Debug, Serialize, Deserialize)]
struct SlotRecord {
    number: u64,
    /// The number of the last record of the same turn.
    last: u64,
    slot: SlotText,
    /// What was before, where others have changed in the same turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<SlotText>,
}

impl Serialize for Slots<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().cloned().map(SlotText::from))
    }
}

/// The accounts and records of an earlier master, as they come.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    accounts: BTreeMap<String, Account<Vec<SlotText>>>,
    slots: BTreeMap<String, BTreeMap<u32, SlotRecord>>,
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
                && let Some(changed) = core.changed_slots(id, &known.slots)
                && changed.len() <= FEW
            {
                let records = slot_records(self.number, &changed, &known.slots);
                if records.iter().all(|record| record.len() <= MAX_RECORD) {
                    for ((index, slot), record) in changed.into_iter().zip(records) {
                        self.number += 1;
                        link.put(&records::slot_key(name, index), &record, &[]);
                        if let Some(known) = known.slots.get_mut(index as usize) {
                            *known = slot;
                        }
                    }
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

    /// Makes a new account of each app of which many slots have changed, in place of
    /// their records: those take the most memory of all that the keeper has, and as
    /// much here.
    pub(crate) fn condense(&mut self, registry: &Registry, link: &Link) {
        for (id, known) in &self.apps {
            let name = registry.name(*id);
            let keys = (0..).zip(&known.slots).map(|(index, _)| records::slot_key(name, index));
            let keys: Vec<String> = keys.filter(|key| link.mirror().holds(key)).collect();
            if keys.len() <= FEW {
                continue;
            }
            // Without it the records are as good.
            let Ok(account) = account(self.number + 1, &known.app, &known.slots) else { continue };
            link.begin();
            if link.put_or_fail(&records::memo_key(name), &[], &[(FdRole::Hold, account.as_fd())]).is_ok() {
                self.number += 1;
                keys.iter().for_each(|key| link.delete(key));
            }
            link.commit();
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
        let slots = memories.slots.values().flat_map(BTreeMap::values).map(|record| record.number);
        self.number = accounts.chain(slots).max().unwrap_or(0);
    }
}

/// The records of slots that have changed in one turn, after this number.
fn slot_records(number: u64, changed: &[(u32, SlotMemo)], known: &[SlotMemo]) -> Vec<Vec<u8>> {
    let (last, alone) = (number + changed.len() as u64, changed.len() == 1);
    let before = |index: u32| known.get(index as usize).filter(|_| !alone).cloned().map(Into::into);
    (number + 1..)
        .zip(changed)
        .map(|(number, (index, slot))| SlotRecord {
            number,
            last,
            slot: slot.clone().into(),
            before: before(*index),
        })
        .map(|record| to_json(&record))
        .collect()
}

pub(crate) fn account(number: u64, app: &AppMemo, slots: &[SlotMemo]) -> io::Result<OwnedFd> {
    records::store_json(&Account { number, app: AppText::from(app), slots: Slots(slots) })
}

impl Memories {
    /// Takes an entry of the keeper's table. Returns whether it was one of these.
    ///
    /// # Errors
    ///
    /// When it is, and is not understood.
    pub(crate) fn take(&mut self, key: &str, record: &[u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let place = key.strip_prefix(records::MEMO);
        let name = place.or_else(|| Some(key.strip_prefix(records::SLOT)?.rsplit_once(':')?.0));
        let Some(name) = name.map(str::to_owned) else { return Ok(false) };
        self.keys.push((name.clone(), key.to_owned()));
        if key.starts_with(records::MEMO) {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "its descriptor is missing");
            self.accounts.insert(name, records::load(fds.pop().ok_or_else(missing)?)?);
        } else if let Some(Ok(index)) = key.rsplit_once(':').map(|(_, index)| index.parse()) {
            self.slots.entry(name).or_default().insert(index, records::read(record)?);
        }
        Ok(true)
    }

    /// Whether there was no earlier master, or it had no apps.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys of what is about other apps than these.
    pub(crate) fn of_others(&self, is_known: impl Fn(&str) -> bool) -> Vec<String> {
        self.keys.iter().filter(|(name, _)| !is_known(name)).map(|(_, key)| key.clone()).collect()
    }

    /// Forgets what is about these apps. It stays with the keeper.
    pub(crate) fn set_aside(&mut self, names: &BTreeSet<String>) {
        self.accounts.retain(|name, _| !names.contains(name));
        self.slots.retain(|name, _| !names.contains(name));
        self.keys.retain(|(name, _)| !names.contains(name));
    }

    /// The app that a worker is of.
    pub(crate) fn app_with(&self, worker: WorkerId) -> Option<String> {
        let has = |slots: &Vec<SlotText>| slots.iter().any(|slot| slot.has(worker));
        let of_account = self.accounts.iter().find(|(_, account)| has(&account.slots));
        let later = self.slots.iter().find(|(_, slots)| slots.values().any(|record| record.slot.has(worker)));
        of_account.map(|(name, _)| name).or(later.map(|(name, _)| name)).cloned()
    }

    /// What there is of an app.
    pub(crate) fn of(&mut self, name: &str) -> Option<Remembered> {
        let Account { number, app, slots } = self.accounts.remove(name)?;
        let mut records = self.slots.remove(name).unwrap_or_default();
        let newest = records.values().map(|record| record.number).max();
        let slots = (0..).zip(slots).map(|(index, slot)| match records.remove(&index) {
            Some(record) if record.number <= number => slot.into(),
            Some(record) if Some(record.last) <= newest => record.slot.into(),
            // Its turn was cut short.
            Some(record) => record.before.unwrap_or(record.slot).into(),
            None => slot.into(),
        });
        let slots = slots.collect();
        Some(Remembered { app: app.into(), slots })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supervisor_core::{Event, Exit, Generation, Order, Policy, ReadyWhen, Reload, Timestamp};
    use supervisor_protocol::keeper::ToKeeper;
    use supervisor_sys::fdpass;

    use super::*;
    use crate::records::Origin;
    use crate::settings::Settings;
    use crate::state;

    const APP: AppId = AppId(0);

    fn policy() -> Policy {
        Policy {
            ready: ReadyWhen::Started,
            listen_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
            restart_delay: Duration::from_millis(100),
            restart_backoff_percent: 200,
            breaker_retry: Duration::from_secs(60),
            autorestart: true,
            stop_exit_codes: vec![3],
            kill_timeout: Duration::from_secs(5),
            listens: true,
            drain_timeout: Duration::from_secs(30),
            max_surge: 1,
            reload: Reload::Rolling,
        }
    }

    /// A core, what is remembered of it, and the messages to the keeper.
    struct Bench {
        core: Supervisor,
        registry: Registry,
        memory: Memory,
        link: Link,
        keeper: OwnedFd,
        messages: Vec<(ToKeeper, Vec<OwnedFd>)>,
    }

    impl Bench {
        fn new() -> Self {
            let app = br#"{"schema": 1, "apps": [{"generation": 1, "instances": 3,
                "settings": {"name": "web", "command": ["true"], "cwd": "/"}}]}"#;
            let (app, _) = state::decode(app).unwrap().apps.remove(0);
            let mut registry = Registry::default();
            registry.insert(Settings::new(app, 1), Origin::default(), 3, Default::default());
            let (ours, keeper) = fdpass::seqpacket_pair().unwrap();
            let core = Supervisor::new(1, WorkerId(1));
            let (memory, link) = (Memory::default(), Link::new(ours));
            Self { core, registry, memory, link, keeper, messages: Vec::new() }
        }

        /// Handles an event. Returns how many messages the keeper got.
        fn handle(&mut self, seconds: u64, event: Event) -> usize {
            let _ = self.core.handle(Timestamp::new(Duration::from_secs(seconds)), event);
            self.memory.note(&mut self.core, &self.registry, &self.link);
            self.receive()
        }

        /// Returns how many messages the keeper got.
        fn condense(&mut self) -> usize {
            self.memory.condense(&self.registry, &self.link);
            self.receive()
        }

        fn receive(&mut self) -> usize {
            let before = self.messages.len();
            let mut buffer = [0; 8192];
            rustix::io::ioctl_fionbio(&self.keeper, true).unwrap();
            while let Ok(received) = fdpass::receive(&self.keeper, &mut buffer) {
                self.messages.push((ToKeeper::decode(&buffer[..received.len]).unwrap(), received.fds));
            }
            self.messages.len() - before
        }

        /// What another master finds after so many messages.
        fn remembered(&self, messages: usize) -> Vec<SlotMemo> {
            let mut held = BTreeMap::new();
            for (message, fds) in &self.messages[..messages] {
                let mut fds = fds.iter();
                let one = std::slice::from_ref(message);
                for message in if let ToKeeper::Together(all) = message { all } else { one } {
                    if let ToKeeper::Put { key, record, roles } = message {
                        let fds = fds.by_ref().take(roles.len()).map(|fd| fd.try_clone().unwrap());
                        held.insert(key, (record, fds.collect()));
                    } else if let ToKeeper::Delete { key } = message {
                        held.remove(key);
                    }
                }
            }
            let mut memories = Memories::default();
            for (key, (record, mut fds)) in held {
                assert!(memories.take(key, record, &mut fds).unwrap());
            }
            memories.of("web").unwrap().slots
        }

        fn slots(&self) -> Vec<SlotMemo> {
            self.core.slot_memos(APP).collect()
        }
    }

    #[test]
    fn a_turn_is_remembered_whole_or_not_at_all() {
        let mut bench = Bench::new();
        let order = Order::Declare {
            generation: Generation(1),
            policy: policy(),
            instances: 3,
            start: supervisor_core::Slots::All,
        };
        let operation = supervisor_core::OperationId(1);
        assert_eq!(bench.handle(1, Event::Ordered { operation, app: APP, order }), 1);
        assert_eq!(bench.remembered(1), bench.slots());
        for worker in 1..=3 {
            assert_eq!(bench.handle(2, Event::WorkerSpawned(WorkerId(worker))), 1);
            assert_eq!(bench.remembered(bench.messages.len()), bench.slots());
        }
        // The operation is done: that is not the slots' alone.
        assert_eq!(bench.handle(3, Event::TimePassed), 1);
        assert_eq!(bench.remembered(bench.messages.len()), bench.slots());
        assert_eq!(bench.handle(3, Event::WorkerExited { worker: WorkerId(1), exit: Exit::Signal(9) }), 1);
        assert_eq!(bench.handle(3, Event::WorkerExited { worker: WorkerId(2), exit: Exit::Code(1) }), 1);
        assert_eq!(bench.handle(3, Event::WorkerSpawned(WorkerId(4))), 1);
        assert_eq!(bench.handle(3, Event::WorkerSpawned(WorkerId(5))), 1);
        let (before, told) = (bench.slots(), bench.messages.len());
        assert_eq!(bench.handle(9, Event::TimePassed), 2, "two are ready");
        assert_eq!(bench.remembered(told), before);
        assert_eq!(bench.remembered(told + 1), before, "cut short");
        assert_eq!(bench.remembered(told + 2), bench.slots());
        // Nothing has changed.
        assert_eq!(bench.handle(9, Event::TimePassed), 0);
    }

    #[test]
    fn records_of_many_slots_become_an_account() {
        let mut bench = Bench::new();
        let instances = u32::try_from(FEW).unwrap() + 4;
        let order = Order::Declare {
            generation: Generation(1),
            policy: policy(),
            instances,
            start: supervisor_core::Slots::All,
        };
        let operation = supervisor_core::OperationId(1);
        bench.handle(1, Event::Ordered { operation, app: APP, order });
        for worker in 1..=u64::from(instances) {
            assert_eq!(bench.handle(2, Event::WorkerSpawned(WorkerId(worker))), 1);
            let few = worker <= FEW as u64;
            let told = bench.condense();
            // Either nothing, or the account and what it makes void, in one packet.
            assert_eq!(told, usize::from(!few && worker == FEW as u64 + 1), "{worker}");
            assert_eq!(bench.remembered(bench.messages.len()), bench.slots());
        }
        let held = |bench: &Bench| {
            (0..instances).filter(|slot| bench.link.mirror().holds(&records::slot_key("web", *slot))).count()
        };
        assert_eq!(held(&bench), 3, "those since");
    }
}
