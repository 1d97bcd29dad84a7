//! From the parsed command line to a command.

mod channel;
mod check;
mod completions;
mod describe;
mod env;
mod events;
mod flush;
mod follow;
mod identify;
mod import;
mod init;
mod keeper;
mod kill;
mod leftovers;
mod logs;
mod man;
mod master;
mod monit;
mod not_needed;
mod orders;
mod orphans;
mod ping;
mod reset;
mod run;
mod signal;
mod start;
mod startup;
mod status;
mod upgrade;

pub(crate) use describe::Described;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind};

use crate::args::{Command, Monit};
use crate::client::{self, Client};
use crate::exit_code::{ExitCode, Failure};
use crate::home;
use crate::load;
use crate::terminal::Terminal;

/// Does what the command line says.
///
/// # Errors
/// Why it did not work, with the exit code to end with.
pub(crate) fn dispatch(command: Command, terminal: Terminal) -> Result<ExitCode, Failure> {
    if let Some(name) = command.without_json().filter(|_| terminal.json) {
        return Err(Failure::new(ExitCode::Usage, format!("--json does not go with `{name}`")));
    }
    match command {
        Command::Keeper(options) => keeper::keeper(options),
        Command::Master(options) => master::master(options),
        Command::Identify => quietly(identify::identify),
        Command::Run(options) => run::run(options, terminal),
        Command::Startup(options) => connected(startup::startup(&options, terminal)),
        Command::Unstartup(options) => quietly(|| startup::unstartup(&options)),
        Command::Save => Ok(not_needed::save()),
        Command::Resurrect => Ok(not_needed::resurrect()),
        Command::Check(options) => quietly(|| check::check(options, terminal)),
        Command::Import(options) => quietly(|| import::import(&options, terminal)),
        Command::Init(options) => quietly(|| init::init(&options)),
        Command::Man(options) => quietly(|| man::man(&options)),
        Command::Completions(options) => quietly(|| completions::completions(&options)),
        Command::Start(options) => connected(start::start(options, terminal)),
        Command::Stop(options) => connected(orders::stop(options, terminal)),
        Command::Restart(options) => connected(orders::restart(options, terminal)),
        Command::Reload(options) => connected(start::reload(options, terminal)),
        Command::Delete(options) => connected(orders::delete(options, terminal)),
        Command::Scale(options) => connected(orders::scale(options, terminal)),
        Command::Status(options) => connected(status::status(options, terminal)),
        Command::Describe(options) => connected(describe::describe(options, terminal)),
        Command::Signal(options) => connected(signal::signal(options, terminal)),
        Command::Send(options) => connected(channel::send(options, terminal)),
        Command::TailChannel(options) => connected(channel::tail(options, terminal)),
        Command::Env(options) => connected(env::env(options, terminal)),
        Command::Reset(options) => connected(reset::reset(options, terminal)),
        Command::Flush(options) => connected(flush::flush(options, terminal)),
        Command::ReloadLogs(options) => connected(flush::reload_logs(options, terminal)),
        Command::Logs(options) => connected(logs::logs(options, terminal)),
        Command::Events(options) => connected(events::events(options, terminal)),
        Command::Monit(Monit {}) => connected(monit::monit(terminal)),
        Command::Ping(options) => connected(ping::ping(&options, terminal)),
        Command::Upgrade(options) => connected(upgrade::upgrade(options, terminal)),
        Command::Kill(options) => connected(kill::kill(&options, terminal)),
    }
}

/// Runs a command that ends without a word when nobody reads its output.
fn quietly(command: impl FnOnce() -> Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    supervisor_sys::signal::reset_sigpipe().context("cannot reset SIGPIPE")?;
    command()
}

/// Runs a command that talks to the daemon. SIGPIPE stays ignored: a master that
/// dies while it is written to must not end the command. [`print`] knows when
/// nobody reads the output.
///
/// [`print`]: crate::terminal::print
fn connected(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    block_on(command)?
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(future))
}

/// Each Ctrl-C from now on, which does not end the process any more.
fn interrupts() -> anyhow::Result<Signal> {
    tokio::signal::unix::signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")
}

/// The daemon that this caller means.
async fn find_daemon(terminal: Terminal) -> Result<Client, Failure> {
    let client = client::find(&home::homes()?).await?;
    terminal.explain(&format!("asking the daemon in {}", client.home()));
    Ok(client)
}

/// The selectors for the daemon: a file stands for the apps that it names.
fn selectors(given: Vec<String>, terminal: Terminal) -> Result<Vec<String>, Failure> {
    let mut selectors = Vec::with_capacity(given.len());
    for selector in given {
        if load::is_file(&selector) {
            let apps = load::file(selector.as_ref(), None, terminal)?;
            selectors.extend(apps.into_iter().map(|app| app.name));
        } else {
            selectors.push(selector);
        }
    }
    Ok(selectors)
}

/// A path with these selectors as its query.
fn with_selectors(path: &str, selectors: &[String]) -> String {
    client::with_query(path, selectors.iter().map(|selector| ("selector", selector.as_str())))
}
