//! `supervisor logs`

use supervisor_protocol::control::LogLine;

use super::{find_daemon, interrupts, selectors};
use crate::args::Logs;
use crate::client::{Lines, decode, with_query};
use crate::exit_code::{ExitCode, Failure};
use crate::render::logs::LogView;
use crate::terminal::{Terminal, print};

/// How many of the last lines are shown when nobody says.
const LINES: u32 = 15;

pub(super) async fn logs(options: Logs, terminal: Terminal) -> Result<ExitCode, Failure> {
    let selectors = selectors(options.selectors, terminal)?;
    let is_search = options.since.is_some() || options.grep.is_some();
    let count = options.lines.unwrap_or(if is_search { u32::MAX } else { LINES }).to_string();
    let since = options.since.map(|since| since.to_string());
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
    let lines = find_daemon(terminal).await?.get_lines(&with_query("/v1/logs", query)).await?;
    let view = if options.json { None } else { Some(LogView::new(terminal.color)) };
    if !options.follow {
        show(lines, view).await?;
        return Ok(ExitCode::Done);
    }
    let mut interrupts = interrupts()?;
    tokio::select! {
        result = show(lines, view) => {
            result?;
            Err(Failure::new(ExitCode::Failed, "the daemon ended the stream"))
        }
        _ = interrupts.recv() => Ok(ExitCode::Done),
    }
}

/// Shows lines to the last; as the daemon wrote them without a view.
async fn show(mut lines: Lines, mut view: Option<LogView>) -> anyhow::Result<()> {
    while let Some(mut line) = lines.next().await? {
        match &mut view {
            Some(view) => print(view.line(&decode::<LogLine>(&line)?).as_bytes())?,
            None => {
                line.push(b'\n');
                print(&line)?;
            }
        }
    }
    Ok(())
}
