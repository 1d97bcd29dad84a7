//! Reloads without a person: because a time has come, or a file has changed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use supervisor_config::{App, parse_cron};
use supervisor_core::{AppId, OperationId};
use supervisor_protocol::control::{Change, ErrorCode, ErrorDetail, Progress};
use supervisor_protocol::events::Happening;

use crate::master::Master;
use crate::operations::{Conclusion, Line, OrderId, failure};
use crate::registry::{Entry, Registry, refuse};
use crate::schedule::Schedule;
use crate::settings::Settings;
use crate::watcher::{FileNews, Watched, Watcher};
use crate::words;

/// What may make an app be reloaded, and what does.
#[derive(Debug, Default)]
pub(crate) struct Automatic {
    schedules: BTreeMap<AppId, Planned>,
    /// When the clock was looked at last.
    looked: Option<Timestamp>,
    pub(crate) watcher: Watcher,
    watched: BTreeMap<AppId, Files>,
    /// Apps to reload as soon as nothing else is under way, and why.
    pending: BTreeMap<AppId, String>,
}

/// The files of an app that are watched.
#[derive(Debug)]
struct Files {
    watched: Watched,
    /// All of them are. Otherwise a person who declares the app tries again.
    complete: bool,
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

    /// What of an app is to be watched, unless it is already.
    fn unwatched(&self, entry: &Entry, log_dir: &Path) -> Option<Watched> {
        let settings = &entry.settings;
        let watch = settings.app.watch.clone()?;
        let of_slot = |slot| {
            let own = [settings.out_path(log_dir, slot), settings.error_path(log_dir, slot)];
            own.into_iter().chain([settings.combined_path(slot)]).flatten()
        };
        let logs = (0..entry.instances).flat_map(of_slot).collect();
        let wanted = Watched { watch, cwd: settings.app.cwd.clone(), logs };
        self.watched.get(&entry.id).is_none_or(|files| files.watched != wanted).then_some(wanted)
    }

    /// Watches files of an app. The answer is a [`FileNews::Set`].
    fn watch(&mut self, app: AppId, watched: Watched, operation: Option<OperationId>) -> io::Result<()> {
        self.watched.insert(app, Files { watched: watched.clone(), complete: false });
        self.watcher.set(app, watched, operation)
    }

    /// Watches no files of these apps any more.
    fn unwatch(&mut self, which: impl Fn(AppId) -> bool) {
        for (id, _) in self.watched.extract_if(.., |id, _| which(*id)) {
            self.watcher.remove(id);
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

/// Refuses what the command line would never send.
pub(crate) fn check(apps: &[App]) -> Result<(), ErrorDetail> {
    for app in apps {
        let bad = |what: String| refuse(ErrorCode::Usage, format!("app `{}`: {what}", app.name));
        if let Some(cron) = &app.cron_restart {
            parse_cron(&cron.expression).map_err(|error| bad(format!("cron_restart: {error}")))?;
            let zone = cron.timezone.as_deref().map(TimeZone::get).transpose();
            zone.map_err(|error| bad(format!("cron_timezone: {error}")))?;
        }
        if let Some(watch) = &app.watch {
            watch.ignored(&app.cwd).map_err(|error| bad(format!("ignore_watch: {error}")))?;
            if watch.paths.is_empty() || !watch.paths.iter().all(|path| path.is_absolute()) {
                return Err(bad("watch: its paths are not absolute, or there are none".to_owned()));
            }
        }
    }
    Ok(())
}

/// The times of an app. Whoever declares it is told what is wrong with them, but
/// an earlier version may have understood them otherwise.
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
        self.watch_all();
        self.reload_pending();
    }

    /// Watches the files of all apps as they are declared now.
    fn watch_all(&mut self) {
        let Self { automatic, registry, log_dir, .. } = self;
        let watch = |id| registry.by_id(id).and_then(|entry| entry.settings.app.watch.as_ref());
        automatic.unwatch(|id| watch(id).is_none());
        for (name, entry) in registry.iter() {
            if let Some(watched) = automatic.unwatched(entry, log_dir)
                && let Err(error) = automatic.watch(entry.id, watched, None)
            {
                tracing::error!("{name}: its files are not watched: {error}");
            }
        }
    }

    /// Watches the files of an app that a person has just declared, who waits for
    /// it.
    pub(crate) fn watch_declared(&mut self, order: OrderId, app: AppId) {
        self.automatic.watched.retain(|id, files| *id != app || files.complete);
        let Some(entry) = self.registry.by_id(app) else { return };
        if entry.settings.app.watch.is_none() {
            self.automatic.unwatch(|id| id == app);
        }
        let Some(watched) = self.automatic.unwatched(entry, &self.log_dir) else { return };
        let operation = self.operations.begin_passing(order, app);
        if let Err(error) = self.automatic.watch(app, watched, Some(operation)) {
            let failure =
                failure(entry.settings.app.name.clone(), format!("watch: {}", words::errno(&error)));
            self.operations.refuse(order, 1, failure);
            self.operations.withdraw(operation);
        }
    }

    /// Takes news of watched files.
    pub(crate) fn hear_of_files(&mut self, news: FileNews) {
        match news {
            // Such news may cross the order to watch no more.
            FileNews::Changed { app, .. } if !self.automatic.watched.contains_key(&app) => {}
            FileNews::Changed { app, path } => {
                // Anybody may name a file anything.
                let path = path.to_string_lossy();
                self.automatic.pending.insert(app, format!("{} has changed", path.escape_debug()));
                self.reload_pending();
            }
            FileNews::Set { app, operation, result } => {
                if let Some(files) = self.automatic.watched.get_mut(&app) {
                    files.complete = result == Ok(true);
                }
                if let Err(error) = result {
                    let name = self.registry.name(app).to_owned();
                    tracing::error!("{name}: its files are not watched: {error}");
                    if let Some(operation) = operation {
                        let failure = failure(name, error);
                        let conclusion = Conclusion { exit_code: 1, failure: Some(failure.clone()) };
                        self.operations.conclude(operation, conclusion, &self.link);
                        self.operations.fail(operation, || Line::Progress(Progress::Failed(failure.clone())));
                    }
                }
                if let Some(operation) = operation {
                    self.operations.finish(operation, &self.link);
                }
            }
        }
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
            self.events.tell(|| Happening::App {
                app: entry.settings.app.name.clone(),
                change: Change::Reloaded,
                instances: entry.count_running(),
                reason: Some(why),
            });
            // Nobody waits for the answer.
            self.link.begin();
            let order = self.operations.open();
            self.renew(order, id);
            self.operations.close(order, &self.link);
            self.link.commit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supervisor_config::{CommandOptions, Context, CronRestart, Watch, app_from_command};

    use super::*;

    fn app() -> App {
        let context =
            Context { base_dir: "/".into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 1 };
        app_from_command(vec!["true".to_owned()], CommandOptions::default(), &context).unwrap()
    }

    #[test]
    fn what_a_program_sends_is_checked_again() {
        let cron = |expression: &str, timezone: Option<&str>| {
            let (expression, timezone) = (expression.to_owned(), timezone.map(str::to_owned));
            check(&[App { cron_restart: Some(CronRestart { expression, timezone }), ..app() }])
        };
        cron("0 3 * * *", Some("Europe/Berlin")).unwrap();
        assert_eq!(cron("0 3 * *", None).unwrap_err().code, ErrorCode::Usage);
        assert!(cron("0 3 * * *", Some("Mars")).unwrap_err().message.contains("cron_timezone"));

        let watch = |path: &str, pattern: &str| {
            let (paths, ignore) = (vec![path.into()], vec![pattern.to_owned()]);
            check(&[App { watch: Some(Watch { paths, ignore, delay: Duration::ZERO }), ..app() }])
        };
        watch("/srv", "*.tmp").unwrap();
        assert!(watch("srv", "*.tmp").unwrap_err().message.contains("not absolute"));
        assert!(watch("/srv", "{a").unwrap_err().message.contains("ignore_watch"));
    }
}
