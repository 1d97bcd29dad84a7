//! `supervisor upgrade`

use std::path;
use std::time::Duration;

use anyhow::Context;
use supervisor_protocol::control::{StartUpgrade, Upgrade, UpgradeStage, Upgrades};
use tokio::time::{Instant, sleep};

use super::find_daemon;
use crate::args;
use crate::client::{Client, as_it_is, decode};
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::one_line;
use crate::terminal::{Terminal, print};

/// How often the daemon is asked how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long it may go without an answer: a new master that hangs takes a while to
/// be found out.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn upgrade(options: args::Upgrade, terminal: Terminal) -> Result<ExitCode, Failure> {
    let client = find_daemon(terminal).await?;
    let binary = options.binary.map(path::absolute).transpose().context("cannot tell where the binary is")?;
    let begun = client.post("/v1/upgrade", &StartUpgrade { binary }).await?;
    let mut seen = None;
    let mut now = note(&begun, &mut seen, terminal)?;
    let Some(id) = now.upgrade.as_ref().map(|upgrade| upgrade.id) else {
        return Err(Failure::new(ExitCode::Failed, "the daemon has not begun it"));
    };
    loop {
        match now.upgrade.as_ref().filter(|upgrade| upgrade.id == id) {
            None if is_settled(seen.as_ref(), &now) => {
                Terminal::say(&format!(
                    "version {} runs, under another keeper",
                    one_line(&now.daemon.version)
                ));
                return Ok(ExitCode::Done);
            }
            None => return Err(lost(seen.as_ref())),
            Some(upgrade) if upgrade.stage == UpgradeStage::Done => {
                if !terminal.json {
                    let keeper =
                        now.daemon.keeper_pid.map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
                    let version = one_line(&now.daemon.version);
                    Terminal::say(&format!(
                        "version {version} runs: master {}, keeper {keeper}",
                        now.daemon.pid
                    ));
                }
                return Ok(ExitCode::Done);
            }
            Some(upgrade) if upgrade.stage == UpgradeStage::RolledBack => {
                if !terminal.json {
                    let cause = upgrade.cause.as_deref().unwrap_or("the daemon does not say why");
                    for line in cause.lines() {
                        Terminal::say(&one_line(line));
                    }
                    Terminal::say(&format!("rolled back: version {} goes on", one_line(&upgrade.from)));
                }
                return Ok(ExitCode::RolledBack);
            }
            Some(_) => {}
        }
        sleep(LOOK_EVERY).await;
        now = note(&ask(&client).await?, &mut seen, terminal)?;
    }
}

/// Asks how far it has come. While a master makes room for the next one nobody
/// answers.
async fn ask(client: &Client) -> Result<Vec<u8>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.get("/v1/upgrade").await {
            Ok(answer) => return Ok(answer.into()),
            Err(failure) if Instant::now() >= deadline || !client.home().is_locked()? => return Err(failure),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Shows what is new in an answer.
fn note(answer: &[u8], seen: &mut Option<Upgrade>, terminal: Terminal) -> Result<Upgrades, Failure> {
    let now: Upgrades = decode(answer)?;
    if now.upgrade.is_some() && now.upgrade != *seen {
        if terminal.json {
            print(&as_it_is(answer.trim_ascii_end().to_vec()))?;
        } else if let Some(upgrade) = now.upgrade.as_ref().filter(|upgrade| !upgrade.stage.is_over()) {
            Terminal::say(&describe(upgrade));
        }
        seen.clone_from(&now.upgrade);
    }
    Ok(now)
}

fn describe(upgrade: &Upgrade) -> String {
    let binary = one_line(&upgrade.binary.display().to_string());
    match (upgrade.stage, &upgrade.to) {
        (UpgradeStage::Checking, _) => format!("{binary}: asked what it is"),
        (UpgradeStage::Rehearsing, Some(to)) => {
            format!(
                "version {} in place of {}: a rehearsal with what the daemon knows",
                one_line(to),
                one_line(&upgrade.from)
            )
        }
        (stage, _) => stage.as_str().to_owned(),
    }
}

/// Whether the new version runs, though the keeper has died as it was to become
/// it, and a master is keeper in its place.
fn is_settled(last: Option<&Upgrade>, now: &Upgrades) -> bool {
    last.is_some_and(|last| {
        last.stage == UpgradeStage::Settling && last.to.as_ref() == Some(&now.daemon.version)
    })
}

/// The daemon does not know of it any more.
fn lost(last: Option<&Upgrade>) -> Failure {
    let stage = last.map_or("it began", |last| last.stage.as_str());
    let message = format!(
        "the daemon was replaced and does not know of the upgrade any more (last: {stage}); \
         see `supervisor ping` for the version that runs"
    );
    Failure::new(ExitCode::Failed, message)
}
