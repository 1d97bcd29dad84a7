//! `supervisor kill`

use std::time::Duration;

use supervisor_protocol::control;
use tokio::time::{Instant, sleep};

use super::{find_daemon, orphans};
use crate::args::Kill;
use crate::client::Client;
use crate::exit_code::{ExitCode, Failure};
use crate::home;
use crate::order::{self, Scope};
use crate::terminal::Terminal;

/// How long the daemon may take to end once its workers are gone.
const END_TIMEOUT: Duration = Duration::from_secs(15);

const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) async fn kill(options: &Kill, terminal: Terminal) -> Result<ExitCode, Failure> {
    let failure = match find_daemon(terminal).await {
        Err(failure) if failure.code == ExitCode::NoDaemon => failure,
        found => return end(&found?, options.now, terminal).await,
    };
    // Keeper and master may have died and left their workers.
    let ended = home::homes()?.iter().filter(|home| orphans::end(home, options.now)).count();
    if ended == 0 { Err(failure) } else { Ok(ExitCode::Done) }
}

/// Ends a daemon, and waits until its home is free.
pub(super) async fn end(client: &Client, now: bool, terminal: Terminal) -> Result<ExitCode, Failure> {
    let answer = client.order("/v1/kill", &control::Kill { now }).await?;
    // The daemon may be gone before it has said the last word, which is what
    // was asked for.
    let told = order::follow(answer, Scope::Part, terminal).await;
    if let Ok(code) = told
        && code != ExitCode::Done
    {
        return Ok(code);
    }
    let deadline = Instant::now() + END_TIMEOUT;
    while client.home().is_locked()? {
        if Instant::now() >= deadline {
            let message = format!("the daemon in {} has not ended", client.home());
            return Err(told.err().unwrap_or_else(|| Failure::new(ExitCode::Failed, message)));
        }
        sleep(LOOK_EVERY).await;
    }
    Terminal::say("the daemon has ended");
    Ok(ExitCode::Done)
}
