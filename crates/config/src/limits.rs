//! Resource limits: `limits: {nofile: 65536, core: 0, as: 1G}`.

use std::collections::BTreeMap;

use crate::Limit;
use crate::fields::{Fields, unknown_key};
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{self, expected};

/// The names of `setrlimit(2)` in lower case, and what each counts.
pub(crate) const NAMES: &[(&str, Unit)] = &[
    ("as", Unit::Bytes),
    ("core", Unit::Bytes),
    ("cpu", Unit::Number("seconds of CPU time")),
    ("data", Unit::Bytes),
    ("fsize", Unit::Bytes),
    ("locks", Unit::Number("file locks")),
    ("memlock", Unit::Bytes),
    ("msgqueue", Unit::Bytes),
    ("nice", Unit::Number("20 minus the lowest nice value")),
    ("nofile", Unit::Number("file descriptors")),
    ("nproc", Unit::Number("processes of the user")),
    ("rss", Unit::Bytes),
    ("rtprio", Unit::Number("real-time priority")),
    ("rttime", Unit::Number("microseconds of real-time CPU")),
    ("sigpending", Unit::Number("queued signals")),
    ("stack", Unit::Bytes),
];

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, which may be written as `1G`.
    Bytes,
    /// Something else, for the reference.
    Number(&'static str),
}

/// Reads all limits.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>) -> BTreeMap<String, Limit> {
    let mut limits = BTreeMap::new();
    let Some(entry) = fields.given("limits") else {
        return limits;
    };
    let Value::Map(entries) = &entry.value.value else {
        let problem = expected("a mapping such as `{nofile: 65536}`", &entry.value);
        fields.wrong(entry, &entry.value, problem);
        return limits;
    };
    for limit in entries {
        let Some((name, unit)) = NAMES.iter().find(|(name, _)| *name == limit.key) else {
            unknown_key(limit, NAMES.iter().map(|(name, _)| *name), fields.report);
            continue;
        };
        match parse(&limit.value, *unit) {
            Ok(value) => {
                limits.insert((*name).to_owned(), value);
            }
            Err(problem) => fields.wrong(limit, &limit.value, problem),
        }
    }
    limits
}

fn parse(node: &Node, unit: Unit) -> Result<Limit, Problem> {
    let problem = || {
        expected(
            match unit {
                Unit::Bytes => {
                    "a number of bytes, a size such as `1G`, `unlimited`, or two of them as `SOFT:HARD`"
                }
                Unit::Number(_) => "a number, `unlimited`, or two of them as `SOFT:HARD`",
            },
            node,
        )
    };
    let one = |text: &str| match (text, unit) {
        ("unlimited", _) => Some(None),
        (_, Unit::Bytes) => value::bytes(text).map(Some),
        (_, Unit::Number(_)) => value::whole(text).map(Some),
    };
    let text = match &node.value {
        Value::Number(text) | Value::Text(text) => text,
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => return Err(problem()),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let (Some(soft), Some(hard)) = (one(soft), one(hard)) else {
        return Err(problem());
    };
    if [soft, hard].contains(&Some(u64::MAX)) {
        return Err(problem().help("the largest number means `unlimited` to the kernel"));
    }
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(Problem::new("must not have a soft limit above its hard limit"));
    }
    Ok(Limit { soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::plain_scalar;

    fn read(text: &str, unit: Unit) -> Option<Limit> {
        parse(&Node::new(plain_scalar(text.to_owned())), unit).ok()
    }

    #[test]
    fn reads_every_form() {
        let count = Unit::Number("");
        for (text, unit, soft, hard) in [
            ("0", count, Some(0), Some(0)),
            ("1024:4096", count, Some(1024), Some(4096)),
            ("1024:unlimited", count, Some(1024), None),
            ("unlimited", count, None, None),
            ("1G", Unit::Bytes, Some(1 << 30), Some(1 << 30)),
            ("512K:1M", Unit::Bytes, Some(1 << 19), Some(1 << 20)),
        ] {
            assert_eq!(read(text, unit), Some(Limit { soft, hard }), "{text}");
        }
    }

    #[test]
    fn refuses_all_else() {
        for text in [
            "",
            ":",
            "1:",
            "-1",
            "1.5",
            "1G",
            "2:1",
            "unlimited:1",
            "18446744073709551615",
            "18446744073709551616",
            "true",
            "1:2:3",
        ] {
            assert_eq!(read(text, Unit::Number("")), None, "{text}");
        }
    }
}
