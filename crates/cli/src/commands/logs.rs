//! `supervisor logs`

use supervisor_protocol::control::LogLine;

use super::follow::{Stream, follow, show};
use super::{find_daemon, selectors};
use crate::args;
use crate::client::{BrokenOff, as_it_is, decode, with_query};
use crate::exit_code::{ExitCode, Failure};
use crate::log_cursor::{LogCursor, Note};
use crate::render::logs::LogView;
use crate::terminal::Terminal;

/// How many of the last lines are shown when nobody says.
const LINES: u32 = 15;

pub(super) async fn logs(options: args::Logs, terminal: Terminal) -> Result<ExitCode, Failure> {
    let selectors = selectors(options.selectors, terminal)?;
    let is_search = options.since.is_some() || options.grep.is_some();
    let lines = options.lines.unwrap_or(if is_search { u32::MAX } else { LINES }).to_string();
    let mut wanted: Vec<(&'static str, String)> =
        selectors.into_iter().map(|selector| ("selector", selector)).collect();
    wanted.extend(options.since.map(|since| ("since", since.to_string())));
    wanted.extend(options.grep.map(|grep| ("grep", grep)));
    if options.err || options.out {
        wanted.push(("stream", if options.err { "error" } else { "out" }.to_owned()));
    }
    let client = find_daemon(terminal).await?;
    let mut logs =
        Logs { wanted, lines, cursor: LogCursor::default(), view: LogView::new(terminal.color), terminal };
    if options.follow {
        return follow(&client, logs).await;
    }
    let path = logs.path_with(vec![("lines", logs.lines.clone())]);
    show(client.get_lines(&path).await?, &mut logs).await?;
    Ok(ExitCode::Done)
}

/// The lines so far.
struct Logs {
    /// Which lines, as a query.
    wanted: Vec<(&'static str, String)>,
    /// How many of the last ones of each file come first.
    lines: String,
    cursor: LogCursor,
    view: LogView,
    terminal: Terminal,
}

impl Logs {
    fn path_with(&self, more: Vec<(&'static str, String)>) -> String {
        let query = self.wanted.iter().chain(&more);
        with_query("/v1/logs", query.map(|(name, value)| (*name, value.as_str())))
    }
}

impl Stream for Logs {
    fn path(&mut self) -> String {
        let query = self.cursor.query(&self.lines);
        self.path_with(query)
    }

    fn take(&mut self, text: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let line: LogLine = decode(&text)?;
        match self.cursor.note(&line) {
            Note::Show => {}
            Note::Pass => return Ok(Vec::new()),
            Note::Resume => return Err(anyhow::Error::msg(BrokenOff)),
        }
        if self.terminal.json {
            return Ok(as_it_is(text));
        }
        Ok(self.view.line(&line).into_bytes())
    }
}
