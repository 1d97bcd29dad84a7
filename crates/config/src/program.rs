//! What an app runs: `command`, or `script` with its interpreter.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Entry, Node, Span, Value};
use crate::value::{expected, non_empty, word};
use crate::{path, words};

/// The interpreters of scripts by extension; `.ts` is a case of its own.
pub(crate) const INTERPRETERS: &[(&str, &str)] = &[
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("py", "python3"),
    ("sh", "bash"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
];

/// What is run.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// The program and its arguments; empty only after an error.
    pub(crate) command: Vec<String>,
    /// The name of an app that gives none.
    pub(crate) default_name: String,
    /// Where it is given.
    pub(crate) at: Option<Span>,
}

/// Reads the program; a script's path starts from `cwd`.
pub(crate) fn read(
    fields: &mut Fields<'_, '_, '_>,
    cwd: &Path,
    caller_env: &BTreeMap<String, String>,
) -> Program {
    match (fields.given("command"), fields.given("script")) {
        (Some(entry), None) => {
            for name in ["args", "interpreter", "interpreter_args"] {
                if let Some(other) = fields.given(name) {
                    let problem = Problem::new(format!(
                        "`{}` belongs to `script`, and this app has a `command`",
                        other.key
                    ));
                    fields.report.error(other.key_span, problem.help("write all words into `command`"));
                }
            }
            Program { at: entry.value.span.or(entry.key_span), ..command(fields, entry) }
        }
        (None, Some(entry)) => {
            Program { at: entry.value.span.or(entry.key_span), ..script(fields, entry, cwd, caller_env) }
        }
        (Some(command), Some(script)) => {
            let problem = Problem::new(format!(
                "an app has either `command` or `{}`, and this one has both",
                script.key
            ));
            let later = if command.key_span.map(|at| at.start) < script.key_span.map(|at| at.start) {
                script
            } else {
                command
            };
            fields.report.error(later.key_span, problem.help("remove one"));
            Program::default()
        }
        (None, None) if fields.is_misspelt("command") || fields.is_misspelt("script") => Program::default(),
        (None, None) => {
            let problem = Problem::new("this app has neither `command` nor `script`");
            fields.report.error(fields.at, problem.help("add `command:` with the program and its arguments"));
            Program::default()
        }
    }
}

fn command(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Program {
    let command = word_list(fields, "command");
    let problem = match command.first().map(String::as_str) {
        // Its words were wrong, which has been said.
        None if !is_empty(&entry.value) => None,
        None | Some("") => Some(Problem::new("names no program")),
        Some(first) if matches!(entry.value.value, Value::Text(_)) && is_assignment(first) => Some(
            Problem::new(format!("starts with a variable, `{first}`, and no shell is run"))
                .help("put variables into `env`"),
        ),
        Some(_) => None,
    };
    if let Some(problem) = problem {
        fields.wrong(entry, &entry.value, problem);
    }
    Program { default_name: stem(command.first().map_or("", String::as_str)), command, at: None }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::List(nodes) => nodes.is_empty(),
        Value::Text(text) => text.trim().is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Map(_) => false,
    }
}

/// `NAME=value`, as shells take it before a command.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| is_variable_name(name))
}

/// Whether every shell and language could name a variable so.
pub(crate) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn script(
    fields: &mut Fields<'_, '_, '_>,
    entry: &Entry,
    cwd: &Path,
    caller_env: &BTreeMap<String, String>,
) -> Program {
    let interpreter = fields.optional("interpreter", non_empty);
    let interpreter_args = word_list(fields, "interpreter_args");
    let args = word_list(fields, "args");
    let located = fields.optional("script", |node| locate(non_empty(node)?, cwd, caller_env));
    let Some(script) = located else {
        return Program::default();
    };
    let chosen = match interpreter {
        Some("none") => None,
        Some(interpreter) => Some(interpreter),
        None => by_extension(&script, caller_env),
    };
    if chosen.is_none()
        && let Some(other) = fields.given("interpreter_args")
    {
        let problem =
            Problem::new(format!("`{}` has no meaning: no interpreter runs this script", other.key));
        fields.report.error(other.key_span, problem.help("name it with `interpreter`, or use `args`"));
    }
    let mut command: Vec<String> = chosen.map(str::to_owned).into_iter().chain(interpreter_args).collect();
    let default_name = stem(&script);
    command.push(script);
    command.extend(args);
    Program { command, default_name, at: entry.value.span }
}

/// The path of a script. A bare word that is no file in `cwd` may name a
/// program in `PATH`, as in `script: npm`.
fn locate(script: &str, cwd: &Path, caller_env: &BTreeMap<String, String>) -> Result<String, Problem> {
    let path = path::absolute(script, cwd)?;
    let is_bare_word = !script.contains('/');
    if is_bare_word && !path.exists() && in_path(script, caller_env) {
        return Ok(script.to_owned());
    }
    if script.contains(char::is_whitespace) && !path.exists() {
        return Err(Problem::new(format!("must be the path of a script, and there is no file `{script}`"))
            .help("put arguments into `args`, or use `command` for a whole command"));
    }
    Ok(path.to_string_lossy().into_owned())
}

fn by_extension(script: &str, caller_env: &BTreeMap<String, String>) -> Option<&'static str> {
    match Path::new(script).extension()?.to_str()? {
        "ts" if in_path("bun", caller_env) => Some("bun"),
        "ts" => Some("node"),
        extension => {
            INTERPRETERS.iter().find(|(listed, _)| *listed == extension).map(|(_, interpreter)| *interpreter)
        }
    }
}

/// Whether the caller's `PATH` has an executable file of this name.
fn in_path(program: &str, caller_env: &BTreeMap<String, String>) -> bool {
    let is_executable = |path: std::path::PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    caller_env
        .get("PATH")
        .is_some_and(|path| std::env::split_paths(path).any(|folder| is_executable(folder.join(program))))
}

/// The base name of a program without its extension.
fn stem(program: &str) -> String {
    Path::new(program).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The words of a key that takes a list or one string.
fn word_list(fields: &mut Fields<'_, '_, '_>, name: &str) -> Vec<String> {
    match fields.given(name).map(|entry| &entry.value.value) {
        Some(Value::List(_)) => fields.list(name, |node| word(node).map(str::to_owned)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_)) => {
            fields.optional(name, words).unwrap_or_default()
        }
        None => Vec::new(),
    }
}

/// The words of a list or of one string.
pub(crate) fn words(node: &Node) -> Result<Vec<String>, Problem> {
    match &node.value {
        Value::Text(_) => words::split(word(node)?),
        Value::Number(number) => Ok(vec![number.clone()]),
        Value::List(nodes) => nodes.iter().map(|node| word(node).map(str::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Map(_) => Err(expected("a list of words or one string", node)),
    }
}
