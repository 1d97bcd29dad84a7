//! A daemon that says what a test tells it to, on the socket of a home of its
//! own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What is answered to a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The beginning of `METHOD PATH`; the first answer that fits is given.
    pub(crate) to: &'static str,
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Keep the connection open until the client leaves.
    pub(crate) hold: bool,
    /// The version that it says it is.
    pub(crate) version: Option<&'static str>,
}

/// An answer of success.
pub(crate) fn ok(to: &'static str, body: impl Into<String>) -> Answer {
    Answer { to, status: 200, body: body.into(), hold: false, version: None }
}

/// A home, with a daemon if there are answers.
#[derive(Debug)]
pub(crate) struct FakeDaemon {
    home: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    /// A home without a daemon.
    pub(crate) fn absent() -> FakeDaemon {
        let home = tempfile::tempdir().unwrap();
        FakeDaemon { home, requests: Arc::default(), stop: Arc::default(), thread: None }
    }

    /// A daemon that gives these answers.
    pub(crate) fn new(answers: impl Into<Vec<Answer>>) -> FakeDaemon {
        let daemon = FakeDaemon::absent();
        std::fs::create_dir(daemon.home.path().join("run")).unwrap();
        daemon.begin(answers)
    }

    /// Begins to answer in a home that has the folder of the socket.
    pub(crate) fn begin(mut self, answers: impl Into<Vec<Answer>>) -> FakeDaemon {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (answers, requests, stop) = (answers.into(), self.requests.clone(), self.stop.clone());
        self.thread = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                serve(stream.unwrap(), &answers, &requests);
            }
        }));
        self
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/control.sock")
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// `METHOD PATH BODY` of each request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The program with these arguments, in this home, with a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
        command.args(args).env_clear().env("SUPERVISOR_HOME", self.home());
        command.current_dir(self.home()).stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::from(self.command(args).output().unwrap())
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let woken = UnixStream::connect(self.socket());
            let joined = thread.join();
            if !thread::panicking() {
                woken.unwrap();
                joined.unwrap();
            }
        }
    }
}

/// How a run of the program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The exit code; `None` for a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Answers one request. Clients may also connect just to see who is there.
fn serve(stream: UnixStream, answers: &[Answer], requests: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    requests.lock().unwrap().push(format!("{request} {body}").trim_end().to_owned());
    let missing = Answer { to: "", status: 500, body: String::new(), hold: false, version: None };
    let answer = answers.iter().find(|answer| request.starts_with(answer.to)).unwrap_or(&missing);
    let server = answer.version.map(|version| format!("server: supervisor-cluster/{version}\r\n"));
    let server = server.unwrap_or_default();
    let head = format!("HTTP/1.1 {} X\r\n{server}connection: close\r\n\r\n", answer.status);
    let mut writer = &stream;
    // The client may have left.
    let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(answer.body.as_bytes()));
    if answer.hold {
        let _ = reader.read_to_end(&mut Vec::new());
    }
}
