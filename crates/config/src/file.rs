//! A whole file: its apps, and what they must not share.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::daemon;
use crate::entry::{self, Declared};
use crate::fields::unknown_key;
use crate::keys;
use crate::listen::overlap;
use crate::report::{Problem, Report, excerpt};
use crate::source::{Format, Source};
use crate::tree::{Entry, Node, Value};
use crate::value::expected;
use crate::{App, Context, DaemonSettings, ListenAddress};

/// The most apps that a file may declare.
const MAX_APPS: usize = 1000;

/// Reads all apps of a parsed file, and what it says of the daemon.
pub(crate) fn read(
    root: &Node,
    source: &Source,
    context: &Context,
    report: &mut Report<'_>,
) -> (Vec<App>, Option<DaemonSettings>) {
    let default_instances = match source.format {
        Format::Yaml | Format::Toml => context.usable_cpus.max(1),
        // As in PM2, whose files these are.
        Format::Json => 1,
    };
    let nodes = app_nodes(root, report);
    let daemon = daemon_section(root).map(|section| daemon::read(section, report));
    let mut declared = Vec::new();
    for node in nodes {
        match &node.value {
            Value::Map(entries) => {
                declared.push(entry::read(node.span, entries, default_instances, context, report))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                report.error(node.span, expected("a mapping with `command` or `script`", node).of("an app"));
            }
        }
    }
    check_names(&declared, report);
    check_addresses(&declared, report);
    if let Some(name) = &context.env_name {
        check_env_name(name, &declared, report);
    }
    (declared.into_iter().map(|declared| declared.app).collect(), daemon)
}

/// The section about the daemon, beside the apps.
fn daemon_section(root: &Node) -> Option<&Entry> {
    match &root.value {
        Value::Map(entries) if !is_app(entries) => entries.iter().find(|entry| entry.key == DAEMON),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            None
        }
    }
}

/// The apps: under `apps` or `pm2`, as a bare list, or the one that the file is.
pub(crate) fn app_nodes<'t>(root: &'t Node, report: &mut Report<'_>) -> &'t [Node] {
    let nodes = match &root.value {
        Value::List(nodes) => nodes.as_slice(),
        Value::Map(entries) if is_app(entries) => std::slice::from_ref(root),
        Value::Map(entries) => match under_a_key(entries, true, report) {
            Some(nodes) => nodes,
            None => return &[],
        },
        Value::Null => &[],
        Value::Bool(_) | Value::Number(_) | Value::Text(_) => {
            report.error(root.span, expected("a list of apps under `apps`", root).of("the file"));
            return &[];
        }
    };
    if nodes.is_empty() {
        report
            .file_error(Problem::new("the file declares no app").help("`supervisor init` writes an example"));
    }
    if nodes.len() > MAX_APPS {
        report.file_error(Problem::new(format!(
            "the file declares {} apps, and {MAX_APPS} is the most",
            nodes.len()
        )));
        return &[];
    }
    nodes
}

/// The keys that apps may stand under.
const APPS: [&str; 2] = ["apps", "pm2"];
/// The key of the section about the daemon.
const DAEMON: &str = "daemon";

/// Whether a file's mapping is an app and not a list of them.
fn is_app(entries: &[Entry]) -> bool {
    let has_apps = entries.iter().any(|entry| APPS.contains(&entry.key.as_str()));
    !has_apps && entries.iter().any(|entry| keys::find(&entry.key).is_some())
}

/// `None` after an error. Only the top of a file has a section about the daemon.
fn under_a_key<'t>(entries: &'t [Entry], is_top: bool, report: &mut Report<'_>) -> Option<&'t [Node]> {
    let mut apps: Option<&Entry> = None;
    let mut strangers = 0;
    for entry in entries {
        if APPS.contains(&entry.key.as_str()) {
            match apps {
                None => apps = Some(entry),
                Some(first) => {
                    let problem =
                        Problem::new(format!("`{}` and `{}` are the same key", first.key, entry.key));
                    let help = format!("the first one is on {}", report.place(first.key_span));
                    report.error(entry.key_span, problem.help(help));
                    report.hide(&entry.value);
                }
            }
        } else if entry.key.starts_with("x-") || entry.key == "$schema" {
            // A place for anchors, as in Compose files; a word to editors.
            report.hide(&entry.value);
        } else if is_top && entry.key == DAEMON {
            // It is read by itself.
        } else if let Some(foreign) = keys::foreign(keys::TOP_MEANINGLESS, &entry.key) {
            report.hide(&entry.value);
            let problem =
                Problem::new(format!("`{}` means nothing here and is ignored", excerpt(&entry.key)));
            report.warning(entry.key_span, problem.help(foreign.advice));
        } else {
            unknown_key(entry, ["apps", DAEMON].into_iter(), report);
            strangers += 1;
        }
    }
    match apps {
        None if strangers == 0 => Some(&[]),
        None => None,
        Some(Entry { value: Node { value: Value::List(nodes), .. }, .. }) => Some(nodes),
        // PM2's section of a `package.json` may be a whole file.
        Some(Entry { value: Node { value: Value::Map(inner), .. }, key, .. })
            if key == "pm2" && inner.iter().any(|entry| entry.key == "apps") =>
        {
            under_a_key(inner, false, report)
        }
        Some(Entry { value: node @ Node { value: Value::Map(_), .. }, .. }) => {
            Some(std::slice::from_ref(node))
        }
        Some(Entry { value: node, key, .. }) => {
            report.error(node.span, expected("a list of apps", node).of(&format!("`{key}`")));
            None
        }
    }
}

fn check_names(declared: &[Declared], report: &mut Report<'_>) {
    let mut first_of: HashMap<&str, &Declared> = HashMap::new();
    for one in declared.iter().filter(|one| !one.app.name.is_empty()) {
        match first_of.get(one.app.name.as_str()) {
            Some(first) => {
                let help = format!("the first one is on {}", report.place(first.name_at));
                let problem = Problem::new(format!("two apps are called `{}`", one.app.name));
                report.error(one.name_at, problem.help(help));
            }
            None => {
                first_of.insert(&one.app.name, one);
            }
        }
    }
}

fn check_addresses(declared: &[Declared], report: &mut Report<'_>) {
    // By port, so that only addresses that can overlap are compared.
    let mut by_port: HashMap<u16, Vec<(usize, &ListenAddress)>> = HashMap::new();
    let mut by_path: HashMap<&Path, usize> = HashMap::new();
    for (index, one) in declared.iter().enumerate() {
        for (address, at) in one.app.listen.iter().zip(&one.listen_at) {
            let other = match address {
                ListenAddress::Unix(path) => by_path.insert(path, index),
                ListenAddress::Tcp { address: socket, .. } => {
                    let same_port = by_port.entry(socket.port()).or_default();
                    let other =
                        same_port.iter().find(|(_, other)| overlap(address, other)).map(|(index, _)| *index);
                    same_port.push((index, address));
                    other
                }
            };
            if let Some(other) = other.filter(|other| *other != index) {
                let name = &declared[other].app.name;
                report.error(
                    *at,
                    Problem::new(format!("`listen` has an address that the app `{name}` has as well")),
                );
            }
        }
    }
}

fn check_env_name(name: &str, declared: &[Declared], report: &mut Report<'_>) {
    let sets: BTreeSet<&str> = declared.iter().flat_map(|one| &one.env_sets).map(String::as_str).collect();
    if sets.contains(name) {
        return;
    }
    let problem = Problem::new(format!("no app has `env_{name}`, which `--env {name}` asks for"));
    let names: Vec<String> = sets.iter().take(20).map(|set| format!("`{}`", excerpt(set))).collect();
    report.file_error(problem.help(match names.is_empty() {
        true => "the file has no such mapping at all".to_owned(),
        false => format!("there is {}", names.join(", ")),
    }));
}
