//! How much a file may hold, so that a hostile one is refused and not obeyed.

use super::{Node, Value};
use crate::report::Problem;

/// How deep lists and mappings may nest; real files need six levels.
pub(super) const MAX_DEPTH: usize = 32;
/// How many values there may be, each use of a YAML anchor counted anew.
const MAX_NODES: usize = 100_000;
/// How much text these may hold, counted likewise.
const MAX_TEXT: usize = 16 << 20;

/// What a file may still use.
#[derive(Debug)]
pub(super) struct Budget {
    nodes: usize,
    text: usize,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { nodes: MAX_NODES, text: MAX_TEXT }
    }

    /// Pays for one value with this much text.
    pub(super) fn pay(&mut self, text: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.checked_sub(1).ok_or_else(Budget::spent)?;
        self.text = self.text.checked_sub(text).ok_or_else(Budget::spent)?;
        Ok(())
    }

    /// Pays for a copy of a whole tree.
    pub(super) fn pay_copy(&mut self, node: &Node) -> Result<(), Problem> {
        match &node.value {
            Value::Null | Value::Bool(_) => self.pay(0),
            Value::Number(text) | Value::Text(text) => self.pay(text.len()),
            Value::List(nodes) => {
                self.pay(0)?;
                nodes.iter().try_for_each(|node| self.pay_copy(node))
            }
            Value::Map(entries) => {
                self.pay(0)?;
                entries.iter().try_for_each(|entry| {
                    self.pay(entry.key.len())?;
                    self.pay_copy(&entry.value)
                })
            }
        }
    }

    fn spent() -> Problem {
        Problem::new(format!("the file holds more than {MAX_NODES} values or {} MiB of text", MAX_TEXT >> 20))
    }

    /// What to say about a value at `depth`.
    pub(super) fn check_depth(depth: usize) -> Result<(), Problem> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        Err(Budget::too_deep())
    }

    pub(super) fn too_deep() -> Problem {
        Problem::new(format!("the file nests lists and mappings more than {MAX_DEPTH} deep"))
    }
}
