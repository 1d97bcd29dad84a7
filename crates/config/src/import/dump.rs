//! What `pm2 save` writes: an entry for each running instance, with all that
//! PM2 keeps about it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::keys;
use crate::program::INTERPRETERS;
use crate::tree::write::in_one_line;
use crate::tree::{Entry, Node, Value};

/// PM2's names for what an ecosystem file says by other ones.
const RENAMED: &[(&str, &str)] = &[
    ("pm_exec_path", "script"),
    ("pm_cwd", "cwd"),
    ("exec_interpreter", "interpreter"),
    ("pm_out_log_path", "out_file"),
    ("pm_err_log_path", "error_file"),
];

/// What PM2 writes although nobody asked for it.
const DEFAULTS: &[(&str, &str)] = &[
    ("args", "[]"),
    ("autorestart", "true"),
    ("autostart", "true"),
    ("exp_backoff_restart_delay", "0"),
    ("filter_env", "[]"),
    ("instance_var", "NODE_APP_INSTANCE"),
    ("kill_timeout", "1600"),
    ("listen_timeout", "3000"),
    ("max_restarts", "16"),
    ("merge_logs", "true"),
    ("min_uptime", "1000"),
    ("namespace", "default"),
    ("node_args", "[]"),
    ("restart_delay", "0"),
    ("watch", "false"),
];

/// Variables of shells and of PM2, which say nothing about an app.
const NOISE: &[&str] =
    &["_", "COLORTERM", "LS_COLORS", "NODE_APP_INSTANCE", "OLDPWD", "PWD", "SHLVL", "TERM", "unique_id"];

/// What the names of further such variables begin with.
const NOISE_PREFIXES: &[&str] = &["PM2_", "SSH_", "XDG_", "npm_"];

/// Whether an app is an entry of a dump.
pub(super) fn is_dumped(entries: &[Entry]) -> bool {
    text(entries, "pm_exec_path").is_some()
}

/// One app of a dump.
struct Dumped<'t> {
    /// Its name, namespace and program, which all its instances share.
    identity: [Option<&'t str>; 3],
    instances: usize,
    declared: Vec<Entry>,
}

/// The apps of a dump, as an ecosystem file would declare them.
pub(super) fn apps(dumped: &[Vec<Entry>], caller_env: &BTreeMap<String, String>) -> Vec<Vec<Entry>> {
    let mut apps: Vec<Dumped<'_>> = Vec::new();
    for entries in dumped {
        let identity = ["name", "namespace", "pm_exec_path"].map(|key| text(entries, key));
        match apps.iter_mut().find(|known| known.identity == identity) {
            Some(known) => known.instances += 1,
            None => {
                apps.push(Dumped { identity, instances: 1, declared: declared(entries, caller_env) });
            }
        }
    }
    let with_instances = |mut app: Dumped<'_>| {
        app.declared.push(entry("instances", Value::Number(app.instances.to_string())));
        app.declared
    };
    apps.into_iter().map(with_instances).collect()
}

/// What a file would say of an app.
fn declared(entries: &[Entry], caller_env: &BTreeMap<String, String>) -> Vec<Entry> {
    let cwd = text(entries, "pm_cwd").unwrap_or_default();
    let mut declared = Vec::new();
    for Entry { key, value, .. } in entries {
        let renamed = RENAMED.iter().find(|(theirs, _)| theirs == key).map(|(_, ours)| *ours);
        let name = renamed.unwrap_or(key);
        let is_known = keys::find(name).is_some() || keys::foreign(keys::PM2, name).is_some();
        let is_default = DEFAULTS.contains(&(key.as_str(), in_one_line(value).as_str()));
        // The instances are counted.
        if !is_known || is_default || name == "instances" {
            continue;
        }
        let value = match (name, &value.value) {
            ("env", Value::Map(variables)) => {
                let mut own = variables.clone();
                own.retain(|variable| is_own(variable, text(entries, "name"), caller_env));
                Some(Value::Map(own)).filter(|own| *own != Value::Map(Vec::new()))
            }
            ("script", Value::Text(script)) => Some(Value::Text(from_folder(script, cwd))),
            ("interpreter", Value::Text(interpreter)) => {
                let script = text(entries, "pm_exec_path").unwrap_or_default();
                Some(value.value.clone()).filter(|_| !is_usual(interpreter, script))
            }
            ("out_file" | "error_file", Value::Text(path)) => log_file(path, entries).map(Value::Text),
            (_, other) => Some(other.clone()),
        };
        declared.extend(value.map(|value| entry(name, value)));
    }
    declared
}

fn entry(key: &str, value: Value) -> Entry {
    Entry { key: key.to_owned(), key_span: None, value: Node::new(value) }
}

fn text<'t>(entries: &'t [Entry], key: &str) -> Option<&'t str> {
    entries.iter().find(|entry| entry.key == key).and_then(|entry| match &entry.value.value {
        Value::Text(text) | Value::Number(text) => Some(text.as_str()),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    })
}

/// Whether a variable is one that the app was given, as far as can be told.
fn is_own(variable: &Entry, app: Option<&str>, caller_env: &BTreeMap<String, String>) -> bool {
    let Entry { key, value, .. } = variable;
    let is_noise =
        NOISE.contains(&key.as_str()) || NOISE_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let is_inherited = match &value.value {
        Value::Text(text) | Value::Number(text) => caller_env.get(key) == Some(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => false,
    };
    // PM2 adds a variable of the app's name.
    !is_noise && !is_inherited && app != Some(key)
}

/// A script as its folder's file.
fn from_folder(script: &str, cwd: &str) -> String {
    match Path::new(script).strip_prefix(cwd) {
        Ok(inside) if !cwd.is_empty() => format!("./{}", inside.display()),
        Ok(_) | Err(_) => script.to_owned(),
    }
}

/// Whether the script's extension names this interpreter already.
fn is_usual(interpreter: &str, script: &str) -> bool {
    let extension = Path::new(script).extension().and_then(|extension| extension.to_str());
    let by_extension = INTERPRETERS.iter().find(|(listed, _)| Some(*listed) == extension);
    interpreter == by_extension.map_or("none", |(_, usual)| usual)
}

/// A log file that was asked for, without the number that PM2 adds to it.
fn log_file(path: &str, entries: &[Entry]) -> Option<String> {
    let home = entries.iter().find(|entry| entry.key == "env").and_then(|env| match &env.value.value {
        Value::Map(variables) => text(variables, "PM2_HOME"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
    });
    let is_of_pm2 = home.is_some_and(|home| Path::new(path).starts_with(Path::new(home).join("logs")));
    if is_of_pm2 || path.contains("/.pm2/logs/") {
        return None;
    }
    let is_shared =
        entries.iter().any(|entry| entry.key == "merge_logs" && entry.value.value == Value::Bool(true));
    let (stem, extension) = path.rsplit_once('.').filter(|(_, end)| !end.contains('/')).unwrap_or((path, ""));
    match stem.rsplit_once('-') {
        Some((stem, number)) if !is_shared && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            let dot = if extension.is_empty() { "" } else { "." };
            Some(format!("{stem}{dot}{extension}"))
        }
        Some(_) | None => Some(path.to_owned()),
    }
}
