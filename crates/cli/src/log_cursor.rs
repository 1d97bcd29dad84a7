//! How far workers' output has been shown, so that another master goes on there.

use std::collections::BTreeMap;

use supervisor_protocol::control::{LogLine, LogPosition};

/// What has been shown of one stream of lines.
#[derive(Debug, Default)]
pub(crate) struct LogCursor {
    /// Up to where, by the numbers of the files.
    files: BTreeMap<u64, u64>,
    /// Whether the lines of before are all there; those that were written later
    /// follow.
    is_past: bool,
    /// How many of the lines of before have been shown, and how many of these are
    /// to come again.
    shown: u64,
    again: u64,
    /// Lines have come that are in no file.
    is_fleeting: bool,
}

/// What is to be done about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// It is to be shown.
    Show,
    /// It is not.
    Pass,
    /// The daemon has left lines out, which are in files: they are to be asked
    /// for again.
    Resume,
}

impl LogCursor {
    /// What is to be asked for, after the first `lines` of before.
    pub(crate) fn query(&mut self, lines: &str) -> Vec<(&'static str, String)> {
        self.again = self.shown;
        let mut query = vec![("follow", "true".to_owned()), ("positions", "true".to_owned())];
        if self.is_past {
            // All of a file that is not named is new.
            let begun = self.files.iter().filter(|(_, end)| **end > 0);
            query.extend(begun.map(|(file, end)| ("after", format!("{file}.{end}"))));
            if query.len() == 2 {
                query.push(("after", "0.0".to_owned()));
            }
        } else {
            query.push(("lines", lines.to_owned()));
        }
        query
    }

    /// Notes a line.
    pub(crate) fn note(&mut self, line: &LogLine) -> Note {
        let show = |is_shown| if is_shown { Note::Show } else { Note::Pass };
        match line {
            LogLine::Files { files } => {
                self.files.extend(files.iter().map(|LogPosition { file, end }| (*file, *end)));
                (self.is_past, self.shown) = (true, 0);
                Note::Pass
            }
            LogLine::Line { position, .. } if self.is_past => {
                self.files.extend(position.map(|LogPosition { file, end }| (file, end)));
                self.is_fleeting |= position.is_none();
                Note::Show
            }
            LogLine::Line { .. } => {
                let is_told = self.again > 0;
                self.again = self.again.saturating_sub(1);
                self.shown += u64::from(!is_told);
                show(!is_told)
            }
            LogLine::Missed { .. } if self.is_past && !self.is_fleeting => Note::Resume,
            LogLine::Missed { .. } => Note::Show,
        }
    }
}

#[cfg(test)]
mod tests {
    use supervisor_protocol::control::Stream;

    use super::*;

    fn line(position: Option<LogPosition>) -> LogLine {
        let (app, line) = ("web".to_owned(), "x".to_owned());
        LogLine::Line { app, slot: Some(0), stream: Stream::Out, line, position }
    }

    fn asked(cursor: &mut LogCursor) -> String {
        let query = cursor.query("15").into_iter().map(|(name, value)| format!("{name}={value}"));
        query.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn it_goes_on_after_the_last_line() {
        let mut cursor = LogCursor::default();
        assert_eq!(asked(&mut cursor), "follow=true positions=true lines=15");
        assert_eq!(cursor.note(&line(None)), Note::Show);
        assert_eq!(cursor.note(&line(None)), Note::Show);
        // Before all of the past is there it comes again.
        assert_eq!(asked(&mut cursor), "follow=true positions=true lines=15");
        assert_eq!([cursor.note(&line(None)), cursor.note(&line(None))], [Note::Pass; 2]);
        assert_eq!(cursor.note(&line(None)), Note::Show);
        let files = vec![LogPosition { file: 7, end: 20 }, LogPosition { file: 8, end: 0 }];
        assert_eq!(cursor.note(&LogLine::Files { files }), Note::Pass);
        assert_eq!(cursor.note(&line(Some(LogPosition { file: 7, end: 30 }))), Note::Show);
        assert_eq!(asked(&mut cursor), "follow=true positions=true after=7.30");
        assert_eq!(cursor.note(&line(Some(LogPosition { file: 7, end: 40 }))), Note::Show);
        // What is left out is in the file, unless there is none.
        assert_eq!(cursor.note(&LogLine::Missed { chunks: 3 }), Note::Resume);
        assert_eq!(asked(&mut cursor), "follow=true positions=true after=7.40");
        assert_eq!(cursor.note(&line(None)), Note::Show);
        assert_eq!(cursor.note(&LogLine::Missed { chunks: 3 }), Note::Show);
    }
}
