//! `supervisor events`

use jiff::Timestamp;
use supervisor_protocol::events::Event;

use super::follow::{Stream, follow};
use super::{find_daemon, selectors};
use crate::args;
use crate::client::{as_it_is, decode, with_query};
use crate::exit_code::{ExitCode, Failure};
use crate::render::events::line;
use crate::terminal::Terminal;

pub(super) async fn events(options: args::Events, terminal: Terminal) -> Result<ExitCode, Failure> {
    let selectors = selectors(options.selectors, terminal)?;
    let client = find_daemon(terminal).await?;
    follow(&client, Events { selectors, since: None, terminal }).await
}

/// The events so far.
struct Events {
    selectors: Vec<String>,
    /// When the last one was; when following began, before the first one.
    since: Option<String>,
    terminal: Terminal,
}

impl Stream for Events {
    fn path(&mut self) -> String {
        let selectors = self.selectors.iter().map(|selector| ("selector", selector.as_str()));
        let since = self.since.iter().map(|since| ("since", since.as_str()));
        let path = with_query("/v1/events", selectors.chain(since));
        self.since.get_or_insert_with(|| Timestamp::now().to_string());
        path
    }

    fn take(&mut self, text: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let event: Event = decode(&text)?;
        let shown = match self.terminal.json {
            true => as_it_is(text),
            false => line(&event, self.terminal.color).into_bytes(),
        };
        self.since = Some(event.at);
        Ok(shown)
    }
}
