//! What can be seen of workers' connections from outside.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use supervisor_sys::diag::{Connection, Diag, DiagError, HalfOpen, Listening, State, inodes_of, overlaps};
use supervisor_sys::{Pid, capture, process};

use crate::drains::Sight;
use crate::family::Processes;

/// Asks the kernel about connections.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    /// Made when it is needed first.
    diag: Option<Diag>,
    /// It was said that nothing can be seen.
    complained: bool,
}

/// What is seen at one moment: each question is asked once.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    observer: &'a mut Observer,
    processes: Option<Processes>,
    connections: BTreeMap<u16, Option<Vec<Connection>>>,
    half_open: BTreeMap<u16, Option<Vec<HalfOpen>>>,
}

impl Observer {
    /// A new look at everything.
    pub(crate) const fn look(&mut self) -> Moment<'_> {
        Moment { observer: self, processes: None, connections: BTreeMap::new(), half_open: BTreeMap::new() }
    }

    /// Who listens where a socket could not be bound, in words.
    pub(crate) fn listener_at(&mut self, address: SocketAddr, v6only: bool) -> Option<String> {
        let listeners = self.listeners(address.port()).unwrap_or_default();
        let taken = *overlaps(address, v6only, &listeners).first()?;
        Some(owner(taken))
    }

    /// Who listens on a port; `None` if that cannot be told.
    pub(crate) fn listeners(&mut self, port: u16) -> Option<Vec<Listening>> {
        self.ask(|diag| diag.listeners(Some(port)))
    }

    fn ask<T>(&mut self, question: impl FnOnce(&mut Diag) -> Result<Vec<T>, DiagError>) -> Option<Vec<T>> {
        let result = match &mut self.diag {
            Some(diag) => question(diag),
            None => Diag::new().and_then(|diag| question(self.diag.insert(diag))),
        };
        result
            .inspect_err(|error| {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!("workers are drained without a look at their connections: {error}");
                }
            })
            .ok()
    }
}

/// Whose a socket is that is none of ours, in words.
pub(crate) fn owner(taken: &Listening) -> String {
    // Rare enough for a look at everybody.
    let processes = process::process_table().unwrap_or_default();
    let owner = processes.iter().find(|entry| capture::has_socket(entry.pid, taken.inode).unwrap_or(false));
    match owner {
        Some(owner) => {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", owner.pid)).unwrap_or_default();
            format!("another program (pid {}, {})", owner.pid, name.trim_end().escape_debug())
        }
        None => format!("another program of user {}", taken.uid),
    }
}

impl Moment<'_> {
    /// What there is to see of a worker that serves these ports.
    pub(crate) fn of(
        &mut self,
        worker: Pid,
        ports: &[u16],
        half_open: bool,
        queue: u64,
        quiet: Option<Duration>,
    ) -> Sight {
        let mut sight = Sight { queue, quiet, ..Sight::default() };
        for port in ports {
            if half_open {
                let ask = |diag: &mut Diag| diag.half_open(*port);
                let seen = answer(&mut self.half_open, *port, self.observer, ask);
                sight.half_open.extend_from_slice(seen.unwrap_or_default());
            }
            let ask = |diag: &mut Diag| diag.connections(*port);
            let seen = answer(&mut self.connections, *port, self.observer, ask);
            sight.connections.extend_from_slice(seen.unwrap_or_default());
        }
        if !sight.connections.is_empty() {
            if self.processes.is_none() {
                self.processes = Processes::look().ok();
            }
            let family = self.processes.as_ref().map(|processes| processes.family(worker));
            // Of whom nothing can be seen, all is taken for idle.
            let own = inodes_of(family.unwrap_or_default()).unwrap_or_default();
            sight.connections.retain(|connection| own.contains(&connection.inode));
        }
        sight
    }

    /// The connections to these ports that nobody has accepted; `None` if that cannot be seen.
    pub(crate) fn waiting(&mut self, ports: &[u16]) -> Option<HashSet<u64>> {
        let mut waiting = HashSet::new();
        for port in ports {
            let ask = |diag: &mut Diag| diag.connections(*port);
            let all = answer(&mut self.connections, *port, self.observer, ask)?;
            // What a worker has closed has no inode any more, either.
            let is_open = |state| matches!(state, State::Established | State::CloseWait);
            let unaccepted = all.iter().filter(|one| one.inode == 0 && is_open(one.state));
            waiting.extend(unaccepted.map(|connection| connection.cookie));
        }
        Some(waiting)
    }
}

/// `None` if it cannot be seen.
fn answer<'m, T>(
    known: &'m mut BTreeMap<u16, Option<Vec<T>>>,
    port: u16,
    observer: &mut Observer,
    question: impl FnOnce(&mut Diag) -> Result<Vec<T>, DiagError>,
) -> Option<&'m [T]> {
    known.entry(port).or_insert_with(|| observer.ask(question)).as_deref()
}
