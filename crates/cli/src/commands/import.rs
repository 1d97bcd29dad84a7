//! `supervisor import`

use std::path::Path;

use crate::args::Import;
use crate::exit_code::{ExitCode, Failure};
use crate::load;
use crate::new_file::write_yaml;
use crate::render::text::count;
use crate::terminal::{Terminal, print};

/// Variables may be secrets: only the owner reads them.
const MODE: u32 = 0o600;

pub(super) fn import(options: &Import, terminal: Terminal) -> Result<ExitCode, Failure> {
    let output = options.output.as_path();
    let text = load::import(&options.file, output, terminal)?;
    if output == Path::new(load::STANDARD_STREAM) {
        print(text.as_bytes())?;
        return Ok(ExitCode::Done);
    }
    write_yaml(output, &text, MODE, options.force)?;
    let name = output.display();
    let apps = load::file(output, None, terminal).map_err(|Failure { code, cause }| Failure {
        code,
        cause: cause.context(format!("{name} is written, but has to be corrected")),
    })?;
    let apps = count(apps.len().try_into().unwrap_or(u64::MAX), "app");
    Terminal::say(&format!("{name} written, {apps}: see its comments, then `supervisor check`"));
    Ok(ExitCode::Done)
}
