//! `supervisor signal`

use supervisor_protocol::control::{SendSignal, Signalled};

use super::{find_daemon, selectors};
use crate::args::Signal;
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::count;
use crate::terminal::{Terminal, print};

pub(super) async fn signal(options: Signal, terminal: Terminal) -> Result<ExitCode, Failure> {
    let Signal { signal, selectors: given } = options;
    let order = SendSignal { selectors: selectors(given, terminal)?, signal };
    let answer = find_daemon(terminal).await?.post("/v1/signal", &order).await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let workers = decode::<Signalled>(&answer)?.workers;
    Terminal::say(&format!("{} sent to {}", order.signal, count(workers.into(), "worker")));
    Ok(ExitCode::Done)
}
