//! The daemon as a systemd unit: its text, where it is installed, and the
//! manager that runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use anyhow::{Context, anyhow};
use rustix::process::geteuid;

use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::home::Home;

/// The unit's name.
pub(crate) const NAME: &str = "supervisor-cluster.service";

/// The first line of a unit that `startup` has written, and may overwrite.
const MARK: &str = "# Written by `supervisor startup`; `supervisor unstartup` removes it.";

/// What root may not do in the system's unit, and so no worker: things that
/// change the machine rather than serve something on it. Nothing here costs a
/// system call anything, hides a file or forbids setuid programs; a drop-in can
/// be stricter.
const HARDENING: &str = "\
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_BOOT CAP_SYS_TIME CAP_SYS_RAWIO CAP_SYSLOG
CapabilityBoundingSet=~CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_SYS_TTY_CONFIG
LockPersonality=yes
";

/// Whose services a systemd runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// The machine's.
    System,
    /// One user's, from login to logout, unless the user lingers.
    User,
}

impl Manager {
    /// The file of the unit.
    ///
    /// # Errors
    /// When a user's folder is not known.
    pub(crate) fn file(self) -> Result<PathBuf, Failure> {
        let folder = match self {
            Manager::System => PathBuf::from("/etc/systemd/system"),
            Manager::User => {
                let absolute = |name| {
                    std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute())
                };
                let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
                let unknown =
                    || Failure::new(ExitCode::Usage, "cannot tell where units of a user are: set HOME");
                config.ok_or_else(unknown)?.join("systemd/user")
            }
        };
        Ok(folder.join(NAME))
    }

    /// Gives the manager an order.
    ///
    /// # Errors
    /// What `systemctl` says.
    pub(crate) fn order(self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("systemctl");
        command.args((self == Manager::User).then_some("--user")).args(args).stdin(Stdio::null());
        let output = command.output().context("cannot run systemctl")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(anyhow!("{}", said.trim()).context(format!("{} failed", self.command(args))))
    }

    /// The order as a person would give it.
    pub(crate) fn command(self, args: &[&str]) -> String {
        let user = if self == Manager::User { " --user" } else { "" };
        format!("systemctl{user} {}", args.join(" "))
    }
}

/// Whether systemd runs this machine (`sd_booted(3)`).
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The manager that has a unit for this home.
pub(crate) fn installed(home: &Home) -> Option<Manager> {
    if !is_booted() {
        return None;
    }
    let own = home_line(home).ok()?;
    let managers = [geteuid().is_root().then_some(Manager::System), Some(Manager::User)];
    managers.into_iter().flatten().find(|manager| {
        let text = manager.file().ok().and_then(|file| fs::read_to_string(file).ok());
        text.is_some_and(|text| text.lines().find(|line| line.contains("SUPERVISOR_HOME=")) == own.as_deref())
    })
}

/// The unit's text.
///
/// # Errors
/// When a path cannot be written in a unit.
pub(crate) fn text(home: &Home, manager: Manager, program: &Path) -> Result<String, Failure> {
    let program = quoted(utf8(program)?, &['%', '$'])?;
    let (order, hardening, target) = match manager {
        Manager::System => (
            "Wants=network-online.target\nAfter=network-online.target nss-lookup.target nss-user-lookup.target\n",
            HARDENING,
            "multi-user.target",
        ),
        Manager::User => ("", "", "default.target"),
    };
    let mut environment = String::new();
    for line in [home_line(home)?, state_line(home, manager)?].into_iter().flatten() {
        environment.push_str(&line);
        environment.push('\n');
    }
    Ok(format!(
        "\
{MARK}
# Changes of your own belong into a drop-in: systemctl edit {NAME}

[Unit]
Description=Process supervisor (supervisor-cluster)
Documentation={repository}
{order}StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
{environment}ExecStart={program} run
ExecReload={program} reload --all --wait
ExecStop=-{program} kill
# A worker's connections are worth more than a tidy end: without its keeper the
# daemon serves on until the next one takes over.
KillMode=process
Restart=always
RestartSec=200ms
# It was told to end; it would meet the same mistake again.
RestartPreventExitStatus=0 2 5
# The daemon asks for more while a start, a reload or a stop goes on.
TimeoutStartSec=90s
TimeoutStopSec=90s
WatchdogSec=60s
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
{hardening}
[Install]
WantedBy={target}
",
        repository = env!("CARGO_PKG_REPOSITORY"),
    ))
}

/// Puts a text in place of the installed one.
///
/// # Errors
/// [`ExitCode::Refused`] when somebody else wrote that one, or the caller may
/// not.
pub(crate) fn install(file: &Path, text: &str) -> Result<(), Failure> {
    check_ours(file)?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))
            .or_exit(ExitCode::Refused)?;
    }
    fs::write(file, text)
        .with_context(|| format!("cannot write {}", file.display()))
        .or_exit(ExitCode::Refused)
}

/// Removes the installed unit. Returns whether there was one.
///
/// # Errors
/// As [`install`].
pub(crate) fn remove(file: &Path) -> Result<bool, Failure> {
    check_ours(file)?;
    match fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("cannot remove {}", file.display())).or_exit(ExitCode::Refused)
        }
    }
}

/// Whether a file may be overwritten: there is none, or one of ours.
fn check_ours(file: &Path) -> Result<(), Failure> {
    match fs::read_to_string(file) {
        Ok(text) if !text.starts_with(MARK) => Err(Failure::new(
            ExitCode::Refused,
            format!("{} was not written by `supervisor startup`: move it away first", file.display()),
        )),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read {}", file.display())).or_exit(ExitCode::Refused)
        }
    }
}

/// What tells the unit which home it is for, when it is not the usual one.
fn home_line(home: &Home) -> Result<Option<String>, Failure> {
    home.given().map(|folder| variable("SUPERVISOR_HOME", folder)).transpose()
}

/// A manager of a user need not know where that user keeps state.
fn state_line(home: &Home, manager: Manager) -> Result<Option<String>, Failure> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.filter(|_| manager == Manager::User && home.given().is_none());
    state.map(|folder| variable("XDG_STATE_HOME", &folder)).transpose()
}

fn variable(name: &str, path: &Path) -> Result<String, Failure> {
    Ok(format!("Environment={}", quoted(&format!("{name}={}", utf8(path)?), &['%'])?))
}

fn utf8(path: &Path) -> Result<&str, Failure> {
    path.to_str()
        .ok_or_else(|| Failure::new(ExitCode::Usage, format!("{}: its path is not UTF-8", path.display())))
}

/// A word of a unit (`systemd.syntax(7)`, `systemd.service(5)`); `doubled`
/// characters mean something there unless they are.
fn quoted(text: &str, doubled: &[char]) -> Result<String, Failure> {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            c if c.is_control() => {
                let message = format!("{text:?} cannot be written in a unit");
                return Err(Failure::new(ExitCode::Usage, message));
            }
            '"' | '\\' => quoted.extend(['\\', c]),
            c if doubled.contains(&c) => quoted.extend([c, c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        let check = |text, expected: &str| assert_eq!(quoted(text, &['%', '$']).unwrap(), expected);
        check("/usr/bin/supervisor", r#""/usr/bin/supervisor""#);
        check(r#"/a b/100%/"x"\$y"#, r#""/a b/100%%/\"x\"\\$$y""#);
        assert!(quoted("a\nb", &[]).is_err());
    }

    #[test]
    fn only_our_own_unit_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("units").join(NAME);
        assert!(!remove(&file).unwrap());
        install(&file, &format!("{MARK}\none")).unwrap();
        install(&file, &format!("{MARK}\ntwo")).unwrap();
        assert!(remove(&file).unwrap());
        fs::write(&file, "[Unit]\n").unwrap();
        assert_eq!(install(&file, MARK).unwrap_err().code, ExitCode::Refused);
        assert_eq!(remove(&file).unwrap_err().code, ExitCode::Refused);
    }
}
