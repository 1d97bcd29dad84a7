//! `logs`: what workers write, each line under its worker's name.

use std::hash::{DefaultHasher, Hash, Hasher};

use anstyle::{AnsiColor, Style};
use supervisor_protocol::control::{LogLine, Stream};

use super::style::{BAD, BUSY, paint};
use super::text::{count, one_line};

/// The colours of the workers; red is for standard error.
const PALETTE: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Yellow,
    AnsiColor::BrightCyan,
];

/// Draws lines one after another; names line up with the longest so far.
#[derive(Debug)]
pub(crate) struct LogView {
    color: bool,
    name_width: usize,
}

impl LogView {
    /// A view that has seen nothing.
    pub(crate) const fn new(color: bool) -> LogView {
        LogView { color, name_width: 0 }
    }

    /// The line with its worker's name, ended by `\n`. What the worker wrote
    /// is left as it is, its own colours included.
    pub(crate) fn line(&mut self, line: &LogLine) -> String {
        match line {
            LogLine::Line { app, slot, stream, line, .. } => {
                // Several slots may share a file.
                let name = match slot {
                    Some(slot) => format!("{}:{slot}", one_line(app)),
                    None => one_line(app),
                };
                self.name_width = self.name_width.max(name.chars().count());
                let name = paint(
                    format_args!("{name:width$}", width = self.name_width),
                    worker_style(app, slot.unwrap_or(0)),
                    self.color,
                );
                let mark = match stream {
                    Stream::Out => "|".to_owned(),
                    Stream::Error => paint("!", BAD, self.color),
                };
                // A line that sets a colour and does not reset it would paint
                // those that follow.
                let reset = if self.color && line.contains('\x1b') { "\x1b[0m" } else { "" };
                format!("{name} {mark} {line}{reset}\n")
            }
            // It says nothing to a person.
            LogLine::Files { .. } => String::new(),
            LogLine::Missed { chunks } => {
                let text =
                    format!("… {} of output left out: this reader was too slow", count(*chunks, "piece"));
                format!("{}\n", paint(text, BUSY, self.color))
            }
        }
    }
}

/// A worker's colour, which is the same in every run.
pub(crate) fn worker_style(app: &str, slot: u32) -> Style {
    let mut hasher = DefaultHasher::new();
    app.hash(&mut hasher);
    let index = hasher.finish().wrapping_add(u64::from(slot)) % PALETTE.len() as u64;
    let color = usize::try_from(index).ok().and_then(|index| PALETTE.get(index));
    color.map_or_else(Style::new, |color| color.on_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(app: &str, slot: u32, stream: Stream, line: &str) -> LogLine {
        LogLine::Line { app: app.to_owned(), slot: Some(slot), stream, line: line.to_owned(), position: None }
    }

    #[test]
    fn names_line_up() {
        let mut view = LogView::new(false);
        let lines = [
            line("web", 0, Stream::Out, "hello"),
            line("api-server", 12, Stream::Error, "oh no"),
            LogLine::Missed { chunks: 3 },
            line("web", 1, Stream::Out, ""),
        ];
        let text: String = lines.iter().map(|line| view.line(line)).collect();
        assert_eq!(
            text,
            "web:0 | hello\n\
             api-server:12 ! oh no\n\
             … 3 pieces of output left out: this reader was too slow\n\
             web:1         | \n"
        );
    }

    #[test]
    fn neighbours_differ_in_colour() {
        let mut view = LogView::new(true);
        let first = view.line(&line("web", 0, Stream::Out, "a"));
        assert_ne!(first.split('w').next(), view.line(&line("web", 1, Stream::Out, "a")).split('w').next());
        assert_eq!(first, view.line(&line("web", 0, Stream::Out, "a")));
        assert!(view.line(&line("web", 0, Stream::Error, "\x1b[1mbold")).ends_with("\x1b[0m\n"));
    }
}
