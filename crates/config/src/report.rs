//! Collects what is wrong while a file is read.

mod source_line;

use crate::diagnostic::{Diagnostic, Severity};
use crate::source::Source;
use crate::tree::{Node, Span, Value};
use source_line::Lines;

/// How many mistakes are shown. The rest is counted.
const MAX_SHOWN: usize = 100;

/// What is wrong with a value, before it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    message: String,
    help: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), help: None }
    }

    /// Adds what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// Puts the name of what it is about before it: the message goes on from
    /// there, as in "must be a list".
    pub(crate) fn of(mut self, title: &str) -> Problem {
        self.message = format!("{title} {}", self.message);
        self
    }
}

/// All that is known to be wrong so far.
#[derive(Debug)]
pub(crate) struct Report<'s> {
    /// The file; absent for a command line.
    source: Option<&'s Source>,
    drafts: Vec<Draft>,
    /// How many errors came after `MAX_SHOWN` drafts.
    dropped: usize,
    hidden: Vec<Span>,
}

#[derive(Debug)]
struct Draft {
    severity: Severity,
    at: Option<Span>,
    problem: Problem,
    is_syntax: bool,
}

impl<'s> Report<'s> {
    pub(crate) fn of_file(source: &'s Source) -> Report<'s> {
        Report { source: Some(source), drafts: Vec::new(), dropped: 0, hidden: Vec::new() }
    }

    pub(crate) fn of_command_line() -> Report<'static> {
        Report { source: None, drafts: Vec::new(), dropped: 0, hidden: Vec::new() }
    }

    /// How a key is called in messages.
    pub(crate) fn title(&self, key: &str) -> String {
        match self.source {
            Some(_) => format!("`{}`", excerpt(key)),
            None if matches!(key, "command" | "script" | "args") => "the command".to_owned(),
            None => format!("`--{}`", key.replace('_', "-")),
        }
    }

    /// A line, for messages that speak of a second place.
    pub(crate) fn place(&self, at: Option<Span>) -> String {
        match (self.source, at) {
            // Counting lines is a waste on a message that nobody sees.
            (Some(source), Some(at)) if !self.is_full() => {
                format!("line {}", Lines::new(&source.text).number(at.start))
            }
            _ => "another line".to_owned(),
        }
    }

    pub(crate) fn error(&mut self, at: Option<Span>, problem: Problem) {
        self.add(Draft { severity: Severity::Error, at, problem, is_syntax: false });
    }

    pub(crate) fn warning(&mut self, at: Option<Span>, problem: Problem) {
        self.add(Draft { severity: Severity::Warning, at, problem, is_syntax: false });
    }

    /// An error about the file as a whole.
    pub(crate) fn file_error(&mut self, problem: Problem) {
        self.error(None, problem);
    }

    /// The file is not well-formed, so nobody knows which of its lines hold
    /// secrets.
    pub(crate) fn syntax_error(&mut self, at: Span, problem: Problem) {
        self.add(Draft { severity: Severity::Error, at: Some(at), problem, is_syntax: true });
    }

    pub(crate) fn duplicate_key(&mut self, key: &str, at: Option<Span>, first: Option<Span>) {
        let problem = Problem::new(format!("`{}` is given twice", excerpt(key)));
        let help = format!("the first one is on {}", self.place(first));
        self.error(at, problem.help(help));
    }

    /// Whether further errors are only counted: then making a good suggestion
    /// is a waste, and in a hostile file a long one.
    pub(crate) fn is_full(&self) -> bool {
        self.drafts.len() >= MAX_SHOWN
    }

    /// From now on no message shows this value, nor anything inside it.
    pub(crate) fn hide(&mut self, node: &Node) {
        match &node.value {
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::Text(_) => self.hidden.extend(node.span),
            Value::List(nodes) => nodes.iter().for_each(|node| self.hide(node)),
            Value::Map(entries) => entries.iter().for_each(|entry| self.hide(&entry.value)),
        }
    }

    /// Ends the collection: the warnings, and the errors.
    pub(crate) fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        self.drafts.sort_by_key(|draft| draft.at.map_or(usize::MAX, |at| at.start));
        self.hidden.sort_by_key(|span| (span.start, span.end));
        let lines = Lines::new(self.source.map_or("", |source| source.text.as_str()));
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        for draft in std::mem::take(&mut self.drafts) {
            let diagnostic = self.diagnostic(draft, &lines);
            match diagnostic.severity {
                Severity::Warning => warnings.push(diagnostic),
                Severity::Error => errors.push(diagnostic),
            }
        }
        if self.dropped > 0 {
            let problem = Problem::new(format!("and {} more errors", self.dropped));
            let rest = Draft { severity: Severity::Error, at: None, problem, is_syntax: false };
            errors.push(self.diagnostic(rest, &lines));
        }
        (warnings, errors)
    }

    fn add(&mut self, draft: Draft) {
        // What an anchor brings in is wrong in one place, however often used.
        let is_known = |known: &Draft| known.at == draft.at && known.problem == draft.problem;
        if self.drafts.iter().any(is_known) {
            return;
        }
        if !self.is_full() {
            self.drafts.push(draft);
        } else if draft.severity == Severity::Error {
            self.dropped += 1;
        }
    }

    fn diagnostic(&self, draft: Draft, lines: &Lines<'_>) -> Diagnostic {
        let source_line = draft.at.and_then(|at| {
            if draft.is_syntax {
                lines.shown_before_syntax_error(at)
            } else {
                Some(lines.shown(at, &self.hidden))
            }
        });
        Diagnostic {
            severity: draft.severity,
            path: self.source.map(|source| source.path.clone()),
            line: draft.at.map(|at| lines.number(at.start)),
            column: draft.at.map(|at| lines.column(at.start)),
            message: draft.problem.message,
            help: draft.problem.help,
            source_line,
        }
    }
}

/// A text of the file, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    match text.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
