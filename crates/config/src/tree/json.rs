//! JSON, and JSON5 with its comments and trailing commas.
//!
//! The `json5` crate decides what is well-formed and what each value is, but
//! says no places. Those are found by a second walk, which may be simple
//! because the text is known to be well-formed by then.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::budget::Budget;
use super::{Entry, Node, Span, Value};
use crate::report::{Problem, Report};

/// Parses a file.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut budget = Budget::new();
    let mut refused = None;
    let seed = Seed { depth: 0, budget: &mut budget, refused: &mut refused };
    let mut deserializer = json5::Deserializer::from_str(text);
    let read = seed.deserialize(&mut deserializer);
    if let Some(problem) = refused {
        report.file_error(problem);
        return None;
    }
    let mut node = match read {
        Ok(node) => node,
        Err(error) => {
            let start = error.position().map_or(text.len(), |at| offset(text, at));
            return malformed(start, &reason(&error), report);
        }
    };
    let mut walk = Walk { text, at: 0 };
    walk.place(&mut node);
    walk.skip_blank();
    if !walk.rest().is_empty() {
        return malformed(walk.at, "expected the end of the file", report);
    }
    drop_duplicates(&mut node, report);
    Some(node)
}

fn malformed(start: usize, reason: &str, report: &mut Report<'_>) -> Option<Node> {
    let problem = Problem::new(format!("this is not well-formed JSON: {reason}"));
    report.syntax_error(Span { start, end: start }, problem);
    None
}

fn reason(error: &json5::Error) -> String {
    let reason = error.code().map_or_else(|| error.to_string(), |code| code.to_string());
    match reason.strip_prefix("EOF parsing ") {
        Some(inside) => format!("the file ends inside this {inside}"),
        None => reason,
    }
}

/// A line and column of json5 as a byte offset.
fn offset(text: &str, at: json5::Position) -> usize {
    let mut line = 0;
    let mut column = 0;
    let mut before = '\0';
    for (offset, char) in text.char_indices() {
        if line == at.line && column == at.column {
            return offset;
        }
        let ends_line = matches!(char, '\n' | '\r' | '\u{2028}' | '\u{2029}');
        if ends_line && !(before == '\r' && char == '\n') {
            line += 1;
        }
        column = if ends_line { 0 } else { column + 1 };
        before = char;
    }
    text.len()
}

/// Reads one value, without places.
struct Seed<'a> {
    depth: usize,
    budget: &'a mut Budget,
    /// What the budget said; an error of the deserializer cannot carry it.
    refused: &'a mut Option<Problem>,
}

impl Seed<'_> {
    fn inner(&mut self) -> Seed<'_> {
        Seed { depth: self.depth + 1, budget: &mut *self.budget, refused: &mut *self.refused }
    }

    fn checked<T, E: de::Error>(&mut self, checked: Result<T, Problem>) -> Result<T, E> {
        checked.map_err(|problem| {
            *self.refused = Some(problem);
            E::custom("refused")
        })
    }

    fn leaf<E: de::Error>(mut self, value: Value, text: usize) -> Result<Node, E> {
        let paid = self.budget.pay(text);
        self.checked(paid)?;
        Ok(Node::new(value))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(mut self, deserializer: D) -> Result<Node, D::Error> {
        let checked = Budget::check_depth(self.depth);
        self.checked(checked)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Value::Null, 0)
    }

    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Node, E> {
        self.leaf(Value::Bool(yes), 0)
    }

    // A number's text is read from its place: see `Walk`.
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Node, E> {
        self.leaf(Value::Number(String::new()), 0)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Node, E> {
        self.leaf(Value::Number(String::new()), 0)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Node, E> {
        self.leaf(Value::Number(String::new()), 0)
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Node, E> {
        self.leaf(Value::Number(String::new()), 0)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Node, E> {
        self.leaf(Value::Number(String::new()), 0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.leaf(Value::Text(text.to_owned()), text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = sequence.next_element_seed(self.inner())? {
            nodes.push(node);
        }
        self.leaf(Value::List(nodes), 0)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let paid = self.budget.pay(key.len());
            self.checked(paid)?;
            let value = map.next_value_seed(self.inner())?;
            entries.push(Entry { key, key_span: None, value });
        }
        self.leaf(Value::Map(entries), 0)
    }
}

/// Follows a tree through the text that it was read from.
struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl Walk<'_> {
    fn place(&mut self, node: &mut Node) {
        self.skip_blank();
        let start = self.at;
        match &mut node.value {
            Value::List(nodes) => {
                self.at += 1;
                for node in nodes {
                    self.place(node);
                    self.skip_past(',');
                }
                self.skip_past(']');
            }
            Value::Map(entries) => {
                self.at += 1;
                for entry in entries {
                    self.skip_blank();
                    entry.key_span = Some(self.word());
                    self.skip_past(':');
                    self.place(&mut entry.value);
                    self.skip_past(',');
                }
                self.skip_past('}');
            }
            Value::Number(text) => {
                let word = self.word();
                *text = self.text.get(word.start..word.end).unwrap_or_default().to_owned();
            }
            Value::Null | Value::Bool(_) | Value::Text(_) => {
                self.word();
            }
        }
        self.at = self.at.min(self.text.len());
        node.span = Some(Span { start, end: self.at });
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Steps over a quoted text, or over a name, number or literal.
    fn word(&mut self) -> Span {
        let start = self.at;
        let rest = self.rest();
        let length = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut escaped = true; // Also steps over the opening quote.
                rest.find(|char| {
                    let closes = char == quote && !escaped;
                    escaped = char == '\\' && !escaped;
                    closes
                })
                .map_or(rest.len(), |last| last + 1)
            }
            _ => rest
                .find(|char: char| is_blank(char) || matches!(char, ',' | ':' | ']' | '}' | '/'))
                .unwrap_or(rest.len()),
        };
        self.at += length;
        Span { start, end: self.at }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let skipped = if rest.starts_with("//") {
                rest.find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else {
                rest.find(|char| !is_blank(char)).unwrap_or(rest.len())
            };
            if skipped == 0 {
                return;
            }
            self.at += skipped;
        }
    }

    /// Steps over blanks and, if it comes next, this mark.
    fn skip_past(&mut self, mark: char) {
        self.skip_blank();
        if self.rest().starts_with(mark) {
            self.at += mark.len_utf8();
        }
    }
}

fn is_blank(char: char) -> bool {
    char.is_whitespace() || char == '\u{FEFF}'
}

/// Reports keys that are given twice, and keeps the first.
fn drop_duplicates(node: &mut Node, report: &mut Report<'_>) {
    match &mut node.value {
        Value::List(nodes) => nodes.iter_mut().for_each(|node| drop_duplicates(node, report)),
        Value::Map(entries) => {
            let mut places: HashMap<String, Option<Span>> = HashMap::new();
            entries.retain(|entry| match places.get(&entry.key) {
                Some(first) => {
                    report.duplicate_key(&entry.key, entry.key_span, *first);
                    report.hide(&entry.value);
                    false
                }
                None => {
                    places.insert(entry.key.clone(), entry.key_span);
                    true
                }
            });
            entries.iter_mut().for_each(|entry| drop_duplicates(&mut entry.value, report));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}
