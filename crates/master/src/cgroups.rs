//! A cgroup for each worker, where a tree of cgroups is ours.
//!
//! ```text
//! the tree               left to us by systemd or a container
//! ├─ daemon              keeper and master, in a container: below
//! └─ workers
//!    ├─ web-17           app and worker id
//!    └─ web-18
//! ```
//!
//! It finds and ends all that a worker has started, whatever session or parent
//! that has by now; without it, families are guessed by sessions and parents.
//!
//! # Whose tree
//!
//! Ours is one that systemd has delegated (`Delegate=yes`), or the highest that
//! a container can see, in which there is nobody but keeper and master.
//! Everything else, such as a login's session, is shared with others and not
//! touched.
//!
//! # Limits of memory
//!
//! The controller `memory` needs a tree without processes of its own. A
//! container's keeper and master are moved away for it. A unit's are not: when
//! they have died, systemd could not start a keeper where workers have limits.
//! With `DelegateSubgroup=` it starts the keeper below the tree, and all is
//! well.
//!
//! `memory.max` is `max_memory_hard`. `memory.high` stays unset: it would slow
//! down a worker that is to serve until its successor is ready.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use supervisor_core::{Exit, WorkerId};
use supervisor_sys::cgroup::{self, Cgroup, MemoryEvents};
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::SpawnError;
use supervisor_sys::{Pid, pidfd};

/// Where keeper and master are, if not in the tree itself.
const DAEMON: &str = "daemon";
/// What the workers' cgroups are in.
const WORKERS: &str = "workers";
/// Where systemd runs `ExecReload=` and `ExecStop=`.
const CONTROL: &str = ".control";
/// How long what earlier workers have left may take to die.
const DEATH: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many cgroups may wait for being removed; a new master removes others.
const MAX_GONE: usize = 1024;
/// Bytes of an app's name in that of a cgroup, which may have 255.
const MAX_NAME: usize = 200;

/// The workers' cgroups.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    /// `None` where no tree is ours.
    tree: Option<Tree>,
    /// Those of workers that are gone, but not all that they had started.
    gone: VecDeque<Cgroup>,
}

#[derive(Debug)]
struct Tree {
    workers: Cgroup,
    /// Workers have the controller `memory`.
    limits: bool,
}

/// A worker's cgroup.
#[derive(Debug)]
pub(crate) struct WorkerCgroup {
    cgroup: Cgroup,
    /// The limit of memory that the kernel sees to, in bytes.
    limit: Option<u64>,
}

impl WorkerCgroup {
    /// Its place in the hierarchy, for people: `/workers/web-17`.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.cgroup.path().display())
    }

    /// Its folder, for another process that is to be born in it.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        self.cgroup.open()
    }

    /// Kills all in it. Returns whether the kernel took the order.
    pub(crate) fn kill(&self) -> bool {
        self.cgroup.kill().is_ok()
    }

    /// Signals all in it.
    pub(crate) fn signal(&self, signal: Signal) {
        for process in cgroup::open_processes(&self.cgroup.folder()) {
            // The only failure is that it has just ended.
            let _ = pidfd::send_signal(&process, signal);
        }
    }

    /// Whether anything runs in it; `None` when nobody can tell.
    pub(crate) fn is_populated(&self) -> Option<bool> {
        self.cgroup.is_populated().ok()
    }

    /// How a process of it ended that was killed by somebody else: by the
    /// kernel, if that has killed for want of memory in here.
    pub(crate) fn exit_of_killed(&self) -> Exit {
        exit_of_killed(self.cgroup.memory_events().unwrap_or_default(), self.limit)
    }
}

fn exit_of_killed(events: MemoryEvents, limit: Option<u64>) -> Exit {
    if events.killed == 0 {
        return Exit::Signal(Signal::KILL.as_raw());
    }
    // Otherwise it was the limit of all workers together, or the machine's.
    Exit::OutOfMemory { limit: limit.filter(|_| events.at_limit > 0) }
}

impl Cgroups {
    /// Finds the tree that is ours, if there is one.
    pub(crate) fn begin(keeper: Pid) -> Self {
        let cgroups = Self { tree: Tree::find(keeper), gone: VecDeque::new() };
        if let Some(Tree { workers, limits }) = &cgroups.tree {
            let place = workers.path().display();
            tracing::info!(
                "each worker gets a cgroup in {place}, {} a limit of its memory",
                if *limits { "with" } else { "without" }
            );
        }
        cgroups
    }

    /// The cgroup of a worker of an earlier master, if it has one.
    pub(crate) fn find(&self, app: &str, id: WorkerId, limit: Option<u64>) -> Option<WorkerCgroup> {
        let tree = self.tree.as_ref()?;
        let cgroup = tree.workers.child(&name(app, id));
        cgroup.folder().exists().then(|| WorkerCgroup { cgroup, limit: limit.filter(|_| tree.limits) })
    }

    /// Ends what earlier workers have left, but for these.
    pub(crate) fn remove_others<'a>(&mut self, own: impl Iterator<Item = &'a WorkerCgroup>) {
        let Some(tree) = &self.tree else { return };
        let own: Vec<&Cgroup> = own.map(|own| &own.cgroup).collect();
        let all = tree.workers.children().unwrap_or_default();
        let left: Vec<Cgroup> = all.into_iter().filter(|cgroup| !own.contains(&cgroup)).collect();
        left.iter().for_each(|cgroup| _ = cgroup.kill());
        // They hold addresses that others are about to need.
        let deadline = Instant::now() + DEATH;
        for cgroup in left {
            while cgroup.is_populated().unwrap_or(false) && Instant::now() < deadline {
                sleep(LOOK_EVERY);
            }
            self.remove_or_keep(cgroup);
        }
    }

    /// Makes a cgroup for a worker that is about to start: see
    /// [`Plan::cgroup`](supervisor_sys::spawn::Plan::cgroup). `None` where there
    /// is no tree, or it takes no more.
    pub(crate) fn make(
        &self,
        app: &str,
        id: WorkerId,
        limit: Option<u64>,
    ) -> Option<(WorkerCgroup, OwnedFd)> {
        let tree = self.tree.as_ref()?;
        let cgroup = tree.workers.child(&name(app, id));
        let limit = limit.filter(|_| tree.limits);
        let make = || {
            cgroup.create()?;
            if let Some(limit) = limit {
                cgroup.limit_memory(limit)?;
            }
            cgroup.open()
        };
        match make() {
            Ok(folder) => Some((WorkerCgroup { cgroup, limit }, folder)),
            Err(error) => {
                tracing::warn!("no cgroup {}: {error}", cgroup.path().display());
                let _ = cgroup.remove();
                None
            }
        }
    }

    /// Makes no more: the kernel refuses to start workers in them.
    pub(crate) fn give_up(&mut self, error: &SpawnError, refused: Option<WorkerCgroup>) {
        tracing::warn!("workers get no cgroups of their own: {error}");
        self.remove(refused);
        self.tree = None;
    }

    /// Removes the cgroup of a worker that had one and is gone. What is left in
    /// it is dying, or dies now.
    pub(crate) fn remove(&mut self, cgroup: Option<WorkerCgroup>) {
        if let Some(own) = cgroup {
            self.remove_or_keep(own.cgroup);
        }
    }

    fn remove_or_keep(&mut self, cgroup: Cgroup) {
        if is_removed(&cgroup) {
            return;
        }
        let _ = cgroup.kill();
        if self.gone.len() == MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(cgroup);
    }

    /// Tries again to remove those that were busy.
    pub(crate) fn sweep(&mut self) {
        self.gone.retain(|cgroup| !is_removed(cgroup));
    }

    /// Leaves nothing behind; all workers have ended.
    pub(crate) fn finish(&mut self) {
        if let Some(tree) = self.tree.take() {
            let _ = tree.workers.remove();
        }
    }
}

fn is_removed(cgroup: &Cgroup) -> bool {
    match cgroup.remove() {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

impl Tree {
    fn find(keeper: Pid) -> Option<Self> {
        let own = Cgroup::own()?;
        let daemon = [keeper, rustix::process::getpid()];
        let is_ours = |tree: &Cgroup| is_ours(tree, &own, &daemon).unwrap_or(false);
        let tree = [Some(own.clone()), own.parent()].into_iter().flatten().find(is_ours)?;
        let workers = tree.child(WORKERS);
        if let Err(error) = workers.create()
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::debug!("no cgroups for workers: {error}");
            return None;
        }
        let limits = || {
            if !tree.has_controller("memory") || (tree == own && tree.is_delegated()) {
                return Ok(false);
            }
            if tree == own {
                let leaf = tree.child(DAEMON);
                if !leaf.folder().exists() {
                    leaf.create()?;
                }
                for process in daemon {
                    leaf.add(process)?;
                }
            }
            tree.enable("memory")?;
            workers.enable("memory").map(|()| true)
        };
        let limits = limits().unwrap_or_else(|error: io::Error| {
            tracing::warn!("workers' memory is not limited by the kernel: {error}");
            false
        });
        Some(Self { workers, limits })
    }
}

/// Whether a tree of cgroups is the daemon's alone. Its processes are in `own`,
/// which is the tree itself or right below it.
fn is_ours(tree: &Cgroup, own: &Cgroup, daemon: &[Pid]) -> io::Result<bool> {
    let left_to_us = tree.is_delegated() || tree.parent().is_none();
    if !left_to_us || !tree.can_be_killed() {
        return Ok(false);
    }
    let only_daemon = |cgroup: &Cgroup| -> io::Result<bool> {
        let processes = cgroup.processes()?;
        Ok(processes.iter().all(|process| process.is_some_and(|pid| daemon.contains(&pid))))
    };
    let known = [Some(DAEMON), Some(WORKERS), Some(CONTROL), own.name()];
    let only_ours = tree.children()?.iter().all(|child| known.contains(&child.name()));
    Ok(only_ours && only_daemon(tree)? && only_daemon(own)?)
}

/// The name of a worker's cgroup: that of its app, with what could be taken for
/// a file of the kernel as `_`, and its id.
fn name(app: &str, id: WorkerId) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let app: String = app.chars().map(plain).take(MAX_NAME).collect();
    format!("{app}-{}", id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let check = |app: &str, expected: &str| assert_eq!(name(app, WorkerId(17)), expected);
        check("web", "web-17");
        check("memory.max", "memory_max-17");
        check("../a b/ü\n", "___a_b___-17");
        assert!(name(&"é".repeat(1000), WorkerId(u64::MAX)).len() < 255);
    }

    #[test]
    fn the_kernel_is_named_when_it_has_killed() {
        let check = |at_limit, killed, limit, expected| {
            assert_eq!(exit_of_killed(MemoryEvents { at_limit, killed }, limit), expected);
        };
        let killed = Exit::Signal(9);
        check(0, 0, None, killed);
        check(0, 0, Some(7), killed);
        // It got below its limit again, and somebody else killed it.
        check(3, 0, Some(7), killed);
        check(1, 2, Some(7), Exit::OutOfMemory { limit: Some(7) });
        check(0, 1, Some(7), Exit::OutOfMemory { limit: None });
        // A cgroup that the worker has made itself may have a limit, too.
        check(1, 1, None, Exit::OutOfMemory { limit: None });
    }
}
