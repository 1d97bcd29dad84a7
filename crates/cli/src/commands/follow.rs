//! A stream that outlives the daemon's master: followed until Ctrl-C or until
//! the daemon is gone for good.

use std::time::Duration;

use tokio::time::sleep;

use super::interrupts;
use crate::client::{BrokenOff, Client, Lines};
use crate::exit_code::{ExitCode, Failure};
use crate::terminal::print;

/// The pause before a stream that has ended is asked for again: a master that
/// ends may still answer.
const PAUSE: Duration = Duration::from_millis(20);

/// What is followed, and how far it has been shown.
pub(super) trait Stream {
    /// Where the rest of it is.
    fn path(&mut self) -> String;

    /// Notes a line of it. Returns what is printed.
    ///
    /// # Errors
    /// When the line is not what this version knows.
    fn take(&mut self, line: Vec<u8>) -> anyhow::Result<Vec<u8>>;
}

/// Follows a stream, from master to master.
///
/// # Errors
/// When the daemon refuses the stream or is gone.
pub(super) async fn follow(client: &Client, mut stream: impl Stream) -> Result<ExitCode, Failure> {
    let lines = client.get_lines(&stream.path()).await?;
    let mut interrupts = interrupts()?;
    tokio::select! {
        result = over_masters(client, lines, &mut stream) => result,
        _ = interrupts.recv() => Ok(ExitCode::Done),
    }
}

/// Shows lines until the daemon is gone for good. Each master has a stream of
/// its own.
async fn over_masters(
    client: &Client,
    mut lines: Lines,
    stream: &mut impl Stream,
) -> Result<ExitCode, Failure> {
    loop {
        // A master that dies breaks the stream off, one that ends closes it.
        if let Err(error) = show(lines, stream).await
            && !error.is::<BrokenOff>()
        {
            return Err(error.into());
        }
        sleep(PAUSE).await;
        lines = client.get_lines(&stream.path()).await.map_err(|failure| Failure {
            code: ExitCode::Failed,
            cause: failure.cause.context("the stream has ended"),
        })?;
    }
}

/// Prints lines to the last.
pub(super) async fn show(mut lines: Lines, stream: &mut impl Stream) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await? {
        print(&stream.take(line)?)?;
    }
    Ok(())
}
