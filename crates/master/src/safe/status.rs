//! What safe mode tells of apps and workers.

use std::collections::BTreeMap;

use supervisor_config::ExecMode;
use supervisor_core::memo::WorkerMemo;
use supervisor_core::{Exit, SlotMemo, Stage, WorkerId};
use supervisor_protocol::control::{
    AppState, AppStatus, Daemon, ErrorDetail, Instances, LastExit, Listener, Origin, SCHEMA, Status,
    WorkerState, WorkerStatus,
};

use super::ends::Ends;
use super::table::{Known, Table};
use crate::registry::Entry;
use crate::settings::address_text;
use crate::{clock, listeners, words};

impl Table {
    /// How the selected apps are; all without selectors.
    ///
    /// # Errors
    ///
    /// As of the selection.
    pub(super) fn status(
        &self,
        selectors: &[String],
        ends: &Ends,
        daemon: Daemon,
    ) -> Result<Status, ErrorDetail> {
        let all = ["all".to_owned()];
        let selected = self.registry.select(if selectors.is_empty() { &all } else { selectors })?;
        let entries = self.registry.iter().map(|(_, entry)| entry);
        let apps = entries.filter_map(|entry| {
            let slots = selected.get(&entry.id)?;
            Some(self.app(entry, ends, |slot| slots.contains(slot)))
        });
        Ok(Status { schema: SCHEMA, daemon, apps: apps.collect() })
    }

    fn app(&self, entry: &Entry, ends: &Ends, is_selected: impl Fn(u32) -> bool) -> AppStatus {
        let settings = &entry.settings.app;
        let mut by_slot: BTreeMap<u32, Vec<(WorkerId, &Known)>> = BTreeMap::new();
        for (id, known) in self.workers.iter().filter(|(_, known)| known.app == entry.id) {
            by_slot.entry(known.left.record.slot).or_default().push((*id, known));
        }
        let remembered = self.known.get(&entry.id).map_or(&[][..], |known| &known.slots);
        let mut workers = Vec::new();
        for slot in 0..entry.instances {
            let memo = remembered.get(slot as usize);
            let mut in_slot = by_slot.remove(&slot).unwrap_or_default();
            // Somebody beside one that has ended is who matters.
            if in_slot.iter().any(|(_, known)| known.pid().is_some()) {
                in_slot.retain(|(_, known)| known.pid().is_some());
            }
            if in_slot.is_empty() {
                workers.push(nobody(entry, slot, memo));
            }
            workers.extend(in_slot.into_iter().map(|(id, known)| worker(id, known, memo, ends)));
        }
        let running = workers.iter().filter(|worker| worker.pid.is_some()).count();
        let ready = workers.iter().filter(|worker| worker.state == WorkerState::Ready).count();
        let [running, ready] = [running, ready].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let wanted = entry.count_running();
        let stopping = workers.iter().any(|worker| worker.state == WorkerState::Stopping);
        let state = match (wanted, running) {
            (0, 0) => AppState::Stopped,
            _ if stopping => AppState::Stopping,
            (_, 0) => AppState::Errored,
            (wanted, running) if running < wanted => AppState::Degraded,
            (..) => AppState::Online,
        };
        let missing = wanted.saturating_sub(running);
        AppStatus {
            name: settings.name.clone(),
            namespace: settings.namespace.clone(),
            state,
            reason: (missing > 0).then(|| format!("{missing} not running; safe mode replaces nobody")),
            exec_mode: match settings.exec_mode {
                ExecMode::Cluster => "cluster".to_owned(),
                ExecMode::Fork => "fork".to_owned(),
            },
            generation: entry.settings.generation,
            instances: Instances { wanted, ready, running },
            restarts: remembered.iter().map(|slot| slot.restarts).sum(),
            listeners: self.listeners(entry),
            workers: workers.into_iter().filter(|worker| is_selected(worker.slot)).collect(),
            last_order: None,
        }
    }

    fn listeners(&self, entry: &Entry) -> Vec<Listener> {
        let settings = &entry.settings.app;
        let mut all: Vec<Listener> = Vec::new();
        let captured = self.members().filter_map(|key| listeners::captured_address(key, &settings.name));
        let declared = settings.listen.iter().map(|address| (address_text(address), Origin::Declared));
        for (address, origin) in
            declared.chain(captured.map(|address| (address_text(&address), Origin::Captured)))
        {
            if all.iter().all(|listener| listener.address != address) {
                all.push(Listener { address, origin, policy: settings.balance.name().to_owned() });
            }
        }
        all
    }
}

/// A slot without a worker.
fn nobody(entry: &Entry, slot: u32, memo: Option<&SlotMemo>) -> WorkerStatus {
    let state = if entry.stopped.contains(&slot) { WorkerState::Stopped } else { WorkerState::Backoff };
    WorkerStatus {
        slot,
        id: None,
        pid: None,
        generation: memo.map_or(entry.settings.generation, |memo| memo.generation.0),
        state,
        uptime_s: None,
        restarts: memo.map_or(0, |memo| memo.restarts),
        cpu_percent: None,
        memory_bytes: None,
        pss_bytes: None,
        queue: None,
        in_rotation: false,
        weight: None,
        dropped_log_bytes: 0,
        lost_log_bytes: 0,
        channel: None,
        cgroup: None,
        message: None,
        next_start_s: None,
        last_exit: None,
    }
}

fn worker(id: WorkerId, known: &Known, slot: Option<&SlotMemo>, ends: &Ends) -> WorkerStatus {
    let memo = slot.and_then(|slot| slot.workers().find(|memo| memo.id == id));
    let pid = known.pid().map(|pid| pid.as_raw_pid().unsigned_abs());
    let state = match pid {
        None => WorkerState::Backoff,
        Some(_) if ends.contains(id) => WorkerState::Stopping,
        Some(_) => memo.map_or(WorkerState::Ready, state_of),
    };
    let now = clock::now();
    WorkerStatus {
        slot: known.left.record.slot,
        id: Some(id.0).filter(|_| pid.is_some()),
        pid,
        generation: known.left.record.generation,
        state,
        uptime_s: memo.filter(|_| pid.is_some()).map(|memo| now.since(memo.since).as_secs_f64().round()),
        restarts: slot.map_or(0, |slot| slot.restarts),
        cpu_percent: None,
        memory_bytes: None,
        pss_bytes: None,
        queue: None,
        // The sockets are steered as they were.
        in_rotation: state == WorkerState::Ready,
        weight: None,
        dropped_log_bytes: 0,
        lost_log_bytes: 0,
        channel: None,
        cgroup: None,
        message: None,
        next_start_s: None,
        last_exit: known.exit.map(|(exit, at)| last_exit(exit, clock::rfc3339(at, now))),
    }
}

fn state_of(memo: &WorkerMemo) -> WorkerState {
    match memo.stage {
        Stage::Spawning | Stage::Starting { .. } => WorkerState::Starting,
        Stage::Ready { .. } => WorkerState::Ready,
        Stage::Draining { .. } => WorkerState::Draining,
        Stage::Stopping { .. } => WorkerState::Stopping,
    }
}

fn last_exit(exit: Exit, at: String) -> LastExit {
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(number) => (None, Some(words::signal(number))),
        Exit::OutOfMemory { .. } | Exit::Unknown => (None, None),
    };
    LastExit { code, signal, reason: words::exit(exit), at }
}
