//! `supervisor describe`

use supervisor_protocol::control::Describe as Answer;

use super::{find_daemon, selectors, with_selectors};
use crate::args::Describe;
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::render::describe::render;
use crate::terminal::{Terminal, print};

pub(super) async fn describe(options: Describe, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = with_selectors("/v1/describe", &selectors(options.selectors, terminal)?);
    let answer = find_daemon(terminal).await?.get(&path).await?;
    if options.json {
        print(&answer)?;
    } else {
        print(render(&decode::<Answer>(&answer)?.apps, terminal.canvas()).as_bytes())?;
    }
    Ok(ExitCode::Done)
}
