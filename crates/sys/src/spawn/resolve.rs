//! Finding a program, as `execvp(3)` does, but in the parent.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Where a program is looked for when there is no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The file that `name` means.
///
/// A name with a slash is relative to `cwd`; any other is searched in `path_env` (the value of the
/// *child's* `PATH`; [`DEFAULT_PATH`] if it has none), whose relative and empty entries are relative to
/// `cwd` too. The result is absolute if `cwd` is.
///
/// It is a preview with the caller's rights: a child of another user may still fail at
/// [`Stage::Exec`](super::Stage::Exec).
///
/// # Errors
///
/// [`ResolveError::NotExecutable`] if something of that name exists but cannot be executed,
/// [`ResolveError::NotFound`] otherwise.
pub fn resolve_program(name: &OsStr, path_env: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, ResolveError> {
    let not_found = || ResolveError::NotFound(name.to_owned());
    if name.is_empty() {
        return Err(not_found());
    }
    if name.as_bytes().contains(&b'/') {
        let path = cwd.join(name);
        return match check(&path) {
            Found::Program => Ok(path),
            Found::Other => Err(ResolveError::NotExecutable(path)),
            Found::Nothing => Err(not_found()),
        };
    }

    let path_env = path_env.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut refused = None;
    for folder in path_env.as_bytes().split(|byte| *byte == b':') {
        let path = cwd.join(OsStr::from_bytes(folder)).join(name);
        match check(&path) {
            Found::Program => return Ok(path),
            // As execvp does: go on, and remember it for the case that nothing better comes.
            Found::Other => refused = refused.or(Some(path)),
            Found::Nothing => {}
        }
    }
    Err(refused.map_or_else(not_found, ResolveError::NotExecutable))
}

enum Found {
    Program,
    Other,
    Nothing,
}

fn check(path: &Path) -> Found {
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A directory passes as well, as its x bit means search.
        Ok(()) if path.is_file() => Found::Program,
        Ok(()) | Err(Errno::ACCESS) => Found::Other,
        Err(_) => Found::Nothing,
    }
}

/// Why a name means no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// Nothing of this name is there.
    NotFound(OsString),
    /// This is there, but it is not a file, or may not be executed or reached.
    NotExecutable(PathBuf),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::NotFound(name) => {
                write!(f, "no program {}: not found", name.display())
            }
            ResolveError::NotExecutable(path) => {
                write!(f, "cannot execute {}: not an executable file", path.display())
            }
        }
    }
}

impl std::error::Error for ResolveError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn resolve(name: &str, path: Option<&str>, cwd: &Path) -> Result<PathBuf, ResolveError> {
        resolve_program(OsStr::new(name), path.map(OsStr::new), cwd)
    }

    #[test]
    fn names_are_found_as_execvp_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let cwd = folder.path();
        for (name, mode) in [("a/tool", 0o644), ("b/tool", 0o755), ("a/plain", 0o644)] {
            let path = cwd.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(cwd.join("a/folder")).unwrap();

        let found = |path: &str| Ok(cwd.join(path));
        let refused = |path: &str| Err(ResolveError::NotExecutable(cwd.join(path)));
        let absent = |name: &str| Err(ResolveError::NotFound(name.into()));

        assert_eq!(resolve("tool", Some("a:b"), cwd), found("b/tool"));
        assert_eq!(resolve("plain", Some("a:b"), cwd), refused("a/plain"));
        assert_eq!(resolve("folder", Some("a:b"), cwd), refused("a/folder"));
        assert_eq!(resolve("absent", Some("a:b"), cwd), absent("absent"));
        assert_eq!(resolve("tool", Some("a:"), &cwd.join("b")), found("b/tool"));
        assert_eq!(resolve("./b/tool", Some("a"), cwd), found("./b/tool"));
        assert_eq!(resolve("a/tool", None, cwd), refused("a/tool"));
        assert_eq!(resolve("c/tool", None, cwd), absent("c/tool"));
        assert_eq!(resolve("", Some("a"), cwd), absent(""));
        let shell = resolve("sh", None, cwd).unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"));
    }
}
