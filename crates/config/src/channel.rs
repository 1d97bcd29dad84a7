//! The channel between the workers of an app.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::entry::check_name;
use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{boolean, bytes, expected, integer, text};

/// What one line may have, bytes.
const MAX_MESSAGE: RangeInclusive<u64> = 1024..=1024 * 1024;
/// What may wait for one worker, bytes.
const BUFFER: RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;
/// What a program cannot run others through without taking their channel.
const LAUNCHERS: &[&str] = &["npm", "npx", "yarn", "pnpm", "pnpx", "nodemon"];
/// Programs that speak Node's protocol on `NODE_CHANNEL_FD`.
const NODES: &[&str] = &["node", "nodejs", "tsx", "ts-node", "ts-node-esm", "bun"];
/// Scripts that start with the name of such a program.
const NODE_SCRIPTS: &[&str] = &[".js", ".cjs", ".mjs", ".ts"];

/// The channel between the workers of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelOptions {
    /// Whether workers get it.
    pub enabled: bool,
    /// The longest line that a worker may send, in bytes.
    pub max_message: u64,
    /// What may wait for a worker that does not read, in bytes.
    pub buffer: u64,
    /// How many of the last messages of each topic can be asked for again, unless
    /// they say so themselves.
    pub retain: u32,
    /// Other apps whose workers may send messages to this one's.
    pub from: Vec<String>,
    /// Whether a worker is asked to end by the message `"shutdown"` instead of
    /// a signal.
    pub shutdown_with_message: bool,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            max_message: 32 * 1024,
            buffer: 4 * 1024 * 1024,
            retain: 0,
            from: Vec::new(),
            shutdown_with_message: false,
        }
    }
}

/// Reads what an app says of it.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>) -> ChannelOptions {
    ChannelOptions {
        enabled: fields.value("channel", boolean),
        max_message: fields.value("ipc_max_message", size(MAX_MESSAGE, "1K", "1M")),
        buffer: fields.value("ipc_buffer", size(BUFFER, "64K", "1G")),
        retain: fields.value("ipc_retain", integer(0..=10_000)),
        from: fields.list("ipc_from", |node| {
            let name = text(node)?;
            check_name(name)?;
            Ok(name.to_owned())
        }),
        shutdown_with_message: fields.value("shutdown_with_message", boolean),
    }
}

/// Warns of a program that keeps the channel to itself.
pub(crate) fn warn_of_launcher(fields: &mut Fields<'_, '_, '_>, command: &[String]) {
    let Some(launcher) = command.first().map(|program| base_name(program)) else { return };
    if !LAUNCHERS.contains(&launcher) {
        return;
    }
    let Some(entry) = fields.given("command").or_else(|| fields.given("script")) else { return };
    let at = entry.value.span.or(entry.key_span);
    let problem = Problem::new(format!(
        "`{launcher}` stands before the program, and the channel between workers ends there"
    ));
    let help = "run the program itself, as `node server.js`, or set `channel: false`";
    fields.report.warning(at, problem.help(help));
}

/// Whether a program speaks Node's protocol on `NODE_CHANNEL_FD`.
#[must_use]
pub fn speaks_node(command: &[String]) -> bool {
    let Some(program) = command.first().map(|program| base_name(program)) else { return false };
    NODES.contains(&program) || NODE_SCRIPTS.iter().any(|extension| program.ends_with(extension))
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn size(
    range: RangeInclusive<u64>,
    least: &'static str,
    most: &'static str,
) -> impl Fn(&Node) -> Result<u64, Problem> {
    move |node| {
        let size = match &node.value {
            Value::Number(text) | Value::Text(text) => bytes(text),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        let right = size.filter(|size| range.contains(size));
        right.ok_or_else(|| expected(format!("a size from `{least}` to `{most}`"), node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_speak_node() {
        for (program, speaks) in [
            ("node", true),
            ("/usr/local/bin/node", true),
            ("bun", true),
            ("./bin/server.mjs", true),
            ("npm", false),
            ("python3", false),
            ("node_exporter", false),
        ] {
            assert_eq!(speaks_node(&[program.to_owned()]), speaks, "{program}");
        }
        assert!(!speaks_node(&[]));
    }
}
