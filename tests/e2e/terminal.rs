//! Commands in a terminal of their own, by `script(1)`.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::harness::{Finished, Home, finish};
use crate::programs;

/// A command in a terminal. What it prints is recorded.
#[derive(Debug)]
pub(crate) struct Terminal {
    script: Child,
}

impl Terminal {
    /// Runs a shell's command line in a new terminal.
    pub(crate) fn start(home: &Home, line: &str) -> Self {
        let mut script: Command = home.program(programs::installed("script"));
        script
            .args(["--quiet", "--return", "--command", line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm");
        Self { script: script.stdin(Stdio::piped()).spawn().unwrap() }
    }

    /// Types into the terminal.
    pub(crate) fn press(&mut self, keys: &[u8]) {
        let keyboard = self.script.stdin.as_mut().unwrap();
        keyboard.write_all(keys).and_then(|()| keyboard.flush()).unwrap();
    }

    /// Waits for the end of the command. The terminal closes.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        finish(self.script)
    }
}
