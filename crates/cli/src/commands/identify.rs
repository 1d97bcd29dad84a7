//! The hidden `supervisor identify`, which another version asks before it lets
//! this binary take over.

use anyhow::Context;
use supervisor_protocol::release::Identity;

use crate::exit_code::{ExitCode, Failure};
use crate::terminal::print;

pub(super) fn identify() -> Result<ExitCode, Failure> {
    supervisor_master::next::stage("identify");
    let mut json = serde_json::to_vec(&Identity::own()).context("cannot write JSON")?;
    json.push(b'\n');
    print(&json)?;
    Ok(ExitCode::Done)
}
