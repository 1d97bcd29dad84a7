//! What is wrong with a file, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The apps cannot be used.
    Error,
    /// The apps can be used, though perhaps not as meant.
    Warning,
}

/// One mistake, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file; absent for a command line.
    pub path: Option<PathBuf>,
    /// The line, from 1; absent when the mistake is that something is missing
    /// from the file as a whole.
    pub line: Option<usize>,
    /// The column in characters, from 1; absent with the line.
    pub column: Option<usize>,
    /// What is wrong: one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line itself; absent when it could show a secret.
    pub source_line: Option<SourceLine>,
}

/// The line that a mistake stands on, as far as it may be shown: values of
/// variables are replaced by `…`, and a long line is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The text, without a line break.
    pub text: String,
    /// The bytes of `text` that are wrong.
    pub mark: Range<usize>,
}

impl Diagnostic {
    /// The mistake as several lines for a terminal: the message, the place, the
    /// one line it stands on with the wrong part underlined, and the help.
    /// There is no line break at the end.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(printable(&self.message)));
        let path = self.path.as_deref().map(Path::to_string_lossy);
        match (path, self.line, self.column, &self.source_line) {
            (Some(path), Some(line), Some(column), Some(shown)) => {
                let mark = AnnotationKind::Primary.span(shown.mark.clone());
                let mut snippet = Snippet::source(shown.text.as_str()).line_start(line).annotation(mark);
                // A snippet counts its own columns, which cuts have moved.
                let before = shown.text.get(..shown.mark.start).unwrap_or_default();
                if before.chars().count() + 1 == column {
                    snippet = snippet.path(path);
                } else {
                    group = group.element(Origin::path(path).line(line).char_column(column));
                }
                group = group.element(snippet);
            }
            (Some(path), Some(line), Some(column), None) => {
                group = group.element(Origin::path(path).line(line).char_column(column));
            }
            (Some(path), _, _, _) => group = group.element(Origin::path(path)),
            (None, _, _, _) => {}
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// Keeps a file from steering the terminal that its mistakes are shown on.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// One line: place and message.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}:", path.display())?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&printable(&self.message))
    }
}

/// All mistakes of a file or a command line, in the order of their position;
/// never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// `None` without a mistake.
    pub(crate) fn new(diagnostics: Vec<Diagnostic>) -> Option<Errors> {
        (!diagnostics.is_empty()).then_some(Errors(diagnostics))
    }

    /// Each mistake.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// All of them for a terminal, with a blank line between two. There is no
    /// line break at the end.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let rendered: Vec<String> = self.iter().map(|diagnostic| diagnostic.render(color)).collect();
        rendered.join("\n\n")
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One line for each mistake.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
