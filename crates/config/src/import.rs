//! PM2's files as clean ecosystem files: keys by their documented names in the
//! reference's order, what is left out and why in comments.

mod dump;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::diagnostic::Errors;
use crate::keys::{self, KEYS};
use crate::report::{Problem, Report, excerpt};
use crate::source::Source;
use crate::tree::write::{in_one_line, scalar};
use crate::tree::{self, Entry, Node, Value};
use crate::{entry, file};

/// Where an import comes from and goes to.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The folder that the source's relative paths start from, when the new
    /// file will lie in another: then paths are written from the root.
    pub base_dir: Option<PathBuf>,
    /// The environment of the person who imports. A dump has the whole one of
    /// whoever started an app; what is the same today is left out.
    pub caller_env: BTreeMap<String, String>,
}

/// Rewrites an ecosystem file or a dump (`pm2 save`) of PM2 as YAML.
///
/// What an app's values mean is not checked: reading the result does that.
///
/// # Errors
/// When the source is not well-formed, or has no apps.
pub fn import(source: &Source, options: &ImportOptions) -> Result<String, Errors> {
    let mut report = Report::of_file(source);
    let root = tree::parse(source, &mut report);
    let nodes = root.as_ref().map(|root| file::app_nodes(root, &mut report)).unwrap_or_default();
    let mut apps = Vec::new();
    for node in nodes {
        match &node.value {
            Value::Map(entries) => apps.push(entries.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                report.error(node.span, Problem::new("an app must be a mapping"));
            }
        }
    }
    let (warnings, errors) = report.finish();
    if let Some(errors) = Errors::new(errors) {
        return Err(errors);
    }
    let mut text = format!("# From {} by `supervisor import`.\n", source.path.display());
    for warning in warnings {
        comment(&mut text, "", &format!("{}: {}.", warning.message, warning.help.unwrap_or_default()));
    }
    if apps.iter().any(|app| dump::is_dumped(app)) {
        comment(&mut text, "", "Variables that the environment of the import had as well are left out.");
        apps = dump::apps(&apps, &options.caller_env);
    }
    text.push_str("\napps:\n");
    for app in apps {
        let lines = write_app(&app, options.base_dir.as_deref());
        text.push_str("  - ");
        text.push_str(lines.trim_start());
    }
    Ok(text)
}

/// One app, each line indented by four.
fn write_app(entries: &[Entry], base_dir: Option<&Path>) -> String {
    let mut text = String::new();
    let given =
        |name: &str| entries.iter().find(|entry| keys::find(&entry.key).is_some_and(|key| key.name == name));
    let has_exponential = given("exp_backoff_restart_delay").is_some_and(|entry| is_asked_for(&entry.value));
    for key in KEYS {
        match (given(key.name), key.name) {
            (Some(entry), "name") => write_name(&mut text, entry),
            (Some(entry), "exec_mode") => {
                let mode = in_one_line(&entry.value);
                line(&mut text, key.name, mode.trim_end_matches("_mode"), None);
            }
            (Some(entry), "exp_backoff_restart_delay") if has_exponential => {
                line(&mut text, "restart_delay", &in_one_line(&entry.value), Some(key.name));
                line(&mut text, "restart_backoff", "1.5", None);
            }
            // It asks for nothing, or the other key says how long the pause is.
            (Some(_), "exp_backoff_restart_delay") => {}
            (Some(_), "restart_delay" | "restart_backoff") if has_exponential => {}
            (Some(entry), name) => write_value(&mut text, name, entry, base_dir),
            (None, "cwd") => {
                if let Some(base) = base_dir {
                    line(&mut text, "cwd", &scalar(&base.to_string_lossy()), None);
                }
            }
            (None, "instances") => text.push_str("    instances: 1  # as in PM2; otherwise one per CPU\n"),
            (None, _) => {}
        }
        if key.name == "env" {
            for set in entries.iter().filter(|entry| is_env_set(entry)) {
                write_value(&mut text, &set.key, set, base_dir);
            }
        }
    }
    for entry in entries {
        write_stranger(&mut text, entry);
    }
    text
}

fn is_asked_for(delay: &Node) -> bool {
    in_one_line(delay) != "0"
}

fn write_name(text: &mut String, entry: &Entry) {
    let name = match &entry.value.value {
        Value::Text(name) | Value::Number(name) => name.as_str(),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => "",
    };
    if entry::check_name(name).is_ok() {
        return line(text, "name", &in_one_line(&entry.value), None);
    }
    let fine: String = name.chars().map(|char| if entry::is_name_char(char) { char } else { '-' }).collect();
    line(text, "name", &scalar(fine.trim_matches('-')), Some(&excerpt(name)));
}

fn write_value(text: &mut String, name: &str, entry: &Entry, base_dir: Option<&Path>) {
    let was = Some(entry.key.as_str()).filter(|key| *key != name);
    if let Value::Map(entries) = &entry.value.value
        && !entries.is_empty()
    {
        text.push_str(&format!("    {name}:\n"));
        for inner in entries {
            text.push_str(&format!("      {}: {}\n", scalar(&inner.key), in_one_line(&inner.value)));
        }
        return;
    }
    let is_path = matches!(name, "cwd" | "env_file" | "out_file" | "error_file");
    let value = match base_dir {
        Some(base) if is_path => in_one_line(&from_root(&entry.value, base)),
        Some(_) | None => in_one_line(&entry.value),
    };
    line(text, name, &value, was);
}

/// Paths from the root.
fn from_root(node: &Node, base: &Path) -> Node {
    Node::new(match &node.value {
        Value::Text(path) if path != "NULL" => Value::Text(base.join(path).to_string_lossy().into_owned()),
        Value::List(nodes) => Value::List(nodes.iter().map(|node| from_root(node, base)).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_)) => {
            other.clone()
        }
    })
}

/// Tells of a key that no app has here.
fn write_stranger(text: &mut String, entry: &Entry) {
    if keys::find(&entry.key).is_some() || is_env_set(entry) {
        return;
    }
    let known = [keys::PM2, keys::MEANINGLESS].into_iter().find_map(|table| keys::foreign(table, &entry.key));
    let advice = match known {
        Some(foreign) if foreign.is_harmless(&entry.value) => return,
        Some(foreign) => foreign.advice,
        None => "there is no such key",
    };
    comment(text, "    ", &format!("Left out: {}: {advice}.", excerpt(&entry.key)));
}

fn is_env_set(entry: &Entry) -> bool {
    entry.key.starts_with("env_")
        && keys::find(&entry.key).is_none()
        && matches!(entry.value.value, Value::Map(_))
}

fn line(text: &mut String, name: &str, value: &str, was: Option<&str>) {
    // Writing to a string cannot fail.
    let _ = match was {
        Some(was) => writeln!(text, "    {name}: {value}  # was {}", one_line(was)),
        None => writeln!(text, "    {name}: {value}"),
    };
}

fn comment(text: &mut String, indent: &str, words: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{indent}# {}", one_line(words));
}

/// Keeps a text of the source inside its comment.
fn one_line(text: &str) -> String {
    let is_break = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{FEFF}');
    text.chars().map(|char| if is_break(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
}
