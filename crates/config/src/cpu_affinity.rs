//! CPUs that workers run on: `cpu_affinity: auto`, `cpu_affinity: [0, "4-7"]`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{expected, whole};

/// The highest number of a CPU: no kernel knows more.
const MAX_CPU: u32 = 8191;

/// The CPUs that workers run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuAffinity {
    /// One for each slot, in turn, of those that the daemon may use.
    Auto,
    /// These for all workers: ascending, without a number twice, never empty.
    Cpus(Vec<u32>),
}

impl fmt::Display for CpuAffinity {
    /// `auto`, or as in a file: `0, 4-7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CpuAffinity::Cpus(cpus) = self else {
            return f.write_str("auto");
        };
        f.write_str(&ranges(cpus))
    }
}

/// Ascending numbers as people write them: `0, 4-7`.
#[must_use]
pub fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let texts: Vec<String> = runs
        .filter_map(|run| match run {
            [] => None,
            [one] => Some(one.to_string()),
            [first, .., last] => Some(format!("{first}-{last}")),
        })
        .collect();
    texts.join(", ")
}

/// `None` leaves it to the kernel.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>) -> Option<CpuAffinity> {
    let entry = fields.given("cpu_affinity")?;
    if matches!(&entry.value.value, Value::Text(text) if text == "auto") {
        return Some(CpuAffinity::Auto);
    }
    let mut cpus: Vec<u32> = fields.list("cpu_affinity", range).into_iter().flatten().collect();
    cpus.sort_unstable();
    cpus.dedup();
    if matches!(&entry.value.value, Value::List(nodes) if nodes.is_empty()) {
        fields.wrong(entry, &entry.value, Problem::new("names no CPU"));
    }
    Some(CpuAffinity::Cpus(cpus))
}

/// One CPU, or those from the first to the last.
fn range(node: &Node) -> Result<std::ops::RangeInclusive<u32>, Problem> {
    let problem = || {
        expected(format_args!("`auto`, a CPU from 0 to {MAX_CPU}, a range such as `4-7`, or a list"), node)
    };
    let (first, last) = match &node.value {
        Value::Number(number) => (number.as_str(), number.as_str()),
        Value::Text(text) => text.split_once('-').ok_or_else(problem)?,
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => return Err(problem()),
    };
    let cpu = |text| whole::<u32>(text).filter(|cpu| *cpu <= MAX_CPU).ok_or_else(problem);
    let (first, last) = (cpu(first)?, cpu(last)?);
    if first > last {
        return Err(Problem::new("must not have a range whose first CPU is above its last"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 2, 3, 4, 7, 8]), "0, 2-4, 7-8");
        assert_eq!(CpuAffinity::Auto.to_string(), "auto");
    }
}
