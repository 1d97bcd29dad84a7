//! Columns that line up.

use anstyle::Style;

use super::style::{QUIET, paint};
use super::text::{shorten, truncate};

/// Blanks between columns.
const GAP: usize = 2;

/// The least that a column is squeezed to.
const MIN_SQUEEZED: usize = 6;

/// On which side a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A heading and its column's alignment.
pub(crate) type Column = (&'static str, Align);

/// One field: text without control characters, and its style.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A field in a style.
    pub(crate) fn new(text: impl Into<String>, style: Style) -> Cell {
        Cell { text: text.into(), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text, Style::new())
    }
}

#[derive(Debug)]
enum Line {
    Row(Vec<Cell>),
    Note(usize, Cell),
}

/// Rows under headings, with notes between them.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    /// The column that gives way, in the middle of its text, when the whole is too wide.
    flexible: usize,
    lines: Vec<Line>,
}

impl<const N: usize> Table<N> {
    /// A table without rows. `flexible` is the column that is cut when the
    /// others need its place.
    pub(crate) const fn new(columns: [Column; N], flexible: usize) -> Table<N> {
        Table { columns, flexible, lines: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.lines.push(Line::Row(cells.into()));
    }

    /// Adds a line of text that is indented and belongs to no column.
    pub(crate) fn note(&mut self, indent: usize, text: Cell) {
        self.lines.push(Line::Note(indent, text));
    }

    /// All lines, each ended by `\n`, no wider than `width` as far as the
    /// flexible column allows.
    pub(crate) fn render(&self, width: usize, color: bool) -> String {
        let widths = self.widths(width);
        let headings = self.columns.map(|(heading, _)| Cell::new(heading, QUIET));
        let mut out = String::new();
        self.push_row(&headings, &widths, color, &mut out);
        for line in &self.lines {
            match line {
                Line::Row(cells) => self.push_row(cells, &widths, color, &mut out),
                Line::Note(indent, cell) => {
                    out.push_str(&" ".repeat(*indent));
                    let text = truncate(&cell.text, width.saturating_sub(*indent));
                    out.push_str(&paint(text, cell.style, color));
                    out.push('\n');
                }
            }
        }
        out
    }

    fn widths(&self, width: usize) -> [usize; N] {
        let mut widths = self.columns.map(|(heading, _)| heading.chars().count());
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (widest, cell) in widths.iter_mut().zip(cells) {
                    *widest = cell.width().max(*widest);
                }
            }
        }
        let total = widths.iter().sum::<usize>() + GAP * N.saturating_sub(1);
        let flexible = &mut widths[self.flexible];
        *flexible = flexible.saturating_sub(total.saturating_sub(width)).max(MIN_SQUEEZED.min(*flexible));
        widths
    }

    fn push_row(&self, cells: &[Cell], widths: &[usize; N], color: bool, out: &mut String) {
        let begin = out.len();
        for (index, ((cell, width), (_, align))) in cells.iter().zip(widths).zip(&self.columns).enumerate() {
            if index > 0 {
                out.push_str(&" ".repeat(GAP));
            }
            let text = shorten(&cell.text, *width);
            let blanks = " ".repeat(width - text.chars().count());
            let painted = if text.is_empty() { text } else { paint(text, cell.style, color) };
            let (left, right) = match align {
                Align::Left => ("", blanks.as_str()),
                Align::Right => (blanks.as_str(), ""),
            };
            out.push_str(left);
            out.push_str(&painted);
            out.push_str(right);
        }
        out.truncate(begin + out[begin..].trim_end_matches(' ').len());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [("NAME", Align::Left), ("PID", Align::Right)];

    #[test]
    fn columns_line_up_and_give_way() {
        let mut table = Table::new(COLUMNS, 0);
        table.row(["a-long-name".into(), "7".into()]);
        table.note(2, "because of this".into());
        table.row(["b".into(), "4711".into()]);
        assert_eq!(
            table.render(80, false),
            "NAME          PID\na-long-name     7\n  because of this\nb            4711\n"
        );
        assert_eq!(table.render(12, false), "NAME     PID\na-l…me     7\n  because o…\nb       4711\n");
    }

    #[test]
    fn no_width_is_too_small() {
        let mut table = Table::new(COLUMNS, 0);
        table.row(["a-long-name".into(), "7".into()]);
        table.note(9, "x".into());
        for width in 0..20 {
            table.render(width, true);
        }
    }
}
