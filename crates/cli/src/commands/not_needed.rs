//! `supervisor save`, `resurrect`: habits from PM2.

use crate::exit_code::ExitCode;
use crate::terminal::Terminal;

pub(super) fn save() -> ExitCode {
    Terminal::say("not needed: apps are kept as soon as they are declared; `supervisor delete` forgets them");
    ExitCode::Done
}

pub(super) fn resurrect() -> ExitCode {
    Terminal::say("not needed: a new daemon starts what is declared");
    ExitCode::Done
}
