//! Starting a daemon in the background and waiting until it answers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use supervisor_protocol::control::Ping;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Search, decode, present, search};
use crate::exit_code::{ExitCode, Failure};
use crate::home::Home;
use crate::render::text::one_line;
use crate::terminal::Terminal;
use crate::unit::{self, Manager};

/// How long a daemon may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How much of its log is shown when it fails.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

/// What a daemon inherits of the environment of the person who happens to
/// start it. It lives long and serves others: whatever else is in there may be
/// a secret. Workers get theirs from each app's settings.
const INHERITED: [&str; 12] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LOGNAME",
    "PATH",
    "RUST_BACKTRACE",
    "SHELL",
    "TMPDIR",
    "TZ",
    "USER",
];

/// The daemon of these homes; a new one in the first of them when there is none
/// that this caller may use.
///
/// # Errors
/// When it does not start; the end of its log is shown.
pub(crate) async fn ensure(homes: &[Home], terminal: Terminal) -> Result<Client, Failure> {
    let own = homes.first().ok_or_else(|| Failure::new(ExitCode::Usage, "no home is known"))?;
    match search(homes).await? {
        Search::Found(client) => return Ok(client),
        // Somebody else's daemon elsewhere does not keep us from having one.
        Search::Nothing { denied: Some(home) } if home == *own => {
            return Err(Failure::new(
                ExitCode::Refused,
                format!("cannot start a daemon in {home}: permission denied; it belongs to another user"),
            ));
        }
        Search::Nothing { .. } => {}
    }
    if let Some(manager) = unit::installed(own) {
        // Otherwise the machine would have two: this one, and at the next boot
        // the unit's.
        Terminal::say(&format!("starting {}", unit::NAME));
        manager.order(&["start", "--no-block", unit::NAME])?;
        return wait_for_unit(own, manager).await;
    }
    own.create()?;
    let log = open_log(&own.daemon_log())?;
    let begin = log.metadata().map_or(0, |log| log.len());
    terminal.explain(&format!("starting a daemon in {own}"));
    let mut keeper = spawn(own, log)?;
    let client = wait(own, &mut keeper, begin).await?;
    let answer = client.get("/v1/ping").await?;
    for notice in decode::<Ping>(&answer)?.notices {
        Terminal::say(&one_line(&notice));
    }
    Ok(client)
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// The command that runs a keeper of this home from this very program. See
/// [`Home::folders`].
///
/// # Errors
/// When the program's own path cannot be read.
pub(crate) fn keeper(home: &Home, foreground: bool, keep: bool) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot tell the path of this program")?;
    let mut command = Command::new(program);
    command.arg("keeper").args(home.folders(foreground, keep).to_args());
    Ok(command)
}

fn spawn(home: &Home, log: File) -> anyhow::Result<Child> {
    let mut command = keeper(home, false, true)?;
    command.env_clear().envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(log.try_clone().context("cannot pass the log on")?).stderr(log);
    command.spawn().context("cannot start the daemon")
}

/// Waits until the daemon of a unit answers.
async fn wait_for_unit(home: &Home, manager: Manager) -> Result<Client, Failure> {
    let answer = async {
        loop {
            if let Some(client) = answering(home).await {
                return Ok(client);
            }
            sleep(ASK_EVERY).await;
        }
    };
    timeout(START_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let seconds = START_TIMEOUT.as_secs();
        let look = manager.command(&["status", unit::NAME]);
        Err(Failure::new(
            ExitCode::Failed,
            format!("the daemon did not answer within {seconds}s; see `{look}`"),
        ))
    })
}

/// The daemon of this home, if it answers.
async fn answering(home: &Home) -> Option<Client> {
    match present(home).await {
        Some(client) if client.get("/v1/ping").await.is_ok() => Some(client),
        Some(_) | None => None,
    }
}

/// Waits until the daemon answers, or has ended.
async fn wait(home: &Home, keeper: &mut Child, log_begin: u64) -> Result<Client, Failure> {
    let answer = async {
        loop {
            // It may also be the daemon of somebody who was faster.
            if let Some(client) = answering(home).await {
                return Ok(client);
            }
            let ended = keeper.try_wait().context("cannot wait for the daemon")?;
            if let Some(status) = ended
                && !home.is_locked()?
            {
                return Err(failure(home, log_begin, &format!("the daemon ended: {status}")));
            }
            sleep(ASK_EVERY).await;
        }
    };
    timeout(START_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let seconds = START_TIMEOUT.as_secs();
        Err(failure(home, log_begin, &format!("the daemon did not answer within {seconds}s")))
    })
}

fn failure(home: &Home, log_begin: u64, what: &str) -> Failure {
    let path = home.daemon_log();
    let mut message = format!("{what}; its log is {}", path.display());
    for line in tail(&path, log_begin).unwrap_or_default() {
        message.push_str("\n    ");
        message.push_str(&line);
    }
    Failure::new(ExitCode::Failed, message)
}

/// The last lines after `begin`.
fn tail(path: &Path, begin: u64) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| one_line(line)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_this_daemon_wrote() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        std::fs::write(&path, "old\nnew\n\x1b[1mend\n").unwrap();
        assert_eq!(tail(&path, 4).unwrap(), ["new", "end"]);
        std::fs::write(&path, "x\n".repeat(9000)).unwrap();
        assert_eq!(tail(&path, 0).unwrap().len(), TAIL_LINES);
    }
}
