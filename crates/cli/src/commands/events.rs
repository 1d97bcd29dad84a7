//! `supervisor events`

use supervisor_protocol::events::Event;

use super::follow::follow;
use super::{find_daemon, selectors, with_selectors};
use crate::args::Events;
use crate::client::{as_it_is, decode};
use crate::exit_code::{ExitCode, Failure};
use crate::render::events::line;
use crate::terminal::Terminal;

pub(super) async fn events(options: Events, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = with_selectors("/v1/events", &selectors(options.selectors, terminal)?);
    let client = find_daemon(terminal).await?;
    let draw = |text: Vec<u8>| {
        if terminal.json {
            return Ok(as_it_is(text));
        }
        Ok(line(&decode::<Event>(&text)?, terminal.color).into_bytes())
    };
    follow(&client, &path, &path, draw).await
}
