//! How the settings in force differ from what the file says now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use supervisor_config::App;
use supervisor_protocol::control::Description;

use crate::load;

/// What stands for the value of a variable.
pub(crate) const MASK: &str = "***";

/// A setting that the file has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// Its name in JSON, with a dot before a name within: `env.PORT`.
    pub(crate) key: String,
    /// What is in force, null when nothing is. Values of variables may be
    /// secret: [`MASK`] stands for them.
    pub(crate) running: Value,
    /// The same of the file.
    pub(crate) file: Value,
}

/// Reads each file once.
#[derive(Debug, Default)]
pub(crate) struct Files {
    read: BTreeMap<(PathBuf, Option<String>), Result<Vec<App>, String>>,
}

impl Files {
    /// Compares an app, whose variables have their values, with its file.
    /// `None` when it came from a command line; the error is why the file
    /// cannot tell, in words.
    pub(crate) fn compare(&mut self, app: &Description) -> Option<Result<Vec<Difference>, String>> {
        let source = app.source.clone()?;
        let read = self
            .read
            .entry((source, app.env_name.clone()))
            .or_insert_with_key(|(path, env_name)| load::again(path, env_name.as_deref()));
        Some(read.as_ref().map_err(Clone::clone).and_then(|apps| {
            let other = apps.iter().find(|other| other.name == app.settings.name);
            let other = other.ok_or("it has no such app any more")?;
            Ok(differences(&app.settings, other))
        }))
    }
}

/// The settings that differ. The caller's environment is no setting.
fn differences(running: &App, file: &App) -> Vec<Difference> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    for (app, settings) in [(running, &mut before), (file, &mut after)] {
        // An app always has a JSON form.
        flatten("", serde_json::to_value(app).unwrap_or_default(), settings);
    }
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let difference = |key: &String| {
        let value = |settings: &BTreeMap<String, Value>| match settings.get(key) {
            Some(_) if key.starts_with("env.") => MASK.into(),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        Difference { key: key.clone(), running: value(&before), file: value(&after) }
    };
    changed.filter(|key| !key.starts_with("inherited_env.")).map(difference).collect()
}

/// Each value with the names that lead to it. Lists stay whole.
fn flatten(name: &str, value: Value, settings: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                let name = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(&name, value, settings);
            }
        }
        // What is not set is as good as not there.
        Value::Null | Value::Object(_) => {}
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            settings.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::render::describe::tests::app;

    #[test]
    fn what_differs_is_named_and_secrets_are_not_shown() {
        let mut file = app();
        assert_eq!(differences(&app(), &file), []);
        file.inherited_env.insert("TERM".to_owned(), "dumb".to_owned());
        assert_eq!(differences(&app(), &file), []);
        file.kill_timeout = Duration::from_secs(5);
        file.env.insert("PASSWORD".to_owned(), "changed".to_owned());
        file.env.insert("NEW".to_owned(), "1".to_owned());
        file.user = None;
        file.watch = None;
        let found = differences(&app(), &file);
        let keys: Vec<&str> = found.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(
            keys,
            ["env.NEW", "env.PASSWORD", "kill_timeout", "user", "watch.delay", "watch.ignore", "watch.paths"]
        );
        assert_eq!((&found[2].running, &found[2].file), (&Value::from(1600), &Value::from(5000)));
        assert_eq!((&found[0].running, &found[0].file), (&Value::Null, &Value::from(MASK)));
        assert_eq!((&found[1].running, &found[1].file), (&Value::from(MASK), &Value::from(MASK)));
        assert_eq!(found[3].file, Value::Null);
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("changed"), "{text}");
    }
}
