//! When a worker counts as ready: `ready: http`, `ready_check: {path: /health}`.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ListenAddress;
use crate::app::millis;
use crate::fields::{Fields, unknown_key};
use crate::keys::Takes;
use crate::listen;
use crate::program::words;
use crate::report::Problem;
use crate::tree::{Entry, Node, Value};
use crate::value::{boolean, expected, integer, one_of, positive_duration, text, whole};

/// When a worker counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// As [`Ready::Listen`] once a worker of the app was seen to listen, as
    /// [`Ready::Started`] until then.
    Auto,
    /// When its program listens on an address.
    Listen,
    /// When it has lived for `min_uptime`.
    Started,
    /// When it sends `READY=1` to `NOTIFY_SOCKET` (`sd_notify(3)`).
    Notify,
    /// When it sends the message `"ready"` on its channel.
    Ipc,
    /// When it passes this check.
    Check(ReadyCheck),
}

/// A check that the daemon makes until it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyCheck {
    /// What is tried.
    pub attempt: Attempt,
    /// The pause between one try and the next.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How long one try may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
}

/// One try of a check. Without an address it is the first one of `listen`, or
/// else the first of TCP that the worker listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attempt {
    /// An HTTP request: the status of its answer must be one of these.
    Http {
        /// Whom to ask.
        address: Option<ListenAddress>,
        /// What to ask for; it begins with `/`.
        path: String,
        /// Ranges of good answers, never empty.
        status: Vec<RangeInclusive<u16>>,
    },
    /// A connection: the worker must take it.
    Tcp {
        /// Where to connect.
        address: Option<ListenAddress>,
    },
    /// A program: it must exit with code 0.
    Exec {
        /// The program and its arguments; never empty.
        command: Vec<String>,
    },
}

impl Attempt {
    /// Its name in a file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Exec { .. } => "exec",
        }
    }
}

impl Ready {
    /// Its name in a file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Listen => "listen",
            Self::Started => "started",
            Self::Notify => "notify",
            Self::Ipc => "ipc",
            Self::Check(check) => check.attempt.name(),
        }
    }
}

/// A field of `ready_check`, for readers, reference and schema.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    /// As one would write it in YAML; in words where that is not what holds.
    pub(crate) default: Result<&'static str, &'static str>,
    pub(crate) doc: &'static str,
    /// The checks that have it; all when empty.
    only: &'static [Kind],
}

pub(crate) const FIELDS: &[Field] = &[
    Field {
        name: "address",
        takes: Takes::Address,
        default: Err("the first of `listen`; else the first of TCP that the worker listens on"),
        doc: "Whom `http` and `tcp` ask, in the forms of `listen`.",
        only: &[Kind::Http, Kind::Tcp],
    },
    Field {
        name: "path",
        takes: Takes::Text,
        default: Ok("/"),
        doc: "What `http` asks for.",
        only: &[Kind::Http],
    },
    Field {
        name: "status",
        takes: Takes::Statuses,
        default: Ok("200-399"),
        doc: "The answers that `http` wants.",
        only: &[Kind::Http],
    },
    Field {
        name: "command",
        takes: Takes::Words,
        default: Err("none"),
        doc: "What `exec` runs, as the worker's user, in its working directory, with its environment and `SUPERVISOR_WORKER_PID`.",
        only: &[Kind::Exec],
    },
    Field {
        name: "interval",
        takes: Takes::Duration,
        default: Ok("250ms"),
        doc: "The pause between one try and the next.",
        only: &[],
    },
    Field {
        name: "timeout",
        takes: Takes::Duration,
        default: Ok("1s"),
        doc: "How long one try may take.",
        only: &[],
    },
];

impl Field {
    /// As JSON Schema.
    pub(crate) fn schema(&self) -> serde_json::Value {
        let mut schema = self.takes.schema();
        schema["description"] = self.doc.into();
        if let Ok(default) = self.default {
            schema["default"] = default.into();
        }
        schema
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp,
    Exec,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Exec => "exec",
        }
    }
}

/// What `ready` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Auto,
    Listen,
    Started,
    Notify,
    Ipc,
    Check(Kind),
}

const NAMES: &[(&str, When)] = &[
    ("auto", When::Auto),
    ("listen", When::Listen),
    ("started", When::Started),
    ("notify", When::Notify),
    ("ipc", When::Ipc),
    ("http", When::Check(Kind::Http)),
    ("tcp", When::Check(Kind::Tcp)),
    ("exec", When::Check(Kind::Exec)),
];

/// Reads `ready` and `ready_check`. `shares` tells whether the app is one of
/// cluster mode, `declares` whether it has `listen`.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>, base: &Path, shares: bool, declares: bool) -> Ready {
    // Who is given its sockets does not bind any.
    let default = if shares && !declares { Ready::Auto } else { Ready::Started };
    let when = fields.optional("ready", one_of(NAMES));
    if let Some(entry) = fields.given("ready").filter(|_| when == Some(When::Listen) && !shares) {
        let problem = Problem::new("cannot be `listen` with `exec_mode: fork`");
        fields.wrong(entry, &entry.value, problem.help("use `started`, `notify`, `http`, `tcp` or `exec`"));
    }
    let given = fields.given("ready_check");
    // What is wrong with `ready` has been said.
    let is_wrong = fields.given("ready").is_some() && when.is_none();
    let when = match fields.value("wait_ready", boolean) {
        // The plainer word wins, as PM2's files have no other.
        true if !is_wrong => when.or(Some(When::Ipc)),
        true | false => when,
    };
    let kind = match (when, given) {
        (Some(When::Check(kind)), _) => kind,
        (_, None) => {
            return match when {
                Some(When::Auto) => Ready::Auto,
                Some(When::Listen) => Ready::Listen,
                Some(When::Started) => Ready::Started,
                Some(When::Notify) => Ready::Notify,
                Some(When::Ipc) => Ready::Ipc,
                Some(When::Check(_)) | None => default,
            };
        }
        (Some(When::Auto | When::Listen | When::Started | When::Notify | When::Ipc), Some(entry)) => {
            let problem =
                Problem::new("belongs to `ready: http`, `tcp` or `exec`, and `ready` says otherwise");
            fields.wrong(entry, &entry.value, problem.help("remove one of them"));
            return default;
        }
        (None, Some(_)) if is_wrong => return default,
        (None, Some(entry)) => match kind_of(entry) {
            Ok(kind) => kind,
            Err(problem) => {
                fields.wrong(entry, &entry.value, problem);
                return default;
            }
        },
    };
    let check = Mapping::new(fields, given, kind).read(base);
    let needs_address = match &check.attempt {
        Attempt::Http { address, .. } | Attempt::Tcp { address } => address.is_none(),
        Attempt::Exec { .. } => false,
    };
    let at = given.or_else(|| fields.given("ready"));
    if let Some(entry) = at.filter(|_| needs_address && !shares && !declares) {
        let problem = Problem::new(format!(
            "needs an address for `ready: {}`: the app has no `listen`, and what it binds is not seen with \
             `exec_mode: fork`",
            kind.name()
        ));
        fields.wrong(entry, &entry.value, problem.help("add `ready_check: {address: \"127.0.0.1:PORT\"}`"));
    }
    Ready::Check(check)
}

/// The check that the fields belong to.
fn kind_of(entry: &Entry) -> Result<Kind, Problem> {
    let Value::Map(entries) = &entry.value.value else { return Err(no_mapping(&entry.value)) };
    let has = |name: &str| entries.iter().any(|entry| entry.key == name);
    match () {
        () if has("command") => Ok(Kind::Exec),
        () if has("path") || has("status") => Ok(Kind::Http),
        () if has("address") => Ok(Kind::Tcp),
        () => Err(Problem::new("does not say what is checked").help("add `ready: http`, `tcp` or `exec`")),
    }
}

fn no_mapping(node: &Node) -> Problem {
    expected("a mapping such as `{path: /health}`", node)
}

/// The fields of a check.
struct Mapping<'m, 't, 'r, 's> {
    fields: &'m mut Fields<'t, 'r, 's>,
    given: Option<&'t Entry>,
    entries: Vec<&'t Entry>,
    kind: Kind,
}

impl<'m, 't, 'r, 's> Mapping<'m, 't, 'r, 's> {
    /// Reports the fields that this check does not have.
    fn new(fields: &'m mut Fields<'t, 'r, 's>, given: Option<&'t Entry>, kind: Kind) -> Self {
        let mut mapping = Self { fields, given, entries: Vec::new(), kind };
        let Some(given) = given else { return mapping };
        let Value::Map(entries) = &given.value.value else {
            mapping.fields.wrong(given, &given.value, no_mapping(&given.value));
            return mapping;
        };
        for entry in entries {
            let Some(field) = FIELDS.iter().find(|field| field.name == entry.key) else {
                unknown_key(entry, FIELDS.iter().map(|field| field.name), mapping.fields.report);
                continue;
            };
            if !field.only.is_empty() && !field.only.contains(&kind) {
                let of: Vec<String> =
                    field.only.iter().map(|kind| format!("`ready: {}`", kind.name())).collect();
                let problem = Problem::new(format!("has no meaning for `ready: {}`", kind.name()));
                let problem = problem.help(format!("remove it; it belongs to {}", of.join(" and ")));
                mapping.fields.wrong(entry, &entry.value, problem);
            }
            mapping.entries.push(entry);
        }
        mapping
    }

    fn read(mut self, base: &Path) -> ReadyCheck {
        let attempt = match self.kind {
            Kind::Http => Attempt::Http {
                address: self.optional("address", |node| listen::parse(node, base)),
                path: self.value("path", path),
                status: self.statuses(),
            },
            Kind::Tcp => Attempt::Tcp { address: self.optional("address", |node| listen::parse(node, base)) },
            Kind::Exec => Attempt::Exec { command: self.command() },
        };
        ReadyCheck {
            attempt,
            interval: self.value("interval", positive_duration),
            timeout: self.value("timeout", positive_duration),
        }
    }

    fn entry(&self, name: &str) -> Option<&'t Entry> {
        self.entries.iter().find(|entry| entry.key == name).copied()
    }

    fn optional<T>(&mut self, name: &str, parse: impl Fn(&'t Node) -> Result<T, Problem>) -> Option<T> {
        let entry = self.entry(name)?;
        parse(&entry.value).map_err(|problem| self.fields.wrong(entry, &entry.value, problem)).ok()
    }

    fn value<T>(&mut self, name: &str, parse: impl Fn(&Node) -> Result<T, Problem>) -> T {
        if let Some(value) = self.optional(name, &parse) {
            return value;
        }
        let Ok(value) = parse(&preset(name)) else {
            unreachable!("the default of `{name}` is right: a check without any field is read in a test");
        };
        value
    }

    fn statuses(&mut self) -> Vec<RangeInclusive<u16>> {
        let entry = self.entry("status");
        let default = preset("status");
        let nodes = entry.map_or(&default, |entry| &entry.value);
        let mut ranges = Vec::new();
        for node in nodes.elements() {
            match (status(node), entry) {
                (Ok(range), _) => ranges.push(range),
                (Err(problem), Some(entry)) => self.fields.wrong(entry, node, problem),
                (Err(_), None) => {}
            }
        }
        if let Some(entry) = entry.filter(|entry| entry.value.elements().is_empty()) {
            self.fields.wrong(entry, &entry.value, Problem::new("names no status"));
        }
        ranges
    }

    fn command(&mut self) -> Vec<String> {
        if let Some(entry) = self.entry("command") {
            return match words(&entry.value) {
                Ok(words) if words.first().is_some_and(|program| !program.is_empty()) => words,
                Ok(_) => {
                    self.fields.wrong(entry, &entry.value, Problem::new("names no program"));
                    Vec::new()
                }
                Err(problem) => {
                    self.fields.wrong(entry, &entry.value, problem);
                    Vec::new()
                }
            };
        }
        if let Some(entry) = self.given.or_else(|| self.fields.given("ready")) {
            let problem = Problem::new("needs a command for `ready: exec`");
            let problem = problem.help("add `ready_check: {command: [PROGRAM, ARGUMENT]}`");
            self.fields.wrong(entry, &entry.value, problem);
        }
        Vec::new()
    }
}

fn preset(name: &str) -> Node {
    let field = FIELDS.iter().find(|field| field.name == name);
    let text = field.and_then(|field| field.default.ok()).unwrap_or_default();
    Node::new(crate::tree::plain_scalar(text.to_owned()))
}

/// A target that a request can have as it stands.
fn path(node: &Node) -> Result<String, Problem> {
    let path = text(node)?;
    if !path.starts_with('/') {
        return Err(expected("a path that begins with `/`", node));
    }
    let is_wrong = |char: &char| !char.is_ascii_graphic() || "\"#<>\\^`{|}".contains(*char);
    if let Some(wrong) = path.chars().find(is_wrong) {
        return Err(Problem::new(format!("contains `{}`", wrong.escape_debug()))
            .help("write it as a URL would, with `%20` for a blank"));
    }
    Ok(path.to_owned())
}

/// One status, or the first and the last of many.
fn status(node: &Node) -> Result<RangeInclusive<u16>, Problem> {
    const WHAT: &str = "a status from 100 to 599 or a range such as `200-399`";
    match &node.value {
        Value::Number(_) => integer(100..=599)(node).map(|status| status..=status),
        Value::Text(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let one = |text: &str| whole::<u16>(text.trim()).filter(|status| (100..=599).contains(status));
            match (one(first), one(last)) {
                (Some(first), Some(last)) if first <= last => Ok(first..=last),
                (Some(_), Some(_)) => Err(expected(WHAT, node).help("the smaller one comes first")),
                (Some(_) | None, _) => Err(expected(WHAT, node)),
            }
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => Err(expected(WHAT, node)),
    }
}
