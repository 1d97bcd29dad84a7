//! `supervisor ping`

use supervisor_protocol::control;

use super::find_daemon;
use crate::args::Ping;
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::one_line;
use crate::render::units;
use crate::terminal::{Terminal, print};

pub(super) async fn ping(_: &Ping, terminal: Terminal) -> Result<ExitCode, Failure> {
    let client = find_daemon(terminal).await?;
    let answer = client.get("/v1/ping").await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let daemon = decode::<control::Ping>(&answer)?.daemon;
    let keeper = daemon.keeper_pid.map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
    let text = format!(
        "supervisor {} answers in {}: master {}, keeper {keeper}, up for {}\n",
        one_line(&daemon.version),
        client.home(),
        daemon.pid,
        units::duration(daemon.uptime_s)
    );
    print(text.as_bytes())?;
    Ok(ExitCode::Done)
}
