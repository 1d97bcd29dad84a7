//! Where a daemon lives: its folders, its control socket, its lock.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::process::geteuid;
use supervisor_master::{HANDOVER_SOCKET, STATE_FILE};

use crate::args::Folders;
use crate::exit_code::{ExitCode, Failure, OrExit};

/// The folders' name below those that the system offers.
const NAME: &str = "supervisor-cluster";

/// What fits into `sun_path` beside its terminating zero (`unix(7)`).
const SOCKET_PATH_MAX: usize = 107;

/// The folders of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// What to call it in messages.
    label: PathBuf,
    /// Whether the runtime folder lies where others can make one too.
    in_public: bool,
    /// The control socket and the lock.
    runtime_dir: PathBuf,
    /// Output of the workers and the daemon's own log.
    log_dir: PathBuf,
    /// What is declared.
    state_dir: PathBuf,
}

/// What decides where a home is, gathered so that tests can say it.
struct Surroundings<'a> {
    /// The effective user.
    uid: u32,
    /// The current folder.
    cwd: &'a Path,
    /// The environment.
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Where a user's runtime folder goes without `XDG_RUNTIME_DIR`.
    temp_dir: &'a Path,
}

/// The homes that a command of this caller looks at, the own one first.
///
/// # Errors
/// When the environment leaves a folder open or names one that cannot be used.
pub(crate) fn homes() -> Result<Vec<Home>, Failure> {
    let cwd = std::env::current_dir().context("cannot tell the current folder").or_exit(ExitCode::Usage)?;
    Surroundings {
        uid: geteuid().as_raw(),
        cwd: &cwd,
        variable: &|name| std::env::var_os(name),
        temp_dir: Path::new("/tmp"),
    }
    .homes()
}

impl Surroundings<'_> {
    /// See [`homes`].
    fn homes(&self) -> Result<Vec<Home>, Failure> {
        let homes = match self.non_empty("SUPERVISOR_HOME") {
            Some(folder) => vec![Home::below(&self.cwd.join(folder))],
            None if self.uid == 0 => vec![Home::system()],
            None => vec![self.user()?, Home::system()],
        };
        for home in &homes {
            home.check_socket_path()?;
        }
        Ok(homes)
    }

    fn user(&self) -> Result<Home, Failure> {
        let (runtime_dir, in_public) = match self.absolute("XDG_RUNTIME_DIR") {
            Some(folder) => (folder.join(NAME), false),
            None => {
                let folder = self.temp_dir.join(format!("{NAME}-{}", self.uid));
                check_private(&folder, self.uid)?;
                (folder, true)
            }
        };
        let state = self
            .absolute("XDG_STATE_HOME")
            .or_else(|| self.absolute("HOME").map(|home| home.join(".local/state")))
            .ok_or_else(|| {
                Failure::new(
                    ExitCode::Usage,
                    "cannot tell where to keep apps and logs: set HOME or SUPERVISOR_HOME",
                )
            })?;
        let state_dir = state.join(NAME);
        let log_dir = state_dir.join("log");
        Ok(Home { label: runtime_dir.clone(), in_public, runtime_dir, log_dir, state_dir })
    }

    fn non_empty(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A relative path in an XDG variable is to be ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.non_empty(name).filter(|path| path.is_absolute())
    }
}

/// Checks a folder in a place such as `/tmp`, where anybody may have put
/// something of that name: a command hands its environment to whoever listens
/// in there. A group that may look into it (`control_group`) changes nothing. One that is not there yet is fine.
fn check_private(folder: &Path, uid: u32) -> Result<(), Failure> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error)
            .with_context(|| format!("cannot look at {}", folder.display()))
            .or_exit(ExitCode::Refused),
        Ok(found) if found.is_dir() && found.uid() == uid && found.mode() & 0o027 == 0 => Ok(()),
        Ok(_) => Err(Failure::new(
            ExitCode::Refused,
            format!(
                "{} is not a folder that only you may write to: remove it, or set XDG_RUNTIME_DIR or SUPERVISOR_HOME",
                folder.display()
            ),
        )),
    }
}

impl Home {
    /// All folders below one.
    fn below(folder: &Path) -> Home {
        Home {
            label: folder.to_owned(),
            in_public: false,
            runtime_dir: folder.join("run"),
            log_dir: folder.join("log"),
            state_dir: folder.join("state"),
        }
    }

    fn system() -> Home {
        let runtime_dir = Path::new("/run").join(NAME);
        Home {
            label: runtime_dir.clone(),
            in_public: false,
            runtime_dir,
            log_dir: Path::new("/var/log").join(NAME),
            state_dir: Path::new("/var/lib").join(NAME),
        }
    }

    /// The folders as options of the daemon's processes. One that does not
    /// `keep` what is declared begins without it, too.
    pub(crate) fn folders(&self, foreground: bool, keep: bool) -> Folders {
        let Home { label: _, in_public: _, runtime_dir, log_dir, state_dir } = self.clone();
        Folders { runtime_dir, log_dir, state_dir: keep.then_some(state_dir), foreground, echo: None }
    }

    /// The folder that `SUPERVISOR_HOME` named, if it did. Only such a home has
    /// its runtime folder below its label.
    pub(crate) fn given(&self) -> Option<&Path> {
        (self.runtime_dir != self.label).then_some(&self.label)
    }

    /// Whether a daemon of this home may have apps to begin with.
    pub(crate) fn has_state(&self) -> bool {
        self.state_dir.join(STATE_FILE).exists()
    }

    /// The socket that the daemon answers on.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// Where a daemon has what does not outlive the machine.
    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The socket where a master whose keeper has died waits for the next one.
    pub(crate) fn handover_socket(&self) -> PathBuf {
        self.runtime_dir.join(HANDOVER_SOCKET)
    }

    /// The file that a living daemon holds an exclusive `flock(2)` on.
    pub(crate) fn lock(&self) -> PathBuf {
        lock(&self.runtime_dir)
    }

    /// Where a daemon without a terminal writes what it has to say.
    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.log_dir.join("keeper.log")
    }

    /// Makes the folders that every daemon needs, for their owner alone.
    ///
    /// # Errors
    /// When one cannot be made, or somebody else was faster in a public place.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        for folder in [&self.runtime_dir, &self.log_dir] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))
                .or_exit(ExitCode::Refused)?;
        }
        if self.in_public { check_private(&self.runtime_dir, geteuid().as_raw()) } else { Ok(()) }
    }

    /// Whether a daemon holds the lock.
    ///
    /// # Errors
    /// When the lock file cannot be opened although it is there.
    pub(crate) fn is_locked(&self) -> anyhow::Result<bool> {
        let path = self.lock();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => {
                Err(anyhow!(error).context(format!("cannot look at the lock {}", path.display())))
            }
        }
    }

    fn check_socket_path(&self) -> Result<(), Failure> {
        let path = self.control_socket();
        let length = path.as_os_str().as_bytes().len();
        if length <= SOCKET_PATH_MAX {
            return Ok(());
        }
        Err(Failure::new(
            ExitCode::Usage,
            format!(
                "the socket path {} has {length} bytes, and the system takes {SOCKET_PATH_MAX}: \
                 set SUPERVISOR_HOME to a shorter folder",
                path.display()
            ),
        ))
    }
}

/// The file in the runtime folder that a living daemon holds an exclusive
/// `flock(2)` on.
pub(crate) fn lock(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("daemon.lock")
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.label.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn homes_of(uid: u32, variables: &[(&str, &str)], temp_dir: &Path) -> Result<Vec<Home>, Failure> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Surroundings { uid, cwd: Path::new("/here"), variable: &variable, temp_dir }.homes()
    }

    fn runtime_dirs(uid: u32, variables: &[(&str, &str)]) -> Vec<PathBuf> {
        let homes = homes_of(uid, variables, Path::new("/nowhere")).unwrap();
        homes.into_iter().map(|home| home.runtime_dir).collect()
    }

    #[test]
    fn a_given_home_is_the_only_one() {
        assert_eq!(runtime_dirs(0, &[("SUPERVISOR_HOME", "/srv/s")]), [Path::new("/srv/s/run")]);
        assert_eq!(runtime_dirs(7, &[("SUPERVISOR_HOME", "s")]), [Path::new("/here/s/run")]);
        assert_eq!(Home::below(Path::new("/srv/s")).given(), Some(Path::new("/srv/s")));
        assert_eq!(Home::system().given(), None);
    }

    #[test]
    fn root_has_the_systems_home_and_a_user_both() {
        let system = Path::new("/run/supervisor-cluster");
        assert_eq!(runtime_dirs(0, &[("SUPERVISOR_HOME", ""), ("HOME", "/root")]), [system]);
        assert_eq!(
            runtime_dirs(7, &[("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/u")]),
            [Path::new("/run/user/7/supervisor-cluster"), system]
        );
        assert_eq!(
            runtime_dirs(7, &[("XDG_RUNTIME_DIR", "relative"), ("HOME", "/home/u")]),
            [Path::new("/nowhere/supervisor-cluster-7"), system]
        );
    }

    #[test]
    fn logs_of_a_user() {
        let of =
            |variables: &[(&str, &str)]| homes_of(7, variables, Path::new("/nowhere")).unwrap().remove(0);
        let home = of(&[("HOME", "/home/u")]);
        assert_eq!(home.log_dir, Path::new("/home/u/.local/state/supervisor-cluster/log"));
        let home = of(&[("HOME", "/home/u"), ("XDG_STATE_HOME", "/state")]);
        assert_eq!(home.log_dir, Path::new("/state/supervisor-cluster/log"));
        assert_eq!(homes_of(7, &[], Path::new("/nowhere")).unwrap_err().code, ExitCode::Usage);
    }

    #[test]
    fn a_folder_in_tmp_must_be_private() {
        let temp = tempfile::tempdir().unwrap();
        let uid = geteuid().as_raw();
        let folder = temp.path().join("home");
        let check = |uid| check_private(&folder, uid).map_err(|failure| failure.code);
        let set_mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(check(uid), Ok(()));
        fs::create_dir(&folder).unwrap();
        set_mode(0o755);
        assert_eq!(check(uid), Err(ExitCode::Refused));
        set_mode(0o700);
        assert_eq!(check(uid), Ok(()));
        assert_eq!(check(uid + 1), Err(ExitCode::Refused));
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(temp.path(), &folder).unwrap();
        assert_eq!(check(uid), Err(ExitCode::Refused));
    }

    #[test]
    fn a_long_socket_path_is_refused() {
        let long = format!("/{}", "x".repeat(SOCKET_PATH_MAX - "//run/control.sock".len()));
        assert_eq!(runtime_dirs(0, &[("SUPERVISOR_HOME", &long)]).len(), 1);
        let failure = homes_of(0, &[("SUPERVISOR_HOME", &format!("{long}x"))], Path::new("/")).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        assert!(failure.cause.to_string().contains("108 bytes"), "{}", failure.cause);
    }

    #[test]
    fn a_lock_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::below(temp.path());
        assert!(!home.is_locked().unwrap());
        home.create().unwrap();
        assert_eq!(fs::metadata(&home.runtime_dir).unwrap().mode() & 0o777, 0o700);
        let file = fs::File::create(home.lock()).unwrap();
        assert!(!home.is_locked().unwrap());
        file.try_lock().unwrap();
        assert!(home.is_locked().unwrap());
    }
}
