//! Workers that are being ended in safe mode.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use supervisor_core::{AppId, WorkerId};
use supervisor_protocol::control::{Change, Failure, Progress, WorkerState};
use supervisor_sys::pidfd;
use supervisor_sys::signal::Signal;
use tokio::sync::mpsc;

use super::table::Table;
use crate::family::Processes;
use crate::inherit::Leftover;
use crate::records::Held;
use crate::store::Pending;
use crate::words;

/// The workers that are being ended.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// When each is killed.
    kill_at: BTreeMap<WorkerId, Instant>,
    order: Option<Order>,
}

/// What is to be ended, for whom.
#[derive(Debug)]
struct Order {
    /// `None`: everything, and the daemon.
    apps: Option<BTreeSet<AppId>>,
    lines: Vec<mpsc::Sender<Progress>>,
    /// The way to the disk of what is declared.
    pending: Option<Pending>,
}

impl Order {
    fn say(&self, progress: &Progress) {
        // A slow reader misses steps.
        self.lines.iter().for_each(|lines| _ = lines.try_send(progress.clone()));
    }
}

impl Ends {
    /// Whether there is nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.order.is_none()
    }

    /// Whether everything is to end.
    pub(super) fn is_everything(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.apps.is_none())
    }

    /// Whether a worker is to end.
    pub(super) fn contains(&self, worker: WorkerId) -> bool {
        self.kill_at.contains_key(&worker)
    }

    /// Ends the workers of apps.
    pub(super) fn stop(
        &mut self,
        table: &mut Table,
        apps: BTreeSet<AppId>,
        now: bool,
        lines: mpsc::Sender<Progress>,
        pending: Option<Pending>,
    ) {
        for id in &apps {
            let Some(entry) = table.registry.by_id(*id) else { continue };
            let (app, instances) = (entry.settings.app.name.clone(), entry.instances);
            let _ = lines.try_send(Progress::App { app, change: Change::Stopped, instances });
        }
        self.ask(table, now, |app| apps.contains(&app));
        self.order = Some(Order { apps: Some(apps), lines: vec![lines], pending });
    }

    /// Ends all workers, and then the daemon; asked again, at once.
    pub(super) fn end_everything(
        &mut self,
        table: &mut Table,
        now: bool,
        lines: Option<mpsc::Sender<Progress>>,
    ) {
        self.ask(table, now, |_| true);
        let order = self.order.get_or_insert_with(|| Order { apps: None, lines: Vec::new(), pending: None });
        order.apps = None;
        order.lines.extend(lines);
    }

    /// Asks workers to end that do not know it yet; those that do not obey are
    /// killed in time, or `now`.
    fn ask(&mut self, table: &Table, now: bool, is_meant: impl Fn(AppId) -> bool) {
        for (id, known) in table.workers.iter().filter(|(_, known)| is_meant(known.app)) {
            let Some(entry) = table.registry.by_id(known.app) else { continue };
            let patience = if now { Duration::ZERO } else { entry.settings.app.kill_timeout };
            let kill_at = Instant::now() + patience;
            let known_kill_at = self.kill_at.get(id).copied();
            if known_kill_at.is_none() && !now {
                signal(&known.left, entry.settings.kill_signal());
            }
            self.kill_at.insert(*id, known_kill_at.map_or(kill_at, |before| before.min(kill_at)));
        }
    }

    /// Looks who has ended, and kills those that had their time. Returns whether
    /// that was everything, once all have ended.
    pub(super) fn look(&mut self, table: &mut Table) -> Option<bool> {
        let order = self.order.as_ref()?;
        let now = Instant::now();
        let mut over = Vec::new();
        for (id, kill_at) in &mut self.kill_at {
            let Some(known) = table.workers.get(id) else { continue };
            if known.pid().is_none() {
                over.push(*id);
            } else if now >= *kill_at {
                kill(&known.left);
                // Once more, should it have forked meanwhile.
                *kill_at = now + Duration::from_secs(1);
            }
        }
        for id in over {
            self.kill_at.remove(&id);
            let Some(known) = table.workers.remove(&id) else { continue };
            // What is left of its session must not outlive it.
            kill(&known.left);
            let app = table.registry.name(known.app).to_owned();
            let detail = known.exit.map_or_else(|| "ended".to_owned(), |(exit, _)| words::exit(exit));
            let slot = known.left.record.slot;
            order.say(&Progress::Worker { app, slot, state: WorkerState::Stopped, detail });
            table.forget_worker(id);
        }
        if !self.kill_at.is_empty() {
            return None;
        }
        let Order { apps, lines, pending } = self.order.take()?;
        for app in apps.iter().flatten() {
            table.close_sockets(*app);
        }
        tokio::spawn(tell_the_end(lines, pending));
        Some(apps.is_none())
    }
}

async fn tell_the_end(lines: Vec<mpsc::Sender<Progress>>, pending: Option<Pending>) {
    let written = match pending {
        Some(pending) => pending.written().await,
        None => Ok(()),
    };
    for lines in lines {
        let mut exit_code = 0;
        if let Err(error) = &written {
            exit_code = 1;
            let reason = format!("it is stopped, but the next daemon will not know of it: {error}");
            let failure = Failure {
                app: String::new(),
                slot: None,
                reason,
                last_lines: Vec::new(),
                rolled_back: false,
            };
            let _ = lines.send(Progress::Failed(failure)).await;
        }
        let _ = lines.send(Progress::Done { exit_code }).await;
    }
}

fn signal(left: &Leftover, signal: Signal) {
    if let Some(pidfd) = left.fds.get(&Held::Process) {
        let _ = pidfd::send_signal(pidfd, signal);
    }
}

/// Kills a worker, its descendants and what is left of its session.
fn kill(left: &Leftover) {
    if let (Ok(processes), Some(pid)) = (Processes::look(), left.process)
        && left.is_certain(&processes)
    {
        processes.kill_family(pid);
        let _ = pidfd::signal_group(pid, Signal::KILL);
    }
    signal(left, Signal::KILL);
}
