//! What a person wants of apps: told to the core, and written down for the next
//! master and the next daemon.

use std::os::fd::AsFd;

use supervisor_core::{AppId, Generation, OperationId, Slots};
use supervisor_protocol::keeper::FdRole;

use super::Master;
use crate::clock;
use crate::records::{self, AppRecord};
use crate::registry::Entry;
use crate::settings::Settings;
use crate::spread::Spread;
use crate::store::Pending;

impl Master {
    /// Declares a new app or changes a known one. The generation tells the core
    /// whether its workers are outdated.
    pub(crate) fn declare(&mut self, operation: OperationId, app: AppId) {
        let Some(entry) = self.registry.by_id(app) else { return };
        let order = entry.order(self.captures);
        self.store_app(app);
        self.order(operation, app, order);
    }

    /// Starts an app that was declared earlier. Nobody waits for it.
    pub(crate) fn restore(&mut self, app: AppId) {
        let Some(entry) = self.registry.by_id(app) else { return };
        self.core.restore(
            clock::now(),
            app,
            Generation(entry.settings.generation),
            entry.policy(self.captures),
            entry.instances,
            &entry.running(),
        );
        self.store_app(app);
    }

    /// Spreads an app's connections as its settings say now.
    pub(crate) fn spread_out(&mut self, app: AppId) {
        if let Some(entry) = self.registry.by_id(app) {
            self.listeners.spread_out(&entry.settings.app.name, Spread::new(entry), &self.link);
        }
    }

    /// Lets the keeper know what a person wants of an app.
    pub(crate) fn store_app(&mut self, app: AppId) {
        self.spread_out(app);
        let Some(entry) = self.registry.by_id(app).filter(|entry| !entry.deleted) else { return };
        let (settings, record) = entry.lasting();
        self.store_settings(&records::app_key(&settings.app.name), &settings, &record);
        if entry.before.is_some() {
            let next = entry.declaration();
            self.store_settings(&records::next_key(&settings.app.name), &next.settings, &next.record());
        }
    }

    fn store_settings(&self, key: &str, settings: &Settings, record: &AppRecord) {
        match records::store_app(&settings.app, record) {
            Ok(fd) => self.link.put(key, &[], &[(FdRole::Hold, fd.as_fd())]),
            Err(error) => tracing::error!("{}: cannot keep its settings: {error}", settings.app.name),
        }
    }

    /// Writes down what is declared, for the next daemon. `None` when nothing
    /// is kept.
    pub(crate) fn keep_declared(&self) -> Option<Pending> {
        let declared = self.registry.iter().map(|(_, entry)| entry).filter(|entry| !entry.deleted);
        let lasting: Vec<_> = declared.map(Entry::lasting).collect();
        let apps = lasting.iter().map(|(settings, record)| (&settings.app, record.clone()));
        self.store.keep(apps, &self.own.settings)
    }

    /// Notes that a person does not want an app any more. The next daemon does
    /// not know it; another master goes on ending it.
    pub(crate) fn note_deleted(&mut self, app: AppId) {
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        entry.deleted = true;
    }

    /// Notes that a person stopped or started slots.
    pub(crate) fn note_stopped(&mut self, app: AppId, slots: &Slots, stopped: bool) {
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        // A stop ends a reload: then it counts for what was declared before, too.
        let before = entry.before.as_mut().map(|before| (before.instances, &mut before.stopped));
        for (instances, known) in [Some((entry.instances, &mut entry.stopped)), before].into_iter().flatten()
        {
            for index in (0..instances).filter(|index| slots.contains(*index)) {
                if stopped {
                    known.insert(index);
                } else {
                    known.remove(&index);
                }
            }
        }
        self.store_app(app);
    }

    /// Notes that a person changed the number of slots. The new ones of an app
    /// that is stopped stay stopped.
    pub(crate) fn note_scaled(&mut self, app: AppId, instances: u32) {
        let Some(entry) = self.registry.by_id_mut(app) else { return };
        let all_stopped = entry.is_stopped();
        entry.instances = instances;
        entry.stopped.retain(|slot| *slot < instances);
        if all_stopped {
            entry.stopped.extend(0..instances);
        }
        self.store_app(app);
    }
}
