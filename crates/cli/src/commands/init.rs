//! `supervisor init`

use supervisor_config::EXAMPLE;

use crate::args::Init;
use crate::exit_code::{ExitCode, Failure};
use crate::new_file::write_yaml;
use crate::terminal::Terminal;

pub(super) fn init(options: &Init) -> Result<ExitCode, Failure> {
    write_yaml(&options.file, EXAMPLE, 0o666, options.force)?;
    let path = options.file.display();
    Terminal::say(&format!("{path} written: change it, then `supervisor check` and `supervisor start`"));
    Ok(ExitCode::Done)
}
