//! The terminal while the view has it.

use std::io::{self, BufWriter, IsTerminal, Stdout};
use std::thread;

use anyhow::Context;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::{style, terminal};
use ratatui::{Frame, Terminal};
use tokio::sync::mpsc;

use crate::exit_code::{ExitCode, Failure, OrExit};

/// How many keys wait. A terminal holds those that come after.
const KEYS_MAX: usize = 64;

/// A frame is written at once, not piece by piece.
const BUFFER: usize = 64 << 10;

/// The whole screen. It is given back when this is dropped, and by a panic.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Whether there is a screen to take.
    ///
    /// # Errors
    /// [`ExitCode::Usage`] when stdout is no terminal, or one that cannot be
    /// drawn on.
    pub(super) fn check(redraws: bool) -> Result<(), Failure> {
        let usage = |message: &str| Err(Failure::new(ExitCode::Usage, message));
        if !io::stdout().is_terminal() {
            return usage("monit needs a terminal, and stdout is none: use `supervisor status --json`");
        }
        if !redraws {
            return usage("monit cannot draw on a terminal with TERM=dumb: use `supervisor status --watch`");
        }
        let size =
            terminal::size().context("cannot read the size of the terminal").or_exit(ExitCode::Usage)?;
        if size.0 == 0 || size.1 == 0 {
            return usage("the terminal says that it has no size: set one with `stty rows 24 cols 80`");
        }
        Ok(())
    }

    /// Takes the screen.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn take(color: bool) -> anyhow::Result<Screen> {
        // Otherwise NO_COLOR would be stronger than `--color always`.
        style::force_color_output(color);
        if let Err(error) = ratatui::try_init() {
            restore();
            return Err(error).context("cannot take the screen of the terminal");
        }
        let backend = CrosstermBackend::new(BufWriter::with_capacity(BUFFER, io::stdout()));
        let terminal = Terminal::new(backend).inspect_err(|_| restore());
        Ok(Screen { terminal: terminal.context("cannot draw on the terminal")? })
    }

    /// Draws a frame; only what differs from the last one is written.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        self.terminal.draw(render).map(|_| ()).context("cannot draw on the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        restore();
    }
}

fn restore() {
    // There is nobody to tell when the terminal has gone.
    let _ = ratatui::try_restore();
}

/// What happens at the keyboard, and changes of the terminal's size. A thread
/// reads it, which ends with the process: nothing else can wait for a terminal.
pub(super) fn inputs() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
