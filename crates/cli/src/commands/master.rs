//! The hidden `supervisor master`, which the keeper starts.

use anyhow::anyhow;
use supervisor_keeper::{MASTER_FD, STATE_FD};
use supervisor_sys::inherited;

use crate::args::{Folders, Master, Shown};
use crate::exit_code::{ExitCode, Failure};

pub(super) fn master(options: Master) -> Result<ExitCode, Failure> {
    let Master { folders, rehearse } = options;
    let succession = ["supervisor".into(), "keeper".into()].into_iter().chain(folders.to_args()).collect();
    let Folders { runtime_dir, log_dir, state_dir, foreground, echo } = folders;
    let mut inherited =
        inherited::take().map_err(|error| anyhow!(error).context("cannot read /proc/self/fd"))?;
    let keeper = inherited.remove(&MASTER_FD).ok_or_else(|| {
        Failure::new(ExitCode::Usage, "the master is started by the keeper, which passes a socket to it")
    })?;
    if rehearse {
        let state = inherited.remove(&STATE_FD);
        let checked = state.map_or(Ok(()), supervisor_keeper::check);
        supervisor_master::rehearse(keeper, checked.map_err(Into::into))?;
        return Ok(ExitCode::Done);
    }
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
