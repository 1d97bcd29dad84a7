//! `supervisor completions`

use clap::CommandFactory;

use crate::args::{Args, Completions};
use crate::exit_code::{ExitCode, Failure};
use crate::terminal::print;

pub(super) fn completions(options: &Completions) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Args::command(), "supervisor", &mut script);
    print(&script)?;
    Ok(ExitCode::Done)
}
