//! Keys that people bring from PM2, or expect, and that are not honoured. They
//! are passed over in silence only where they ask for nothing.

use crate::tree::{Node, Value};

/// A key that is not honoured.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    /// What to do instead.
    pub(crate) advice: &'static str,
    harmless: Harmless,
}

/// The values of a foreign key with which an app does what it asks for.
#[derive(Debug, Clone, Copy)]
enum Harmless {
    /// Those that ask for nothing: `false`, `0`, nothing at all.
    Off,
    /// `true`: it happens anyway.
    On,
    /// All of them.
    All,
}

impl Foreign {
    const fn new(name: &'static str, advice: &'static str) -> Foreign {
        Foreign { name, advice, harmless: Harmless::Off }
    }

    const fn harmless_if(self, harmless: Harmless) -> Foreign {
        Foreign { harmless, ..self }
    }

    /// Whether an app with this value does what it asks for.
    pub(crate) fn is_harmless(&self, node: &Node) -> bool {
        match self.harmless {
            Harmless::Off => is_off(&node.value),
            Harmless::On => matches!(node.value, Value::Bool(true)),
            Harmless::All => true,
        }
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number == "0",
        Value::Text(text) => matches!(text.as_str(), "" | "0" | "false"),
        Value::List(nodes) => nodes.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

/// Keys of an app that PM2 honours: warnings, so that its files run as they
/// are.
pub(crate) const PM2: &[Foreign] = &[
    Foreign::new("pid_file", "use `supervisor status --json`"),
    Foreign::new("treekill", "remove it: what a worker started ends with it").harmless_if(Harmless::On),
    Foreign::new("watch_options", "remove it; `ignore_watch` and `watch_delay` are understood"),
];

/// Keys of an app that PM2 knows and that mean nothing here: warnings.
pub(crate) const MEANINGLESS: &[Foreign] = &[
    Foreign::new("append_env_to_name", "write the whole `name`"),
    Foreign::new("automation", "remove it"),
    Foreign::new("deep_monitoring", "remove it"),
    Foreign::new("disable_source_map_support", "remove it"),
    Foreign::new("disable_trace", "remove it"),
    Foreign::new("event_loop_inspector", "remove it"),
    Foreign::new("execute_command", "remove it"),
    // Two apps may always run one script.
    Foreign::new("force", "remove it").harmless_if(Harmless::All),
    Foreign::new("increment", "remove it; `increment_var` numbers a variable"),
    Foreign::new("install_url", "remove it"),
    Foreign::new("io", "remove it"),
    Foreign::new("kill_retry_time", "remove it"),
    Foreign::new("module", "remove it"),
    Foreign::new("pmx", "remove it"),
    Foreign::new("post_update", "remove it"),
    Foreign::new("source_map_support", "use `node_args: --enable-source-maps`"),
    Foreign::new("trace", "remove it"),
    Foreign::new("v8", "remove it"),
    Foreign::new("vizion", "remove it"),
    Foreign::new("windows_hide", "remove it"),
];

/// PM2's keys beside `apps` that mean nothing here: warnings.
pub(crate) const TOP_MEANINGLESS: &[Foreign] = &[
    Foreign::new("deploy", "deploy with a tool of its own"),
    Foreign::new("static", "serve files with a program of its own"),
];
