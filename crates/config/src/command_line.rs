//! An app from the words and options of a command line.

use std::path::PathBuf;

use crate::diagnostic::Errors;
use crate::report::{Problem, Report};
use crate::tree::{Entry, Node, Value, plain_scalar};
use crate::{App, Context, entry};

/// What the options of `start` say about an app.
#[derive(Debug, Clone, Default)]
pub struct CommandOptions {
    /// `--name`; the program's base name when absent.
    pub name: Option<String>,
    /// `--namespace`; `default` when absent.
    pub namespace: Option<String>,
    /// `--instances`, as written: a number, `max`, `-1`; 1 when absent.
    pub instances: Option<String>,
    /// Each `--listen`, as written.
    pub listen: Vec<String>,
    /// `--cwd`; the context's `base_dir` when absent.
    pub cwd: Option<PathBuf>,
    /// Each `--env-file`.
    pub env_file: Vec<PathBuf>,
    /// Whether the first word is a script, which is run by the interpreter that
    /// its extension names (`start ./app.js`), and not a program.
    pub script: bool,
}

/// Makes a checked app of a command line: `command` is the program and its
/// arguments, one word each. Relative paths start from the context's
/// `base_dir`, and its `env_name` does not count.
///
/// # Errors
/// All mistakes at once; each names the option that it is about.
pub fn app_from_command(
    command: Vec<String>,
    options: CommandOptions,
    context: &Context,
) -> Result<App, Errors> {
    let mut report = Report::of_command_line();
    let CommandOptions { name, namespace, instances, listen, cwd, env_file, script } = options;
    let mut entries = Vec::new();
    let mut add = |key: &str, value: Option<Value>| {
        entries.extend(value.map(|value| Entry {
            key: key.to_owned(),
            key_span: None,
            value: Node::new(value),
        }));
    };
    let list = |words: Vec<String>| Value::List(words.into_iter().map(Value::Text).map(Node::new).collect());
    add("name", name.map(Value::Text));
    add("namespace", namespace.map(Value::Text));
    // The one option that takes a number, and may have a text.
    add("instances", instances.map(plain_scalar));
    add("listen", Some(list(listen)).filter(has_elements));
    add("cwd", utf8(cwd, "cwd", &mut report).map(Value::Text));
    let env_file =
        env_file.into_iter().filter_map(|path| utf8(Some(path), "env_file", &mut report)).collect();
    add("env_file", Some(list(env_file)).filter(has_elements));
    if script {
        let mut words = command.into_iter();
        add("script", words.next().map(Value::Text));
        add("args", Some(list(words.collect())));
    } else {
        add("command", Some(list(command)));
    }
    let declared = entry::read(None, &entries, 1, context, &mut report);
    let (_, errors) = report.finish();
    match Errors::new(errors) {
        None => Ok(declared.app),
        Some(errors) => Err(errors),
    }
}

fn has_elements(value: &Value) -> bool {
    matches!(value, Value::List(nodes) if !nodes.is_empty())
}

fn utf8(path: Option<PathBuf>, key: &str, report: &mut Report<'_>) -> Option<String> {
    path.and_then(|path| match path.into_os_string().into_string() {
        Ok(path) => Some(path),
        Err(_) => {
            let title = report.title(key);
            report.error(None, Problem::new("is not UTF-8 text").of(&title));
            None
        }
    })
}
