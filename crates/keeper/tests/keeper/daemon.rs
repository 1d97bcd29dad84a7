//! A keeper of the test's own, and its masters.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::kill_process;
use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello, MAX_PACKET, Orphan, ToKeeper};
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, fdpass};
use tempfile::TempDir;

use crate::programs;
use crate::wait::{eventually, until_readable};

/// A keeper, killed when it is dropped. Its masters end with their
/// [`Master`]s.
#[derive(Debug)]
pub(crate) struct Daemon {
    folder: TempDir,
    masters: UnixListener,
    keeper: Child,
}

impl Daemon {
    /// Starts a keeper, whose lines go to a file.
    pub(crate) fn start() -> Self {
        Self::start_with(|keeper| keeper)
    }

    /// Starts a keeper that is different in something.
    pub(crate) fn start_with(change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let masters = UnixListener::bind(folder.path().join("masters")).unwrap();
        let mut command = Self::command(&folder);
        change(&mut command);
        let keeper = command.spawn().unwrap();
        Self { folder, masters, keeper }
    }

    fn command(folder: &TempDir) -> Command {
        let log = File::options().append(true).create(true).open(folder.path().join("log")).unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.args(programs::arguments("keeper")).env(programs::FOLDER, folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Runs a second keeper in the same folder to its end.
    pub(crate) fn start_another(&self) -> ExitStatus {
        Self::command(&self.folder).status().unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.keeper)
    }

    /// The next master, when it has been started.
    #[track_caller]
    pub(crate) fn master(&self) -> Master {
        until_readable("a master", &self.masters);
        let (test, _) = self.masters.accept().unwrap();
        let mut pid = [0; 4];
        until_readable("a master's link", &test);
        let link = fdpass::receive(&test, &mut pid).unwrap().fds.remove(0);
        let pid = Pid::from_raw(i32::from_ne_bytes(pid)).unwrap();
        Master { pid, link, test }
    }

    /// The next master, when it has the table.
    #[track_caller]
    pub(crate) fn master_with_table(&self) -> (Master, Inheritance) {
        let master = self.master();
        let inheritance = master.inherit();
        (master, inheritance)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal.into()).unwrap();
    }

    /// What the keeper has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits until the keeper has written this.
    #[track_caller]
    pub(crate) fn until_logged(&self, text: &str) {
        eventually(text, || self.log().contains(text).then_some(()));
    }

    /// The keeper's exit code, when it has ended; `None` while it runs.
    pub(crate) fn try_exit_code(&mut self) -> Option<i32> {
        self.keeper.try_wait().unwrap().map(|status| status.code().expect("no signal ended it"))
    }

    /// Waits for the keeper's exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        eventually("the keeper ends", || self.try_exit_code())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the keeper:\n{}", self.log());
        }
        // Fails when it has ended.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// What a master got before the end of the table.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) hello: Hello,
    pub(crate) entries: Vec<Entry>,
    pub(crate) orphans: Vec<Orphan>,
}

/// An entry of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) record: Vec<u8>,
    pub(crate) roles: Vec<FdRole>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A process that the keeper takes for its master. The test says and hears what
/// a master would; the process runs shell commands, and ends when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) pid: Pid,
    link: OwnedFd,
    test: UnixStream,
}

impl Master {
    pub(crate) fn send(&self, message: &ToKeeper) {
        self.send_raw(&message.encode());
    }

    /// Sends any bytes.
    pub(crate) fn send_raw(&self, packet: &[u8]) {
        fdpass::send(&self.link, packet, &[]).unwrap();
    }

    /// Stores an entry.
    pub(crate) fn put(&self, key: &str, record: &[u8], fds: &[(FdRole, BorrowedFd<'_>)]) {
        let (roles, fds): (Vec<_>, Vec<_>) = fds.iter().copied().unzip();
        let message = ToKeeper::Put { key: key.to_owned(), record: record.to_vec(), roles };
        fdpass::send(&self.link, &message.encode(), &fds).unwrap();
    }

    pub(crate) fn adopted(&self) {
        self.send(&ToKeeper::Adopted);
    }

    /// The next message of the keeper.
    #[track_caller]
    pub(crate) fn receive(&self) -> (FromKeeper, Vec<OwnedFd>) {
        until_readable("a message of the keeper", &self.link);
        let mut packet = [0; MAX_PACKET];
        let received = fdpass::receive(&self.link, &mut packet).unwrap();
        assert!(!received.truncated && received.len > 0);
        (FromKeeper::decode(&packet[..received.len]).unwrap(), received.fds)
    }

    /// Everything up to the end of the table.
    #[track_caller]
    pub(crate) fn inherit(&self) -> Inheritance {
        let (FromKeeper::Hello(hello), _) = self.receive() else { panic!("no hello") };
        let mut inheritance = Inheritance { hello, entries: Vec::new(), orphans: Vec::new() };
        loop {
            let (message, fds) = self.receive();
            match message {
                FromKeeper::Entry { key, record, roles } => {
                    inheritance.entries.push(Entry { key, record, roles, fds });
                }
                FromKeeper::Orphan(orphan) => inheritance.orphans.push(orphan),
                FromKeeper::TableEnd => return inheritance,
                FromKeeper::Hello(_) | FromKeeper::Signal { .. } | FromKeeper::Upgrade(_) => {
                    panic!("out of turn: {message:?}")
                }
            }
        }
    }

    /// The next message of the keeper, which must be a signal.
    #[track_caller]
    pub(crate) fn expect_signal(&self, signal: Signal) {
        assert_eq!(self.receive().0, FromKeeper::Signal { number: signal.as_raw() });
    }

    /// Has the process run a shell command. Returns its output on one line.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        writeln!(&self.test, "{command}").unwrap();
        until_readable(command, &self.test);
        let mut line = String::new();
        BufReader::new(&self.test).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Closes the link, as the end of the process would, and kills it.
    pub(crate) fn kill(self) {
        let Self { pid, link, test: _test } = self;
        drop(link);
        kill_process(pid, Signal::KILL.into()).unwrap();
    }
}

/// A file of memory with a text, to be told from others.
pub(crate) fn file(text: &str) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    File::from(fd.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
    fd
}

/// The text of such a file.
pub(crate) fn text(fd: impl AsFd) -> String {
    let mut buffer = [0; 256];
    let length = rustix::io::pread(fd, &mut buffer, 0).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}
