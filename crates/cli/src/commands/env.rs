//! `supervisor env`

use std::fmt::Write as _;

use supervisor_protocol::control::{Environment, Environments};

use super::{find_daemon, selectors, with_selectors};
use crate::args::Env;
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::one_line;
use crate::terminal::{Terminal, print};

pub(super) async fn env(options: Env, terminal: Terminal) -> Result<ExitCode, Failure> {
    let Env { selectors: given, reveal } = options;
    let by_slot = given.iter().any(|selector| selector.contains(':'));
    let mut path = with_selectors("/v1/env", &selectors(given, terminal)?);
    if reveal {
        path.push_str("&reveal=true");
    }
    let answer = find_daemon(terminal).await?.get(&path).await?;
    if terminal.json {
        print(&answer)?;
        return Ok(ExitCode::Done);
    }
    let mut workers = decode::<Environments>(&answer)?.workers;
    if !by_slot {
        workers.dedup_by(|next, first| next.app == first.app);
    }
    if workers.is_empty() {
        return Err(Failure::new(ExitCode::Failed, "none of the selected workers runs"));
    }
    print(render(&workers).as_bytes())?;
    Ok(ExitCode::Done)
}

/// A line for each variable; headings when there are several workers.
fn render(workers: &[Environment]) -> String {
    let mut text = String::new();
    for (index, worker) in workers.iter().enumerate() {
        // Writing to a String cannot fail.
        if workers.len() > 1 {
            let gap = if index > 0 { "\n" } else { "" };
            let _ = writeln!(text, "{gap}# {}:{} (pid {})", one_line(&worker.app), worker.slot, worker.pid);
        }
        for (name, value) in &worker.env {
            let _ = writeln!(text, "{}={}", one_line(name), one_line(value));
        }
    }
    text
}
