//! Reloads without a person: because a time has come.

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use supervisor_core::AppId;

use crate::master::Master;
use crate::operations::Draft;
use crate::registry::Registry;
use crate::schedule::Schedule;
use crate::settings::Settings;

/// What may make an app be reloaded, and what does.
#[derive(Debug, Default)]
pub(crate) struct Automatic {
    schedules: BTreeMap<AppId, Planned>,
    /// When the clock was looked at last.
    looked: Option<Timestamp>,
    /// Apps to reload as soon as nothing else is under way, and why.
    pending: BTreeMap<AppId, String>,
}

/// The times of an app, and the settings that they come from.
#[derive(Debug)]
struct Planned {
    settings: Rc<Settings>,
    schedule: Option<Schedule>,
}

impl Automatic {
    /// Takes the schedules of the apps as they are declared now.
    fn plan(&mut self, registry: &Registry, now: Timestamp) {
        self.schedules.retain(|id, _| registry.by_id(*id).is_some());
        for (_, entry) in registry.iter() {
            let same = |planned: &Planned| Rc::ptr_eq(&planned.settings, &entry.settings);
            if !self.schedules.get(&entry.id).is_some_and(same) {
                // No time is lost between two generations.
                let known = self.schedules.contains_key(&entry.id);
                let since = self.looked.filter(|_| known).unwrap_or(now);
                let schedule = schedule(&entry.settings, since);
                self.schedules.insert(entry.id, Planned { settings: Rc::clone(&entry.settings), schedule });
            }
        }
    }

    /// Notes the apps whose time has come.
    fn look_at_clock(&mut self, now: Timestamp) {
        self.looked = Some(now);
        for (id, planned) in &mut self.schedules {
            if planned.schedule.as_mut().is_some_and(|schedule| schedule.is_due(now)) {
                self.pending.insert(*id, "the time of its cron_restart has come".to_owned());
            }
        }
    }
}

/// The times of an app; what is wrong with them is only logged, as clients check
/// it.
fn schedule(settings: &Settings, since: Timestamp) -> Option<Schedule> {
    let cron = settings.app.cron_restart.as_ref()?;
    let named = cron.timezone.as_deref().map(TimeZone::get).transpose();
    let zone = named.map_err(|error| error.to_string()).map(|zone| zone.unwrap_or_else(|| settings.zone()));
    zone.and_then(|zone| Schedule::new(&cron.expression, zone, since))
        .inspect_err(|error| tracing::error!("{}: cron_restart is ignored: {error}", settings.app.name))
        .ok()
}

impl Master {
    /// Reloads the apps whose time has come. It is to be called once a second.
    pub(crate) fn look_at_clock(&mut self) {
        let now = Timestamp::now();
        self.automatic.plan(&self.registry, now);
        self.automatic.look_at_clock(now);
        self.reload_pending();
    }

    /// Begins the reloads that nothing stands in the way of. The others wait;
    /// what a person stopped stays so.
    fn reload_pending(&mut self) {
        for (id, why) in std::mem::take(&mut self.automatic.pending) {
            let Some(entry) = self.registry.by_id(id) else { continue };
            if entry.deleted || entry.is_stopped() {
                continue;
            }
            if self.refusal_to_declare(id).is_some() {
                self.automatic.pending.insert(id, why);
                continue;
            }
            tracing::info!("{}: reloading it: {why}", entry.settings.app.name);
            // Nobody waits for the answer.
            let (mut draft, _) = Draft::new();
            let operation = self.operations.begin(&mut draft, id);
            self.renew(operation, id);
            self.operations.watch(draft);
        }
    }
}
