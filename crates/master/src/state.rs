//! What is declared, as it outlives the daemon: the text of `state.json`.
//!
//! ```json
//! {"schema": 1, "daemon": {"log_level": "debug", "control_group": null}, "apps": [
//!   {"generation": 1, "instances": 4, "stopped": [2], "source": "/srv/shop.yaml",
//!    "settings": {"name": "web", "command": ["node", "server.js"], …}}]}
//! ```
//!
//! A file of another version is read as far as possible: a setting that it
//! lacks has its default, and what is not understood here, be it a field or a
//! whole app, is kept and written back.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use supervisor_config::{App, CommandOptions, Context, DaemonSettings, app_from_command};

use crate::records::AppRecord;
use crate::requests;

/// The version of the format. Another one means that the fields named above
/// have changed their meaning.
const SCHEMA: u64 = 1;
/// Settings without a default.
const OWN: [&str; 3] = ["name", "command", "cwd"];

/// What is declared, and what else the file said.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) apps: Vec<(App, AppRecord)>,
    /// The settings of the daemon itself.
    pub(crate) daemon: DaemonSettings,
    pub(crate) rest: Rest,
    /// Apps that cannot be understood: why, in words. They are in the rest.
    pub(crate) mistakes: Vec<String>,
}

/// What is not understood, to be written back.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    fields: Map<String, Value>,
    apps: Vec<Value>,
}

/// Why a text is no state at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("its schema is {0}, and this version knows {SCHEMA}")]
    Schema(Value),
    #[error("it has no list of apps")]
    NoApps,
}

/// Reads a text.
///
/// # Errors
///
/// When nothing can be made of it.
pub(crate) fn decode(text: &[u8]) -> Result<Contents, Damage> {
    let mut fields: Map<String, Value> = serde_json::from_slice(text)?;
    let schema = fields.remove("schema").unwrap_or_default();
    if schema != json!(SCHEMA) {
        return Err(Damage::Schema(schema));
    }
    let Some(Value::Array(list)) = fields.remove("apps") else { return Err(Damage::NoApps) };
    let defaults = defaults();
    let daemon = fields.get("daemon").map(DaemonSettings::deserialize);
    let mut contents = Contents { rest: Rest { fields, ..Rest::default() }, ..Contents::default() };
    match daemon {
        None => {}
        Some(Ok(daemon)) => {
            contents.daemon = daemon;
            contents.rest.fields.remove("daemon");
        }
        Some(Err(error)) => contents.mistakes.push(format!("daemon: {error}")),
    }
    for (number, value) in (1..).zip(list) {
        match read_app(&value, &defaults) {
            Ok((app, _)) if contents.apps.iter().any(|(known, _)| known.name == app.name) => {
                contents.mistakes.push(format!("app {number}: {} is there twice", app.name));
                contents.rest.apps.push(value);
            }
            Ok(app) => contents.apps.push(app),
            Err(mistake) => {
                contents.mistakes.push(format!("app {number}: {mistake}"));
                contents.rest.apps.push(value);
            }
        }
    }
    Ok(contents)
}

fn read_app(value: &Value, defaults: &Map<String, Value>) -> Result<(App, AppRecord), String> {
    let mut fields = value.as_object().cloned().unwrap_or_default();
    let settings = fields.remove("settings");
    let mut record = AppRecord::deserialize(Value::Object(fields)).map_err(|error| error.to_string())?;
    let Some(Value::Object(settings)) = settings else {
        return Err("it has no settings".to_owned());
    };
    let (mut known, unknown): (Map<_, _>, Map<_, _>) =
        settings.into_iter().partition(|(key, _)| defaults.contains_key(key));
    for (key, value) in defaults.iter().filter(|(key, _)| !OWN.contains(&key.as_str())) {
        known.entry(key).or_insert_with(|| value.clone());
    }
    let app = App::deserialize(Value::Object(known)).map_err(|error| error.to_string())?;
    requests::check(std::slice::from_ref(&app)).map_err(|error| error.message)?;
    record.origin.later_settings = unknown;
    Ok((app, record))
}

/// Every setting with its default.
fn defaults() -> Map<String, Value> {
    let context =
        Context { base_dir: "/".into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 1 };
    let app = app_from_command(vec!["true".to_owned()], CommandOptions::default(), &context);
    if let Ok(Ok(Value::Object(settings))) = app.map(serde_json::to_value) {
        settings
    } else {
        // Such a command line is never wrong.
        Map::new()
    }
}

/// The text of these apps and of what is not understood. An app takes the place
/// of what could not be understood under its name.
pub(crate) fn encode<'a>(
    apps: impl Iterator<Item = (&'a App, AppRecord)>,
    daemon: &DaemonSettings,
    rest: &Rest,
) -> Vec<u8> {
    let mut list = Vec::new();
    let mut names = Vec::new();
    for (app, record) in apps {
        // Both came as JSON, so they have a JSON form.
        let (Ok(Value::Object(mut fields)), Ok(Value::Object(mut settings))) =
            (serde_json::to_value(&record), serde_json::to_value(app))
        else {
            continue;
        };
        settings.extend(record.origin.later_settings);
        fields.insert("settings".to_owned(), Value::Object(settings));
        list.push(Value::Object(fields));
        names.push(app.name.as_str());
    }
    let is_named =
        |value: &&Value| value["settings"]["name"].as_str().is_some_and(|name| names.contains(&name));
    list.extend(rest.apps.iter().filter(|value| !is_named(value)).cloned());
    let mut fields = rest.fields.clone();
    fields.insert("schema".to_owned(), json!(SCHEMA));
    fields.insert("apps".to_owned(), Value::Array(list));
    if let (Ok(daemon), true) = (serde_json::to_value(daemon), *daemon != DaemonSettings::default()) {
        fields.insert("daemon".to_owned(), daemon);
    }
    let mut text = serde_json::to_vec_pretty(&fields).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(apps: &Value) -> Vec<u8> {
        serde_json::to_vec(&json!({"schema": 1, "apps": apps, "future": true})).unwrap()
    }

    fn app(name: &str) -> Value {
        json!({"generation": 3, "instances": 2, "stopped": [1], "source": "/srv/shop.yaml", "note": "mine",
               "settings": {"name": name, "command": ["sleep", "1"], "cwd": "/", "colour": "blue"}})
    }

    fn again(contents: &Contents) -> Value {
        let apps = contents.apps.iter().map(|(app, record)| (app, record.clone()));
        serde_json::from_slice(&encode(apps, &contents.daemon, &contents.rest)).unwrap()
    }

    #[test]
    fn every_setting_has_a_default_but_three() {
        let defaults = defaults();
        assert!(OWN.iter().all(|key| defaults.contains_key(*key)));
        let contents = decode(&text(&json!([app("web")]))).unwrap();
        assert_eq!(contents.mistakes, [""; 0]);
        let (app, record) = &contents.apps[0];
        assert_eq!((app.name.as_str(), app.autorestart), ("web", true));
        assert_eq!((record.generation, record.instances, record.stopped.len()), (3, 2, 1));
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let broken = json!({"generation": 1, "instances": 1, "settings": {"name": "new", "cwd": "/"}});
        let contents = decode(&text(&json!([app("web"), broken, 7]))).unwrap();
        assert_eq!(contents.apps.len(), 1);
        assert_eq!(contents.mistakes.len(), 2, "{:?}", contents.mistakes);
        let written = again(&contents);
        assert_eq!(written["future"], true);
        assert_eq!(written["apps"][0]["note"], "mine");
        assert_eq!(written["apps"][0]["settings"]["colour"], "blue");
        assert_eq!(written["apps"][0]["settings"]["backlog"], 511);
        assert_eq!(written["apps"][1], broken);
        assert_eq!(written["apps"][2], 7);
    }

    #[test]
    fn settings_of_the_daemon_come_back() {
        let text =
            |daemon: &Value| serde_json::to_vec(&json!({"schema": 1, "apps": [], "daemon": daemon})).unwrap();
        let mut contents = decode(&text(&json!({"log_level": "debug"}))).unwrap();
        assert_eq!(again(&contents)["daemon"], json!({"log_level": "debug", "control_group": null}));
        contents.daemon = DaemonSettings::default();
        assert_eq!(again(&contents)["daemon"], Value::Null);
        // Those of a later version are kept.
        let later = decode(&text(&json!({"colour": "blue"}))).unwrap();
        assert_eq!(later.mistakes, [""; 0]);
        assert_eq!(
            again(&later)["daemon"],
            json!({"colour": "blue", "log_level": "info", "control_group": null})
        );
        let wrong = decode(&text(&json!({"log_level": "loud"}))).unwrap();
        assert_eq!((wrong.mistakes.len(), &wrong.daemon), (1, &DaemonSettings::default()));
        assert_eq!(again(&wrong)["daemon"], json!({"log_level": "loud"}));
    }

    #[test]
    fn an_app_takes_the_place_of_a_broken_one() {
        let broken = json!({"settings": {"name": "web"}});
        let mut contents = decode(&text(&json!([broken]))).unwrap();
        assert!(contents.apps.is_empty());
        contents.apps = decode(&text(&json!([app("web")]))).unwrap().apps;
        assert_eq!(again(&contents)["apps"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn two_of_a_name_are_one_and_a_rest() {
        let contents = decode(&text(&json!([app("web"), app("web")]))).unwrap();
        assert_eq!((contents.apps.len(), contents.mistakes.len()), (1, 1));
    }

    #[test]
    fn damage_is_told() {
        let check = |text: &str, expected: &str| {
            let damage = decode(text.as_bytes()).unwrap_err().to_string();
            assert!(damage.contains(expected), "{damage}");
        };
        check("", "EOF");
        check("[]", "invalid type");
        check("{\"schema\": 2, \"apps\": []}", "its schema is 2");
        check("{\"apps\": []}", "its schema is null");
        check("{\"schema\": 1}", "no list of apps");
    }
}
