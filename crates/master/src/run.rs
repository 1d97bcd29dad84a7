//! The loop.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context;
use supervisor_config::DaemonSettings;
use supervisor_core::Event;
use supervisor_protocol::control::StartUpgrade;
use supervisor_protocol::events::Happening;
use supervisor_protocol::keeper::FromKeeper;
use supervisor_protocol::release::RELEASE;
use supervisor_sys::own;
use supervisor_sys::poll::Interest;
use supervisor_sys::signal::Signal;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::control::{self, Request, Server, to_json};
use crate::inherit::{self, Inheritance};
use crate::last_words::LastWords;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::master::Master;
use crate::output::Echo;
use crate::problems::{About, Problems};
use crate::records::ENDING;
use crate::requests::answer;
use crate::store::Store;
use crate::succession::{Succession, is_managed};
use crate::workers::News;
use crate::{
    CONTROL_SOCKET, HANDOVER_SOCKET, LEDGER_FILE, Options, STATE_FILE, clock, log, next, queues, safe, words,
};

/// How often the keeper is told that the master is alive.
const BEAT: Duration = Duration::from_secs(1);
/// A second request to end means "now" only this long after the first: one
/// Ctrl-C may reach us twice.
const SECOND_SIGNAL: Duration = Duration::from_secs(1);
/// How long the end waits for the workers' last output to be written.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Requests that wait for the loop.
const REQUESTS: usize = 64;
/// Descriptors that the table has room for from the start: about 2,000 workers.
const DESCRIPTORS: u64 = 1 << 15;
/// The poller's token of the keeper; those of workers are far below.
const KEEPER: u64 = u64::MAX;
/// That of the listeners that were shut down.
const HANGUPS: u64 = queues::TOKEN - 1;
/// That of another keeper that comes.
const HEIR: u64 = HANGUPS - 1;

/// Runs the master until everything has ended as ordered.
///
/// # Errors
///
/// What it cannot begin without: the log, the keeper's table, the control
/// socket.
pub fn run(mut options: Options) -> anyhow::Result<()> {
    let words = LastWords::new(&options.keeper).context("cannot duplicate the link to the keeper")?;
    if let Some(mode) = options.safe_mode.take() {
        return safe::run(options, mode);
    }
    // Before there are threads. Without it, starting many workers is slower.
    let _ = own::widen_fd_table(DESCRIPTORS);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
    let result = runtime.block_on(serve(options));
    // Threads that read log files for clients may still be at it.
    runtime.shutdown_background();
    result.inspect_err(|error| words.say(&format!("{error:#}")))
}

async fn serve(options: Options) -> anyhow::Result<()> {
    // A name is a courtesy to people who look at `ps`.
    let _ = own::set_name("sup-master");
    own::limit_malloc_arenas();
    let problems = Problems::default();
    let log =
        log::start(&options.log_dir, options.foreground, problems.clone()).context("cannot start the log")?;
    let Inheritance { mut master, mut apps, is_first } =
        inherit::take_over(Link::new(options.keeper), options.log_dir.clone(), &options.runtime_dir)?;
    master.problems = problems;
    let ledger = Ledger::start(options.runtime_dir.join(LEDGER_FILE), master.link.mirror())?;

    let echo = options.echo.map(|form| Echo::start(&master.output, form)).transpose();
    let echo = echo.context("cannot show output")?;
    if let Some(folder) = options.state_dir {
        let (store, declared, daemon) = Store::open(folder.join(STATE_FILE), master.problems.clone());
        master.store = store;
        apps.daemon.get_or_insert(daemon);
        // Otherwise the keeper's table is what was declared last, and that of an
        // earlier daemon may be older than the file.
        if apps.known.is_empty() || apps.recovered {
            let known: BTreeSet<String> = apps.known.iter().map(|(app, _)| app.name.clone()).collect();
            apps.known.extend(declared.into_iter().filter(|(app, _)| !known.contains(&app.name)));
        }
    }

    master.poller.add(master.link.socket(), KEEPER, Interest::Read)?;
    master.poller.add(master.listeners.hangups(), HANGUPS, Interest::Read)?;
    #[expect(
        deprecated,
        reason = "the successor is unsafe; an owned descriptor stays open for as long as it is watched"
    )]
    let news =
        AsyncFd::with_interest(master.poller.as_fd().try_clone_to_owned()?, tokio::io::Interest::READABLE)?;
    let socket = options.runtime_dir.join(CONTROL_SOCKET);
    let mut succession = Succession::new(options.succession, options.runtime_dir.join(HANDOVER_SOCKET));
    let (requests, mut inbox) = mpsc::channel(REQUESTS);
    master.own.runtime_dir = options.runtime_dir;
    master.own.level = log.level;
    let own = apps.daemon.take();
    let mut server = match serve_control(&mut master, &socket, apps.control.take(), own.as_ref(), &requests) {
        Err(error) if is_first => {
            return Err(error).with_context(|| format!("no control socket at {}", socket.display()));
        }
        // The workers of an earlier master need this one more than people do.
        result => result.ok(),
    };
    let mut signals = Signals::new()?;
    let mut ending = Ending::default();

    let resumed = apps.ending;
    if let Err(error) = master.begin(apps) {
        tracing::error!("cannot run the apps: {error}");
        master.link.finish(1);
        anyhow::bail!("cannot run the apps: {error}");
    }
    next::stage("master");
    master.link.adopted();
    if let Some(now) = resumed {
        end(&mut master, &mut ending, now);
    }
    master.hear_of_past_upgrade();
    master.forget_former();
    tracing::info!("version {} serves at {}", RELEASE, socket.display());

    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut events = Vec::new();
    while !master.is_over() && !master.upgrade.leaves() {
        master.perform();
        let deadline = master.next_deadline().map(|at| at.since(clock::now()));
        let look = master.workers.next_look();
        let drain = master.drains.next_look();
        let later = master.later.next_look();
        let check = master.checks.next_look();
        let queue = master.queues.next_look();
        tokio::select! {
            ready = news.readable() => {
                master.poller.wait(&mut events, Some(Duration::ZERO))?;
                if events.is_empty() {
                    ready?.clear_ready();
                }
                for event in &events {
                    match event.token {
                        KEEPER => hear_keeper(&mut master, &mut ending, &mut succession),
                        // All is with that one now: what it starts goes on from here.
                        HEIR if succession.hand_over(&master.link) => return Ok(()),
                        HEIR => {}
                        HANGUPS => master.listeners.look_after_hangups(&master.link),
                        queues::TOKEN => master.queues.begin(&master.poller),
                        token => master.hear(News::from_token(token), event.hangup),
                    }
                }
            }
            Some(request) = inbox.recv() => answer(&mut master, request, &mut ending),
            number = signals.next() => obey(&mut master, number, &mut ending),
            Some(exceeded) = master.sampler.exceeded() => master.handle(exceeded),
            Some(outcome) = master.checks.outcome() => master.hear_check(outcome),
            Some(answer) = master.upgrade.answered() => master.hear_answer(answer),
            Some(worker) = master.channel.said_ready() => master.hear_ready(worker),
            Some(news) = master.automatic.watcher.next() => master.hear_of_files(news),
            _ = beat.tick() => {
                if master.started.elapsed() > BEAT {
                    next::stage("serving");
                }
                master.beat(ending.is_begun());
                master.workers.cgroups.sweep();
                master.look_at_clock();
                master.look_after_parked();
                master.listeners.restore_paths();
                master.look_after_hangs();
                master.look_after_closed();
                master.look_at_groups();
                succession.look(&master.link);
                master.look_after_settling();
                master.look_after_refused();
                log::look_after_file(&master.problems);
                if server.is_none() {
                    server = serve_control(&mut master, &socket, None, own.as_ref(), &requests).ok();
                }
            }
            () = sleep(deadline.unwrap_or_default()), if deadline.is_some() => master.handle(Event::TimePassed),
            () = sleep_until(look.unwrap_or_else(Instant::now).into()), if look.is_some() => {
                master.look_after_lingering();
            }
            () = sleep_until(drain.unwrap_or_else(Instant::now).into()), if drain.is_some() => {
                master.look_after_drains();
            }
            () = sleep_until(later.unwrap_or_else(Instant::now).into()), if later.is_some() => {
                master.hear_later_calls();
            }
            () = sleep_until(check.unwrap_or_else(Instant::now).into()), if check.is_some() => {
                master.look_after_checks();
            }
            () = sleep_until(queue.unwrap_or_else(Instant::now).into()), if queue.is_some() => {
                master.look_at_queues();
            }
            () = tokio::task::yield_now(), if master.is_busy() => {}
        }
    }

    if master.upgrade.leaves() {
        make_room(master, echo).await;
        return Ok(());
    }
    tracing::info!("everything has ended");
    master.operations.finish_all();
    master.store.finish().await;
    // A disk that hangs does not keep the daemon from ending.
    let _ = tokio::time::timeout(LAST_OUTPUT, master.output.finish()).await;
    if let Some(server) = server {
        server.finish().await;
    }
    // Whoever shows output ends when nobody can add to it.
    master.output.end();
    if let Some(echo) = echo {
        echo.finish(LAST_OUTPUT);
    }
    let _ = std::fs::remove_file(&socket);
    master.workers.cgroups.finish();
    ledger.finish();
    master.link.finish(0);
    Ok(())
}

/// Leaves everything as it is to the next master, which finds it with the
/// keeper. What is in this process alone is written first.
async fn make_room(mut master: Master, echo: Option<Echo>) {
    tracing::info!("making room for another master");
    master.channel.leave().await;
    // What workers have said until then nobody else will hear.
    while let Some(worker) = master.channel.said_ready().await {
        master.hear_ready(worker);
    }
    master.store.finish().await;
    let _ = tokio::time::timeout(LAST_OUTPUT, master.output.leave()).await;
    master.output.end();
    if let Some(echo) = echo {
        echo.finish(LAST_OUTPUT);
    }
}

/// Begins to serve the control API, with the daemon's settings that say to whom.
fn serve_control(
    master: &mut Master,
    socket: &Path,
    held: Option<control::Held>,
    own: Option<&DaemonSettings>,
    requests: &mpsc::Sender<Request>,
) -> io::Result<Server> {
    match control::bind(socket, held, &master.link) {
        Ok(listener) => {
            if master.problems.solve(About::Control) {
                tracing::info!("there is a control socket again");
            }
            if let Some(settings) = own {
                master.restore_own(settings.clone());
            }
            Ok(Server::start(listener, requests.clone(), Arc::clone(&master.own.open)))
        }
        Err(error) => {
            let words = format!("no control socket at {}: {}", socket.display(), words::lack(&error));
            if master.problems.note(About::Control, words.clone()) {
                tracing::error!("{words}; trying again each second");
            }
            Err(error)
        }
    }
}

/// How far a request to end everything has come.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    since: Option<Instant>,
}

impl Ending {
    /// Whether anybody has asked.
    pub(crate) const fn is_begun(&self) -> bool {
        self.since.is_some()
    }

    /// Notes a request to end. Returns what it means: `Some(true)` to kill,
    /// `Some(false)` to ask, `None` for the echo of an earlier one.
    pub(crate) fn request(&mut self, now: bool) -> Option<bool> {
        match self.since {
            None => {
                self.since = Some(Instant::now());
                Some(now)
            }
            Some(since) if now || since.elapsed() >= SECOND_SIGNAL => Some(true),
            Some(_) => None,
        }
    }
}

/// The signals that mean something to the master itself, when a person sends
/// them here instead of to the keeper.
#[derive(Debug)]
struct Signals {
    sources: Vec<(i32, tokio::signal::unix::Signal)>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let meant = [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2];
        let sources = meant
            .into_iter()
            .map(|meant| Ok((meant.as_raw(), signal(SignalKind::from_raw(meant.as_raw()))?)))
            .collect::<std::io::Result<_>>()?;
        Ok(Self { sources })
    }

    /// The next signal's number.
    async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, source) in &mut self.sources {
                if let Poll::Ready(Some(())) = source.poll_recv(context) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Does what a signal asks for.
fn obey(master: &mut Master, number: i32, ending: &mut Ending) {
    match Signal::from_raw(number) {
        Some(Signal::TERM | Signal::INT) => end(master, ending, false),
        Some(Signal::HUP) => master.reload_all(),
        Some(Signal::USR1) => master.reopen_logs(),
        Some(Signal::USR2) if ending.is_begun() => tracing::warn!("no upgrade: everything is ending"),
        Some(Signal::USR2) => {
            if let Err(refusal) = master.begin_upgrade(StartUpgrade::default()) {
                tracing::error!("no upgrade: {refusal}");
            }
        }
        signal => {
            let name = signal.map_or_else(|| number.to_string(), |signal| signal.to_string());
            tracing::warn!("{name} has no meaning yet, nothing is done");
        }
    }
}

/// Ends everything; the second request does so at once.
pub(crate) fn end(master: &mut Master, ending: &mut Ending, now: bool) {
    if let Some(now) = ending.request(now) {
        let detail = if now { "killing all workers" } else { "ending all workers" };
        tracing::info!("{detail}");
        master.events.tell(|| Happening::Daemon { detail: detail.to_owned() });
        master.link.put(ENDING, &to_json(&now), &[]);
        master.handle(Event::ShutdownOrdered { now });
        master.beat(true);
    }
}

/// Takes one message of the keeper.
fn hear_keeper(master: &mut Master, ending: &mut Ending, succession: &mut Succession) {
    match master.link.receive() {
        Ok((FromKeeper::Signal { number }, _)) => obey(master, number, ending),
        // An adopted worker, or a descendant of one that had lost its parent.
        Ok((FromKeeper::Orphan(orphan), _)) => {
            if let Some(event) = master.workers.take_orphan(&orphan, &master.poller, &master.link) {
                master.handle(event);
            }
        }
        Ok((FromKeeper::Upgrade(upgrade), _)) => master.hear_of_upgrade(upgrade),
        Ok((FromKeeper::Refused { key }, _)) => master.hear_refused(&key),
        Ok((FromKeeper::Lost { key, bytes }, _)) => master.hear_lost(&key, bytes),
        Ok((message @ (FromKeeper::Hello(_) | FromKeeper::Entry { .. } | FromKeeper::TableEnd), _)) => {
            tracing::warn!("the keeper sent {message:?} out of turn");
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            tracing::warn!("the keeper is not understood: {error}");
        }
        Err(error) => {
            tracing::debug!("the keeper has gone: {error}");
            let _ = master.poller.remove(master.link.socket());
            master.link.lose();
            let news = master.hear_of_lost_keeper(!is_managed(&master.link));
            succession.begin(&master.link, news, &master.poller, HEIR);
        }
    }
}
