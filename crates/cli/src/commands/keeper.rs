//! The hidden `supervisor keeper`, which `start` starts and `run` becomes, and
//! a master whose keeper has died.

use anyhow::{Context, anyhow};
use supervisor_keeper::{Error, restore};
use supervisor_sys::{inherited, own};

use crate::args::Keeper;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::home;

/// The table entry of what `run` wants to be applied.
const APPLY_KEY: &str = "apply";

/// The first descriptor that a service manager passes (`sd_listen_fds(3)`).
const PASSED_START: i32 = 3;

/// How many descriptors the service manager has passed to this process.
fn passed_count() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // They would be somebody else's if it had not meant this very process.
    if number("LISTEN_PID") == Some(std::process::id()) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

pub(super) fn keeper(options: Keeper) -> Result<ExitCode, Failure> {
    let Keeper { folders, apply_fd, state_fd } = options;
    // What else the starter had open ends here.
    let mut inherited =
        inherited::take().map_err(|error| anyhow!(error).context("cannot read /proc/self/fd"))?;
    let mut take = |fd: i32| {
        let missing = || Failure::new(ExitCode::Usage, format!("descriptor {fd} was not passed on"));
        inherited.remove(&fd).ok_or_else(missing)
    };
    let mut initial = Vec::new();
    if let Some(fd) = apply_fd {
        initial.push((APPLY_KEY.to_owned(), take(fd)?));
    }
    if state_fd.is_some() {
        supervisor_master::next::stage("keeper");
    }
    let file = state_fd.map(take).transpose()?;
    let state = file.map(|file| restore(file, &mut inherited)).transpose().or_exit(ExitCode::Failed)?;
    for (number, fd) in (0..passed_count()).zip(PASSED_START..) {
        let Some(socket) = inherited.remove(&fd) else { break };
        initial.push((format!("passed:{number}"), socket));
    }
    drop(inherited);
    if !folders.foreground && state.is_none() {
        // Away from the terminal of whoever started it.
        own::set_session().context("cannot leave the session")?;
    }
    // It must not keep a file system busy.
    std::env::set_current_dir("/").context("cannot go to /")?;
    let lock = home::lock(&folders.runtime_dir);
    let command =
        |name: &str| ["supervisor".into(), name.into()].into_iter().chain(folders.to_args()).collect();
    let (master, keeper) = (command("master"), command("keeper"));
    match supervisor_keeper::run(supervisor_keeper::Options { lock, master, keeper, initial, state }) {
        // What the master asked to end with.
        Ok(code) => Ok(ExitCode::from_number(code)),
        Err(error @ Error::Running { .. }) => Err(error).or_exit(ExitCode::Refused),
        Err(error) => Err(error).or_exit(ExitCode::Failed),
    }
}
