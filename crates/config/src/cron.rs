//! Times that recur: `cron_restart: "0 3 * * *"`, `cron_timezone: Europe/Berlin`.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{expected, text};

/// The longest expression, bytes.
const MAX_EXPRESSION: usize = 200;

/// When the workers of an app are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronRestart {
    /// Five fields, or six with seconds first; it recurs.
    pub expression: String,
    /// The name of the zone that it is meant in; the workers' when absent.
    pub timezone: Option<String>,
}

/// Understands an expression of five fields, or of six with seconds first.
///
/// # Errors
///
/// A fragment that says what is wrong with it.
pub fn parse_cron(expression: &str) -> Result<Cron, String> {
    if expression.len() > MAX_EXPRESSION {
        return Err(format!("it is longer than {MAX_EXPRESSION} bytes"));
    }
    // It would be taken for no time at all.
    if expression.split_whitespace().flat_map(|field| field.split(',')).any(str::is_empty) {
        return Err("a list has an empty element".to_owned());
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(expression).map_err(|error| fragment(&error))?;
    // An impossible date is found by looking for it.
    match cron.find_next_occurrence(&jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), false) {
        Ok(_) => Ok(cron),
        Err(_) => Err("there is no such date".to_owned()),
    }
}

/// What croner says, as a part of a sentence.
fn fragment(error: &CronError) -> String {
    let text = match error {
        CronError::InvalidPattern(text)
        | CronError::IllegalCharacters(text)
        | CronError::ComponentError(text) => text.as_str(),
        CronError::EmptyPattern
        | CronError::InvalidDate
        | CronError::InvalidTime
        | CronError::TimeSearchLimitExceeded => "it is empty or impossible",
    };
    // It speaks of years, which we do not let it read.
    if text.contains("fields") {
        return "it must have 5 fields, or 6 with seconds first".to_owned();
    }
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// `None` where nothing recurs.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>) -> Option<CronRestart> {
    let timezone = fields.optional("cron_timezone", timezone);
    let expression = fields.optional("cron_restart", expression).flatten()?;
    Some(CronRestart { expression, timezone })
}

/// `None` for what PM2 takes for no expression.
fn expression(node: &Node) -> Result<Option<String>, Problem> {
    let text = match &node.value {
        Value::Bool(false) => return Ok(None),
        Value::Number(number) if number == "0" => return Ok(None),
        Value::Text(text) => text.trim(),
        Value::Null | Value::Bool(true) | Value::Number(_) | Value::List(_) | Value::Map(_) => {
            return Err(expected("a cron expression such as `\"0 3 * * *\"`, or `false`", node));
        }
    };
    if matches!(text, "" | "0" | "false") {
        return Ok(None);
    }
    checked(text).map(Some)
}

/// An expression that is understood.
pub(crate) fn checked(text: &str) -> Result<String, Problem> {
    match parse_cron(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Problem::new(format!("is no cron expression: {error}"))
            .help("minute, hour, day of month, month, day of week: `0 3 * * *` is each day at three")),
    }
}

fn timezone(node: &Node) -> Result<String, Problem> {
    let name = text(node)?;
    match TimeZone::get(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(expected("the name of a time zone such as `Europe/Berlin` or `UTC`", node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood_or_refused_with_a_reason() {
        let good =
            ["* * * * *", "*/5 * * * * *", "0 3 * * *", "30 2 1,15 JAN-MAR MON-FRI", "0 0 L * *", "@daily"];
        for expression in good {
            assert!(parse_cron(expression).is_ok(), "{expression}");
        }
        let check = |expression: &str, expected: &str| {
            assert_eq!(parse_cron(expression).err().as_deref(), Some(expected), "{expression}");
        };
        check("* * * *", "it must have 5 fields, or 6 with seconds first");
        check("0 0 0 1 1 * 2030", "it must have 5 fields, or 6 with seconds first");
        check("61 * * * *", "number out of bounds");
        check("1,,2 * * * *", "a list has an empty element");
        check("*/0 * * * *", "step cannot be zero");
        check("0 0 30 2 *", "there is no such date");
        check("", "it is empty or impossible");
        check(&"1".repeat(201), "it is longer than 200 bytes");
    }
}
