//! `supervisor man`

use std::fs;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man as Page;

use crate::args::{Args, Man};
use crate::exit_code::{ExitCode, Failure};
use crate::render::text::count;
use crate::terminal::{Terminal, print};

pub(super) fn man(options: &Man) -> Result<ExitCode, Failure> {
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    let Some(folder) = &options.output else {
        print(page(program)?.1.as_bytes())?;
        return Ok(ExitCode::Done);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let pages = pages(program)?;
    for (name, text) in &pages {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let pages = count(pages.len().try_into().unwrap_or(u64::MAX), "page");
    Terminal::say(&format!("{pages} written to {}", folder.display()));
    Ok(ExitCode::Done)
}

/// The pages of the program and of each command, with the names of their files.
fn pages(program: Command) -> anyhow::Result<Vec<(String, String)>> {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    commands.collect::<Vec<_>>().into_iter().chain([program]).map(page).collect()
}

fn page(command: Command) -> anyhow::Result<(String, String)> {
    let page = Page::new(command);
    let mut text = Vec::new();
    page.render(&mut text).context("cannot make the page")?;
    // What follows the options is laid out by hand: examples, or exit codes.
    let text = String::from_utf8(text).context("cannot make the page")?;
    let text = text.replace(".SH EXTRA\n", ".SH EXTRA\n.nf\n").replace(".SH VERSION\n", ".fi\n.SH VERSION\n");
    let text = text.replace(".SH EXTRA\n.nf\nExamples:\n", ".SH EXAMPLES\n.nf\n");
    Ok((page.get_filename(), text.replace(".SH EXTRA\n", ".SH NOTES\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let mut program = Args::command().disable_help_subcommand(true);
        program.build();
        let pages = pages(program).unwrap();
        let page = |name: &str| &pages.iter().find(|(file, _)| file == name).unwrap().1;
        for command in Args::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = page(&format!("supervisor-{}.1", command.get_name()));
            assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH EXAMPLES\n.nf\n"), "{page}");
        }
        let main = page("supervisor.1");
        assert!(main.contains("supervisor\\-start(1)") && main.contains(".SH NOTES\n.nf\n"), "{main}");
        assert!(!pages.iter().any(|(file, _)| file.contains("keeper")));
    }
}
