//! Queries: what there is, and what happens from now on.

use jiff::Timestamp;
use supervisor_config::App;
use supervisor_protocol::control::{Capture, Describe, Description, LogPaths, SCHEMA, Status};

use super::Answered;
use crate::control::{Following, Listening, Subject};
use crate::master::Master;
use crate::settings::{Place, listener_name};
use crate::snapshot;

impl Master {
    pub(super) fn status(&self, selectors: &[String]) -> Answered<Status> {
        let selected = self.select_or_all(selectors)?;
        let facts = self.facts();
        let apps = self
            .registry
            .iter()
            .filter_map(|(_, entry)| {
                let slots = selected.get(&entry.id)?;
                Some(snapshot::app(entry, &self.core.app(entry.id)?, slots, &facts))
            })
            .collect();
        Ok(Status { schema: SCHEMA, daemon: self.daemon(), apps })
    }

    pub(super) fn describe(&self, selectors: &[String], reveal: bool) -> Answered<Describe> {
        let selected = self.registry.select(selectors)?;
        let facts = self.facts();
        let apps = self
            .registry
            .iter()
            .filter_map(|(_, entry)| {
                let slots = selected.get(&entry.id)?;
                let settings = &entry.settings;
                let listeners: Vec<String> = settings.app.listen.iter().map(listener_name).collect();
                let place = Place {
                    slot: 0,
                    instances: entry.instances,
                    notify_socket: "",
                    listeners: &listeners,
                    channel: settings.app.channel.enabled.then_some(""),
                };
                let environment = settings.environment(&place);
                let text = |path: Option<std::path::PathBuf>| path.map(|path| path.display().to_string());
                let logs = (0..entry.instances).filter(|slot| slots.contains(*slot)).map(|slot| LogPaths {
                    slot,
                    out: text(settings.out_path(&self.log_dir, slot)),
                    error: text(settings.error_path(&self.log_dir, slot)),
                });
                let mut app = App { instances: entry.instances, ..settings.app.clone() };
                if !reveal {
                    app.inherited_env.clear();
                    app.env.clear();
                }
                Some(Description {
                    settings: app,
                    source: entry.origin.source.clone(),
                    env_name: entry.origin.env_name.clone(),
                    env_names: environment
                        .into_iter()
                        .map(|(name, _)| name.to_string_lossy().into_owned())
                        .collect(),
                    capture: settings.wants_capture().then(|| {
                        let refused = self.uncaptured.clone().or_else(|| entry.alone.clone());
                        let no_new_privs = self.uncaptured.is_none() && needs_no_new_privs();
                        Capture { no_new_privs, refused, cut_off: self.workers.cut_off(entry.id) }
                    }),
                    status: snapshot::app(entry, &self.core.app(entry.id)?, slots, &facts),
                    logs: logs.collect(),
                })
            })
            .collect();
        Ok(Describe { apps })
    }

    /// The selected workers that run, whose variables somebody asks for.
    pub(super) fn environments(&self, selectors: &[String]) -> Answered<Vec<Subject>> {
        let mut subjects = Vec::new();
        for (id, slots) in self.select(selectors)? {
            let Some(app) = self.core.app(id) else { continue };
            for (slot, found) in (0..).zip(app.slots).filter(|(slot, _)| slots.contains(*slot)) {
                let Some(worker) = found.worker.and_then(|worker| self.workers.get(worker)) else { continue };
                let Some(process) = &worker.record.process else { continue };
                let (app, start_time) = (self.registry.name(id).to_owned(), process.start_time);
                subjects.push(Subject { app, slot, pid: worker.pid, start_time });
            }
        }
        Ok(subjects)
    }

    /// What happens to what these selectors mean: since a time, as far as that is
    /// remembered, and from now on.
    pub(super) fn follow(&mut self, selectors: &[String], since: Option<Timestamp>) -> Answered<Following> {
        let selected = self.select_or_all(selectors)?;
        let selection = self.selection(selectors, selected);
        let (past, events) = self.events.follow(since);
        Ok(Following { past, events, selection })
    }

    pub(super) fn overhear(&self, selectors: &[String]) -> Answered<Listening> {
        let selected = self.select_or_all(selectors)?;
        Ok(Listening { messages: self.channel.listen(), selection: self.selection(selectors, selected) })
    }
}

/// Whether this process must give the right to gain privileges up for those that
/// it starts under a filter.
fn needs_no_new_privs() -> bool {
    let own = rustix::thread::capabilities(None);
    own.is_ok_and(|own| !own.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}
