//! The programs that the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program under test. Cargo builds it beside the tests, but names its
/// path only to tests of its own package.
pub(crate) fn supervisor() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("supervisor");
    assert!(path.is_file(), "{} is missing: build the workspace first, or use scripts/test", path.display());
    path
}

/// Another version of it, of the same source: Cargo builds it when that has not
/// been done since the program under test was built.
pub(crate) fn next() -> PathBuf {
    let path = supervisor().with_file_name("supervisor-next");
    let built = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    if built(&path).is_none_or(|at| Some(at) < built(&supervisor())) {
        let release = path.parent().is_some_and(|folder| folder.ends_with("release"));
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--locked", "--package", "supervisor-cli", "--bin", "supervisor-next"])
            .args(["--features", "next-version"])
            .args(release.then_some("--release"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "cannot build {}: use scripts/test", path.display());
    }
    path
}

/// The worker that can misbehave.
pub(crate) fn worker() -> PathBuf {
    env!("CARGO_BIN_EXE_fixture-worker").into()
}

/// A file among the fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A program that `scripts/setup` installs, on `PATH`.
#[track_caller]
pub(crate) fn installed(name: &str) -> PathBuf {
    let path = search_path();
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not on {path}: run scripts/setup"))
}

/// The Python with gunicorn that `scripts/setup` makes, and gunicorn itself.
#[track_caller]
pub(crate) fn in_python_environment(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/python/bin").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/setup", path.display());
    path
}

/// Where Node finds the packages that `scripts/setup` installs.
#[track_caller]
pub(crate) fn node_packages() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/node/node_modules");
    assert!(path.join("express").is_dir(), "express is not in {}: run scripts/setup", path.display());
    path
}

/// Where programs are looked for: the tests' own `PATH`, and where daemons are.
pub(crate) fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Compiles a C fixture into a static program.
pub(crate) fn compile(source: &str, program: &Path) {
    let status = Command::new(installed("cc"))
        .args(["-static", "-O1", "-Wall", "-Werror", "-o"])
        .arg(program)
        .arg(fixture(source))
        .status()
        .unwrap();
    assert!(status.success(), "cannot compile {source}: run scripts/setup");
}
