//! Every key of an app: its names, its default and what it is for.
//!
//! The readers take names and defaults from here, and so do the suggestions for
//! misspelt keys, the reference in `docs/configuration.md` and the schema.

mod table;
mod takes;
mod unsupported;

use crate::suggestion::closest;

pub(crate) use table::{GROUPS, KEYS};
pub(crate) use takes::Takes;
pub(crate) use unsupported::{Foreign, MEANINGLESS, PM2, TOP_MEANINGLESS};

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// As the documentation writes it. Camel case is understood too.
    pub(crate) name: &'static str,
    /// Other names, from PM2.
    pub(crate) aliases: &'static [&'static str],
    /// The part of the reference that it stands in.
    pub(crate) group: Group,
    /// What it takes.
    pub(crate) takes: Takes,
    /// What holds without it.
    pub(crate) default: Preset,
    /// What it is for: a sentence.
    pub(crate) doc: &'static str,
}

/// What holds when a key is not given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preset {
    /// This value, as one would write it in YAML.
    Value(&'static str),
    /// One value for `command`, another for `script`.
    ByProgram { command: &'static str, script: &'static str },
    /// What these words say.
    Rule(&'static str),
}

/// The parts of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Program,
    Workers,
    Environment,
    Sockets,
    Restarts,
    Stopping,
    Channel,
    Process,
    Output,
}

/// The key of this name, if there is one.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    let name = snake_case(name);
    KEYS.iter().find(|key| key.name == name || key.aliases.contains(&name.as_str()))
}

/// The key of this name that `table` lists.
pub(crate) fn foreign(table: &'static [Foreign], name: &str) -> Option<&'static Foreign> {
    let name = snake_case(name);
    table.iter().find(|key| key.name == name)
}

/// `killTimeout` as `kill_timeout`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len());
    for char in name.chars() {
        if char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

/// `kill_timeout` as `killTimeout`.
pub(crate) fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        camel.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    camel
}

/// The key that `typed` was probably meant to be.
pub(crate) fn did_you_mean<'n>(typed: &str, keys: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    closest(&snake_case(typed), keys)
}
