//! Safe mode: who stands in while every master dies before it serves.
//!
//! Nothing is adopted and nothing decided here, so what killed the others does
//! not matter: workers go on, with their sockets steered as they were, and the
//! keeper throws their output away. This process says how things are, and ends
//! what a person wants ended. All else is refused. When the keeper dies it takes
//! its place, as any master.
//!
//! It leaves after a while, for an ordinary master to try again; at once when an
//! app was stopped: all but the app's settings is forgotten then, and that may
//! have been the cause.

mod ends;
mod status;
mod table;

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use supervisor_protocol::control::{Daemon, ErrorCode, ErrorDetail, Kill, Ping, Progress, Select};
use supervisor_protocol::keeper::FromKeeper;
use supervisor_protocol::release::RELEASE;
use supervisor_sys::own;
use supervisor_sys::poll::{Interest, Poller};
use supervisor_sys::signal::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, sleep_until};

use crate::control::{self, Ask, Reply, Request, Server, to_json};
use crate::registry::refuse;
use crate::succession::Succession;
use crate::{CONTROL_SOCKET, HANDOVER_SOCKET, Options, SafeMode, log};
use ends::Ends;
use table::Table;

/// How often the keeper is told that this process lives.
const BEAT: Duration = Duration::from_secs(1);
/// How often workers that are to end are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Requests that wait for the loop.
const REQUESTS: usize = 64;
/// Lines that wait for whoever has given an order.
const LINES: usize = 256;
/// The poller's token of the keeper.
const KEEPER: u64 = 0;
/// That of another keeper that comes.
const HEIR: u64 = 1;

/// Runs until it is time to leave, or everything has ended as ordered.
///
/// # Errors
///
/// What it cannot begin without: the log, the keeper's table.
pub(crate) fn run(options: Options, mode: SafeMode) -> anyhow::Result<()> {
    // A name is a courtesy to people who look at `ps`.
    let _ = own::set_name("sup-safe");
    log::start_without_file().context("no log")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
    let table = Table::read(options.keeper)?;
    let Options { succession, runtime_dir, state_dir, .. } = options;
    let safe = Safe {
        table,
        ends: Ends::default(),
        mode,
        started: Instant::now(),
        poller: Poller::new().context("no epoll")?,
        succession: Succession::new(succession, runtime_dir.join(HANDOVER_SOCKET)),
        is_alone: false,
    };
    let result = runtime.block_on(safe.serve(&runtime_dir, state_dir.as_deref()));
    runtime.shutdown_background();
    result
}

/// All that there is in safe mode.
struct Safe {
    table: Table,
    ends: Ends,
    mode: SafeMode,
    started: Instant,
    /// Waits for the keeper, and for another one.
    poller: Poller,
    succession: Succession,
    /// The keeper is gone, and nobody has taken its place.
    is_alone: bool,
}

impl Safe {
    async fn serve(mut self, runtime_dir: &Path, state_dir: Option<&Path>) -> anyhow::Result<()> {
        let socket = runtime_dir.join(CONTROL_SOCKET);
        let (requests, mut inbox) = mpsc::channel(REQUESTS);
        let held = self.table.control.take();
        let server = match control::bind(&socket, held, &self.table.link) {
            Ok(listener) => Some(Server::start(listener, requests.clone(), Arc::new(AtomicBool::new(false)))),
            Err(error) => {
                tracing::error!("no control socket at {}: {error}; signals work", socket.display());
                None
            }
        };
        #[expect(
            deprecated,
            reason = "the successor is unsafe; an owned descriptor stays open for as long as it is watched"
        )]
        let news =
            AsyncFd::with_interest(self.poller.as_fd().try_clone_to_owned()?, tokio::io::Interest::READABLE)?;
        self.poller.add(self.table.link.socket(), KEEPER, Interest::Read)?;
        let mut events = Vec::new();
        self.table.link.adopted();
        self.table.link.notify(format!("STATUS=safe mode: {}", self.mode.reason.replace('\n', " ")));
        if let Some(now) = self.table.ending {
            self.end_everything(now, None);
        }
        let leave_at = self.started + self.mode.leave_after;
        let mut beat = interval(BEAT);
        loop {
            let idle = self.ends.is_idle();
            tokio::select! {
                ready = news.readable() => {
                    self.poller.wait(&mut events, Some(Duration::ZERO))?;
                    if events.is_empty() {
                        ready?.clear_ready();
                    }
                    for event in &events {
                        match event.token {
                            KEEPER => self.hear_keeper(),
                            _ if self.succession.hand_over(&self.table.link) => return Ok(()),
                            _ => {}
                        }
                    }
                }
                Some(request) = inbox.recv() => self.answer(request, state_dir),
                _ = beat.tick() => {
                    self.table.link.beat();
                    self.succession.look(&self.table.link);
                }
                () = sleep(LOOK), if !idle => {}
                // Nobody would start the next one.
                () = sleep_until(leave_at.into()), if idle && !self.is_alone => break,
            }
            if let Some(everything) = self.ends.look(&mut self.table) {
                if let Some(server) = &server {
                    server.finish().await;
                }
                if self.is_alone && !everything {
                    continue;
                }
                if everything {
                    let _ = std::fs::remove_file(&socket);
                    self.table.link.finish(0);
                }
                return Ok(());
            }
        }
        if let Some(server) = &server {
            server.finish().await;
        }
        Ok(())
    }

    /// Takes one message of the keeper. Does not return if it is gone and this
    /// process takes its place.
    fn hear_keeper(&mut self) {
        match self.table.link.receive() {
            Ok((FromKeeper::Orphan(orphan), _)) => self.table.note_orphan(&orphan),
            Ok((FromKeeper::Signal { number }, _)) => match Signal::from_raw(number) {
                Some(Signal::TERM | Signal::INT) => self.end_everything(self.ends.is_everything(), None),
                _ => tracing::warn!("signal {number} means nothing in safe mode"),
            },
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!("the keeper is not understood: {error}");
            }
            Err(_) => {
                let _ = self.poller.remove(self.table.link.socket());
                self.table.link.lose();
                self.is_alone = true;
                self.succession.begin(&self.table.link, None, &self.poller, HEIR);
            }
        }
    }

    fn answer(&mut self, request: Request, state_dir: Option<&std::path::Path>) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is to ask is refused")]
        let reply = match request.ask {
            Ask::Ping => Ok(Reply::Json(to_json(&Ping { daemon: self.daemon(), notices: Vec::new() }))),
            Ask::Status { selectors } => {
                self.table.status(&selectors, &self.ends, self.daemon()).map(|all| Reply::Json(to_json(&all)))
            }
            Ask::Stop(select) => self.stop(&select, state_dir).map(Reply::Steps),
            Ask::Kill(Kill { now }) => {
                let (lines, steps) = mpsc::channel(LINES);
                self.end_everything(now, Some(lines));
                Ok(Reply::Steps(steps))
            }
            _ => Err(refuse(ErrorCode::Busy, self.refusal())),
        };
        // A client that has gone needs no answer.
        let _ = request.reply.send(reply);
    }

    fn stop(
        &mut self,
        select: &Select,
        state_dir: Option<&std::path::Path>,
    ) -> Result<mpsc::Receiver<Progress>, ErrorDetail> {
        if !self.ends.is_idle() {
            return Err(refuse(ErrorCode::Busy, "workers are being ended already; wait for that".to_owned()));
        }
        let (lines, steps) = mpsc::channel(LINES);
        let selected = self.table.select_whole(&select.selectors)?;
        let pending = self.table.declare_stopped(&selected, state_dir);
        self.ends.stop(&mut self.table, selected, select.now, lines, pending);
        Ok(steps)
    }

    fn end_everything(&mut self, now: bool, lines: Option<mpsc::Sender<Progress>>) {
        tracing::info!("safe mode: ending all workers");
        self.ends.end_everything(&mut self.table, now, lines);
    }

    /// Why an order is refused, and what can be done.
    fn refusal(&self) -> String {
        let left = self.mode.leave_after.saturating_sub(self.started.elapsed()).as_secs();
        format!(
            "the daemon is in safe mode, in which only status, stop and kill work: {}; \
             it tries to leave it in {left}s, and at once after a stop",
            self.mode.reason
        )
    }

    fn daemon(&self) -> Daemon {
        Daemon {
            version: RELEASE.to_owned(),
            pid: std::process::id(),
            keeper_pid: self.table.link.keeper_pid(),
            uptime_s: self.started.elapsed().as_secs(),
            safe_mode: Some(self.mode.reason.clone()),
            problems: Vec::new(),
        }
    }
}
