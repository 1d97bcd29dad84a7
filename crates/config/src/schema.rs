//! The JSON Schema of an ecosystem file, from the table of keys: with it an
//! editor completes keys, shows what they mean and marks mistakes.

use serde_json::{Map, Value, json};

use crate::daemon;
use crate::keys::{self, Foreign, KEYS, Key, Preset, Takes, camel_case};
use crate::tree;

/// The schema as text, in draft 7, which editors know best.
#[must_use]
pub fn schema() -> String {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Ecosystem file",
        "description": "What the supervisor runs: apps under `apps`, a list of apps, or one app.",
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "apps": {"$ref": "#/definitions/apps"},
                    "daemon": {"$ref": "#/definitions/daemon"},
                    "pm2": {},
                    "$schema": {"type": "string"},
                },
                "patternProperties": {
                    "^x-": {"description": "A place for YAML anchors; ignored."},
                    (spellings(keys::TOP_MEANINGLESS.iter().map(|key| key.name))): ignored(),
                },
                "additionalProperties": false,
                "anyOf": [{"required": ["apps"]}, {"required": ["pm2"]}],
            },
            {"$ref": "#/definitions/apps"},
        ],
        "definitions": {
            "apps": {"anyOf": [
                {"type": "array", "items": {"$ref": "#/definitions/app"}},
                {"$ref": "#/definitions/app"},
            ]},
            "app": app(),
            "daemon": daemon(),
        },
    });
    format!("{schema:#}\n")
}

fn app() -> Value {
    let mut patterns: Map<String, Value> = KEYS.iter().filter_map(other_spellings).collect();
    let mut variables = Takes::Variables.schema();
    variables["description"] = "Variables that `--env NAME` adds for this `env_NAME`.".into();
    // `env_file` is the one key of that form.
    patterns.insert("^env_(?!file$)".to_owned(), variables);
    let foreign = |table: &'static [Foreign]| table.iter().map(|key| key.name);
    patterns.insert(spellings(foreign(keys::PM2).chain(foreign(keys::MEANINGLESS))), ignored());
    let program = ["command", "script"].into_iter().filter_map(keys::find);
    let required = program.flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()));
    json!({
        "type": "object",
        "properties": KEYS.iter().map(|key| (key.name.to_owned(), property(key))).collect::<Map<_, _>>(),
        "patternProperties": patterns,
        "additionalProperties": false,
        "anyOf": required.map(|name| json!({"required": [name]})).collect::<Vec<_>>(),
    })
}

fn daemon() -> Value {
    let mut section = json!({
        "type": "object",
        "description": "What holds for the daemon and not for one app.",
        "properties": {
            "log_level": {"enum": ["error", "warn", "info", "debug"], "default": "info"},
            "control_group": {"type": ["string", "integer"]},
        },
        "additionalProperties": false,
    });
    for (name, _, _, doc) in daemon::KEYS {
        section["properties"][*name]["description"] = (*doc).into();
    }
    section
}

fn property(key: &Key) -> Value {
    let mut property = key.takes.schema();
    property["description"] = key.doc.into();
    if let Preset::Value(text) = key.default {
        property["default"] = match tree::plain_scalar(text.to_owned()) {
            tree::Value::Bool(yes) => yes.into(),
            tree::Value::Number(number) => number.parse::<i64>().map_or(number.into(), Value::from),
            tree::Value::Null | tree::Value::Text(_) | tree::Value::List(_) | tree::Value::Map(_) => {
                text.into()
            }
        };
    }
    property
}

/// The spellings of a key beside its name. They are patterns, so that editors
/// understand them and propose the name only.
fn other_spellings(key: &Key) -> Option<(String, Value)> {
    let names = std::iter::once(key.name).chain(key.aliases.iter().copied());
    let others: Vec<String> = names.flat_map(both_cases).filter(|name| name != key.name).collect();
    let same = json!({"$ref": format!("#/definitions/app/properties/{}", key.name)});
    (!others.is_empty()).then(|| (any_of(&others), same))
}

fn spellings(names: impl Iterator<Item = &'static str>) -> String {
    any_of(&names.flat_map(both_cases).collect::<Vec<_>>())
}

fn both_cases(name: &str) -> Vec<String> {
    let mut both = vec![name.to_owned(), camel_case(name)];
    both.dedup();
    both
}

fn any_of(names: &[String]) -> String {
    format!("^({})$", names.join("|"))
}

fn ignored() -> Value {
    json!({"description": "A key of PM2 that is not honoured; `supervisor check` says what to use instead."})
}
