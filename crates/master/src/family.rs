//! Workers' families: their descendants, and who is left of their sessions.

use std::collections::{HashMap, HashSet};
use std::io;

use supervisor_sys::process::{self, ProcessEntry};
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, pidfd};

/// All processes at one moment. A look costs some microseconds a process.
#[derive(Debug)]
pub(crate) struct Processes {
    all: Vec<ProcessEntry>,
    children: HashMap<Pid, Vec<ProcessEntry>>,
}

impl Processes {
    pub(crate) fn look() -> io::Result<Self> {
        let all = process::process_table()?;
        let mut children: HashMap<Pid, Vec<ProcessEntry>> = HashMap::new();
        for entry in &all {
            if let Some(parent) = entry.parent {
                children.entry(parent).or_default().push(*entry);
            }
        }
        Ok(Self { all, children })
    }

    /// The descendants of a process, at most so many, the nearest first.
    pub(crate) fn descendants(&self, ancestor: Pid, most: usize) -> Vec<ProcessEntry> {
        let of = |parent: Pid| self.children.get(&parent).into_iter().flatten().copied();
        let mut family: Vec<ProcessEntry> = of(ancestor).take(most).collect();
        let mut next = 0;
        while let Some(parent) = family.get(next).map(|entry| entry.pid) {
            family.extend(of(parent).take(most.saturating_sub(family.len())));
            next += 1;
        }
        family
    }

    /// Who is in the session that a worker leads, or led: the number stays
    /// taken for as long as one of them lives.
    pub(crate) fn session(&self, leader: Pid) -> impl Iterator<Item = &ProcessEntry> {
        self.all.iter().filter(move |entry| entry.session == Some(leader))
    }

    /// Whether anybody in a worker's group still runs.
    pub(crate) fn group_runs(&self, leader: Pid) -> bool {
        self.all.iter().any(|entry| entry.group == Some(leader) && !entry.zombie)
    }

    /// A worker, its descendants and all that is left of its session.
    pub(crate) fn family(&self, leader: Pid) -> HashSet<Pid> {
        let descendants = self.descendants(leader, usize::MAX);
        let family = descendants.iter().chain(self.session(leader)).map(|entry| entry.pid);
        family.chain([leader]).collect()
    }

    /// Kills a worker's descendants and all that is left of its session.
    pub(crate) fn kill_family(&self, leader: Pid) {
        let mut seen = HashSet::from([leader]);
        let family = self.descendants(leader, usize::MAX);
        for entry in family.iter().chain(self.session(leader)) {
            if !entry.zombie && seen.insert(entry.pid) {
                kill(entry);
            }
        }
    }
}

/// Kills the process that was seen, and not the next owner of its pid.
fn kill(entry: &ProcessEntry) {
    if let Ok(pidfd) = pidfd::open(entry.pid)
        && process::start_time(entry.pid).is_ok_and(|start| start == entry.start_time)
    {
        // The only failure is that it has just ended.
        let _ = pidfd::send_signal(&pidfd, Signal::KILL);
    }
}
