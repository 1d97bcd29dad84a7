//! A daemon's home for one test, and the commands that are given in it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::claims::Address;
use crate::process::{self, Number};
use crate::wait::{DEADLINE, eventually, until};
use crate::{http, programs};

/// A port that hardly any program listens on, on all addresses at that.
const PORT: u16 = 29_170;

/// A folder with a daemon's home in it. Whatever runs there ends with it.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
    address: Address,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    /// A new home without a daemon.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("supervisor-").tempdir().unwrap();
        Self { folder, address: Address::claim() }
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Lets other users into the folder, as far as its files let them.
    pub(crate) fn let_others_in(&self) {
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755)).unwrap();
    }

    /// Copies a program into the folder, for users who cannot reach it where
    /// it is.
    pub(crate) fn copy(&self, name: &str, program: &Path) -> PathBuf {
        let path = self.path(name);
        fs::copy(program, &path).unwrap();
        path
    }

    /// Writes a file with these apps: names, and lines of settings.
    pub(crate) fn write_apps(&self, file: &str, apps: &[(&str, &str)]) {
        let apps: String = apps.iter().map(|(name, settings)| app(name, settings)).collect();
        self.write(file, &format!("apps:\n{apps}"));
    }

    /// Writes `app.yaml` with one app.
    pub(crate) fn write_app(&self, name: &str, settings: &str) {
        self.write_apps("app.yaml", &[(name, settings)]);
    }

    /// An address that no other test has. The ports are the same for all; what
    /// differs is the number within 127.0.0.0/8, so no client's port can be in
    /// the way.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_with(PORT)
    }

    /// Another one.
    pub(crate) fn second_address(&self) -> SocketAddr {
        self.address_with(PORT + 1)
    }

    /// One with this port.
    pub(crate) fn address_with(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address.ip(), port))
    }

    /// A number below four million that no other test has.
    pub(crate) const fn number(&self) -> u32 {
        self.address.number()
    }

    /// The folders of the daemon.
    pub(crate) fn daemon_folder(&self) -> PathBuf {
        self.path("d")
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.daemon_folder().join("run/control.sock")
    }

    /// A file of the log folder.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.daemon_folder().join("log").join(name)).unwrap_or_default()
    }

    /// The daemon's own log, whose file's name has the day in it.
    pub(crate) fn daemon_log(&self) -> String {
        let files = fs::read_dir(self.daemon_folder().join("log/daemon")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    /// Waits until the daemon's own log has this. A thread writes it, so it comes
    /// later than what it tells of.
    #[track_caller]
    pub(crate) fn until_logged(&self, text: &str) -> String {
        eventually(&format!("the log has {text:?}"), || {
            Some(self.daemon_log()).filter(|log| log.contains(text))
        })
    }

    /// Any program in the folder, with the environment that all commands have:
    /// this and nothing else.
    pub(crate) fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", programs::search_path())
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("SUPERVISOR_HOME", self.daemon_folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A command of the program under test.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(programs::supervisor());
        command.args(args);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Finished {
        self.ends(0, args)
    }

    /// Runs a command that must end with this code.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, args: &[&str]) -> Finished {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(code), "supervisor {}: {finished:#?}", args.join(" "));
        finished
    }

    /// Writes `app.yaml` with one app and starts it.
    #[track_caller]
    pub(crate) fn start_app(&self, name: &str, settings: &str) -> Finished {
        self.write_app(name, settings);
        self.ok(&["start", "app.yaml"])
    }

    /// What `status` says, asked on the control socket: faster than the command.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    /// The same from a daemon that may be away for a while.
    pub(crate) fn try_status(&self) -> std::io::Result<Value> {
        let answer = http::ask(&self.socket(), "GET", "/v1/status", "")?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// The status of one app.
    #[track_caller]
    pub(crate) fn app(&self, name: &str) -> Value {
        find(&self.status(), name).unwrap_or_else(|| panic!("there is no app {name}"))
    }

    /// Waits until an app's status is as wanted. The daemon may be away for a
    /// while.
    #[track_caller]
    pub(crate) fn app_when(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} {what}"), || find(&self.try_status().ok()?, name).filter(&is_so))
    }

    /// Waits until an app has this state.
    #[track_caller]
    pub(crate) fn app_in_state(&self, name: &str, state: &str) -> Value {
        self.app_when(name, state, |app| app["state"] == state)
    }

    /// The pids of an app's workers.
    #[track_caller]
    pub(crate) fn pids(&self, name: &str) -> Vec<Number> {
        pids(&self.app(name))
    }

    /// The pids of the keeper and the master.
    #[track_caller]
    pub(crate) fn daemon(&self) -> (Number, Number) {
        let daemon = &self.status()["daemon"];
        (number(&daemon["keeper_pid"]), number(&daemon["pid"]))
    }

    /// Waits until another master than this one serves.
    #[track_caller]
    pub(crate) fn until_other_master(&self, master: Number) {
        until("another master serves", || {
            self.try_status().is_ok_and(|status| status["daemon"]["pid"] != master)
        });
    }

    /// Asks a worker at [`Self::address`].
    pub(crate) fn get(&self, path: &str) -> std::io::Result<String> {
        http::get(self.address(), path)
    }

    /// Waits until connections to [`Self::address`] are refused. The keeper may
    /// close its duplicate of a socket a little later than the master.
    #[track_caller]
    pub(crate) fn until_refused(&self) {
        let refused = std::io::ErrorKind::ConnectionRefused;
        until("connections are refused", || self.get("/pid").is_err_and(|error| error.kind() == refused));
    }

    /// What there is to know when a test has failed.
    fn show(&self) {
        const LINES: usize = 60;
        if let Ok(status) = self.try_status() {
            eprintln!("── status ──\n{status:#}");
        }
        for (name, log) in [("keeper.log", self.log("keeper.log")), ("supervisor.log", self.daemon_log())] {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("── {name} ──\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        if self.socket().exists()
            && let Ok(kill) = self.command(&["kill", "--now"]).spawn()
        {
            wait(kill);
        }
        // What is left after that: nothing, unless the daemon is broken.
        let left = process::with_argument_below(self.folder.path());
        let all = left.iter().flat_map(|pid| [vec![*pid], process::descendants(*pid)].concat());
        all.collect::<Vec<Number>>().into_iter().for_each(process::kill);
    }
}

/// The lines of one app in a file.
pub(crate) fn app(name: &str, settings: &str) -> String {
    let lines: String = settings
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("    {line}\n"))
        .collect();
    format!("  - name: {name}\n{lines}")
}

/// Waits for the end of a command and of its output.
#[track_caller]
pub(crate) fn finish(child: Child) -> Finished {
    wait(child).unwrap_or_else(|| {
        panic!("the command, or who holds its output, has not ended within {DEADLINE:?}");
    })
}

/// Waits, but not for ever: a command that takes too long is killed.
fn wait(child: Child) -> Option<Finished> {
    let pid = child.id();
    let (done, output) = channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(DEADLINE) else {
        process::kill(pid);
        return None;
    };
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Some(Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// One app of a status.
pub(crate) fn find(status: &Value, name: &str) -> Option<Value> {
    status["apps"].as_array()?.iter().find(|app| app["name"] == name).cloned()
}

/// The pids of an app's workers, in order of the slots.
pub(crate) fn pids(app: &Value) -> Vec<Number> {
    let workers = app["workers"].as_array().unwrap();
    workers.iter().filter(|worker| !worker["pid"].is_null()).map(|worker| number(&worker["pid"])).collect()
}

/// A number that fits a pid.
#[track_caller]
pub(crate) fn number(value: &Value) -> Number {
    value.as_u64().and_then(|number| number.try_into().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
