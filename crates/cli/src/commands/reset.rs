//! `supervisor reset`

use supervisor_protocol::control::{self, ResetDone};

use super::{find_daemon, selectors};
use crate::args::Reset;
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::count;
use crate::terminal::{Terminal, print};

pub(super) async fn reset(options: Reset, terminal: Terminal) -> Result<ExitCode, Failure> {
    let order = control::Reset { selectors: selectors(options.selectors, terminal)? };
    let answer = find_daemon(terminal).await?.post("/v1/reset", &order).await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let slots = decode::<ResetDone>(&answer)?.slots;
    Terminal::say(&format!("restarts of {} are counted from 0 again", count(slots.into(), "slot")));
    Ok(ExitCode::Done)
}
