//! `supervisor describe`

use anyhow::Context as _;
use serde::Serialize;
use supervisor_protocol::control::{Describe as Answer, Description};

use super::{find_daemon, selectors, with_selectors};
use crate::args::Describe;
use crate::client::decode;
use crate::difference::{Difference, Files};
use crate::exit_code::{ExitCode, Failure};
use crate::render::describe::render;
use crate::terminal::{Terminal, print};

/// An app as `--json` shows it: the daemon's description, and how the file differs.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    /// Without values of variables.
    #[serde(flatten)]
    pub(crate) description: Description,
    /// Settings that the file has changed since; null when that is not known.
    pub(crate) differences: Option<Vec<Difference>>,
    /// Why it is not, where there is a file.
    pub(crate) not_compared: Option<String>,
}

pub(super) async fn describe(options: Describe, terminal: Terminal) -> Result<ExitCode, Failure> {
    let mut path = with_selectors("/v1/describe", &selectors(options.selectors, terminal)?);
    // For the comparison alone.
    path.push_str("&reveal=true");
    let answer = decode::<Answer>(&find_daemon(terminal).await?.get(&path).await?)?;
    let mut files = Files::default();
    let described: Vec<Described> = answer
        .apps
        .into_iter()
        .map(|mut description| {
            let (differences, not_compared) = match files.compare(&description) {
                None => (None, None),
                Some(Ok(differences)) => (Some(differences), None),
                Some(Err(why)) => (None, Some(why)),
            };
            description.settings.env.clear();
            description.settings.inherited_env.clear();
            Described { description, differences, not_compared }
        })
        .collect();
    if terminal.json {
        let answer = serde_json::json!({ "apps": described });
        let mut json = serde_json::to_vec(&answer).context("cannot write the apps as JSON")?;
        json.push(b'\n');
        print(&json)?;
    } else {
        print(render(&described, terminal.canvas()).as_bytes())?;
    }
    Ok(ExitCode::Done)
}
