//! The line that a mistake stands on, without its secrets.

use crate::diagnostic::SourceLine;
use crate::tree::Span;

/// The longest line that is shown whole, in bytes.
const MAX_LINE: usize = 120;
/// How much of a longer one is shown before and after its wrong part begins.
const BEFORE: usize = 50;
const AFTER: usize = 70;
/// What stands for a secret, and for what is cut.
const ELLIPSIS: char = '…';

/// A text by lines.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Lines<'t> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines { text, starts: std::iter::once(0).chain(breaks.map(|(offset, _)| offset + 1)).collect() }
    }

    /// The number of the line at an offset, from 1.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The column in characters at an offset, from 1.
    pub(super) fn column(&self, offset: usize) -> usize {
        let start = self.line(offset).start;
        self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1)
    }

    /// The line at a place, with all `hidden` parts (sorted) replaced.
    pub(super) fn shown(&self, at: Span, hidden: &[Span]) -> SourceLine {
        let line = self.line(at.start);
        let start = self.text.floor_char_boundary(at.start.clamp(line.start, line.end));
        let mark = Span { start, end: self.text.ceil_char_boundary(at.end.clamp(start, line.end)) };
        let (from, to) = if line.len() <= MAX_LINE {
            (line.start, line.end)
        } else {
            let from = self.text.floor_char_boundary(mark.start.saturating_sub(BEFORE));
            let to = self.text.ceil_char_boundary(mark.start.saturating_add(AFTER));
            (from.max(line.start), to.min(line.end))
        };
        let mut shown = Shown { text: String::new(), mark, marked: 0..0 };
        if from > line.start {
            shown.text.push(ELLIPSIS);
        }
        let mut at = from;
        for secret in hidden.iter().filter(|secret| secret.start < to && secret.end > from) {
            let (begin, end) = (secret.start.max(at), secret.end.clamp(at, to));
            if begin < end {
                shown.copy(self.text, at, begin);
                shown.copy_as(begin, end, ELLIPSIS);
                at = end;
            }
        }
        shown.copy(self.text, at, to);
        if to < line.end {
            shown.text.push(ELLIPSIS);
        }
        SourceLine { text: shown.text, mark: shown.marked }
    }

    /// The line of a syntax error. What the parser did not understand may be
    /// the inside of a variable's value: in a file that has variables, no more
    /// is shown than a key at the start of the line, and nothing without one.
    pub(super) fn shown_before_syntax_error(&self, at: Span) -> Option<SourceLine> {
        let line = self.line(at.start);
        if !self.text.get(..line.end)?.contains("env") {
            return Some(self.shown(at, &[]));
        }
        let key_end = line.start + key_length(&self.text[line.clone()])?;
        let secret = Span { start: key_end, end: line.end };
        let mark = Span { start: at.start.min(key_end), end: at.end.min(key_end) };
        Some(self.shown(mark, &[secret]))
    }

    /// The bytes of the line at an offset, without its line break.
    fn line(&self, offset: usize) -> std::ops::Range<usize> {
        let number = self.number(offset);
        let start = self.starts[number - 1];
        let end = self.starts.get(number).map_or(self.text.len(), |next| next - 1);
        start..start + self.text[start..end].trim_end_matches('\r').len()
    }
}

/// A line while it is put together.
struct Shown {
    text: String,
    /// The wrong part in the source, and in `text`.
    mark: Span,
    marked: std::ops::Range<usize>,
}

impl Shown {
    fn copy(&mut self, source: &str, from: usize, to: usize) {
        let base = self.text.len();
        self.text.push_str(source.get(from..to).unwrap_or_default());
        if (from..=to).contains(&self.mark.start) {
            self.marked.start = base + self.mark.start - from;
            self.marked.end = self.text.len().min(base + self.mark.end - from);
        } else if self.mark.start < from && from < self.mark.end {
            self.marked.end = self.text.len().min(base + self.mark.end - from);
        }
    }

    fn copy_as(&mut self, from: usize, to: usize, stand_in: char) {
        let base = self.text.len();
        self.text.push(stand_in);
        if (from + 1..=to).contains(&self.mark.start) {
            self.marked = base..self.text.len();
        } else if self.mark.start <= from && from < self.mark.end {
            self.marked.end = self.text.len();
        }
    }
}

/// The length of `  - "key": ` at the start of a line. What may be the inside of
/// a text over several lines, such as a key file's `MIIE…==`, has none.
fn key_length(line: &str) -> Option<usize> {
    let name = line.trim_start_matches([' ', '\t', '-', '"', '\'']);
    let is_in_name = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-' | '.');
    let rest = name.trim_start_matches(is_in_name);
    if rest.len() == name.len() {
        return None;
    }
    let separator = rest.trim_start_matches(['"', '\'']).trim_start_matches(' ');
    let value = separator.strip_prefix([':', '='])?;
    let is_key = match separator.starts_with('=') {
        true => !value.is_empty() && !value.starts_with('='),
        false => value.is_empty() || value.starts_with(' ') || rest.starts_with(['"', '\'']),
    };
    is_key.then(|| line.len() - value.trim_start_matches(' ').len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_shows_keys_only() {
        for (line, shown) in [
            ("PASSWORD: \"hunter2", Some("PASSWORD: …")),
            ("  - name: hunter2", Some("  - name: …")),
            ("\t\"TOKEN\":\"hunter2", Some("\t\"TOKEN\":…")),
            ("TOKEN = hunter2", Some("TOKEN = …")),
            ("env:", Some("env:")),
            ("hunter2", None),
            ("hunter2==", None),
            ("hunter2=", None),
            ("hunter:2", None),
            ("{TOKEN: hunter2", None),
            ("", None),
        ] {
            let text = format!("env:\n{line}\n");
            let end = text.len() - 1;
            let source_line = Lines::new(&text).shown_before_syntax_error(Span { start: end, end });
            assert_eq!(source_line.map(|line| line.text).as_deref(), shown, "{line}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!("{}é: wrong{}", "ä".repeat(100), "ö".repeat(100));
        let start = text.find("wrong").unwrap();
        let source_line = Lines::new(&text).shown(Span { start, end: start + 5 }, &[]);
        assert_eq!(&source_line.text[source_line.mark], "wrong");
        assert!(source_line.text.starts_with("…ä") && source_line.text.ends_with("ö…"));
        assert_eq!(Lines::new(&text).column(start), 104);
    }

    #[test]
    fn a_mark_across_a_secret_stays_on_the_text() {
        let text = "A: [hunter2, x]";
        let secret = Span { start: 4, end: 11 };
        for (mark, marked) in
            [((3, 15), "[…, x]"), ((4, 11), "…"), ((6, 8), "…"), ((6, 15), "…, x]"), ((0, 1), "A")]
        {
            let source_line = Lines::new(text).shown(Span { start: mark.0, end: mark.1 }, &[secret]);
            assert_eq!(source_line.text, "A: […, x]");
            assert_eq!(&source_line.text[source_line.mark], marked, "{mark:?}");
        }
    }
}
