//! A file's values with their places, the same for every format.
//!
//! The readers walk this tree and report each mistake where it stands, so that
//! one pass finds all of them; a derived `Deserialize` would stop at the first.

mod budget;
mod json;
mod toml;
pub(crate) mod write;
mod yaml;

use crate::report::Report;
use crate::source::{Format, Source};

pub(crate) use yaml::plain_scalar;

/// Bytes of the source, from `start` up to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value and where it stands; defaults and command-line words stand nowhere.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Option<Span>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As it is written: `1.10` is a version more often than it is 1.1, and
    /// `0022` is a file mode.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping, in the file's order; keys are unique.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Option<Span>,
    pub(crate) value: Node,
}

impl Node {
    /// A value that stands in no file.
    pub(crate) fn new(value: Value) -> Node {
        Node { value, span: None }
    }

    /// The elements of a list, or the value itself where one stands for a list.
    pub(crate) fn elements(&self) -> &[Node] {
        match &self.value {
            Value::List(nodes) => nodes,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_) => {
                std::slice::from_ref(self)
            }
        }
    }
}

/// Parses a file. What it says about itself goes to `report`; `None` means that
/// it is not well-formed and nothing more can be said.
pub(crate) fn parse(source: &Source, report: &mut Report<'_>) -> Option<Node> {
    match source.format {
        Format::Yaml => yaml::parse(&source.text, report),
        Format::Json => json::parse(&source.text, report),
        Format::Toml => toml::parse(&source.text, report),
    }
}
