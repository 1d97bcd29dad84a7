//! `supervisor logs`

use supervisor_protocol::control::LogLine;

use super::follow::{follow, show};
use super::{find_daemon, selectors};
use crate::args::Logs;
use crate::client::{as_it_is, decode, with_query};
use crate::exit_code::{ExitCode, Failure};
use crate::render::logs::LogView;
use crate::terminal::Terminal;

/// How many of the last lines are shown when nobody says.
const LINES: u32 = 15;

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
    let mut view = LogView::new(terminal.color);
    let mut draw = |line: Vec<u8>| {
        if terminal.json {
            return Ok(as_it_is(line));
        }
        Ok(view.line(&decode::<LogLine>(&line)?).into_bytes())
    };
    let client = find_daemon(terminal).await?;
    if options.follow {
        return follow(&client, &path(first), &path(0), draw).await;
    }
    show(client.get_lines(&path(first)).await?, &mut draw).await?;
    Ok(ExitCode::Done)
}
