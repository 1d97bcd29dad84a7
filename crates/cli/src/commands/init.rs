//! `supervisor init`

use std::fs::OpenOptions;
use std::io::{self, Write};

use anyhow::Context;
use supervisor_config::{EXAMPLE, Format};

use crate::args::Init;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::terminal::Terminal;

pub(super) fn init(options: &Init) -> Result<ExitCode, Failure> {
    let path = options.file.display();
    if Format::of(&options.file) != Some(Format::Yaml) {
        let message = format!("{path}: the example is YAML: give a name that ends in .yaml");
        return Err(Failure::new(ExitCode::Usage, message));
    }
    let mut open = OpenOptions::new();
    open.write(true);
    if options.force {
        open.create(true).truncate(true)
    } else {
        open.create_new(true)
    };
    let mut file = match open.open(&options.file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let message = format!("{path} is there already; --force overwrites it");
            return Err(Failure::new(ExitCode::Usage, message));
        }
        opened => opened.with_context(|| format!("cannot write {path}")).or_exit(ExitCode::Failed)?,
    };
    file.write_all(EXAMPLE.as_bytes()).with_context(|| format!("cannot write {path}"))?;
    Terminal::say(&format!("{path} written: change it, then `supervisor check` and `supervisor start`"));
    Ok(ExitCode::Done)
}
