//! Commands in a terminal of their own, by `script(1)`.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::harness::{Finished, Home, finish, text};
use crate::programs;
use crate::wait::{DEADLINE, eventually};

/// A command in a terminal. What it prints is recorded. The terminal closes when
/// this is dropped, which ends the command.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// `None` when the end of the command was waited for.
    script: Option<Child>,
}

impl Terminal {
    /// Runs a shell's command line in a new terminal.
    pub(crate) fn start(home: &Home, line: &str) -> Self {
        let mut script: Command = home.program(programs::installed("script"));
        script
            .args(["--quiet", "--return", "--command", line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm");
        Self { script: Some(script.stdin(Stdio::piped()).spawn().unwrap()) }
    }

    /// Types into the terminal.
    pub(crate) fn press(&mut self, keys: &[u8]) {
        let keyboard = self.script.as_mut().and_then(|script| script.stdin.as_mut()).unwrap();
        keyboard.write_all(keys).and_then(|()| keyboard.flush()).unwrap();
    }

    /// Waits for the end of the command. The terminal closes.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        finish(self.script.take().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut script) = self.script.take() {
            let _ = script.kill();
            let _ = script.wait();
        }
    }
}

/// How often a screen is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Rows and columns of a terminal.
pub(crate) type Size = (u16, u16);

/// The sizes that everything should look well at.
pub(crate) const SIZES: [Size; 2] = [(24, 80), (50, 200)];

/// A command in a terminal of a known size, whose screen is looked at.
pub(crate) struct Screen {
    terminal: Terminal,
    parser: Arc<Mutex<vt100::Parser>>,
    reader: JoinHandle<Vec<u8>>,
    device: String,
}

/// What is left of a screen when its command has ended.
pub(crate) struct Left {
    pub(crate) code: Option<i32>,
    /// The screen.
    pub(crate) screen: vt100::Screen,
    /// All that was written to it.
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Screen {
    /// Runs a shell's command line in a new terminal of this size.
    pub(crate) fn start(home: &Home, size: Size, line: &str) -> Self {
        let ((rows, columns), file) = (size, home.path("terminal"));
        let line = format!("stty rows {rows} cols {columns}; tty > {}; {line}", text(&file));
        let mut terminal = Terminal::start(home, &line);
        let mut output = terminal.script.as_mut().and_then(|script| script.stdout.take()).unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let shown = Arc::clone(&parser);
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().process(&buffer[..length]);
                bytes.extend_from_slice(&buffer[..length]);
            }
            bytes
        });
        let device = eventually("the terminal has a name", || {
            fs::read_to_string(&file).ok().filter(|name| name.ends_with('\n'))
        });
        fs::remove_file(file).unwrap();
        Self { terminal, parser, reader, device: device.trim_end().to_owned() }
    }

    /// Types into the terminal.
    pub(crate) fn press(&mut self, keys: &str) {
        self.terminal.press(keys.as_bytes());
    }

    /// Gives the terminal another size, and tells whoever uses it.
    pub(crate) fn resize(&self, (rows, columns): Size) {
        self.parser.lock().unwrap().screen_mut().set_size(rows, columns);
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let stty = Command::new("stty").args(["-F", &self.device, "rows", &rows, "cols", &columns]).status();
        assert!(stty.unwrap().success());
    }

    /// What is on the screen, line by line.
    pub(crate) fn text(&self) -> String {
        rows(self.parser.lock().unwrap().screen()).join("\n")
    }

    /// Waits until this is on the screen.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        self.shows_all(&[text]);
    }

    /// Waits until all of this is on the screen at once.
    #[track_caller]
    pub(crate) fn shows_all(&self, texts: &[&str]) {
        self.shows_what(&format!("{texts:?}"), |shown| texts.iter().all(|text| shown.contains(text)));
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub(crate) fn shows_what(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !is_so(&self.text()) {
            assert!(begin.elapsed() < DEADLINE, "{what} is not on the screen:\n{self:?}");
            sleep(PAUSE);
        }
    }

    /// No line was longer than the screen is wide, which tears what is redrawn.
    #[track_caller]
    pub(crate) fn assert_unwrapped(&self) {
        let screen = self.parser.lock().unwrap().screen().clone();
        let (rows, _) = screen.size();
        assert!((0..rows).all(|row| !screen.row_wrapped(row)), "a line is too long:\n{self:?}");
    }

    /// Waits for the end of the command.
    #[track_caller]
    pub(crate) fn finish(self) -> Left {
        let code = self.terminal.finish().code;
        let bytes = self.reader.join().unwrap();
        let screen = self.parser.lock().unwrap().screen().clone();
        Left { code, screen, bytes }
    }
}

/// The lines of a screen, as they are seen.
pub(crate) fn rows(screen: &vt100::Screen) -> Vec<String> {
    let (_, columns) = screen.size();
    screen.rows(0, columns).map(|row| row.trim_end().to_owned()).collect()
}
