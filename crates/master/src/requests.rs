//! What people and programs ask for, and how it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use supervisor_config::App;
use supervisor_core::{AppId, Event, OperationId, Order, Refusal, SlotId, Slots};
use supervisor_protocol::control::{
    Apply, Capture, Change, Daemon, Describe, Description, ErrorCode, ErrorDetail, Flush, Kill, LogPaths,
    Ping, Progress, Reopen, Reopened, Reset, ResetDone, SCHEMA, Scale, Select, SendMessage, SendSignal,
    Signalled, Status, Stream,
};
use supervisor_protocol::events::Happening;
use supervisor_protocol::release::RELEASE;
use supervisor_sys::signal::Signal;
use tokio::sync::oneshot;

use crate::control::{
    Ask, Following, Listening, LogFile, LogQuery, Logs, Reply, Request, Selection, Subject, to_json,
};
use crate::inherit::Apps;
use crate::master::Master;
use crate::operations::{Answer, OrderId, failure};
use crate::records::Origin;
use crate::registry::refuse;
use crate::run::{Ending, end};
use crate::settings::{Place, Settings, listener_name};
use crate::{automatic, budget, clock, snapshot, words};

type Answered<T> = Result<T, ErrorDetail>;

/// Answers a request.
pub(crate) fn answer(master: &mut Master, request: Request, ending: &mut Ending) {
    if let Some(order) = request.key.as_deref().and_then(|key| master.operations.find(key)) {
        let _ = request.reply.send(master.again(order));
        return;
    }
    let declares = request.ask.declares();
    // An order is taken whole, with all that it changes, or not at all.
    master.operations.expect(request.key);
    master.link.begin();
    let reply = match request.ask {
        _ if declares && ending.is_begun() => {
            Err(refuse(ErrorCode::Busy, words::refusal(Refusal::ShuttingDown)))
        }
        Ask::Ping => {
            Ok(Reply::Json(to_json(&Ping { daemon: master.daemon(), notices: master.notices.clone() })))
        }
        Ask::Status { selectors } => master.status(&selectors).map(|status| Reply::Json(to_json(&status))),
        Ask::Describe { selectors, reveal } => {
            master.describe(&selectors, reveal).map(|apps| Reply::Json(to_json(&apps)))
        }
        Ask::Env { selectors, reveal } => {
            master.environments(&selectors).map(|subjects| Reply::Env(subjects, reveal))
        }
        Ask::Logs(query) => master.logs(query).map(Reply::Logs),
        Ask::Events { selectors, since } => master.follow(&selectors, since).map(Reply::Events),
        Ask::Apply(apply) => master.apply(apply).map(Reply::Order),
        Ask::Start(select) => master.start(&select).map(Reply::Order),
        Ask::Stop(select) => master.stop(&select).map(Reply::Order),
        Ask::Restart(select) => master.restart(&select).map(Reply::Order),
        Ask::Reload(select) => master.reload(&select).map(Reply::Order),
        Ask::Abort(select) => master.abort(&select).map(Reply::Order),
        Ask::Delete(select) => master.delete(&select).map(Reply::Order),
        Ask::Scale(scale) => master.scale(&scale).map(Reply::Order),
        Ask::Signal(send) => {
            master.begin_blind();
            master.signal(&send).map(|sent| Reply::Json(to_json(&sent)))
        }
        Ask::Send(send) => {
            master.begin_blind();
            master.send(&send).map(Reply::Sent)
        }
        Ask::Channel { selectors } => master.overhear(&selectors).map(Reply::Channel),
        Ask::Reset(reset) => master.reset(&reset).map(|done| Reply::Json(to_json(&done))),
        Ask::Flush(flush) => master.flush(&flush),
        Ask::Reopen(Reopen {}) => {
            master.reopen_logs();
            Ok(Reply::Json(to_json(&Reopened {})))
        }
        Ask::Upgrades => Ok(Reply::Json(to_json(&master.upgrades()))),
        Ask::Upgrade(_) if ending.is_begun() => {
            Err(refuse(ErrorCode::Busy, words::refusal(Refusal::ShuttingDown)))
        }
        Ask::Upgrade(order) => master.begin_upgrade(order).map(|begun| Reply::Json(to_json(&begun))),
        Ask::Kill(Kill { now }) => {
            let order = master.operations.open();
            let answer = master.operations.read(order);
            master.operations.close_the_last(order, &master.link);
            end(master, ending, now);
            Ok(Reply::Order(answer))
        }
    };
    master.link.commit();
    // An order that was refused may have been taken for some apps.
    let pending = if declares { master.keep_declared() } else { None };
    let Some(pending) = pending else {
        // A client that has gone needs no answer.
        let _ = request.reply.send(reply);
        return;
    };
    let path = master.store.path().map(Path::to_owned).unwrap_or_default();
    tokio::spawn(async move {
        // What a person is told is done outlives a power cut.
        let reply = match pending.written().await {
            Ok(()) => reply,
            Err(error) => reply.and(Err(refuse(
                ErrorCode::Failed,
                format!(
                    "it is being done, but the next daemon will not know of it: cannot write {}: {error}",
                    path.display()
                ),
            ))),
        };
        let _ = request.reply.send(reply);
    });
}

impl Master {
    /// What is answered to whoever gives an order again, which has been taken.
    fn again(&mut self, order: OrderId) -> Answered<Reply> {
        if self.operations.is_blind(order) {
            let message = "the daemon's master died when it had begun this: some workers may have got it, \
                           some may not; it is not sent again";
            return Err(refuse(ErrorCode::Failed, message.to_owned()));
        }
        Ok(Reply::Order(self.operations.read(order)))
    }

    /// What follows cannot be taken back, nor looked up by another master.
    fn begin_blind(&mut self) {
        self.operations.note_blind(&self.link);
        self.link.commit();
        self.link.begin();
    }

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

    pub(crate) fn daemon(&self) -> Daemon {
        Daemon {
            version: RELEASE.to_owned(),
            pid: std::process::id(),
            keeper_pid: self.link.keeper_pid(),
            uptime_s: self.started.elapsed().as_secs(),
            safe_mode: None,
            problems: self.problems.all(),
        }
    }

    fn status(&self, selectors: &[String]) -> Answered<Status> {
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

    fn describe(&self, selectors: &[String], reveal: bool) -> Answered<Describe> {
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
    fn environments(&self, selectors: &[String]) -> Answered<Vec<Subject>> {
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

    fn logs(&self, query: LogQuery) -> Answered<Logs> {
        let selected = self.select_or_all(&query.selectors)?;
        let mut files: Vec<LogFile> = Vec::new();
        for (name, entry) in self.registry.iter() {
            let Some(slots) = selected.get(&entry.id) else { continue };
            let settings = &entry.settings;
            // Workers of a user that is not known have written nothing.
            let Ok(access) = settings.access() else { continue };
            for slot in (0..entry.instances).filter(|slot| slots.contains(*slot)) {
                let paths = [
                    (Stream::Out, settings.out_path(&self.log_dir, slot)),
                    (Stream::Error, settings.error_path(&self.log_dir, slot)),
                ];
                for (stream, path) in paths {
                    let Some(path) = path.filter(|_| query.stream.is_none_or(|wanted| wanted == stream))
                    else {
                        continue;
                    };
                    // Slots may share a file, and so may both streams.
                    match files.iter_mut().find(|file| file.path == path) {
                        Some(file) if file.slot != Some(slot) => file.slot = None,
                        Some(_) => {}
                        None => files.push(LogFile {
                            app: name.to_owned(),
                            slot: (!settings.app.logs.merge || entry.instances == 1).then_some(slot),
                            stream,
                            path,
                            access: access.clone(),
                            json: settings.app.logs.json,
                        }),
                    }
                }
            }
        }
        let selection = self.selection(&query.selectors, selected);
        let follow = query.follow.then(|| self.output.follow());
        Ok(Logs { files, selection, follow, query })
    }

    /// What happens to what these selectors mean: since a time, as far as that is
    /// remembered, and from now on.
    fn follow(&mut self, selectors: &[String], since: Option<Timestamp>) -> Answered<Following> {
        let selected = self.select_or_all(selectors)?;
        let selection = self.selection(selectors, selected);
        let (past, events) = self.events.follow(since);
        Ok(Following { past, events, selection })
    }

    /// What selectors mean; everything without any.
    fn select_or_all(&self, selectors: &[String]) -> Answered<BTreeMap<AppId, Slots>> {
        let all = ["all".to_owned()];
        self.registry.select(if selectors.is_empty() { &all } else { selectors })
    }

    /// The same by name, for a stream that may outlive the apps.
    fn selection(&self, selectors: &[String], selected: BTreeMap<AppId, Slots>) -> Selection {
        if selectors.is_empty() || selectors.iter().any(|selector| selector == "all") {
            return Selection::Everything;
        }
        let name = |id| self.registry.name(id).to_owned();
        Selection::These(selected.into_iter().map(|(id, slots)| (name(id), slots)).collect())
    }

    fn reset(&mut self, reset: &Reset) -> Answered<ResetDone> {
        let selected = self.select(&reset.selectors)?;
        let slots = selected.iter().map(|(id, slots)| self.core.reset_restarts(*id, slots)).sum();
        Ok(ResetDone { slots })
    }

    fn flush(&self, flush: &Flush) -> Answered<Reply> {
        let selected: BTreeMap<AppId, Slots> = self.select(&flush.selectors)?.into_iter().collect();
        let mut files = BTreeMap::new();
        for (_, entry) in self.registry.iter() {
            let Some(slots) = selected.get(&entry.id) else { continue };
            let Ok(access) = entry.settings.access() else { continue };
            for slot in (0..entry.instances).filter(|slot| slots.contains(*slot)) {
                let paths = [
                    entry.settings.out_path(&self.log_dir, slot),
                    entry.settings.error_path(&self.log_dir, slot),
                    entry.settings.combined_path(slot),
                ];
                files.extend(paths.into_iter().flatten().map(|path| (path, access.clone())));
            }
        }
        let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
        Ok(Reply::Flush(count, self.output.flush(files.into_iter().collect())))
    }

    /// Opens all log files anew: somebody else has renamed them.
    pub(crate) fn reopen_logs(&self) {
        tracing::info!("opening all log files anew");
        self.output.reopen();
    }

    fn apply(&mut self, apply: Apply) -> Answered<Answer> {
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

    /// One operation for each selected app. `note` records what is wanted from
    /// now on; it is passed over for an app that another order is about.
    fn order_selected(
        &mut self,
        selected: Vec<(AppId, Slots)>,
        change: Change,
        mut note: impl FnMut(&mut Self, AppId, &Slots),
        what: impl Fn(Slots) -> Order,
    ) -> Answer {
        let order = self.operations.open();
        let answer = self.operations.read(order);
        for (id, slots) in selected {
            let app = self.registry.name(id).to_owned();
            if let Some(refusal) = self.core.refusal(id, &what(slots.clone())) {
                let exit_code = if refusal == Refusal::NoReload { 1 } else { 5 };
                let failure = failure(app, self.why_not(id, refusal));
                self.operations.refuse(order, exit_code, failure);
                continue;
            }
            note(self, id, &slots);
            let all = self.registry.by_id(id).map_or(0, |entry| entry.instances);
            let concerned = (0..all).filter(|index| slots.contains(*index)).count();
            // There are no more than `all`.
            let instances = u32::try_from(concerned).unwrap_or(all);
            self.say(order, app, change, instances);
            let operation = self.begin_operation(order, id, change);
            self.order(operation, id, what(slots));
        }
        self.operations.close(order, &self.link);
        answer
    }

    /// A new operation of an order about an app.
    pub(crate) fn begin_operation(&mut self, order: OrderId, id: AppId, change: Change) -> OperationId {
        let name = self.registry.name(id);
        let generation = self.registry.by_id(id).map_or(0, |entry| entry.settings.generation);
        self.operations.begin(order, (id, name), change, generation)
    }

    /// Tells what an order means for an app.
    fn say(&mut self, order: OrderId, app: String, change: Change, instances: u32) {
        if !matches!(change, Change::Unchanged | Change::Missing) {
            self.events.tell(|| Happening::App { app: app.clone(), change, instances, reason: None });
        }
        self.operations.say(order, Progress::App { app, change, instances });
    }

    fn select(&self, selectors: &[String]) -> Answered<Vec<(AppId, Slots)>> {
        if selectors.is_empty() {
            return Err(refuse(ErrorCode::Usage, "nothing is selected; `all` means everything".to_owned()));
        }
        Ok(self.registry.select(selectors)?.into_iter().collect())
    }

    fn start(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        let note = |master: &mut Self, id, slots: &Slots| master.note_stopped(id, slots, false);
        Ok(self.order_selected(selected, Change::Started, note, Order::Start))
    }

    fn stop(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        let note = |master: &mut Self, id, slots: &Slots| master.note_stopped(id, slots, true);
        let now = select.now;
        Ok(self.order_selected(selected, Change::Stopped, note, |slots| Order::Stop { slots, now }))
    }

    fn restart(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        let note = |master: &mut Self, id, slots: &Slots| master.note_stopped(id, slots, false);
        let now = select.now;
        Ok(self.order_selected(selected, Change::Restarted, note, |slots| Order::Restart { slots, now }))
    }

    fn delete(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        if let Some((id, _)) = selected.iter().find(|(_, slots)| *slots != Slots::All) {
            let name = self.registry.name(*id);
            let message = format!("a slot cannot be deleted; stop it, or use `scale {name} -1`");
            return Err(refuse(ErrorCode::Usage, message));
        }
        let now = select.now;
        Ok(self.order_selected(
            selected,
            Change::Deleted,
            |master, id, _| master.note_deleted(id),
            |_| Order::Delete { now },
        ))
    }

    fn scale(&mut self, scale: &Scale) -> Answered<Answer> {
        let entry = self.registry.get(&scale.app).ok_or_else(|| self.registry.unknown(&scale.app))?;
        let (id, before) = (entry.id, entry.instances);
        let instances = scaled(before, &scale.instances)?;
        budget::check(self.registry.iter().map(|(_, other)| {
            (if other.id == id { instances } else { other.instances }, &other.settings.app)
        }))?;
        // The new slots of an app that is stopped stay stopped.
        let start = if entry.is_stopped() { Slots::Only(BTreeSet::new()) } else { Slots::All };
        let note = |master: &mut Self, id, _: &Slots| master.note_scaled(id, instances);
        let order = |_| Order::Scale { instances, start: start.clone() };
        Ok(self.order_selected(vec![(id, Slots::All)], Change::Scaled, note, order))
    }

    /// Replaces the workers of apps one after another, with the settings that
    /// they have.
    fn reload(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        if let Some((id, _)) = selected.iter().find(|(_, slots)| *slots != Slots::All) {
            let name = self.registry.name(*id);
            let message =
                format!("an app is reloaded as a whole: `reload {name}`; `restart` takes single slots");
            return Err(refuse(ErrorCode::Usage, message));
        }
        let everything = select.selectors.iter().any(|selector| selector == "all");
        let order = self.operations.open();
        let answer = self.operations.read(order);
        for (id, _) in selected {
            let Some(entry) = self.registry.by_id(id) else { continue };
            let app = entry.settings.app.name.clone();
            if let Some(refusal) = self.refusal_to_declare(id) {
                let failure = failure(app, self.why_not(id, refusal));
                self.operations.refuse(order, 5, failure);
            } else if !entry.is_stopped() {
                let instances = entry.count_running();
                self.say(order, app, Change::Reloaded, instances);
                self.renew(order, id);
            } else if !everything {
                let reason = format!("it is stopped; `supervisor start {app}` starts it");
                self.operations.refuse(order, 1, failure(app, reason));
            }
        }
        self.operations.close(order, &self.link);
        Ok(answer)
    }

    /// Lets the reloads of these apps go back.
    fn abort(&mut self, select: &Select) -> Answered<Answer> {
        let mut selected = self.select(&select.selectors)?;
        if let Some((id, _)) = selected.iter().find(|(_, slots)| *slots != Slots::All) {
            let name = self.registry.name(*id);
            let message = format!("an app is reloaded as a whole: `reload --abort {name}`");
            return Err(refuse(ErrorCode::Usage, message));
        }
        if select.selectors.iter().any(|selector| selector == "all") {
            selected.retain(|(id, _)| self.core.refusal(*id, &Order::Abort) != Some(Refusal::NoReload));
            if selected.is_empty() {
                return Err(refuse(ErrorCode::Failed, "no reload is under way".to_owned()));
            }
        }
        Ok(self.order_selected(selected, Change::Aborted, |_, _, _| {}, |_| Order::Abort))
    }

    /// Why an order is refused, with what stands in its way.
    fn why_not(&self, app: AppId, refusal: Refusal) -> String {
        let Some(begun) = self.operations.about(app).filter(|_| refusal == Refusal::Busy) else {
            return words::refusal(refusal);
        };
        let (what, since) = (words::under_way(begun.change), words::duration(clock::now().since(begun.at)));
        let name = self.registry.name(app);
        let way_out = if self.core.refusal(app, &Order::Abort).is_none() {
            format!("end it by `supervisor reload --abort {name}`")
        } else {
            "stop the app first".to_owned()
        };
        format!("another order is under way, {what} that began {since} ago; wait for it, or {way_out}")
    }

    /// Reloads every app that runs. Nobody waits for it; the log tells how it
    /// went.
    pub(crate) fn reload_all(&mut self) {
        tracing::info!("reloading all apps");
        for (name, entry) in self.registry.iter() {
            if let Some(refusal) = self.refusal_to_declare(entry.id) {
                tracing::warn!("{name} is not reloaded: {}", self.why_not(entry.id, refusal));
            }
        }
        let all = Select { selectors: vec!["all".to_owned()], now: false };
        self.link.begin();
        if let Err(error) = self.reload(&all) {
            tracing::error!("cannot reload: {}", error.message);
        }
        self.link.commit();
    }

    /// A number for settings that no worker of the app has: one that was given up
    /// may have left some, where going back failed.
    fn next_generation(&self, app: AppId) -> u64 {
        let declared = self.registry.by_id(app).map_or(0, |entry| entry.settings.generation);
        self.workers.latest_generation(app).map_or(declared, |latest| latest.max(declared)) + 1
    }

    /// Gives an app the settings that it has as a new generation.
    pub(crate) fn renew(&mut self, order: OrderId, app: AppId) {
        let generation = self.next_generation(app);
        if let Some(entry) = self.registry.by_id_mut(app) {
            entry.before = Some(Box::new(entry.declaration()));
            entry.settings = Settings::new(entry.settings.app.clone(), generation);
        }
        let operation = self.begin_operation(order, app, Change::Reloaded);
        self.declare(operation, app);
    }

    /// Why a change of an app's settings would not be begun now.
    pub(crate) fn refusal_to_declare(&self, app: AppId) -> Option<Refusal> {
        let entry = self.registry.by_id(app)?;
        self.core.refusal(app, &entry.order(self.captures))
    }

    /// Sends a message to the ready workers of the selected slots.
    fn send(&self, send: &SendMessage) -> Answered<Vec<oneshot::Receiver<u32>>> {
        let selected = self.select(&send.selectors)?;
        // Between the parts of a value a line end means no more than a blank.
        let mut line = send.message.get().replace(['\n', '\r'], " ").into_bytes();
        line.push(b'\n');
        for (id, _) in &selected {
            let name = self.registry.name(*id);
            let Some(entry) = self.registry.by_id(*id) else { continue };
            let channel = &entry.settings.app.channel;
            if !channel.enabled {
                return Err(refuse(
                    ErrorCode::Usage,
                    format!("{name} has no channel: it says `channel: false`"),
                ));
            }
            if line.len() as u64 > channel.max_message {
                let max = channel.max_message;
                let why =
                    format!("the message has more than {max} bytes, which is `ipc_max_message` of {name}");
                return Err(refuse(ErrorCode::Usage, why));
            }
        }
        let mut parts = Vec::new();
        for (id, slots) in selected {
            let name = self.registry.name(id);
            let mut say = |slot| parts.push(self.channel.say(name.to_owned(), slot, line.clone()));
            match slots {
                Slots::All => say(None),
                Slots::Only(slots) => slots.into_iter().for_each(|slot| say(Some(slot))),
            }
        }
        Ok(parts)
    }

    fn overhear(&self, selectors: &[String]) -> Answered<Listening> {
        let selected = self.select_or_all(selectors)?;
        Ok(Listening { messages: self.channel.listen(), selection: self.selection(selectors, selected) })
    }

    fn signal(&self, send: &SendSignal) -> Answered<Signalled> {
        let signal: Signal =
            send.signal.parse().map_err(|error| refuse(ErrorCode::Usage, format!("{error}")))?;
        let mut workers = 0;
        for (id, slots) in self.select(&send.selectors)? {
            let Some(app) = self.core.app(id) else { continue };
            for (index, slot) in (0..).zip(app.slots).filter(|(index, _)| slots.contains(*index)) {
                for worker in slot.worker.into_iter().chain(slot.beside.map(|beside| beside.worker)) {
                    match self.workers.signal(worker, signal) {
                        Ok(()) => workers += 1,
                        Err(error) => tracing::debug!("{}: {error}", SlotId { app: id, index }),
                    }
                }
            }
        }
        Ok(Signalled { workers })
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

/// The number of workers that `4`, `+2` or `-1` means.
pub(crate) fn scaled(before: u32, text: &str) -> Answered<u32> {
    let malformed =
        || refuse(ErrorCode::Usage, format!("`{text}` is no number of workers; write 4, +2 or -1"));
    let number = |digits: &str| {
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<u32>().ok())
            .flatten()
            .ok_or_else(malformed)
    };
    if let Some(more) = text.strip_prefix('+') {
        return before.checked_add(number(more)?).ok_or_else(malformed);
    }
    if let Some(fewer) = text.strip_prefix('-') {
        let fewer = number(fewer)?;
        let message = format!("there are {before} workers, {fewer} cannot be taken away");
        return before.checked_sub(fewer).ok_or_else(|| refuse(ErrorCode::Usage, message));
    }
    number(text)
}

/// Whether this process must give the right to gain privileges up for those that
/// it starts under a filter.
fn needs_no_new_privs() -> bool {
    let own = rustix::thread::capabilities(None);
    own.is_ok_and(|own| !own.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_absolute_or_relative() {
        assert_eq!(scaled(3, "5"), Ok(5));
        assert_eq!(scaled(3, "+2"), Ok(5));
        assert_eq!(scaled(3, "-3"), Ok(0));
        for bad in ["", "+", "-4", "x", "+-1", "1.5", "99999999999"] {
            assert_eq!(scaled(3, bad).unwrap_err().code, ErrorCode::Usage, "{bad}");
        }
    }
}
