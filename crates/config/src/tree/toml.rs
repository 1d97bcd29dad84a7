//! TOML.

use toml::de::{DeTable, DeValue};

use super::budget::Budget;
use super::{Entry, Node, Span, Value};
use crate::report::{Problem, Report};

/// The most that a file may hold, in bytes. The parser builds a tree of its own
/// first, which takes a hundred times the text's memory.
const MAX_BYTES: usize = 1 << 20;

/// Parses a file; its parser reports keys that are given twice.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    if text.len() > MAX_BYTES {
        report.file_error(Problem::new("the file is larger than 1 MiB, which is the most for TOML"));
        return None;
    }
    let end = Span { start: text.len(), end: text.len() };
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let at = error.span().map_or(end, |range| span(&range));
            report
                .syntax_error(at, Problem::new(format!("this is not well-formed TOML: {}", error.message())));
            return None;
        }
    };
    let whole = root.span();
    let mut converter = Converter { text, budget: Budget::new() };
    match converter.table(root.get_ref(), 0) {
        Ok(value) => Some(Node { value, span: Some(span(&whole)) }),
        Err(problem) => {
            report.file_error(problem);
            None
        }
    }
}

struct Converter<'t> {
    text: &'t str,
    budget: Budget,
}

impl Converter<'_> {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Result<Value, Problem> {
        let mut entries = Vec::new();
        for (key, value) in table.iter() {
            self.budget.pay(key.get_ref().len())?;
            let value = self.node(value.get_ref(), &value.span(), depth + 1)?;
            entries.push(Entry { key: key.get_ref().to_string(), key_span: Some(span(&key.span())), value });
        }
        // The parser sorts by name; people read in the file's order.
        entries.sort_by_key(|entry| entry.key_span.map(|at| at.start));
        Ok(Value::Map(entries))
    }

    fn node(
        &mut self,
        value: &DeValue<'_>,
        range: &std::ops::Range<usize>,
        depth: usize,
    ) -> Result<Node, Problem> {
        Budget::check_depth(depth)?;
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Number(number.to_string()),
            DeValue::Float(number) => Value::Number(number.to_string()),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(_) => Value::Text(self.text.get(range.clone()).unwrap_or_default().to_owned()),
            DeValue::Array(values) => {
                let nodes = values.iter().map(|value| self.node(value.get_ref(), &value.span(), depth + 1));
                Value::List(nodes.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => self.table(table, depth)?,
        };
        let text = match &value {
            Value::Text(text) | Value::Number(text) => text.len(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => 0,
        };
        self.budget.pay(text)?;
        Ok(Node { value, span: Some(span(range)) })
    }
}

fn span(range: &std::ops::Range<usize>) -> Span {
    Span { start: range.start, end: range.end }
}
