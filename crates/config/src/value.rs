//! What single values mean. Each reader takes a node and says what is wrong
//! with it as a sentence whose subject, the key, the caller adds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::report::{Problem, excerpt};
use crate::tree::{Node, Value};
use crate::{duration, size};

/// "must be …, not …".
pub(crate) fn expected(what: impl Display, node: &Node) -> Problem {
    Problem::new(format!("must be {what}, not {}", describe(node)))
}

/// A value as a message shows it.
fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "empty".to_owned(),
        Value::Bool(yes) => format!("`{yes}`"),
        Value::Number(number) => format!("`{}`", excerpt(number)),
        Value::Text(text) => format!("the text `{}`", excerpt(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

/// A text.
pub(crate) fn text(node: &Node) -> Result<&str, Problem> {
    let problem = match &node.value {
        Value::Text(text) => return without_nul(text),
        Value::Bool(_) | Value::Number(_) => expected("text", node).help("put it in quotes"),
        Value::Null | Value::List(_) | Value::Map(_) => expected("text", node),
    };
    Err(problem)
}

/// A text that may look like a number: a name, a word of a command.
pub(crate) fn word(node: &Node) -> Result<&str, Problem> {
    match &node.value {
        Value::Number(number) => Ok(number),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => text(node),
    }
}

/// The kernel ends arguments, variables and paths at a NUL.
pub(crate) fn without_nul(text: &str) -> Result<&str, Problem> {
    match text.contains('\0') {
        false => Ok(text),
        true => Err(Problem::new("contains a NUL character, which the kernel cannot pass on")),
    }
}

/// A text that is not empty.
pub(crate) fn non_empty(node: &Node) -> Result<&str, Problem> {
    match word(node)? {
        "" => Err(Problem::new("is empty")),
        text => Ok(text),
    }
}

/// `true` or `false`, and nothing that looks like them.
pub(crate) fn boolean(node: &Node) -> Result<bool, Problem> {
    match &node.value {
        Value::Bool(yes) => Ok(*yes),
        Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            Err(expected("`true` or `false`", node))
        }
    }
}

/// A whole number in a range.
pub(crate) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, Problem>
where
    T: Display + FromStr + PartialOrd,
{
    move |node| {
        let problem =
            || expected(format_args!("a whole number from {} to {}", range.start(), range.end()), node);
        match &node.value {
            Value::Number(number) => {
                whole::<T>(number).filter(|number| range.contains(number)).ok_or_else(problem)
            }
            Value::Text(text) if whole::<T>(text).is_some() => Err(problem().help("remove the quotes")),
            Value::Text(_) | Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => Err(problem()),
        }
    }
}

/// A decimal number without a leading zero, which some would read as octal.
pub(crate) fn whole<T: FromStr>(number: &str) -> Option<T> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    if is_plain { number.parse().ok() } else { None }
}

/// One of a few words.
pub(crate) fn one_of<'c, T: Copy>(choices: &'c [(&'c str, T)]) -> impl Fn(&Node) -> Result<T, Problem> + 'c {
    move |node| {
        let chosen = match &node.value {
            Value::Text(text) => choices.iter().find(|(word, _)| word == text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => None,
        };
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            expected(words.join(" or "), node)
        })
    }
}

/// A duration: whole milliseconds, or a text with units.
pub(crate) fn duration(node: &Node) -> Result<Duration, Problem> {
    let problem = || expected("a duration such as `5000` (milliseconds), `10s` or `1h30m`", node);
    let duration = match &node.value {
        Value::Number(number) => whole::<u64>(number).map(Duration::from_millis).ok_or_else(problem)?,
        Value::Text(text) if whole::<u64>(text).is_some() => {
            return Err(problem().help("remove the quotes for milliseconds, or add a unit"));
        }
        Value::Text(text) => duration::parse(text).ok_or_else(problem)?,
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => return Err(problem()),
    };
    match duration <= duration::MAX {
        true => Ok(duration),
        false => Err(expected("at most 3650 days", node)),
    }
}

/// A duration above zero.
pub(crate) fn positive_duration(node: &Node) -> Result<Duration, Problem> {
    match duration(node)? {
        Duration::ZERO => Err(Problem::new("must be longer than zero")),
        duration => Ok(duration),
    }
}

/// A number of bytes: whole, or a text with a unit.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    whole(text).or_else(|| size::parse(text))
}
