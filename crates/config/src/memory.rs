//! Ceilings of a worker's memory.

use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{bytes, expected};

/// The ceiling above which a worker is replaced, and the one above which it is
/// killed, in bytes.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>) -> (Option<u64>, Option<u64>) {
    let soft = fields.optional("max_memory_restart", ceiling).flatten();
    let hard = fields.optional("max_memory_hard", ceiling).flatten();
    if let (Some(soft), Some(hard), Some(entry)) = (soft, hard, fields.given("max_memory_hard"))
        && hard <= soft
    {
        let problem = Problem::new("must be above `max_memory_restart`")
            .help("a worker between the two is replaced, one above both is killed");
        fields.wrong(entry, &entry.value, problem);
    }
    (soft, hard)
}

/// `None` for what means no ceiling.
fn ceiling(node: &Node) -> Result<Option<u64>, Problem> {
    let size = match &node.value {
        Value::Number(text) | Value::Text(text) => bytes(text),
        Value::Bool(false) => Some(0),
        Value::Null | Value::Bool(true) | Value::List(_) | Value::Map(_) => None,
    };
    let size = size.ok_or_else(|| expected("a size such as `300M` or `1G`, or `0` for no limit", node))?;
    Ok((size > 0).then_some(size))
}
