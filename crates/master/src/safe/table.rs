//! What safe mode understands of the keeper's table.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, bail};
use supervisor_config::DaemonSettings;
use supervisor_core::{AppId, Exit, MAX_SLOTS, Slots, Timestamp, WorkerId};
use supervisor_protocol::control::{ErrorCode, ErrorDetail};
use supervisor_protocol::keeper::{FdRole, FromKeeper, LOCK_KEY, Orphan};
use supervisor_sys::Pid;

use crate::inherit::{Leftover, Leftovers, only};
use crate::link::{self, Link};
use crate::memory::{Memories, Remembered};
use crate::problems::Problems;
use crate::records::{self, AppRecord, Held};
use crate::registry::{Registry, refuse};
use crate::settings::Settings;
use crate::store::{Pending, Store};
use crate::workers::process_exit;
use crate::{STATE_FILE, clock, control, listeners, state};

/// The keeper's table, as far as it is understood.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) link: Link,
    pub(super) registry: Registry,
    /// Apps whose settings were not understood: those in the registry stand in
    /// for them.
    unread: BTreeSet<AppId>,
    memories: Memories,
    /// What an earlier master knew of apps.
    pub(super) known: BTreeMap<AppId, Remembered>,
    pub(super) workers: BTreeMap<WorkerId, Known>,
    /// The keys of members, which are their sockets, with their records.
    members: BTreeMap<String, Vec<u8>>,
    daemon: DaemonSettings,
    /// The control socket.
    pub(super) control: Option<control::Held>,
    /// Everything is to end; at once, if it is true.
    pub(super) ending: Option<bool>,
}

/// A worker.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) app: AppId,
    pub(super) left: Leftover,
    /// How it ended, if anybody has told, and when that was.
    pub(super) exit: Option<(Exit, Timestamp)>,
}

impl Known {
    /// Its pid, while it runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.left.process.filter(|_| self.left.runs())
    }
}

impl Table {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When the keeper breaks off.
    pub(super) fn read(keeper: OwnedFd) -> anyhow::Result<Self> {
        let mut link = Link::new(keeper);
        let lost = "cannot read the keeper's table";
        let (FromKeeper::Hello(hello), _) = link.receive().context(lost)? else { bail!("{lost}: no hello") };
        link.meet(hello);
        let mut table = Self {
            link,
            registry: Registry::default(),
            unread: BTreeSet::new(),
            memories: Memories::default(),
            known: BTreeMap::new(),
            workers: BTreeMap::new(),
            members: BTreeMap::new(),
            daemon: DaemonSettings::default(),
            control: None,
            ending: None,
        };
        let mut leftovers = Leftovers::default();
        loop {
            match table.link.receive() {
                Ok((FromKeeper::Entry { key, record, .. }, fds)) => {
                    if let Err(error) = table.take(key.clone(), &record, fds, &mut leftovers) {
                        tracing::error!("{key}: cannot read the record: {error}");
                    }
                }
                Ok((FromKeeper::Orphan(orphan), _)) => leftovers.orphans.push(orphan),
                Ok((FromKeeper::TableEnd, _)) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::InvalidData || link::is_cut(&error) => {
                    tracing::warn!("passed over in the keeper's table: {error}");
                }
                Err(error) => return Err(error).context(lost),
            }
        }
        if let Some(keeper) = i32::try_from(hello.keeper_pid).ok().and_then(Pid::from_raw) {
            leftovers.meet(keeper);
        }
        table.take_workers(leftovers);
        table.remember();
        Ok(table)
    }

    /// Takes an entry; what nobody needs here is closed.
    fn take(
        &mut self,
        key: String,
        record: &[u8],
        mut fds: Vec<OwnedFd>,
        leftovers: &mut Leftovers,
    ) -> io::Result<()> {
        if key == LOCK_KEY || self.memories.take(&key, record, &mut fds)? {
            // The link holds the lock; memories are read when all is there.
        } else if key == records::DAEMON {
            self.daemon = records::read(record)?;
        } else if key == records::ENDING {
            self.ending = Some(records::read(record)?);
        } else if key == records::CONTROL {
            self.control = Some((records::read(record)?, only(fds)?));
        } else if let Some(name) = key.strip_prefix(records::APP) {
            match only(fds).and_then(records::load_app) {
                Ok((app, AppRecord { generation, instances, stopped, origin })) => {
                    self.registry.insert(Settings::new(app, generation), origin, instances, stopped);
                }
                Err(error) => {
                    self.stand_in(name);
                    return Err(error);
                }
            }
        } else if listeners::is_member(&key) {
            self.members.insert(key, record.to_vec());
        } else {
            leftovers.take(&key, record, fds)?;
        }
        Ok(())
    }

    /// Something to call an app by of which only the name is known.
    fn stand_in(&mut self, name: &str) -> Option<AppId> {
        let settings = serde_json::json!({ "name": name, "command": ["?"], "cwd": "/" });
        let app = serde_json::json!({ "generation": 0, "instances": 0, "settings": settings });
        let text = serde_json::json!({ "schema": 1, "apps": [app] }).to_string();
        let (app, _) = state::decode(text.as_bytes()).ok()?.apps.pop()?;
        let id = self.registry.insert(Settings::new(app, 0), records::Origin::default(), 0, BTreeSet::new());
        self.unread.insert(id);
        Some(id)
    }

    fn take_workers(&mut self, mut leftovers: Leftovers) {
        for (id, mut left) in std::mem::take(&mut leftovers.workers) {
            left.fds.retain(|held, _| *held == Held::Process);
            let name = &left.record.app;
            let app = self.registry.get(name).map(|entry| entry.id).or_else(|| self.stand_in(name));
            let Some(app) = app else { continue };
            if self.unread.contains(&app)
                && let Some(entry) = self.registry.by_id_mut(app)
            {
                let instances = left.record.slot.saturating_add(1).min(MAX_SLOTS);
                entry.instances = entry.instances.max(instances);
            }
            let exit = left.record.exit.map(Exit::from);
            let exit = exit.or_else(|| leftovers.orphan(&left.record).map(process_exit_of));
            self.workers.insert(id, Known { app, left, exit: exit.map(|exit| (exit, clock::now())) });
        }
    }

    /// Reads what an earlier master knew. That may be what killed it.
    fn remember(&mut self) {
        for (name, entry) in self.registry.iter() {
            let memories = &mut self.memories;
            if let Ok(Some(known)) = catch_unwind(AssertUnwindSafe(|| memories.of(name))) {
                self.known.insert(entry.id, known);
            }
        }
    }

    /// Notes that a process has ended, which may be a worker.
    pub(super) fn note_orphan(&mut self, orphan: &Orphan) {
        let is_its = |known: &&mut Known| known.left.record.process.is_some_and(|process| process.is(orphan));
        if let Some(known) = self.workers.values_mut().find(is_its) {
            known.exit = Some((process_exit_of(orphan), clock::now()));
        }
    }

    /// The apps that selectors mean.
    ///
    /// # Errors
    ///
    /// As [`Registry::select`]; and a single slot, whose app would be forgotten.
    pub(super) fn select_whole(&self, selectors: &[String]) -> Result<BTreeSet<AppId>, ErrorDetail> {
        let selected = self.registry.select(selectors)?;
        if let Some((id, _)) = selected.iter().find(|(_, slots)| **slots != Slots::All) {
            let name = self.registry.name(*id);
            let message = format!("in safe mode an app is stopped as a whole: `stop {name}`");
            return Err(refuse(ErrorCode::Busy, message));
        }
        Ok(selected.into_keys().collect())
    }

    /// Lets the next master find these apps stopped, and nothing else of them
    /// but their settings. Returns the way to the disk, if that is kept.
    pub(super) fn declare_stopped(
        &mut self,
        apps: &BTreeSet<AppId>,
        state_dir: Option<&Path>,
    ) -> Option<Pending> {
        for id in apps.iter().filter(|id| !self.unread.contains(id)) {
            let Some(entry) = self.registry.by_id_mut(*id) else { continue };
            entry.stopped = (0..entry.instances).collect();
            let (settings, record) = entry.lasting();
            let name = &settings.app.name;
            match records::store_app(&settings.app, &record) {
                Ok(fd) => self.link.put(&records::app_key(name), &[], &[(FdRole::Hold, fd.as_fd())]),
                Err(error) => tracing::error!("{name}: cannot keep that it is stopped: {error}"),
            }
            self.link.delete(&records::next_key(name));
            for key in self.memories.of_others(|other| other != name) {
                self.link.delete(&key);
            }
        }
        // A file without the apps that were not understood would forget them.
        let folder = state_dir.filter(|_| self.unread.is_empty())?;
        let (store, ..) = Store::open(folder.join(STATE_FILE), Problems::default());
        let lasting: Vec<_> = self.registry.iter().map(|(_, entry)| entry.lasting()).collect();
        store.keep(lasting.iter().map(|(settings, record)| (&settings.app, record.clone())), &self.daemon)
    }

    /// Forgets a worker that has ended.
    pub(super) fn forget_worker(&mut self, id: WorkerId) {
        for key in records::worker_keys(id) {
            self.link.delete(&key);
        }
    }

    /// Lets the sockets of an app be closed: clients are refused from now on.
    pub(super) fn close_sockets(&mut self, app: AppId) {
        let name = self.registry.name(app).to_owned();
        for (key, record) in self.members.extract_if(.., |key, _| listeners::is_member_of(key, &name)) {
            listeners::remove_path(&record);
            self.link.delete(&key);
        }
    }

    /// The keys of all members.
    pub(super) fn members(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }
}

fn process_exit_of(orphan: &Orphan) -> Exit {
    match process_exit(orphan) {
        supervisor_sys::pidfd::Exit::Code(code) => Exit::Code(code),
        supervisor_sys::pidfd::Exit::Signal { number, .. } => Exit::Signal(number),
    }
}
