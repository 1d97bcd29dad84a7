//! The program `supervisor`: the keeper, the master, and every command of
//! theirs.
//!
//! [`args`] says what there is to type, [`commands`] does it. A command finds
//! the daemon of a [`home`], talks to it through [`client`], and shows the
//! answer with [`render`]; orders that take time are followed by [`order`].
//! Two hidden commands, `keeper` and `master`, are the daemon's processes.

mod args;
mod client;
mod commands;
mod daemon;
mod difference;
mod exit_code;
mod home;
mod load;
mod log_cursor;
mod new_file;
mod order;
mod progress;
mod render;
mod surroundings;
mod target;
mod terminal;
mod unit;

use std::process;

use clap::Parser;

use crate::args::Args;
use crate::exit_code::ExitCode;
use crate::render::style::{BAD, paint};
use crate::terminal::Terminal;

fn main() -> process::ExitCode {
    let code = match Args::try_parse() {
        Ok(Args { global, command }) => {
            let terminal = Terminal::new(&global);
            commands::dispatch(command, terminal).unwrap_or_else(|failure| {
                let error = paint("error:", BAD.bold(), terminal.error_color);
                Terminal::say(&format!("{error} {:#}", failure.cause));
                failure.code
            })
        }
        Err(error) => {
            // Help and versions come this way too. If they cannot be written,
            // there is nobody to tell.
            let _ = error.print();
            if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done }
        }
    };
    process::ExitCode::from(code.number())
}
