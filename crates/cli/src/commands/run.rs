//! `supervisor run`: this process becomes the daemon.

use std::fs::File;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use supervisor_keeper::{State, handover, save};
use supervisor_protocol::control::{Apply, Daemon, Ping};

use super::{block_on, leftovers, orphans};
use crate::args::{Run, Shown};
use crate::client::{decode, find};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::home::{self, Home};
use crate::load;
use crate::target::{self, Target};
use crate::terminal::Terminal;

/// How long a master may take to see that its keeper has died.
const NOTICE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(options: Run, terminal: Terminal) -> Result<ExitCode, Failure> {
    let homes = home::homes()?;
    let home = homes.first().ok_or_else(|| Failure::new(ExitCode::Usage, "no home is known"))?;
    let shown = options.output;
    let order = order(options, terminal)?;
    let shown = shown.unwrap_or(match (&order, io::stdout().is_terminal()) {
        // A service manager's journal need not have all that the files have.
        (None, _) => Shown::None,
        (Some(_), true) => Shown::Named,
        (Some(_), false) => Shown::Plain,
    });
    home.create()?;
    let state = take_over(home)?;
    if state.is_none() && !orphans::are_there(home) {
        // Nobody knows them any more.
        leftovers::end();
    }
    let mut keeper = daemon::keeper(home, true, order.is_none())?;
    if let Some(shown) = shown.to_possible_value() {
        keeper.arg("--echo").arg(shown.get_name());
    }
    let order = order.map(|order| write_order(&order)).transpose()?;
    if let Some(order) = &order {
        // The one descriptor that is to survive the exec. This process has a
        // single thread here, so nobody else can pass it on.
        fcntl_setfd(order, FdFlags::empty()).context("cannot pass the apps on")?;
        keeper.arg("--apply-fd").arg(order.as_raw_fd().to_string());
    }
    let saved = state.as_ref().map(|state| save(&state.hello, &state.table, None)).transpose();
    let saved = saved.context("cannot pass the table on")?;
    if let Some(saved) = &saved {
        let number = saved.pass_on().context("cannot pass the table on")?;
        keeper.arg("--state-fd").arg(number.to_string());
    }
    terminal.explain(&format!("becoming the daemon in {home}"));
    // A fresh program of the same pid: the memory that the file took is gone.
    Err(anyhow!(keeper.exec()).context("cannot start the keeper").into())
}

/// Takes the place of another daemon's keeper that has died, if its master
/// serves on and waits for that. `None` when there is no other daemon.
///
/// # Errors
/// [`ExitCode::Refused`] when the other daemon is whole.
fn take_over(home: &Home) -> Result<Option<State>, Failure> {
    let deadline = Instant::now() + NOTICE;
    while home.is_locked().or_exit(ExitCode::Refused)? {
        let other = block_on(other_daemon(home))?;
        let keeper = other.as_ref().and_then(|daemon| daemon.keeper_pid);
        match &other {
            Some(daemon) if keeper.is_none() => {
                Terminal::say(&format!(
                    "the keeper of the daemon in {home} has died; taking over from its master, pid {}",
                    daemon.pid
                ));
                let state = handover::take_over(&home.handover_socket());
                let state = state.with_context(|| format!("cannot take over from the master in {home}"));
                return state.or_exit(ExitCode::Failed).map(Some);
            }
            // A master that is busy has not seen yet that its keeper is gone.
            Some(_) if keeper.is_some_and(|pid| !is_there(pid)) && Instant::now() < deadline => {
                sleep(LOOK_EVERY);
            }
            Some(_) | None => return Err(busy(home, other)),
        }
    }
    Ok(None)
}

fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// What to run; `None` for what is declared.
fn order(options: Run, terminal: Terminal) -> Result<Option<Apply>, Failure> {
    let Run { target, app, env_name, command, output: _ } = options;
    if target.is_none() && command.is_empty() {
        let option = app.given().or_else(|| env_name.as_ref().map(|_| "--env"));
        if let Some(option) = option {
            return Err(usage(format!("{option} goes with a file or a program, and none is named")));
        }
        if let Ok(file) = load::default_file() {
            let file = file.display();
            Terminal::say(&format!("running what is declared; for {file} use `supervisor run {file}`"));
        }
        return Ok(None);
    }
    let target = target.map(|target| vec![target]).unwrap_or_default();
    let program = match target::read(&target, command)? {
        Target::File(path) => {
            if let Some(option) = app.given() {
                return Err(usage(format!("{option} does not go with an ecosystem file")));
            }
            let (apps, daemon) = load::whole_file(&path, env_name.as_deref(), terminal)?;
            let source = load::origin(&path)?;
            return Ok(Some(Apply { apps, source, env_name, daemon, ..Apply::default() }));
        }
        Target::Program(program) | Target::Names(_, Some(program)) => program,
        Target::Names(names, None) => {
            return Err(usage(format!("there is no file {:?} here", names.join(" "))));
        }
    };
    if env_name.is_some() {
        return Err(usage("--env does not go with a program".to_owned()));
    }
    let app = load::command(program.words, program.script, app, terminal)?;
    Ok(Some(Apply { apps: vec![app], ..Apply::default() }))
}

fn usage(message: String) -> Failure {
    Failure::new(ExitCode::Usage, message)
}

/// A file in memory with the order as JSON, at its beginning.
fn write_order(order: &Apply) -> anyhow::Result<OwnedFd> {
    let json = serde_json::to_vec(order).context("cannot write the apps as JSON")?;
    let fd = memfd_create("supervisor-apply", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    let mut file = File::from(fd);
    file.write_all(&json).and_then(|()| file.rewind()).context("cannot write to a file in memory")?;
    Ok(file.into())
}

/// The daemon that has this home, if it answers.
async fn other_daemon(home: &Home) -> Option<Daemon> {
    let client = find(std::slice::from_ref(home)).await.ok()?;
    let answer = client.get("/v1/ping").await.ok()?;
    Some(decode::<Ping>(&answer).ok()?.daemon)
}

/// Another daemon has this home.
fn busy(home: &Home, daemon: Option<Daemon>) -> Failure {
    let who = daemon.map_or_else(
        || "which does not answer".to_owned(),
        |daemon| format!("pid {}", daemon.keeper_pid.unwrap_or(daemon.pid)),
    );
    Failure::new(
        ExitCode::Refused,
        format!(
            "another daemon ({who}) runs in {home}: use `supervisor start` to give it the apps, \
             `supervisor kill` to end it, or another SUPERVISOR_HOME"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_order_is_read_from_its_beginning() {
        let mut file = File::from(write_order(&Apply { prune: true, ..Apply::default() }).unwrap());
        let mut json = String::new();
        file.read_to_string(&mut json).unwrap();
        assert_eq!(json, r#"{"apps":[],"source":null,"prune":true,"reload":false}"#);
    }
}
