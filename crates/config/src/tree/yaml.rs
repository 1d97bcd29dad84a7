//! YAML 1.2 with anchors and merge keys.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{
    self as granit, ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, StrInput, Tag,
};

use super::budget::{Budget, MAX_DEPTH};
use super::{Entry, Node, Span, Value};
use crate::report::{Problem, Report};

/// Parses one document.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        text,
        budget: Budget::new(),
        anchors: HashMap::new(),
        report: &mut *report,
    };
    match builder.document() {
        Ok(node) => Some(node),
        Err(Stop { at, problem }) => {
            report.syntax_error(at, problem);
            None
        }
    }
}

/// Why nothing more can be read.
struct Stop {
    at: Span,
    problem: Problem,
}

struct Builder<'t, 'r, 's> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    budget: Budget,
    anchors: HashMap<usize, Node>,
    report: &'r mut Report<'s>,
}

impl<'t> Builder<'t, '_, '_> {
    fn document(mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::StreamEnd) {
                return Ok(root.unwrap_or(Node::new(Value::Null)));
            }
            if matches!(event, Event::DocumentStart(..)) {
                if root.is_some() {
                    let problem = Problem::new("a second document starts here");
                    return Err(Stop { at, problem: problem.help("keep all apps in one `apps:` list") });
                }
                let (event, at) = self.next()?;
                root = Some(self.node(event, at, 0)?);
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.span(span))),
            Some(Err(error)) => Err(self.scan_error(&error)),
            None => Ok((Event::StreamEnd, Span { start: self.text.len(), end: self.text.len() })),
        }
    }

    fn node(&mut self, event: Event<'t>, at: Span, depth: usize) -> Result<Node, Stop> {
        let stop = |problem| Stop { at, problem };
        Budget::check_depth(depth).map_err(stop)?;
        let (value, anchor, span) = if let Event::Scalar(text, style, anchor, tag) = event {
            self.budget.pay(text.len()).map_err(stop)?;
            (scalar(text.into_owned(), style, tag.as_deref()).map_err(stop)?, anchor, at)
        } else if let Event::SequenceStart(_, anchor, tag) = event {
            refuse_tag(tag.as_deref()).map_err(stop)?;
            self.budget.pay(0).map_err(stop)?;
            let (nodes, end) = self.list(depth)?;
            (Value::List(nodes), anchor, Span { start: at.start, end })
        } else if let Event::MappingStart(_, anchor, tag) = event {
            refuse_tag(tag.as_deref()).map_err(stop)?;
            self.budget.pay(0).map_err(stop)?;
            let (entries, end) = self.map(depth)?;
            (Value::Map(entries), anchor, Span { start: at.start, end })
        } else if let Event::Alias(id) = event {
            let Some(target) = self.anchors.get(&id) else {
                return Err(stop(Problem::new("this alias stands inside the value that it refers to")));
            };
            let paid = self.budget.pay_copy(target);
            paid.map_err(|problem| stop(problem.help("aliases count once for each use")))?;
            return Ok(Node { value: target.value.clone(), span: Some(at) });
        } else {
            return Err(stop(Problem::new("expected a value")));
        };
        let node = Node { value, span: Some(span) };
        if anchor != 0 {
            self.budget.pay_copy(&node).map_err(stop)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// The rest of a list, and where it ends.
    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, usize), Stop> {
        let mut nodes = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok((nodes, at.end));
            }
            nodes.push(self.node(event, at, depth + 1)?);
        }
    }

    /// The rest of a mapping, and where it ends.
    fn map(&mut self, depth: usize) -> Result<(Vec<Entry>, usize), Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: HashMap<String, Span> = HashMap::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                self.merge(&mut entries, places.into_keys().collect(), &merged);
                return Ok((entries, at.end));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = match self.node(event, at, depth + 1)?.value {
                Value::Null => "null".to_owned(),
                Value::Bool(yes) => yes.to_string(),
                Value::Number(text) | Value::Text(text) => text,
                Value::List(_) | Value::Map(_) => {
                    return Err(Stop {
                        at,
                        problem: Problem::new("a key must be text, not a list or a mapping"),
                    });
                }
            };
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            if is_merge {
                merged.push(value);
            } else if let Some(first) = places.get(&key) {
                self.report.duplicate_key(&key, Some(at), Some(*first));
                // What it repeats may be a secret under either key.
                self.report.hide(&value);
            } else {
                places.insert(key.clone(), at);
                entries.push(Entry { key, key_span: Some(at), value });
            }
        }
    }

    /// Adds what `<<` brings in and the mapping does not have.
    fn merge(&mut self, entries: &mut Vec<Entry>, mut have: HashSet<String>, merged: &[Node]) {
        for node in merged.iter().flat_map(Node::elements) {
            let Value::Map(more) = &node.value else {
                self.report.error(node.span, Problem::new("`<<` merges mappings, and this is none"));
                self.report.hide(node);
                continue;
            };
            for entry in more {
                if have.insert(entry.key.clone()) {
                    entries.push(entry.clone());
                }
            }
        }
    }

    fn span(&self, span: granit::Span) -> Span {
        let start = self.offset(span.start);
        Span { start, end: self.offset(span.end).max(start) }
    }

    fn offset(&self, marker: granit::Marker) -> usize {
        // Text in memory has byte offsets; without one, the file's end is a
        // place that exists.
        marker.byte_offset().unwrap_or(self.text.len()).min(self.text.len())
    }

    fn scan_error(&self, error: &ScanError) -> Stop {
        let start = self.offset(*error.marker());
        let problem = if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            Budget::too_deep()
        } else {
            let problem = Problem::new(format!("this is not well-formed YAML: {}", error.info()));
            match advice(error.kind()) {
                Some(help) => problem.help(help),
                None => problem,
            }
        };
        Stop { at: Span { start, end: start }, problem }
    }
}

/// What usually went wrong, for the mistakes that people make most.
fn advice(kind: &ErrorKind) -> Option<&'static str> {
    let is_tab = matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
    );
    if is_tab {
        return Some("indent with spaces");
    }
    if matches!(kind, ErrorKind::InvalidColonPlacement) {
        return Some("is a `[`, a `{` or a quote before it not closed?");
    }
    if matches!(kind, ErrorKind::MappingValueNotAllowed) {
        return Some("put a text that contains `: ` in quotes, and keys of one mapping in one column");
    }
    if matches!(kind, ErrorKind::UnexpectedCharacter { .. }) {
        return Some("put a text that starts with a special character in quotes");
    }
    if matches!(kind, ErrorKind::UnknownAnchor) {
        return Some("put a text that starts with `*` in quotes; an anchor must stand before its alias");
    }
    if matches!(kind, ErrorKind::UnclosedQuotedScalar) {
        return Some("close the quote");
    }
    None
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Problem> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(Value::Text(text)),
        Some(_) => refuse_tag(tag).map(|()| Value::Null),
        None if style == ScalarStyle::Plain => Ok(plain_scalar(text)),
        None => Ok(Value::Text(text)),
    }
}

fn refuse_tag(tag: Option<&Tag>) -> Result<(), Problem> {
    match tag {
        None => Ok(()),
        Some(_) => {
            Err(Problem::new("a tag such as `!name` has no meaning here")
                .help("only `!!str` does; leave it out"))
        }
    }
}

/// What an unquoted word is in YAML 1.2 (core schema): `yes` and `on` are text.
pub(crate) fn plain_scalar(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        number if is_number(number) => Value::Number(text),
        _ => Value::Text(text),
    }
}

fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Rust's own reader knows decimals; it would also take `inf` and `nan`.
    matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || (unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            && unsigned.parse::<f64>().is_ok())
}
