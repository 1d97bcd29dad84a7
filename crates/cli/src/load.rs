//! Ecosystem files for commands: which one, what surrounds it, and its mistakes
//! as text.

mod javascript;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use supervisor_config::{
    App, CommandOptions, Context, DaemonSettings, Errors, Format, ImportOptions, Source,
};

use crate::args::AppOptions;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::render::text::count;
use crate::terminal::Terminal;

/// The files that a command without a file looks for, in this order.
const DEFAULT_FILES: [&str; 8] = [
    "ecosystem.yaml",
    "ecosystem.yml",
    "ecosystem.json",
    "ecosystem.json5",
    "ecosystem.toml",
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
];

/// What stands for standard input or output where a file could be named.
pub(crate) const STANDARD_STREAM: &str = "-";

/// The ecosystem file of the current folder.
///
/// # Errors
/// When there is none.
pub(crate) fn default_file() -> Result<PathBuf, Failure> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        Failure::new(
            ExitCode::Usage,
            "there is no ecosystem.yaml (.yml, .json, .toml, .config.js) in this folder: name a file, or write \
             one with `supervisor init`",
        )
    })
}

/// Whether the path is that of a configuration file, there or not.
pub(crate) fn is_config(path: &Path) -> bool {
    Format::of(path).is_some() || javascript::is_javascript(path) || is_standard_input(path)
}

/// Whether the text names a configuration file that is there.
pub(crate) fn is_file(text: &str) -> bool {
    let path = Path::new(text);
    is_config(path) && (is_standard_input(path) || path.is_file())
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new(STANDARD_STREAM)
}

/// The apps of a file, see [`whole_file`].
///
/// # Errors
/// As there.
pub(crate) fn file(path: &Path, env_name: Option<&str>, terminal: Terminal) -> Result<Vec<App>, Failure> {
    whole_file(path, env_name, terminal).map(|(apps, _)| apps)
}

/// The apps of a file, and what it says of the daemon. Warnings, and all
/// mistakes, are told on stderr.
///
/// # Errors
/// [`ExitCode::Usage`] when the file cannot be read or has mistakes.
pub(crate) fn whole_file(
    path: &Path,
    env_name: Option<&str>,
    terminal: Terminal,
) -> Result<(Vec<App>, Option<DaemonSettings>), Failure> {
    let source = source(path)?;
    let loaded = supervisor_config::load(&source, &context(folder(path)?, env_name))
        .map_err(|errors| mistakes(&source.path.display().to_string(), &errors, terminal))?;
    for warning in &loaded.warnings {
        Terminal::say(&warning.render(terminal.error_color));
    }
    Ok((loaded.apps, loaded.daemon))
}

/// The apps of a file that an app came from, as it is now, and without a word.
/// JavaScript is run only where it is the caller's own: another one, who may
/// declare apps here, chose the file.
///
/// # Errors
/// In words: why they cannot be known.
pub(crate) fn again(path: &Path, env_name: Option<&str>) -> Result<Vec<App>, String> {
    let words = |error: &anyhow::Error| format!("{error:#}");
    if javascript::is_javascript(path) {
        let file = path.metadata().map_err(|error| error.to_string())?;
        let is_own = file.uid() == rustix::process::geteuid().as_raw() && file.mode() & 0o022 == 0;
        if !is_own {
            return Err("it is JavaScript, and not of the caller alone: it is not run".to_owned());
        }
    }
    let source = source(path).map_err(|failure| words(&failure.cause))?;
    let folder = folder(path).map_err(|failure| words(&failure.cause))?;
    let loaded = supervisor_config::load(&source, &context(folder, env_name));
    loaded.map(|loaded| loaded.apps).map_err(|errors| {
        let mistakes = count(errors.iter().count().try_into().unwrap_or(u64::MAX), "mistake");
        format!("it has {mistakes}; `supervisor check` shows them")
    })
}

/// The text of a file, of standard input, or of what a JavaScript file comes to.
fn source(path: &Path) -> Result<Source, Failure> {
    if is_standard_input(path) {
        Source::read_from(Path::new("standard input"), std::io::stdin()).or_exit(ExitCode::Usage)
    } else if javascript::is_javascript(path) {
        javascript::read(path).or_exit(ExitCode::Usage)
    } else {
        Source::read(path).or_exit(ExitCode::Usage)
    }
}

/// A file or dump of PM2 as the text of `output`.
///
/// # Errors
/// [`ExitCode::Usage`] when the file cannot be read or has mistakes.
pub(crate) fn import(path: &Path, output: &Path, terminal: Terminal) -> Result<String, Failure> {
    let source = if is_config(path) {
        source(path)?
    } else {
        // PM2's dump, `dump.pm2`, and its copies.
        Source::read_as(path, Format::Json).or_exit(ExitCode::Usage)?
    };
    let (from, to) = (folder(path)?, folder(output)?);
    let options = ImportOptions { base_dir: (from != to).then_some(from), caller_env: caller_env() };
    supervisor_config::import(&source, &options)
        .map_err(|errors| mistakes(&source.path.display().to_string(), &errors, terminal))
}

/// The folder of a file; the current one for standard input and output.
fn folder(path: &Path) -> Result<PathBuf, Failure> {
    Ok(absolute(path)?.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The file as the daemon may read it again; standard input is gone by then.
///
/// # Errors
/// When the current folder is gone.
pub(crate) fn origin(path: &Path) -> Result<Option<PathBuf>, Failure> {
    if is_standard_input(path) { Ok(None) } else { absolute(path).map(Some) }
}

/// The path from the root. Links stay: a release behind a link such as `current`
/// has the same file as the one before.
///
/// # Errors
/// When the current folder is gone.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).context("cannot tell the current folder").or_exit(ExitCode::Usage)
}

/// An app from a command line.
///
/// # Errors
/// [`ExitCode::Usage`] when an option is wrong.
pub(crate) fn command(
    words: Vec<String>,
    script: bool,
    options: AppOptions,
    terminal: Terminal,
) -> Result<App, Failure> {
    let AppOptions { name, namespace, instances, listen, cwd, env_file } = options;
    let folder =
        std::env::current_dir().context("cannot tell the current folder").or_exit(ExitCode::Usage)?;
    let options = CommandOptions { name, namespace, instances, listen, cwd, env_file, script };
    supervisor_config::app_from_command(words, options, &context(folder, None))
        .map_err(|errors| mistakes("the command line", &errors, terminal))
}

fn mistakes(of: &str, errors: &Errors, terminal: Terminal) -> Failure {
    Terminal::say(&errors.render(terminal.error_color));
    let mistakes = count(errors.iter().count().try_into().unwrap_or(u64::MAX), "mistake");
    Failure::new(ExitCode::Usage, format!("{mistakes} in {of}; nothing was changed"))
}

fn context(base_dir: PathBuf, env_name: Option<&str>) -> Context {
    let usable_cpus = supervisor_sys::cpus::usable_cpus().get();
    Context {
        base_dir,
        caller_env: caller_env(),
        env_name: env_name.map(str::to_owned),
        usable_cpus: u32::try_from(usable_cpus).unwrap_or(u32::MAX),
    }
}

/// The caller's environment as far as workers may have it. JSON has no place
/// for other bytes than UTF-8.
fn caller_env() -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) if !is_ours(&name) => {
                env.insert(name, value);
            }
            (Ok(_), Ok(_)) => {}
            (Ok(name), Err(_)) => {
                Terminal::say(&format!("warning: {name} is left out of the environment: it is not UTF-8"));
            }
            (Err(name), _) => {
                let name = name.display();
                Terminal::say(&format!(
                    "warning: {name} is left out of the environment: its name is not UTF-8"
                ));
            }
        }
    }
    env
}

/// Whether a variable speaks of the process that has it, so that nobody may
/// inherit it.
fn is_ours(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["LISTEN_", "WATCHDOG_", "SUPERVISOR_"];
    const NAMES: [&str; 2] = ["NOTIFY_SOCKET", "NODE_CHANNEL_FD"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_one_process_is_not_inherited() {
        for name in ["LISTEN_FDS", "WATCHDOG_USEC", "SUPERVISOR_HOME", "NOTIFY_SOCKET", "NODE_CHANNEL_FD"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["PATH", "NODE_ENV", "LISTENER", "MY_SUPERVISOR_X"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
