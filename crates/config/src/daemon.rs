//! Settings of the daemon itself: `daemon: {log_level: debug}`.

use serde::{Deserialize, Serialize};

use crate::fields::unknown_key;
use crate::report::{Problem, Report, excerpt};
use crate::tree::{Entry, Value};
use crate::value::{expected, non_empty, one_of};

/// What holds for the daemon and not for one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonSettings {
    /// What the daemon's own log has.
    pub log_level: LogLevel,
    /// The group whose members may give orders, by name or gid; nobody besides
    /// root and the daemon's user when absent.
    pub control_group: Option<String>,
    /// What another version has set, and this one keeps for it.
    #[serde(flatten)]
    pub later: serde_json::Map<String, serde_json::Value>,
}

/// The least severe lines of the daemon's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what has failed.
    Error,
    /// What somebody should look at, too.
    Warn,
    /// What happens to workers, too.
    #[default]
    Info,
    /// What helps to find a mistake, too.
    Debug,
}

/// The keys, what they take and what they are for, for the reference and the
/// schema.
pub(crate) const KEYS: &[(&str, &str, &str, &str)] = &[
    (
        "log_level",
        "`error`, `warn`, `info` or `debug`",
        "`info`",
        "The least severe lines of the daemon's own log.",
    ),
    (
        "control_group",
        "name or number of a group",
        "none",
        "Its members may use the daemon as root may, and so run programs as any user.",
    ),
];

/// Keys that one may look for here, and where they are decided instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("home", "set `SUPERVISOR_HOME`"),
    ("log_dir", "set `SUPERVISOR_HOME`, or an app's `out_file` and `error_file`"),
    ("runtime_dir", "set `SUPERVISOR_HOME`"),
    ("state_dir", "set `SUPERVISOR_HOME`"),
];

/// Reads the section. After an error some values are stand-ins.
pub(crate) fn read(section: &Entry, report: &mut Report<'_>) -> DaemonSettings {
    let mut settings = DaemonSettings::default();
    let Value::Map(entries) = &section.value.value else {
        let problem = expected("a mapping such as `{log_level: debug}`", &section.value);
        report.error(section.value.span, problem.of("`daemon`"));
        return settings;
    };
    for entry in entries {
        let result = match entry.key.as_str() {
            "log_level" => one_of(LEVELS)(&entry.value).map(|level| settings.log_level = level),
            "control_group" => {
                non_empty(&entry.value).map(|group| settings.control_group = Some(group.to_owned()))
            }
            _ => {
                report_stranger(entry, report);
                Ok(())
            }
        };
        if let Err(problem) = result {
            let at = entry.value.span.filter(|span| span.start < span.end).or(entry.key_span);
            report.error(at, problem.of(&format!("`{}`", entry.key)));
        }
    }
    settings
}

const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

fn report_stranger(entry: &Entry, report: &mut Report<'_>) {
    match ELSEWHERE.iter().find(|(name, _)| *name == entry.key) {
        Some((_, advice)) => {
            let problem = Problem::new(format!("`{}` is not decided here", excerpt(&entry.key)));
            report.error(entry.key_span, problem.help(*advice));
        }
        None => {
            unknown_key(entry, KEYS.iter().map(|(name, ..)| *name), report);
        }
    }
}
