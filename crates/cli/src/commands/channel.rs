//! `supervisor send` and `supervisor tail-channel`

use supervisor_protocol::control::{MessageSent, Overheard, SendMessage};

use super::follow::{Stream, follow};
use super::{find_daemon, selectors, with_selectors};
use crate::args::{Send, TailChannel};
use crate::client::{as_it_is, decode};
use crate::exit_code::{ExitCode, Failure};
use crate::render::channel::line;
use crate::render::text::count;
use crate::terminal::{Terminal, print};

pub(super) async fn send(options: Send, terminal: Terminal) -> Result<ExitCode, Failure> {
    let Send { selector, message } = options;
    let order = SendMessage { selectors: selectors(vec![selector], terminal)?, message };
    let answer = find_daemon(terminal).await?.post("/v1/send", &order).await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let workers = decode::<MessageSent>(&answer)?.workers;
    Terminal::say(&format!("sent to {}", count(workers.into(), "worker")));
    Ok(ExitCode::Done)
}

pub(super) async fn tail(options: TailChannel, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = with_selectors("/v1/channel", &selectors(options.selectors, terminal)?);
    follow(&find_daemon(terminal).await?, Tail { path, terminal }).await
}

/// What is said on the channel.
struct Tail {
    path: String,
    terminal: Terminal,
}

impl Stream for Tail {
    fn path(&mut self) -> String {
        self.path.clone()
    }

    fn take(&mut self, text: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        if self.terminal.json {
            return Ok(as_it_is(text));
        }
        Ok(line(&decode::<Overheard>(&text)?, self.terminal.color).into_bytes())
    }
}
