//! `supervisor run`: this process becomes the daemon.

use std::fs::File;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use supervisor_protocol::control::{Apply, Daemon, Ping};

use super::{block_on, kill, leftovers};
use crate::args::{Run, Shown};
use crate::client::{Client, decode, find};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::home::{self, Home};
use crate::load;
use crate::target::{self, Target};
use crate::terminal::Terminal;

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
    if home.is_locked().or_exit(ExitCode::Refused)? {
        let other = block_on(other_daemon(home))?;
        match other {
            // It serves the apps that this one is to run, and is only waiting
            // for somebody to take over.
            Some((client, daemon)) if order.is_none() && daemon.keeper_pid.is_none() => {
                Terminal::say(&format!(
                    "the keeper of the daemon in {home} has died; ending its master, pid {}",
                    daemon.pid
                ));
                let ended = block_on(kill::end(&client, false, terminal))??;
                if ended != ExitCode::Done {
                    return Ok(ended);
                }
            }
            other => return Err(busy(home, other.map(|(_, daemon)| daemon))),
        }
    }
    // No daemon is left that could have use for them.
    leftovers::end();
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
    terminal.explain(&format!("becoming the daemon in {home}"));
    // A fresh program of the same pid: the memory that the file took is gone.
    Err(anyhow!(keeper.exec()).context("cannot start the keeper").into())
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
async fn other_daemon(home: &Home) -> Option<(Client, Daemon)> {
    let client = find(std::slice::from_ref(home)).await.ok()?;
    let answer = client.get("/v1/ping").await.ok()?;
    let daemon = decode::<Ping>(&answer).ok()?.daemon;
    Some((client, daemon))
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
