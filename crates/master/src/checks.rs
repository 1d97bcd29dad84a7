//! Checks from outside whether a worker is ready: `ready: http`, `tcp`, `exec`.
//!
//! Each try is a task of its own beside the loop, which hears of its outcome.
//! One that goes to a socket of the worker's own is led there by the program of
//! its group (`listeners::probes`), so that no sibling can answer. Where that
//! could not be kept up, whatever the answer was, it is tried again.

mod exec;
mod http;
mod tcp;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use supervisor_config::{Attempt, Ready, ReadyCheck};
use supervisor_core::{Event, WorkerId};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot};

use crate::listeners::{Endpoint, Reach};
use crate::master::Master;
use crate::words;

pub(crate) use exec::Running;

/// Tries that are under way at a time.
const AT_ONCE: usize = 64;
/// How long tries are begun before other news is looked at.
const SLICE: Duration = Duration::from_millis(5);
/// The longest text that is told of a failure, in characters.
const MAX_TEXT: usize = 300;

/// The workers that are being checked.
#[derive(Debug)]
pub(crate) struct Checks {
    courses: BTreeMap<WorkerId, Course>,
    outcomes: mpsc::Receiver<Outcome>,
    sender: mpsc::Sender<Outcome>,
}

/// How far the check of a worker has come.
#[derive(Debug)]
struct Course {
    /// When it is tried next.
    next: Instant,
    /// The try that is under way.
    attempt: Option<UnderWay>,
    /// What was told of the last one.
    told: Option<String>,
}

#[derive(Debug)]
struct UnderWay {
    /// Its task ends when this is dropped.
    _cancel: oneshot::Sender<()>,
    /// Where it has gone; `None` for a program.
    reach: Option<Reach>,
    /// Whom connections are led for.
    client: Option<SocketAddr>,
}

/// What became of a try.
#[derive(Debug)]
pub(crate) struct Outcome {
    worker: WorkerId,
    /// The error is what was seen instead, in words.
    result: Result<(), String>,
}

/// A connection that a try is about to make.
#[derive(Debug)]
struct Dial {
    to: Endpoint,
    /// The bound socket of a client whose connections are led.
    socket: Option<TcpSocket>,
}

impl Default for Checks {
    fn default() -> Self {
        // Each try sends one outcome.
        let (sender, outcomes) = mpsc::channel(AT_ONCE);
        Self { courses: BTreeMap::new(), outcomes, sender }
    }
}

impl Checks {
    /// Begins to check a worker.
    pub(crate) fn add(&mut self, worker: WorkerId) {
        self.courses.insert(worker, Course { next: Instant::now(), attempt: None, told: None });
    }

    /// Tries at once what was to be tried later.
    pub(crate) fn hasten(&mut self, worker: WorkerId) {
        if let Some(course) = self.courses.get_mut(&worker) {
            course.next = Instant::now();
        }
    }

    /// The next outcome of a try.
    pub(crate) async fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.recv().await
    }

    /// When [`Master::look_after_checks`] must be called.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let resting = self.courses.values().filter(|course| course.attempt.is_none());
        let next = resting.map(|course| course.next).min()?;
        (self.under_way() < AT_ONCE).then_some(next)
    }

    fn under_way(&self) -> usize {
        self.courses.values().filter(|course| course.attempt.is_some()).count()
    }
}

impl Master {
    /// Begins tries that are due.
    pub(crate) fn look_after_checks(&mut self) {
        let now = Instant::now();
        let courses = self.checks.courses.iter();
        let mut due: Vec<(Instant, WorkerId)> = courses
            .filter(|(_, course)| course.attempt.is_none() && course.next <= now)
            .map(|(id, course)| (course.next, *id))
            .collect();
        // Who has waited longest is first.
        due.sort_unstable();
        for (_, id) in due.into_iter().take(AT_ONCE.saturating_sub(self.checks.under_way())) {
            if let Err(lacks) = self.try_check(id) {
                self.lacks(id, lacks);
            }
            // The others stay due; other news comes first.
            if now.elapsed() >= SLICE {
                break;
            }
        }
    }

    /// Takes the outcome of a try.
    pub(crate) fn hear_check(&mut self, outcome: Outcome) {
        let Outcome { worker: id, result } = outcome;
        let Some(attempt) = self.checks.courses.get_mut(&id).and_then(|course| course.attempt.take()) else {
            return;
        };
        if !self.end_attempt(id, attempt) {
            self.checks.hasten(id);
            return;
        }
        match result {
            Ok(()) => {
                self.checks.courses.remove(&id);
                self.handle(Event::WorkerReady(id));
            }
            Err(lacks) => self.lacks(id, lacks),
        }
    }

    /// Checks a worker no more.
    pub(crate) fn end_check(&mut self, id: WorkerId) {
        if let Some(Course { attempt: Some(attempt), .. }) = self.checks.courses.remove(&id) {
            self.end_attempt(id, attempt);
        }
    }

    /// Leads nobody to the worker any more. Returns whether what was seen is of
    /// the worker, as far as anybody can tell.
    fn end_attempt(&mut self, id: WorkerId, attempt: UnderWay) -> bool {
        let UnderWay { reach: Some(reach), client, .. } = attempt else { return true };
        let Some(worker) = self.workers.get(id) else { return false };
        let app = &worker.settings.app.name;
        let was_led = match (&reach, client) {
            (Reach::Own { group, .. }, Some(client)) => {
                self.listeners.release(app, group, client, &self.link)
            }
            (Reach::Own { .. } | Reach::Open(_) | Reach::No(_), _) => true,
        };
        was_led && self.reach(id).is_some_and(|now| now.is(&reach))
    }

    /// Notes what a worker lacks, and tries again later.
    fn lacks(&mut self, id: WorkerId, lacks: String) {
        let Some(interval) = self.check_of(id).map(|check| check.interval) else { return };
        let Some(course) = self.checks.courses.get_mut(&id) else { return };
        course.next = Instant::now() + interval;
        let lacks: String = lacks.chars().take(MAX_TEXT).collect();
        if course.told.as_ref() != Some(&lacks) {
            course.told = Some(lacks.clone());
            self.handle(Event::WorkerUnready { worker: id, lacks });
        }
    }

    fn check_of(&self, id: WorkerId) -> Option<&ReadyCheck> {
        match &self.workers.get(id)?.settings.app.ready {
            Ready::Check(check) => Some(check),
            Ready::Auto | Ready::Listen | Ready::Started | Ready::Notify | Ready::Ipc => None,
        }
    }

    /// Where a worker is to be asked.
    fn reach(&self, id: WorkerId) -> Option<Reach> {
        let worker = self.workers.get(id)?;
        let address = match &self.check_of(id)?.attempt {
            Attempt::Http { address, .. } | Attempt::Tcp { address } => address.as_ref(),
            Attempt::Exec { .. } => return None,
        };
        let captured = worker.captured.is_some();
        Some(self.listeners.reach(worker.seat, id, &worker.settings, address, captured))
    }

    /// Begins a try.
    ///
    /// # Errors
    ///
    /// In words: why there is nothing to try yet.
    fn try_check(&mut self, id: WorkerId) -> Result<(), String> {
        let Some(check) = self.check_of(id) else {
            self.checks.courses.remove(&id);
            return Ok(());
        };
        let ReadyCheck { attempt, timeout, .. } = check.clone();
        let reach = self.reach(id);
        let mut client = None;
        match attempt {
            Attempt::Exec { command } => {
                let program = self.start_check(id, &command)?;
                self.let_run(id, None, None, program.finish(timeout));
            }
            Attempt::Http { path, status, .. } => {
                let dial = self.dial(id, reach.as_ref(), &mut client)?;
                self.let_run(id, reach, client, http::ask(dial, path, status, timeout));
            }
            Attempt::Tcp { .. } => {
                let own = match &reach {
                    Some(Reach::Own { socket, .. }) => {
                        Some(socket.try_clone().map_err(|error| words::errno(&error))?)
                    }
                    Some(Reach::Open(_) | Reach::No(_)) | None => None,
                };
                let dial = self.dial(id, reach.as_ref(), &mut client)?;
                self.let_run(id, reach, client, tcp::connect(dial, own, timeout));
            }
        }
        Ok(())
    }

    /// Prepares a connection; the address of a client that is led there goes to
    /// `client`.
    fn dial(
        &mut self,
        id: WorkerId,
        reach: Option<&Reach>,
        client: &mut Option<SocketAddr>,
    ) -> Result<Dial, String> {
        match reach {
            Some(Reach::Own { to, group, key, .. }) => {
                let in_words = |error: io::Error| format!("connect {to}: {}", words::errno(&error));
                let (socket, own) = bound(*to).map_err(in_words)?;
                let app = self.workers.get(id).map(|worker| worker.settings.app.name.clone());
                let led = self.listeners.lead(&app.unwrap_or_default(), group, key, own, &self.link);
                led.map_err(in_words)?;
                *client = Some(own);
                Ok(Dial { to: Endpoint::Tcp(*to), socket: Some(socket) })
            }
            Some(Reach::Open(to)) => Ok(Dial { to: to.clone(), socket: None }),
            Some(Reach::No(lacks)) => Err(lacks.clone()),
            None => Err("its process is gone".to_owned()),
        }
    }

    /// Lets a try run beside the loop.
    fn let_run(
        &mut self,
        id: WorkerId,
        reach: Option<Reach>,
        client: Option<SocketAddr>,
        attempt: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let Some(course) = self.checks.courses.get_mut(&id) else { return };
        let (cancel, cancelled) = oneshot::channel::<()>();
        course.attempt = Some(UnderWay { _cancel: cancel, reach, client });
        let sender = self.checks.sender.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = attempt => {
                    // There is room for one of each try, and the loop hears them.
                    let _ = sender.send(Outcome { worker: id, result }).await;
                }
                _ = cancelled => {}
            }
        });
    }
}

/// A socket that is known by its address before it connects, and that address.
fn bound(to: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The worker listens there, so it is an address of this machine.
    socket.bind(SocketAddr::new(to.ip(), 0))?;
    let own = socket.local_addr()?;
    Ok((socket, own))
}

/// `/health` of an address, for people.
fn target(to: &Endpoint, path: &str) -> String {
    match to {
        Endpoint::Tcp(address) => format!("GET http://{address}{path}"),
        Endpoint::Unix(socket) => format!("GET {path} at {}", socket.display()),
    }
}
