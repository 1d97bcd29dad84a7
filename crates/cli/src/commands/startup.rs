//! `supervisor startup`, `unstartup`: the daemon as a systemd unit.

use anyhow::Context;
use rustix::process::geteuid;

use crate::args::{Startup, Unstartup};
use crate::client::{Search, search};
use crate::exit_code::{ExitCode, Failure};
use crate::home;
use crate::terminal::{Terminal, print};
use crate::unit::{self, Manager, NAME};

pub(super) async fn startup(options: &Startup, terminal: Terminal) -> Result<ExitCode, Failure> {
    let homes = home::homes()?;
    let home = homes.first().ok_or_else(|| Failure::new(ExitCode::Usage, "no home is known"))?;
    let manager = manager(options.user);
    let program = std::env::current_exe().context("cannot tell the path of this program")?;
    let text = unit::text(home, manager, &program)?;
    if options.print {
        print(text.as_bytes())?;
        return Ok(ExitCode::Done);
    }
    check_surroundings(manager)?;
    let file = manager.file()?;
    terminal.explain(&format!("for the daemon in {home}"));
    let done = if !file.exists() && unit::is_packaged(manager, &text) {
        format!("{NAME} is enabled")
    } else {
        unit::install(&file, &text)?;
        manager.order(&["daemon-reload"])?;
        format!("{} is written and enabled", file.display())
    };
    manager.order(&["enable", NAME])?;
    Terminal::say(&format!("{done}: at boot it starts what is declared"));
    let start = manager.command(&["start", NAME]);
    // One that the unit runs is not to be handed over.
    if manager.order(&["is-active", "--quiet", NAME]).is_ok() {
        Terminal::say("it runs; what has changed in it counts from its next start on");
    } else if let Search::Found(_) = search(std::slice::from_ref(home)).await? {
        Terminal::say(&format!(
            "a daemon that was started by hand runs; to hand over: supervisor kill && {start}"
        ));
    } else {
        Terminal::say(&format!("to start it now: {start}"));
    }
    if manager == Manager::User {
        Terminal::say("to let it run while you are not logged in: loginctl enable-linger");
    }
    Ok(ExitCode::Done)
}

pub(super) fn unstartup(options: &Unstartup) -> Result<ExitCode, Failure> {
    let manager = manager(options.user);
    let file = manager.file()?;
    if options.print {
        print(format!("{}\n", file.display()).as_bytes())?;
        return Ok(ExitCode::Done);
    }
    check_surroundings(manager)?;
    let packaged = unit::has_package(manager);
    if !file.exists() && !packaged {
        Terminal::say(&format!("{} is not there: nothing to do", file.display()));
        return Ok(ExitCode::Done);
    }
    let active = manager.order(&["is-active", "--quiet", NAME]).is_ok();
    let removed = unit::remove(&file)?;
    // Its links are found without the file, too.
    manager.order(&["disable", NAME])?;
    manager.order(&["daemon-reload"])?;
    let done = if removed { format!("{} is removed", file.display()) } else { format!("{NAME} is disabled") };
    Terminal::say(&format!("{done}: nothing starts at boot any more"));
    if active {
        Terminal::say("its daemon still runs; `supervisor kill` ends it");
    }
    Ok(ExitCode::Done)
}

fn manager(user: bool) -> Manager {
    if user { Manager::User } else { Manager::System }
}

fn check_surroundings(manager: Manager) -> Result<(), Failure> {
    if !unit::is_booted() {
        let message = "systemd does not run this machine; `supervisor startup --print` shows the unit";
        return Err(Failure::new(ExitCode::Failed, message));
    }
    if manager == Manager::System && !geteuid().is_root() {
        let message = "only root may change the system's units: use sudo, or `--user` for a unit of your own";
        return Err(Failure::new(ExitCode::Refused, message));
    }
    Ok(())
}
