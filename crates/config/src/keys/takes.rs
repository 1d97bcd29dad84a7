//! What a key takes: in words for people, as JSON Schema for editors.

use serde_json::{Value, json};

use crate::{limits, ready};

/// What a key takes. The readers know it too, and are stricter: a schema cannot
/// say everything.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    /// `true` or `false`.
    Boolean,
    /// A whole number, from the first to the second.
    Number(i64, i64),
    /// A factor with decimals.
    Factor,
    /// Milliseconds, or a text with units.
    Duration,
    /// One of these words. Other spellings that PM2 has are in the second list.
    OneOf(&'static [&'static str], &'static [&'static str]),
    /// A text.
    Text,
    /// What commands can tell from their other arguments.
    Name,
    /// The name of a variable.
    VariableName,
    /// A path.
    Path,
    /// A path or a list of them.
    Paths,
    /// A list of words, or one string.
    Words,
    /// A program that runs scripts, or `none`.
    Interpreter,
    /// A number of workers.
    Instances,
    /// Variables by name.
    Variables,
    /// All, none, or those of these names.
    AllOrNames,
    /// All, none, or those whose name contains one of these texts.
    AllOrTexts,
    /// Addresses to serve.
    Addresses,
    /// One of these.
    Address,
    /// A check from outside.
    ReadyCheck,
    /// Statuses of HTTP.
    Statuses,
    /// A number for each slot.
    Weights,
    /// Exit codes.
    ExitCodes,
    /// A signal.
    Signal,
    /// A user or a group.
    Account,
    /// A file mode creation mask.
    Umask,
    /// Numbers of CPUs, or one for each slot.
    Cpus,
    /// Resource limits by name.
    Limits,
    /// Where output goes.
    LogTarget,
    /// All, nothing, or these paths.
    Watch,
    /// A text or a list of them.
    Texts,
    /// Times that recur.
    Cron,
    /// One of these words, or a cron expression.
    Period(&'static [&'static str]),
    /// A time zone.
    TimeZone,
    /// Tokens of day.js.
    DateFormat,
    /// Bytes, or a text with a unit.
    Size,
    /// How a reload goes about it.
    Reload,
    /// The same, from the first to the second.
    SizeBetween(&'static str, &'static str),
}

impl Takes {
    /// For people.
    pub(crate) fn words(self) -> String {
        match self {
            Takes::Number(least, most) => format!("number from {least} to {most}"),
            Takes::OneOf(words, _) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                quoted.join(" or ")
            }
            Takes::Boolean => "`true` or `false`".to_owned(),
            Takes::Factor => "number from 1 to 100, with up to two decimals".to_owned(),
            Takes::Duration => "duration".to_owned(),
            Takes::Text => "text".to_owned(),
            Takes::Name => "name".to_owned(),
            Takes::VariableName => "name of a variable".to_owned(),
            Takes::Path => "path".to_owned(),
            Takes::Paths => "path, or a list of them".to_owned(),
            Takes::Words => "list of words, or one string that is split like a shell would".to_owned(),
            Takes::Interpreter => "program, or `none`".to_owned(),
            Takes::Instances => "number, or `max`".to_owned(),
            Takes::Variables => "mapping of variables".to_owned(),
            Takes::AllOrNames => "`true`, `false`, or a list of names".to_owned(),
            Takes::AllOrTexts => "`true`, `false`, a text or a list of them".to_owned(),
            Takes::Addresses => "address, or a list of at most 64".to_owned(),
            Takes::Address => "address".to_owned(),
            Takes::ReadyCheck => "mapping, see [below](#readiness-checks)".to_owned(),
            Takes::Statuses => "status, range as `200-399`, or a list of them".to_owned(),
            Takes::Weights => "list of numbers from 0 to 1000".to_owned(),
            Takes::ExitCodes => "exit code from 0 to 255, or a list of them".to_owned(),
            Takes::Signal => "signal, as `SIGTERM`, `TERM` or `15`".to_owned(),
            Takes::Account => "name or number".to_owned(),
            Takes::Umask => "octal digits in quotes, as `\"0022\"`".to_owned(),
            Takes::Cpus => "`auto`, number, range as `\"4-7\"`, or a list of them".to_owned(),
            Takes::Limits => "mapping of resource limits".to_owned(),
            Takes::LogTarget => "path, or `/dev/null`".to_owned(),
            Takes::Watch => "`true`, `false`, a path or a list of them".to_owned(),
            Takes::Texts => "text, or a list of them".to_owned(),
            Takes::Cron => "cron expression of 5 or 6 fields, or `false`".to_owned(),
            Takes::Period(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("{} or a cron expression of 5 or 6 fields", words.join(", "))
            }
            Takes::TimeZone => "name of a time zone".to_owned(),
            Takes::DateFormat => "tokens of day.js, as `YYYY-MM-DD HH:mm:ss.SSS Z`".to_owned(),
            Takes::Reload => "`rolling`, `all`, `canary` or a mapping".to_owned(),
            Takes::SizeBetween(least, most) => format!("size from `{least}` to `{most}`"),
            Takes::Size => "size, as `10M`, or `0` for no limit".to_owned(),
        }
    }

    /// As JSON Schema.
    pub(crate) fn schema(self) -> Value {
        // A word that looks like a number is fine in YAML without quotes.
        let word = json!({"type": ["string", "number"]});
        let one_or_list = |one: Value| json!({"anyOf": [one, {"type": "array", "items": one}]});
        match self {
            Takes::Boolean => json!({"type": "boolean"}),
            Takes::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Takes::Factor => json!({"type": "number", "minimum": 1, "maximum": 100}),
            Takes::Duration => json!({"anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$"},
            ]}),
            Takes::OneOf(words, others) => json!({"enum": ([words, others].concat())}),
            Takes::Text | Takes::Interpreter | Takes::Account => word,
            Takes::Name => json!({"type": ["string", "number"], "pattern": "^[A-Za-z0-9._][A-Za-z0-9._-]*$"}),
            Takes::VariableName => json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}),
            Takes::Path => json!({"type": "string"}),
            Takes::Paths => one_or_list(json!({"type": "string"})),
            Takes::Words => one_or_list(word),
            Takes::Instances => json!({"anyOf": [{"type": "integer"}, {"const": "max"}]}),
            Takes::Variables => json!({"type": "object", "additionalProperties": {"not": {"type": "null"}}}),
            Takes::AllOrNames => {
                json!({"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]})
            }
            Takes::AllOrTexts => json!({"anyOf": [
                {"type": ["boolean", "string"]},
                {"type": "array", "items": {"type": "string"}},
            ]}),
            Takes::Addresses => one_or_list(json!({"type": ["integer", "string"]})),
            Takes::Address => json!({"type": ["integer", "string"]}),
            Takes::ReadyCheck => {
                let fields: serde_json::Map<String, Value> =
                    ready::FIELDS.iter().map(|field| (field.name.to_owned(), field.schema())).collect();
                json!({"type": "object", "properties": fields, "additionalProperties": false})
            }
            Takes::Statuses => one_or_list(json!({"type": ["integer", "string"]})),
            Takes::Weights => {
                json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1000}})
            }
            Takes::ExitCodes => one_or_list(json!({"type": "integer", "minimum": 0, "maximum": 255})),
            Takes::Signal => json!({"type": ["string", "integer"]}),
            // YAML reads `0022` as a number.
            Takes::Umask => json!({"type": ["string", "integer"]}),
            Takes::Cpus => one_or_list(json!({"type": ["integer", "string"]})),
            Takes::Limits => {
                let limit = json!({"type": ["integer", "string"]});
                let limits: serde_json::Map<String, Value> =
                    limits::NAMES.iter().map(|(name, _)| ((*name).to_owned(), limit.clone())).collect();
                json!({"type": "object", "properties": limits, "additionalProperties": false})
            }
            Takes::Watch => json!({"anyOf": [
                {"type": ["boolean", "string"]},
                {"type": "array", "items": {"type": "string"}},
            ]}),
            Takes::Texts => one_or_list(json!({"type": "string"})),
            Takes::Period(words) => {
                json!({"anyOf": [{"enum": words}, {"type": "string", "pattern": "[ @]"}]})
            }
            Takes::Cron => json!({"anyOf": [{"type": "string"}, {"const": false}, {"const": 0}]}),
            Takes::TimeZone => json!({"type": "string"}),
            Takes::DateFormat => json!({"type": "string"}),
            Takes::Reload => {
                let modes = json!({"enum": ["rolling", "all", "canary"]});
                let share = json!({"type": "string", "pattern": "^[0-9]{1,3}%$"});
                let properties = json!({
                    "mode": modes,
                    "steps": {"type": "array", "items": share},
                    "hold": Takes::Duration.schema(),
                });
                let long = json!({"type": "object", "properties": properties, "required": ["mode"], "additionalProperties": false});
                json!({"anyOf": [modes, long]})
            }
            Takes::Size | Takes::SizeBetween(..) => json!({"type": ["string", "integer"]}),
            Takes::LogTarget => json!({"type": ["string", "null"]}),
        }
    }
}
