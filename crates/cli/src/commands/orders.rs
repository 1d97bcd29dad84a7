//! `supervisor stop`, `restart`, `delete`, `scale`: one order each, followed to
//! its end.

use serde::Serialize;
use supervisor_protocol::control;

use super::{find_daemon, selectors};
use crate::args::{Delete, Restart, Scale, Select};
use crate::exit_code::{ExitCode, Failure};
use crate::order::{self, Scope};
use crate::terminal::Terminal;

pub(super) async fn stop(options: Select, terminal: Terminal) -> Result<ExitCode, Failure> {
    select("/v1/stop", options.selectors, options.now, terminal).await
}

pub(super) async fn restart(options: Restart, terminal: Terminal) -> Result<ExitCode, Failure> {
    select("/v1/restart", options.selectors, options.now, terminal).await
}

pub(super) async fn delete(options: Delete, terminal: Terminal) -> Result<ExitCode, Failure> {
    select("/v1/delete", options.selectors, options.now, terminal).await
}

pub(super) async fn scale(options: Scale, terminal: Terminal) -> Result<ExitCode, Failure> {
    let Scale { app, instances } = options;
    order("/v1/scale", &control::Scale { app, instances }, terminal).await
}

async fn select(path: &str, given: Vec<String>, now: bool, terminal: Terminal) -> Result<ExitCode, Failure> {
    let selectors = selectors(given, terminal)?;
    order(path, &control::Select { selectors, now }, terminal).await
}

async fn order(path: &str, body: &impl Serialize, terminal: Terminal) -> Result<ExitCode, Failure> {
    let lines = find_daemon(terminal).await?.post_lines(path, body).await?;
    order::follow(lines, Scope::Part, terminal).await
}
