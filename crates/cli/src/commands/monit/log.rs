//! The last lines of the selected app or worker.

use std::collections::VecDeque;

use supervisor_protocol::control::{LogLine, Stream};

use crate::render::text::{one_line, truncate};

/// How many lines are kept.
const LINES_MAX: usize = 1000;

/// How much of a line is kept, in characters.
const LENGTH_MAX: usize = 1000;

/// A line of a worker.
#[derive(Debug)]
pub(super) struct Entry {
    /// The app.
    pub(super) app: String,
    /// The slot; `None` when several share a file.
    pub(super) slot: Option<u32>,
    /// Whether it is on standard error.
    pub(super) is_error: bool,
    /// Without control characters.
    pub(super) text: String,
}

/// The lines of one subject.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Oldest first.
    pub(super) entries: VecDeque<Entry>,
    /// How many pieces of output were left out.
    pub(super) missed: u64,
    /// Why there is nothing to follow.
    pub(super) problem: Option<String>,
    /// How many lines are below those on the screen; 0 follows the end.
    up: usize,
}

impl Log {
    /// Adds a line. Whoever has scrolled up goes on seeing the same lines.
    pub(super) fn add(&mut self, line: LogLine) {
        match line {
            LogLine::Line { app, slot, stream, line, .. } => {
                if self.entries.len() >= LINES_MAX {
                    self.entries.pop_front();
                }
                let text = truncate(&one_line(&line), LENGTH_MAX);
                self.entries.push_back(Entry { app, slot, is_error: stream == Stream::Error, text });
                if self.up > 0 {
                    self.scroll_up(1);
                }
            }
            LogLine::Files { .. } => {}
            LogLine::Missed { chunks } => self.missed = self.missed.saturating_add(chunks),
        }
    }

    /// Towards older lines.
    pub(super) fn scroll_up(&mut self, lines: usize) {
        self.up = self.up.saturating_add(lines).min(self.entries.len().saturating_sub(1));
    }

    /// Towards newer lines.
    pub(super) fn scroll_down(&mut self, lines: usize) {
        self.up = self.up.saturating_sub(lines);
    }

    /// How many lines are below the screen.
    pub(super) const fn below(&self) -> usize {
        self.up
    }

    /// The lines on a screen of so many rows, oldest first.
    pub(super) fn shown(&self, rows: usize) -> impl Iterator<Item = &Entry> {
        // The screen is full as long as there are lines for it.
        let end = (self.entries.len() - self.up.min(self.entries.len())).max(rows.min(self.entries.len()));
        self.entries.range(end.saturating_sub(rows)..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: impl Into<String>) -> LogLine {
        let (app, slot, stream) = ("web".to_owned(), Some(0), Stream::Out);
        LogLine::Line { app, slot, stream, line: text.into(), position: None }
    }

    fn shown(log: &Log, rows: usize) -> Vec<&str> {
        log.shown(rows).map(|entry| entry.text.as_str()).collect()
    }

    #[test]
    fn it_is_bounded_and_harmless() {
        let mut log = Log::default();
        for number in 0..=LINES_MAX {
            log.add(line(number.to_string()));
        }
        log.add(line("\x1b[2Jx".repeat(5000)));
        log.add(LogLine::Missed { chunks: 2 });
        log.add(LogLine::Missed { chunks: 3 });
        assert_eq!((log.entries.len(), log.missed), (LINES_MAX, 5));
        assert_eq!(log.entries[0].text, "2");
        let last = &log.entries[LINES_MAX - 1].text;
        assert_eq!(last.chars().count(), LENGTH_MAX);
        assert!(last.starts_with("xxx"));
    }

    #[test]
    fn it_follows_the_end_unless_scrolled() {
        let mut log = Log::default();
        assert!(shown(&log, 2).is_empty());
        for number in 0..5 {
            log.add(line(number.to_string()));
        }
        assert_eq!(shown(&log, 2), ["3", "4"]);
        log.scroll_up(1);
        assert_eq!(shown(&log, 2), ["2", "3"]);
        log.add(line("5"));
        assert_eq!(shown(&log, 2), ["2", "3"]);
        log.scroll_up(usize::MAX);
        assert_eq!(shown(&log, 2), ["0", "1"]);
        assert_eq!(shown(&log, 9).len(), 6);
        log.scroll_down(usize::MAX);
        assert_eq!((shown(&log, 1), log.below()), (vec!["5"], 0));
    }
}
