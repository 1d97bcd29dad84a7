//! Commands that go on until Ctrl-C, read line by line.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout};

use supervisor_sys::signal::Signal;

use crate::harness::{Finished, Home, finish};
use crate::process;

/// A command at work.
pub(crate) struct Follow {
    command: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follow {
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(args).spawn().unwrap();
        let lines = BufReader::new(command.stdout.take().unwrap()).lines();
        Self { command, lines }
    }

    /// The next line of its output.
    pub(crate) fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Skips lines up to one that has this in it.
    #[track_caller]
    pub(crate) fn until(&mut self, part: &str) -> String {
        let lines = &mut self.lines;
        lines.map_while(Result::ok).find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part:?}"))
    }

    /// Whether it has a connection to the daemon, or is about to have one.
    pub(crate) fn is_connected(&self) -> bool {
        let open =
            std::fs::read_dir(format!("/proc/{}/fd", self.command.id())).into_iter().flatten().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|target| target.to_string_lossy().starts_with("socket:"))
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
