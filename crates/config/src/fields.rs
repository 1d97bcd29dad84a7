//! One app's keys, and reading them with their defaults.

use crate::keys::{self, Key, Preset};
use crate::report::{Problem, Report, excerpt};
use crate::tree::{Entry, Node, Span, Value, plain_scalar};

/// What an app says, by key, and where mistakes in it go.
#[derive(Debug)]
pub(crate) struct Fields<'t, 'r, 's> {
    pub(crate) report: &'r mut Report<'s>,
    /// Where the app stands.
    pub(crate) at: Option<Span>,
    given: Vec<(&'static Key, &'t Entry)>,
    /// Each `env_NAME` by its `NAME`.
    pub(crate) env_sets: Vec<(&'t str, &'t Entry)>,
    /// The keys that misspelt ones were probably meant to be.
    misspelt: Vec<&'static Key>,
}

impl<'t, 'r, 's> Fields<'t, 'r, 's> {
    /// Sorts an app's entries by key, and reports those that no app has.
    pub(crate) fn new(at: Option<Span>, entries: &'t [Entry], report: &'r mut Report<'s>) -> Self {
        let mut fields = Fields { report, at, given: Vec::new(), env_sets: Vec::new(), misspelt: Vec::new() };
        for entry in entries {
            match (keys::find(&entry.key), entry.key.strip_prefix("env_")) {
                (Some(key), _) => fields.add(key, entry),
                (None, Some(name)) if is_env_set(name, &entry.value) => fields.env_sets.push((name, entry)),
                (None, _) => fields.misspelt.extend(report_stranger(entry, fields.report)),
            }
        }
        fields
    }

    fn add(&mut self, key: &'static Key, entry: &'t Entry) {
        match self.given(key.name) {
            None => self.given.push((key, entry)),
            Some(first) => {
                let first_place = self.report.place(first.key_span);
                let problem = Problem::new(format!("`{}` and `{}` are the same key", first.key, entry.key));
                self.report.error(entry.key_span, problem.help(format!("the first one is on {first_place}")));
            }
        }
    }

    /// The entry of a key, by the name that the table has.
    pub(crate) fn given(&self, name: &str) -> Option<&'t Entry> {
        self.given.iter().find(|(key, _)| key.name == name).map(|(_, entry)| *entry)
    }

    /// Whether a misspelt key was probably meant to be this one.
    pub(crate) fn is_misspelt(&self, name: &str) -> bool {
        self.misspelt.iter().any(|key| key.name == name)
    }

    /// Reports what is wrong with an entry's value, or with a part of it.
    pub(crate) fn wrong(&mut self, entry: &Entry, part: &Node, problem: Problem) {
        let title = self.report.title(&entry.key);
        // An empty value has no text to point at.
        let at = part.span.filter(|span| span.start < span.end).or(entry.key_span);
        self.report.error(at, problem.of(&title));
    }

    /// The value of a key, if it is given and right.
    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&'t Node) -> Result<T, Problem>,
    ) -> Option<T> {
        let entry = self.given(name)?;
        match parse(&entry.value) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.wrong(entry, &entry.value, problem);
                None
            }
        }
    }

    /// The value of a key, or its default.
    pub(crate) fn value<T>(&mut self, name: &str, parse: impl Fn(&Node) -> Result<T, Problem>) -> T {
        if let Some(value) = self.optional(name, &parse) {
            return value;
        }
        let Ok(value) = parse(&self.preset(name)) else {
            unreachable!("the default of `{name}` is right: an app without any key is read in a test");
        };
        value
    }

    /// The values of a key that takes one or a list of them.
    pub(crate) fn list<T>(&mut self, name: &str, parse: impl Fn(&'t Node) -> Result<T, Problem>) -> Vec<T> {
        let Some(entry) = self.given(name) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for node in entry.value.elements() {
            match parse(node) {
                Ok(value) => values.push(value),
                Err(problem) => self.wrong(entry, node, problem),
            }
        }
        values
    }

    /// Whether the app is a script, which has some defaults of its own.
    pub(crate) fn is_script(&self) -> bool {
        self.given("script").is_some()
    }

    fn preset(&self, name: &str) -> Node {
        let preset = keys::find(name).map(|key| key.default);
        let text = match preset {
            Some(Preset::Value(text)) => text,
            Some(Preset::ByProgram { script, .. }) if self.is_script() => script,
            Some(Preset::ByProgram { command, .. }) => command,
            Some(Preset::Rule(_)) | None => "",
        };
        Node::new(plain_scalar(text.to_owned()))
    }
}

/// Whether `env_NAME` declares variables, and is no misspelt `env_file`.
fn is_env_set(name: &str, value: &Node) -> bool {
    let is_mapping = matches!(value.value, Value::Map(_));
    !name.is_empty() && (is_mapping || keys::did_you_mean(name, ["file"].into_iter()).is_none())
}

/// Reports a key that no app has: the one that it was probably meant to be.
fn report_stranger(entry: &Entry, report: &mut Report<'_>) -> Option<&'static Key> {
    // Whatever it was meant to be, it may hold variables.
    report.hide(&entry.value);
    let key = excerpt(&entry.key);
    if let Some(foreign) = keys::foreign(keys::MEANINGLESS, &entry.key) {
        if !foreign.is_harmless(&entry.value) {
            let problem = Problem::new(format!("`{key}` means nothing here and is ignored"));
            report.warning(entry.key_span, problem.help(foreign.advice));
        }
        None
    } else if let Some(foreign) = keys::foreign(keys::PM2, &entry.key) {
        if !foreign.is_harmless(&entry.value) {
            let problem = Problem::new(format!("`{key}` is not honoured yet"));
            report.warning(entry.key_span, problem.help(foreign.advice));
        }
        None
    } else {
        let names = keys::KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases)).copied();
        unknown_key(entry, names, report).and_then(keys::find)
    }
}

/// Reports a key that is not among `names`: the one that is most like it.
pub(crate) fn unknown_key<'n>(
    entry: &Entry,
    names: impl Iterator<Item = &'n str>,
    report: &mut Report<'_>,
) -> Option<&'n str> {
    report.hide(&entry.value);
    let problem = Problem::new(format!("unknown key `{}`", excerpt(&entry.key)));
    let suggestion = if report.is_full() { None } else { keys::did_you_mean(&entry.key, names) };
    report.error(
        entry.key_span,
        match suggestion {
            Some(name) => problem.help(format!("did you mean `{name}`?")),
            None => problem,
        },
    );
    suggestion
}
