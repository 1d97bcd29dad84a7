//! File systems that are small, or cannot be written. Mounting takes
//! CAP_SYS_ADMIN: a test that cannot do without fails where root lacks it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[track_caller]
fn mount(args: &[&str], path: &Path) {
    let status = Command::new("mount").args(args).arg(path).status().unwrap();
    assert!(
        status.success(),
        "mount {} {}: {status}; it takes CAP_SYS_ADMIN",
        args.join(" "),
        path.display()
    );
}

fn unmount(path: &Path) {
    // The daemon may still have a file open there.
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

/// A small file system in memory, which goes with this value.
#[derive(Debug)]
pub(crate) struct Tmpfs(pub(crate) PathBuf);

impl Tmpfs {
    /// Makes a folder and mounts it there.
    #[track_caller]
    pub(crate) fn mount(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], &path);
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// A folder in which nothing can be opened to be written, for as long as this
/// lives. What was open before is not concerned.
#[derive(Debug)]
pub(crate) struct ReadOnly(PathBuf);

impl ReadOnly {
    #[track_caller]
    pub(crate) fn over(path: PathBuf) -> Self {
        mount(&["--bind", path.to_str().unwrap()], &path);
        let this = Self(path);
        mount(&["-o", "remount,bind,ro"], &this.0);
        this
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}
