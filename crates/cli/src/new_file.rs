//! Files that commands write for a person to go on with.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use supervisor_config::Format;

use crate::exit_code::{ExitCode, Failure, OrExit};

/// Writes a YAML file, which must not be there unless `force` is given. `mode`
/// is that of a new one, less the umask.
///
/// # Errors
/// [`ExitCode::Usage`] when it is there already or is not called YAML.
pub(crate) fn write_yaml(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), Failure> {
    let name = path.display();
    if Format::of(path) != Some(Format::Yaml) {
        let message = format!("{name}: it would hold YAML: give a name that ends in .yaml");
        return Err(Failure::new(ExitCode::Usage, message));
    }
    let mut open = OpenOptions::new();
    open.write(true).mode(mode);
    if force {
        open.create(true).truncate(true)
    } else {
        open.create_new(true)
    };
    let mut file = match open.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let message = format!("{name} is there already; --force overwrites it");
            return Err(Failure::new(ExitCode::Usage, message));
        }
        opened => opened.with_context(|| format!("cannot write {name}")).or_exit(ExitCode::Failed)?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {name}"))?;
    Ok(())
}
