//! Commands that go on until Ctrl-C, read line by line.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use supervisor_sys::signal::Signal;

use crate::harness::{Finished, Home, finish};
use crate::process;
use crate::wait::{DEADLINE, until};

/// A command at work. Its output is read all the time.
pub(crate) struct Follow {
    command: Child,
    lines: Receiver<String>,
}

impl Follow {
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(args).spawn().unwrap();
        let output = BufReader::new(command.stdout.take().unwrap());
        let (read, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| read.send(line)));
        Self { command, lines }
    }

    /// `events` with these arguments, which certainly listens. An app is restarted
    /// until that shows, then stopped and started: nothing that comes later is of
    /// these orders.
    #[track_caller]
    pub(crate) fn events(home: &Home, args: &[&str], app: &str) -> Self {
        let follow = Self::start(home, &[&["events"], args].concat());
        until("events are told", || {
            home.ok(&["restart", "--now", app]);
            follow.lines.try_recv().is_ok()
        });
        home.ok(&["stop", "--now", app]);
        home.ok(&["start", app]);
        let end = |line: &str| {
            line.ends_with(&format!("{app} has started, generation 1"))
                || line.contains(r#""event":"done""#) && line.contains(r#""change":"started""#)
        };
        while !end(&follow.next()) {}
        follow
    }

    /// The next line of its output.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("no line: {error}"))
    }

    /// Skips lines up to one that has this in it.
    #[track_caller]
    pub(crate) fn until(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|error| panic!("no {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        finish(self.command)
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Finished {
        process::signal(self.command.id(), Signal::INT);
        self.finish()
    }
}
