//! `supervisor stop`, `restart`, `delete`, `scale`: one order each, followed to
//! its end.

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
    let order = control::Scale { app, instances };
    let answer = find_daemon(terminal).await?.order("/v1/scale", &order).await?;
    order::follow(answer, Scope::Part, terminal).await
}

async fn select(path: &str, given: Vec<String>, now: bool, terminal: Terminal) -> Result<ExitCode, Failure> {
    let selectors = selectors(given, terminal)?;
    let order = control::Select { selectors, now };
    let answer = find_daemon(terminal).await?.order(path, &order).await?;
    order::follow_selected(answer, &order.selectors, terminal).await
}
