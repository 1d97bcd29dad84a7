//! What apps are to be from now on: how that differs from what they are, and what
//! it takes.

use std::collections::BTreeSet;

use supervisor_config::App;
use supervisor_core::{AppId, Event, Order};
use supervisor_protocol::control::{Apply, Change, ErrorCode};

use super::Answered;
use crate::inherit::Apps;
use crate::master::Master;
use crate::operations::{Answer, failure};
use crate::records::Origin;
use crate::registry::refuse;
use crate::settings::Settings;
use crate::{automatic, budget};

impl Master {
    /// Begins with the apps that an earlier master or daemon had and those that
    /// `run` was given.
    ///
    /// # Errors
    ///
    /// When those that `run` was given are refused: there is nothing to run.
    pub(crate) fn begin(&mut self, mut apps: Apps) -> Answered<()> {
        self.take_over(&mut apps);
        // They ask for the sockets that were inherited before those are dropped.
        self.handle(Event::TimePassed);
        if let Some(apply) = apps.new {
            self.apply(apply)?;
            self.link.delete(crate::records::APPLY);
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, apply: Apply) -> Answered<Answer> {
        let Apply { apps, source, env_name, prune, reload, daemon } = apply;
        let origin = Origin { source, env_name, ..Origin::default() };
        check(&apps)?;
        automatic::check(&apps)?;
        let others = self.registry.iter().filter(|(name, _)| !apps.iter().any(|app| app.name == **name));
        let others = others.map(|(_, entry)| (entry.instances, &entry.settings.app));
        budget::check(others.chain(apps.iter().map(|app| (app.instances, app))))?;
        if let Some(daemon) = daemon {
            self.set_own(daemon)?;
        }
        let names: BTreeSet<String> = apps.iter().map(|app| app.name.clone()).collect();
        let order = self.operations.open();
        let answer = self.operations.read(order);
        for app in apps {
            if self.aside.contains(&app.name) {
                let reason = "a later version of the daemon has it, whose records this one cannot read: \
                              upgrade to that version";
                self.operations.refuse(order, 5, failure(app.name, reason.to_owned()));
                continue;
            }
            let known = self.registry.get(&app.name).map(|entry| entry.id);
            if let Some(refusal) = known.and_then(|id| self.refusal_to_declare(id)) {
                let reason = known.map_or_else(String::new, |id| self.why_not(id, refusal));
                self.operations.refuse(order, 5, failure(app.name, reason));
                continue;
            }
            if let Some(reason) = self.registry.conflict(&app) {
                self.operations.refuse(order, 1, failure(app.name, reason));
                continue;
            }
            let name = app.name.clone();
            let (id, change) = self.note(app, origin.clone(), reload);
            let instances = self.registry.by_id(id).map_or(0, |entry| {
                if change == Change::Scaled { entry.instances } else { entry.count_running() }
            });
            self.say(order, name, change, instances);
            let operation = self.begin_operation(order, id, change);
            self.declare(operation, id);
            self.watch_declared(order, id);
        }
        let missing: Vec<(AppId, String)> = self
            .registry
            .iter()
            .filter(|(name, entry)| {
                let same = origin.source.is_some() && entry.origin.source == origin.source;
                same && !names.contains(*name)
            })
            .map(|(name, entry)| (entry.id, name.to_owned()))
            .collect();
        for (id, app) in missing {
            let change = if prune { Change::Deleted } else { Change::Missing };
            self.say(order, app, change, 0);
            if prune {
                self.note_deleted(id);
                let operation = self.begin_operation(order, id, change);
                self.order(operation, id, Order::Delete { now: false });
            }
        }
        self.operations.close(order, &self.link);
        Ok(answer)
    }

    /// Notes what an app is to be from now on, and tells what that changes.
    fn note(&mut self, app: App, origin: Origin, reload: bool) -> (AppId, Change) {
        let Some(known) = self.registry.get(&app.name) else {
            let instances = app.instances;
            let stopped = if app.autostart { BTreeSet::new() } else { (0..instances).collect() };
            let id = self.registry.insert(Settings::new(app, 1), origin, instances, stopped);
            return (id, Change::Created);
        };
        let id = known.id;
        let now = self.core.app(id);
        let online = now.as_ref().is_some_and(|app| app.state == supervisor_core::AppState::Online);
        // An earlier change may have stopped half-way.
        let outdated = now.is_some_and(|app| app.slots.iter().any(|slot| slot.generation != app.generation));
        let differs = known.settings.differ_from(&app);
        // That takes effect at once, with the workers that there are.
        let respread = known.settings.spreads_unlike(&app);
        // Only a person starts an app without `autostart`.
        let stays_stopped = !app.autostart && (0..known.instances).all(|slot| known.stopped.contains(&slot));
        let only_respread =
            respread && known.instances == app.instances && online && known.stopped.is_empty();
        let change = if differs || outdated || only_respread {
            Change::Changed
        } else if known.instances != app.instances {
            Change::Scaled
        } else if stays_stopped || (online && known.stopped.is_empty()) {
            Change::Unchanged
        } else {
            Change::Started
        };
        // With another number of workers, and with slots that start again, too.
        let replaces = differs || outdated;
        let change = if reload && !replaces && !stays_stopped { Change::Reloaded } else { change };
        let renewed = differs || change == Change::Reloaded;
        let generation = if renewed { self.next_generation(id) } else { known.settings.generation };
        if let Some(entry) = self.registry.by_id_mut(id) {
            if renewed {
                entry.before = Some(Box::new(entry.declaration()));
            }
            entry.instances = app.instances;
            entry.stopped = if stays_stopped { (0..app.instances).collect() } else { BTreeSet::new() };
            let former = std::mem::replace(&mut entry.origin, origin);
            if !renewed {
                entry.origin.later = former.later;
                entry.origin.later_settings = former.later_settings;
            }
            if renewed || respread {
                entry.settings = Settings::new(app, generation);
            }
        }
        (id, change)
    }
}

/// Refuses what the command line would never send.
pub(crate) fn check(apps: &[App]) -> Answered<()> {
    let mut names = BTreeSet::new();
    for app in apps {
        let name = &app.name;
        let bad = |what: &str| Err(refuse(ErrorCode::Usage, format!("app `{name}`: {what}")));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name == "all" {
            return bad("a name is 1 to 64 letters, digits, `.`, `_` and `-`, and not `all`");
        }
        if !names.insert(name) {
            return bad("it is there twice");
        }
        if app.command.is_empty() {
            return bad("its command is empty");
        }
        if !app.cwd.is_absolute() {
            return bad("its cwd is not absolute");
        }
        if app.min_uptime.is_zero() {
            return bad(
                "its min_uptime is zero: every life would be stable, and no crash slow the next one down",
            );
        }
        if !app.reload.is_sound() {
            return bad("the steps of its reload do not ascend to 100");
        }
        if app.listen.len() > supervisor_sys::spawn::MAX_FDS {
            return bad("it has too many listeners");
        }
    }
    Ok(())
}
