//! Variables of workers: `inherit_env`, `env_file`, `env` and `env_NAME`. No
//! message about them shows a value.

use std::collections::BTreeMap;

use crate::app::Inherit;
use crate::env_file::{self, Mistake};
use crate::fields::Fields;
use crate::report::{Problem, excerpt};
use crate::source::read_bounded;
use crate::tree::{Entry, Node, Value};
use crate::value::{expected, integer, non_empty};
use crate::{Context, path};

type Variables = BTreeMap<String, String>;

/// The most that an `env_file` may hold, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The longest variable that the kernel passes on (`execve(2)`), in bytes.
const MAX_VARIABLE: usize = 128 << 10;

/// Which of the caller's variables the app inherits.
pub(crate) fn read_inherit(fields: &mut Fields<'_, '_, '_>) -> Inherit {
    for entry in ["inherit_env", "filter_env"].map(|name| fields.given(name)).into_iter().flatten() {
        if let Value::Map(_) = entry.value.value {
            // It was meant to be `env`.
            fields.report.hide(&entry.value);
        }
    }
    let mut inherit = Inherit { only: read_allowed(fields), without: Vec::new() };
    match fields.given("filter_env").map(|entry| &entry.value.value) {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => inherit.only = Some(Vec::new()),
        Some(Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_)) => {
            inherit.without = fields.list("filter_env", |node| non_empty(node).map(str::to_owned));
        }
    }
    inherit
}

fn read_allowed(fields: &mut Fields<'_, '_, '_>) -> Option<Vec<String>> {
    let Some(Value::List(_)) = fields.given("inherit_env").map(|entry| &entry.value.value) else {
        let inherits = fields.value("inherit_env", |node| match node.value {
            Value::Bool(yes) => Ok(yes),
            Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                Err(expected("`true`, `false` or a list of names", node))
            }
        });
        return if inherits { None } else { Some(Vec::new()) };
    };
    Some(fields.list("inherit_env", |node| non_empty(node).map(str::to_owned)))
}

impl Inherit {
    /// The caller's variables, as far as they are inherited.
    pub(crate) fn of(&self, caller_env: &Variables) -> Variables {
        let allowed = |name: &String| self.only.as_ref().is_none_or(|only| only.contains(name));
        let unwanted = |name: &String| self.without.iter().any(|part| name.contains(part));
        let inherited = caller_env.iter().filter(|(name, _)| allowed(name) && !unwanted(name));
        inherited.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// The app's own variables; a later layer wins.
pub(crate) fn read_own(fields: &mut Fields<'_, '_, '_>, context: &Context) -> Variables {
    let mut variables = Variables::new();
    for file in fields.list("env_file", |node| read_file(non_empty(node)?, context)) {
        variables.extend(file);
    }
    if let Some(entry) = fields.given("env") {
        variables.extend(read_mapping(fields, entry));
    }
    if let Some(port) = fields.optional("port", integer(0..=u16::MAX)) {
        variables.insert("PORT".to_owned(), port.to_string());
    }
    // All sets are checked, whichever is chosen: a file is right or wrong, and
    // does not wait for its day.
    for (name, entry) in fields.env_sets.clone() {
        let set = read_mapping(fields, entry);
        if context.env_name.as_deref() == Some(name) {
            variables.extend(set);
        }
    }
    variables
}

/// The variable that each slot adds its number to.
pub(crate) fn read_increment_var(fields: &mut Fields<'_, '_, '_>, own: &Variables) -> Option<String> {
    fields.optional("increment_var", |node| match non_empty(node)? {
        name if own.get(name).is_some_and(|value| value.parse::<i64>().is_ok()) => Ok(name.to_owned()),
        name => Err(Problem::new(format!("names `{}`, which is no number in `env`", excerpt(name)))),
    })
}

fn read_mapping(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Variables {
    fields.report.hide(&entry.value);
    let mut variables = Variables::new();
    let Value::Map(entries) = &entry.value.value else {
        let problem =
            Problem::new("must be a mapping of variables").help("write `NAME: value` on lines of their own");
        let title = fields.report.title(&entry.key);
        fields.report.error(entry.key_span, problem.of(&title));
        return variables;
    };
    for variable in entries {
        match check_name(&variable.key).and_then(|()| scalar(&variable.value)) {
            Ok(text) => {
                variables.insert(variable.key.clone(), text);
            }
            Err(problem) => {
                let title = format!("the variable `{}`", excerpt(&variable.key));
                fields.report.error(variable.key_span, problem.of(&title));
            }
        }
    }
    variables
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Problem::new("must have a name without `=` and NUL"));
    }
    Ok(())
}

fn scalar(node: &Node) -> Result<String, Problem> {
    match &node.value {
        Value::Bool(yes) => Ok(yes.to_string()),
        Value::Number(text) | Value::Text(text) if !text.contains('\0') => Ok(text.clone()),
        Value::Number(_) | Value::Text(_) => Err(Problem::new("contains a NUL character, which the kernel cannot pass on")),
        Value::Null => Err(Problem::new("has no value")
            .help("write `\"\"` for an empty one; to keep an inherited variable out, list the others in `inherit_env`")),
        Value::List(_) | Value::Map(_) => Ok(json(node)),
    }
}

/// A value as JSON without blanks, as PM2 passes lists and mappings on.
fn json(node: &Node) -> String {
    let list = |values: Vec<String>| values.join(",");
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) if serde_json::from_str::<serde_json::Number>(number).is_ok() => number.clone(),
        Value::Number(text) | Value::Text(text) => quoted(text),
        Value::List(nodes) => format!("[{}]", list(nodes.iter().map(json).collect())),
        Value::Map(entries) => {
            let entry = |entry: &Entry| format!("{}:{}", quoted(&entry.key), json(&entry.value));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Reads a dotenv file.
fn read_file(file: &str, context: &Context) -> Result<Variables, Problem> {
    let path = path::absolute(file, &context.base_dir)?;
    let bytes = read_bounded(&path, MAX_FILE).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Problem::new(format!("fails: {error}{cause}"))
    })?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            return Err(Problem::new(format!(
                "names {}, whose line {line} is not UTF-8 text",
                path.display()
            )));
        }
    };
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let variables = env_file::parse(text, &context.caller_env).map_err(|mistake| {
        let Mistake { line, column, what, help } = mistake;
        Problem::new(format!("names {}, whose line {line} {what}, at column {column}", path.display()))
            .help(help)
    })?;
    if let Some((name, _)) =
        variables.iter().find(|(_, value)| value.len() > MAX_VARIABLE || value.contains('\0'))
    {
        let problem =
            Problem::new(format!("names {}, whose variable `{name}` no program can get", path.display()));
        return Err(problem.help("a variable is at most 128 KiB long and has no NUL"));
    }
    Ok(variables)
}
