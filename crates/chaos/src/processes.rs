//! Processes as `/proc` shows them, and signals.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use supervisor_sys::diag::{Diag, inodes_of};
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, pidfd, process};

use crate::home::MARK;

/// A pid as JSON has it.
pub(crate) type Number = u32;

/// The kernel's.
pub(crate) fn pid(number: Number) -> Result<Pid> {
    Pid::from_raw(number.try_into()?).context("0 is no pid")
}

/// A process that may be gone; it is never another one.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) number: Number,
    pidfd: OwnedFd,
}

impl Process {
    /// The process that has this pid now.
    pub(crate) fn open(number: Number) -> Result<Self> {
        let pidfd = pidfd::open(pid(number)?).with_context(|| format!("process {number}"))?;
        Ok(Self { number, pidfd })
    }

    /// Sends a signal. `false`: it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        pidfd::send_signal(&self.pidfd, signal).is_ok()
    }

    /// Stops it, and waits until all of it stands still. `false`: it is gone.
    pub(crate) fn stop(&self) -> bool {
        let begin = Instant::now();
        self.signal(Signal::STOP);
        while begin.elapsed() < Duration::from_secs(5) {
            match self.state() {
                None | Some('Z' | 'X') => return false,
                Some('T') if self.threads_stand_still() => return true,
                Some(_) => sleep(Duration::from_micros(200)),
            }
        }
        false
    }

    /// Whether nothing of it can go on while a signal ends it.
    pub(crate) fn has_one_thread(&self) -> bool {
        fs::read_dir(self.file("task")).is_ok_and(|threads| threads.count() == 1)
    }

    /// The clients whose connections to a port it has accepted. It should stand still.
    pub(crate) fn accepted(&self, port: u16) -> Result<HashSet<SocketAddr>> {
        let inodes = inodes_of([pid(self.number)?])?;
        // On a busy machine the kernel may be slow to answer.
        let ask = || Diag::new()?.connections(port);
        let connections = (0..20).find_map(|_| ask().ok()).map_or_else(ask, Ok)?;
        let own = connections.into_iter().filter(|connection| inodes.contains(&connection.inode));
        Ok(own.map(|connection| connection.peer).collect())
    }

    /// Its open descriptors: how many there are of each kind.
    pub(crate) fn descriptors(&self) -> io::Result<BTreeMap<String, usize>> {
        let mut kinds = BTreeMap::new();
        for entry in fs::read_dir(self.file("fd"))? {
            let Ok(target) = fs::read_link(entry?.path()) else { continue };
            let target = target.to_string_lossy();
            // The number of a socket, a pipe or a process tells nothing.
            let kind = target.split(|letter: char| letter.is_ascii_digit()).next().unwrap_or_default();
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(kinds)
    }

    /// Proportional share of memory, in KiB.
    pub(crate) fn memory(&self) -> Result<u64> {
        Ok(process::pss(pid(self.number)?)? / 1024)
    }

    fn state(&self) -> Option<char> {
        state_in(&self.file("stat"))
    }

    /// Each thread stops when it notices.
    fn threads_stand_still(&self) -> bool {
        let threads = fs::read_dir(self.file("task")).into_iter().flatten().flatten();
        let mut states = threads.map(|thread| state_in(&thread.path().join("stat")));
        states.all(|state| state.is_none_or(|state| "TZX".contains(state)))
    }

    fn file(&self, name: &str) -> PathBuf {
        file(self.number, name)
    }
}

fn file(number: Number, name: &str) -> PathBuf {
    format!("/proc/{number}/{name}").into()
}

/// The letter of a state; the name before it may have blanks and brackets.
fn state_in(path: &Path) -> Option<char> {
    fs::read_to_string(path).ok()?.rsplit_once(") ")?.1.chars().next()
}

/// A process of the run.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) number: Number,
    pub(crate) parent: Option<Number>,
    pub(crate) zombie: bool,
    /// The app that it is a worker of.
    pub(crate) app: Option<String>,
    /// Its arguments, for the reader.
    #[expect(dead_code, reason = "shown by `Debug`")]
    words: String,
}

/// All processes of the run: by their environment, which nothing here changes,
/// and zombies, which have none, by their parents.
pub(crate) fn own(folder: &Path) -> Result<Vec<Own>> {
    // Workers inherit one of these variables, and the daemon the other.
    let marks = [MARK, "HOME"].map(|name| format!("{name}={}", folder.display()));
    let number = |pid: Pid| pid.as_raw_pid().unsigned_abs();
    let mut own: Vec<Own> = Vec::new();
    let mut zombies = Vec::new();
    for entry in process::process_table()? {
        let process = number(entry.pid);
        let parent = entry.parent.map(number);
        if entry.zombie {
            zombies.push(Own { number: process, parent, zombie: true, app: None, words: String::new() });
            continue;
        }
        let Ok(environment) = fs::read(file(process, "environ")) else { continue };
        let variables = || environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        if !variables().any(|variable| marks.iter().any(|mark| variable.starts_with(mark))) {
            continue;
        }
        let app = variables().find_map(|variable| Some(variable.strip_prefix("SUPERVISOR_APP=")?.to_owned()));
        let words = fs::read(file(process, "cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        own.push(Own { number: process, parent, zombie: false, app, words });
    }
    zombies.retain(|zombie| own.iter().any(|process| Some(process.number) == zombie.parent));
    own.append(&mut zombies);
    Ok(own)
}
