//! `supervisor logs`

use std::time::Duration;

use supervisor_protocol::control::{LogLine, Ping};
use tokio::time::sleep;

use super::{find_daemon, interrupts, selectors};
use crate::args::Logs;
use crate::client::{BrokenOff, Client, Lines, decode, with_query};
use crate::exit_code::{ExitCode, Failure};
use crate::render::logs::LogView;
use crate::terminal::{Terminal, print};

/// How many of the last lines are shown when nobody says.
const LINES: u32 = 15;

/// How often is asked whether there is another master.
const PAUSE: Duration = Duration::from_millis(200);
/// After so many times the same one is followed again.
const LOOKS: u32 = 10;

pub(super) async fn logs(options: Logs, terminal: Terminal) -> Result<ExitCode, Failure> {
    let selectors = selectors(options.selectors, terminal)?;
    let is_search = options.since.is_some() || options.grep.is_some();
    let first = options.lines.unwrap_or(if is_search { u32::MAX } else { LINES });
    let since = options.since.map(|since| since.to_string());
    let path = |lines: u32| {
        let count = lines.to_string();
        let mut query: Vec<(&str, &str)> =
            selectors.iter().map(|selector| ("selector", selector.as_str())).collect();
        query.push(("lines", &count));
        query.extend(since.iter().map(|since| ("since", since.as_str())));
        query.extend(options.grep.iter().map(|grep| ("grep", grep.as_str())));
        if options.follow {
            query.push(("follow", "true"));
        }
        if options.err || options.out {
            query.push(("stream", if options.err { "error" } else { "out" }));
        }
        with_query("/v1/logs", query)
    };
    let client = find_daemon(terminal).await?;
    let master = if options.follow { Some(master_of(&client).await?) } else { None };
    let lines = client.get_lines(&path(first)).await?;
    let mut view = if options.json { None } else { Some(LogView::new(terminal.color)) };
    let Some(master) = master else {
        show(lines, &mut view).await?;
        return Ok(ExitCode::Done);
    };
    let again = path(0);
    let mut interrupts = interrupts()?;
    tokio::select! {
        result = follow(&client, master, lines, &again, &mut view) => result,
        _ = interrupts.recv() => Ok(ExitCode::Done),
    }
}

/// Shows lines until the daemon is gone for good. A new master begins a new
/// stream.
async fn follow(
    client: &Client,
    mut master: u32,
    mut lines: Lines,
    path: &str,
    view: &mut Option<LogView>,
) -> Result<ExitCode, Failure> {
    loop {
        // A master that dies breaks the stream off, one that ends closes it.
        if let Err(error) = show(lines, view).await
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

/// Shows lines to the last; as the daemon wrote them without a view.
async fn show(mut lines: Lines, view: &mut Option<LogView>) -> anyhow::Result<()> {
    while let Some(mut line) = lines.next().await? {
        match view {
            Some(view) => print(view.line(&decode::<LogLine>(&line)?).as_bytes())?,
            None => {
                line.push(b'\n');
                print(&line)?;
            }
        }
    }
    Ok(())
}
