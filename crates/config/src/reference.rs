//! The generated parts of `docs/configuration.md`.

use std::fmt::Write;

use crate::daemon;
use crate::keys::{Foreign, GROUPS, KEYS, Key, MEANINGLESS, PM2, Preset};
use crate::limits::{self, Unit};
use crate::program::INTERPRETERS;
use crate::ready;

/// Rewrites the parts of the reference page that come from tables: those
/// between `<!-- generated: NAME -->` and `<!-- end -->`.
#[must_use]
pub fn update_reference(page: &str) -> String {
    let mut updated = String::new();
    let mut is_generated = false;
    for line in page.lines() {
        if line == "<!-- end -->" {
            is_generated = false;
        }
        if !is_generated {
            updated.push_str(line);
            updated.push('\n');
        }
        if let Some(name) = line.strip_prefix("<!-- generated: ").and_then(|rest| rest.strip_suffix(" -->")) {
            is_generated = true;
            updated.push_str(&generate(name));
        }
    }
    updated
}

fn generate(name: &str) -> String {
    match name {
        "keys" => keys(),
        "ready_check" => table(
            "Field | Takes | Default | Meaning",
            ready::FIELDS.iter().map(|field| {
                let default = field.default.map_or_else(str::to_owned, |value| format!("`{value}`"));
                [format!("`{}`", field.name), field.takes.words(), default, field.doc.to_owned()]
            }),
        ),
        "daemon" => table(
            "Key | Takes | Default | Meaning",
            daemon::KEYS.iter().map(|(name, takes, default, doc)| {
                [format!("`{name}`"), (*takes).to_owned(), (*default).to_owned(), (*doc).to_owned()]
            }),
        ),
        "limits" => table(
            "Limit | Counts",
            limits::NAMES.iter().map(|(name, unit)| [format!("`{name}`"), counts(*unit)]),
        ),
        "interpreters" => table(
            "Extension | Interpreter",
            INTERPRETERS
                .iter()
                .map(|(extension, interpreter)| [format!("`.{extension}`"), format!("`{interpreter}`")]),
        ),
        "pm2" => table("Key | Instead", PM2.iter().map(listed)),
        "meaningless" => table("Key | Instead", MEANINGLESS.iter().map(listed)),
        _ => String::new(),
    }
}

fn keys() -> String {
    let mut text = String::new();
    for (group, heading) in GROUPS {
        let of_group = KEYS.iter().filter(|key| key.group == *group);
        let rows =
            of_group.map(|key| [names(key), key.takes.words(), default(key.default), key.doc.to_owned()]);
        // Writing to a string cannot fail.
        let _ = write!(text, "\n### {heading}\n\n{}", table("Key | Takes | Default | Meaning", rows));
    }
    text.push('\n');
    text
}

fn names(key: &Key) -> String {
    let aliases: Vec<String> = key.aliases.iter().map(|alias| format!("`{alias}`")).collect();
    match aliases.is_empty() {
        true => format!("`{}`", key.name),
        false => format!("`{}`, also {}", key.name, aliases.join(", ")),
    }
}

fn default(preset: Preset) -> String {
    match preset {
        Preset::Value(value) => format!("`{value}`"),
        Preset::ByProgram { command, script } => format!("`{command}`; `{script}` for a `script`"),
        Preset::Rule(rule) => rule.to_owned(),
    }
}

fn counts(unit: Unit) -> String {
    match unit {
        Unit::Bytes => "bytes".to_owned(),
        Unit::Number(what) => what.to_owned(),
    }
}

fn listed(key: &Foreign) -> [String; 2] {
    [format!("`{}`", key.name), key.advice.to_owned()]
}

fn table<const COLUMNS: usize>(heading: &str, rows: impl Iterator<Item = [String; COLUMNS]>) -> String {
    let mut text = format!("| {heading} |\n|{}\n", " --- |".repeat(COLUMNS));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}
