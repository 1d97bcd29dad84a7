//! A folder for one run: the daemon's home on a small disk of its own, what the
//! workers note, and the programs.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;
use supervisor_sys::pidfd;
use supervisor_sys::signal::Signal;

use crate::processes::pid;

/// Names the variable that all processes of a run have: one that the supervisor passes on.
pub(crate) const MARK: &str = "CHAOS_RUN";
/// The size of the disk.
const DISK: &std::ffi::CStr = c"size=128m";
/// How long a command may take. A reload that waits for everything that can go
/// wrong takes half a minute.
const COMMAND: Duration = Duration::from_secs(120);
/// How long the daemon may take to answer a question.
const ANSWER: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Home {
    folder: PathBuf,
    supervisor: PathBuf,
    ip: Ipv4Addr,
    mounted: bool,
}

impl Home {
    /// Makes the folder, and compiles what is in C.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("supervisor-chaos-").tempdir()?.keep();
        let own = std::env::current_exe()?;
        let supervisor = own.with_file_name("supervisor");
        for program in [&supervisor, &own.with_file_name("supervisor-next")] {
            ensure!(program.is_file(), "{} is missing: use scripts/chaos", program.display());
        }
        for name in ["disk", "facts", "bin"] {
            fs::create_dir(folder.join(name))?;
        }
        let mounted = mount("tmpfs", folder.join("disk"), "tmpfs", MountFlags::empty(), DISK).is_ok();
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let home = Self { folder, supervisor, ip: Ipv4Addr::new(127, high | 0x80, low, 77), mounted };
        for name in ["blocking", "logger"] {
            let source = source(&format!("workers/{name}.c"));
            let mut cc = Command::new("cc");
            cc.args(["-static", "-O1", "-Wall", "-Werror", "-o"])
                .arg(home.path("bin").join(name))
                .arg(source);
            ensure!(cc.status().context("cc: run scripts/setup")?.success(), "cannot compile {name}.c");
        }
        fs::copy(home.next(), home.path("bin/broken"))?;
        Ok(home)
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The program.
    pub(crate) fn supervisor(&self) -> PathBuf {
        self.supervisor.clone()
    }

    /// Its next version. A copy, `bin/broken`, fails as the file beside it says.
    pub(crate) fn next(&self) -> PathBuf {
        self.supervisor.with_file_name("supervisor-next")
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where workers are, and note things.
    pub(crate) fn facts(&self) -> PathBuf {
        self.path("facts")
    }

    /// The disk that the daemon's files are on, if it is one of its own.
    pub(crate) fn disk(&self) -> Option<PathBuf> {
        self.mounted.then(|| self.path("disk"))
    }

    /// A file of the daemon.
    pub(crate) fn daemon(&self, name: &str) -> PathBuf {
        self.path("disk/d").join(name)
    }

    /// An address that nobody else has.
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip, port))
    }

    /// A word of an app's command.
    pub(crate) fn word(&self, word: &str) -> String {
        let compiled = self.path("bin").join(word);
        let path = if compiled.is_file() {
            compiled
        } else if word.contains('/') {
            source(word)
        } else {
            return word.to_owned();
        };
        path.display().to_string()
    }

    /// A command of the program.
    pub(crate) fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.supervisor);
        command
            .args(words)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("LANG", "C.UTF-8")
            .env("RUST_BACKTRACE", "1")
            .env("SUPERVISOR_HOME", self.path("disk/d"))
            .env(MARK, &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end. One that takes for ever is killed, which is an error.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Output> {
        let child = self.command(words).spawn()?;
        let number = child.id();
        let (done, output) = channel();
        thread::spawn(move || done.send(child.wait_with_output()));
        if let Ok(output) = output.recv_timeout(COMMAND) {
            return Ok(output?);
        }
        if let Ok(pidfd) = pidfd::open(pid(number)?) {
            let _ = pidfd::send_signal(pidfd, Signal::KILL);
        }
        bail!("`supervisor {}` has not ended within {COMMAND:?}", words.join(" "));
    }

    /// Asks the daemon. An error when it does not answer.
    pub(crate) fn ask(&self, path: &str) -> Result<Value> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").context("no answer")?.1;
        Ok(serde_json::from_str(body)?)
    }

    /// A connection to the control socket.
    pub(crate) fn connect(&self) -> Result<UnixStream> {
        Ok(UnixStream::connect(self.daemon("run/control.sock"))?)
    }

    /// Leaves the folder as it is, and says where.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder
    }

    /// Takes the folder away.
    pub(crate) fn remove(self) -> Result<()> {
        if self.mounted {
            unmount(self.path("disk"), UnmountFlags::DETACH)?;
        }
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}

/// A file of this crate.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
