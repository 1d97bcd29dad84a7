//! A stream that outlives the daemon's master: followed until Ctrl-C or until
//! the daemon is gone for good.

use std::time::Duration;

use supervisor_protocol::control::Ping;
use tokio::time::sleep;

use super::interrupts;
use crate::client::{BrokenOff, Client, Lines, decode};
use crate::exit_code::{ExitCode, Failure};
use crate::terminal::{Terminal, print};

/// How often is asked whether there is another master.
const PAUSE: Duration = Duration::from_millis(200);
/// After so many times the same one is followed again.
const LOOKS: u32 = 10;

/// Follows the stream at `path`, and with each new master the one at `again`.
/// `draw` turns a line into what is printed.
///
/// # Errors
/// When the daemon refuses the stream or is gone.
pub(super) async fn follow(
    client: &Client,
    path: &str,
    again: &str,
    mut draw: impl FnMut(Vec<u8>) -> anyhow::Result<Vec<u8>>,
) -> Result<ExitCode, Failure> {
    let master = master_of(client).await?;
    let lines = client.get_lines(path).await?;
    let mut interrupts = interrupts()?;
    tokio::select! {
        result = over_masters(client, master, lines, again, &mut draw) => result,
        _ = interrupts.recv() => Ok(ExitCode::Done),
    }
}

/// Shows lines until the daemon is gone for good. A new master begins a new
/// stream.
async fn over_masters(
    client: &Client,
    mut master: u32,
    mut lines: Lines,
    path: &str,
    draw: &mut impl FnMut(Vec<u8>) -> anyhow::Result<Vec<u8>>,
) -> Result<ExitCode, Failure> {
    loop {
        // A master that dies breaks the stream off, one that ends closes it.
        if let Err(error) = show(lines, draw).await
            && !error.is::<BrokenOff>()
        {
            return Err(error.into());
        }
        let ended = |failure: Failure| Failure {
            code: ExitCode::Failed,
            cause: failure.cause.context("the stream has ended"),
        };
        master = next_master(client, master).await.map_err(ended)?;
        lines = client.get_lines(path).await.map_err(ended)?;
        Terminal::say("the daemon's master was replaced; following again");
    }
}

/// Waits for another master than this one, which may still answer while it ends.
async fn next_master(client: &Client, before: u32) -> Result<u32, Failure> {
    for _ in 0..LOOKS {
        sleep(PAUSE).await;
        let master = master_of(client).await?;
        if master != before {
            return Ok(master);
        }
    }
    Ok(before)
}

async fn master_of(client: &Client) -> Result<u32, Failure> {
    Ok(decode::<Ping>(&client.get("/v1/ping").await?)?.daemon.pid)
}

/// Prints lines to the last.
pub(super) async fn show(
    mut lines: Lines,
    draw: &mut impl FnMut(Vec<u8>) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await? {
        print(&draw(line)?)?;
    }
    Ok(())
}
