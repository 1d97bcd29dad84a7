//! What the person at the other end can see: colours, width, a live line.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;

use crate::args::{Color, Global};
use crate::render::Canvas;

/// The width of an unknown terminal.
const DEFAULT_WIDTH: usize = 80;

/// Narrower than this a table makes no sense.
const MIN_WIDTH: usize = 40;

/// How to write to this caller. Data goes to stdout, words about it to stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// Whether stdout takes colours.
    pub(crate) color: bool,
    /// Whether stderr takes colours.
    pub(crate) error_color: bool,
    /// Whether stdout can be redrawn.
    pub(crate) redraws: bool,
    /// Whether stderr can be redrawn.
    pub(crate) error_redraws: bool,
    /// `--json`
    pub(crate) json: bool,
    /// `--verbose`
    pub(crate) verbose: bool,
}

impl Terminal {
    /// Looks at stdout, stderr, the environment and the options.
    pub(crate) fn new(options: &Global) -> Terminal {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let (color, error_color) = match options.color {
            Color::Auto => (
                AutoStream::choice(&stdout) != ColorChoice::Never,
                AutoStream::choice(&stderr) != ColorChoice::Never,
            ),
            Color::Always => (true, true),
            Color::Never => (false, false),
        };
        let smart = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Terminal {
            color,
            error_color,
            redraws: smart && stdout.is_terminal(),
            error_redraws: smart && stderr.is_terminal(),
            json: options.json,
            verbose: options.verbose,
        }
    }

    /// What stdout can hold at this moment. A file or a pipe holds everything:
    /// programs that read names want them whole.
    pub(crate) fn canvas(self) -> Canvas {
        let now = jiff::Timestamp::now();
        if !io::stdout().is_terminal() {
            return Canvas { width: usize::MAX, color: self.color, now };
        }
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let size = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
        let width = columns.or_else(size).filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH);
        Canvas { width, color: self.color, now }
    }

    /// Rows of the terminal at this moment; `None` if stdout is none.
    pub(crate) fn rows() -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_row)).filter(|rows| *rows > 1)
    }

    /// Says something about what is going on.
    pub(crate) fn say(message: &str) {
        // There is nobody to tell that stderr is closed.
        let _ = writeln!(io::stderr(), "{message}");
    }

    /// Says something that only `--verbose` wants to know.
    pub(crate) fn explain(self, message: &str) {
        if self.verbose {
            Self::say(message);
        }
    }
}

/// Writes to stdout, whole, and flushes.
///
/// # Errors
/// When it cannot be written. A closed pipe is none: that ends the process.
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        supervisor_sys::signal::reset_sigpipe().context("cannot reset SIGPIPE")?;
        // This time it comes as a signal.
        let _ = rustix::io::write(&stdout, b"\n");
    }
    written.context("cannot write to stdout")
}
