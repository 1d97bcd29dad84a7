//! The hidden `supervisor master`, which the keeper starts.

use anyhow::anyhow;
use supervisor_keeper::MASTER_FD;
use supervisor_sys::inherited;

use crate::args::{Folders, Shown};
use crate::exit_code::{ExitCode, Failure};

pub(super) fn master(folders: Folders) -> Result<ExitCode, Failure> {
    let succession = ["supervisor".into(), "keeper".into()].into_iter().chain(folders.to_args()).collect();
    let Folders { runtime_dir, log_dir, state_dir, foreground, echo } = folders;
    let mut inherited =
        inherited::take().map_err(|error| anyhow!(error).context("cannot read /proc/self/fd"))?;
    let keeper = inherited.remove(&MASTER_FD).ok_or_else(|| {
        Failure::new(ExitCode::Usage, "the master is started by the keeper, which passes a socket to it")
    })?;
    drop(inherited);
    let options = supervisor_master::Options {
        keeper,
        runtime_dir,
        log_dir,
        state_dir,
        succession,
        foreground,
        echo: echo.and_then(Shown::form),
    };
    supervisor_master::run(options)?;
    Ok(ExitCode::Done)
}
