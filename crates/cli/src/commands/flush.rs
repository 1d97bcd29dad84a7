//! `supervisor flush`, `reload-logs`: what is done to log files.

use supervisor_protocol::control::{self, Flushed, Reopen, Reopened};

use super::{find_daemon, selectors};
use crate::args::{Flush, ReloadLogs};
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::count;
use crate::terminal::{Terminal, print};

pub(super) async fn flush(options: Flush, terminal: Terminal) -> Result<ExitCode, Failure> {
    let order = control::Flush { selectors: selectors(options.selectors, terminal)? };
    let answer = find_daemon(terminal).await?.post("/v1/flush", &order).await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let files = decode::<Flushed>(&answer)?.files;
    Terminal::say(&format!("{} emptied", count(files.into(), "log file")));
    Ok(ExitCode::Done)
}

pub(super) async fn reload_logs(_: ReloadLogs, terminal: Terminal) -> Result<ExitCode, Failure> {
    let answer = find_daemon(terminal).await?.post("/v1/reopen", &Reopen {}).await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let Reopened {} = decode(&answer)?;
    Terminal::say("all log files are being opened anew");
    Ok(ExitCode::Done)
}
