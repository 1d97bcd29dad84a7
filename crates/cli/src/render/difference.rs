//! A setting that a file has changed, in the words of files.

use std::time::Duration;

use serde_json::Value;

use super::units;
use crate::difference::Difference;

/// Settings that have other names in a file.
const NAMES: [(&str, &str); 19] = [
    ("cron_restart.expression", "cron_restart"),
    ("cron_restart.timezone", "cron_timezone"),
    ("inherit.only", "inherit_env"),
    ("inherit.without", "filter_env"),
    ("logs.combined_file", "log_file"),
    ("logs.compress", "log_compress"),
    ("logs.date_format", "log_date_format"),
    ("logs.json", "log_type: json"),
    ("logs.keep", "log_keep"),
    ("logs.max_size", "log_max_size"),
    ("logs.merge", "merge_logs"),
    ("logs.rotate", "log_rotate"),
    ("logs.rotate_cron", "log_rotate"),
    ("reload.hold", "hold of its reload"),
    ("reload.mode", "reload"),
    ("reload.steps", "steps of its reload"),
    ("watch.delay", "watch_delay"),
    ("watch.ignore", "ignore_watch"),
    ("watch.paths", "watch"),
];

/// Settings in milliseconds.
const TIMES: [&str; 11] = [
    "breaker_retry",
    "drain_quiet",
    "drain_timeout",
    "hang_timeout",
    "kill_timeout",
    "listen_timeout",
    "min_uptime",
    "reload.hold",
    "restart_delay",
    "watch.delay",
    "watchdog",
];

/// Settings in bytes.
const SIZES: [&str; 3] = ["logs.max_size", "max_memory_hard", "max_memory_restart"];

/// `kill_timeout 5s, not 1600ms`
pub(crate) fn words(difference: &Difference) -> String {
    let Difference { key, running, file } = difference;
    let name = NAMES.iter().find(|(json, _)| json == key).map_or(key.as_str(), |(_, name)| name);
    if key.starts_with("env.") {
        return match (running.is_null(), file.is_null()) {
            (true, _) => format!("{name} is new"),
            (false, true) => format!("{name} is gone"),
            (false, false) => format!("{name} has another value"),
        };
    }
    format!("{name} {}, not {}", value(key, file), value(key, running))
}

fn value(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(millis) if TIMES.contains(&key) => units::setting(Duration::from_millis(millis)),
            Some(bytes) if SIZES.contains(&key) => units::bytes(bytes),
            Some(_) | None => number.to_string(),
        },
        other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_read_as_in_a_file() {
        let check = |key: &str, running: Value, file: Value, expected: &str| {
            let difference = Difference { key: key.to_owned(), running, file };
            assert_eq!(words(&difference), expected);
        };
        check("kill_timeout", json!(1600), json!(5000), "kill_timeout 5s, not 1600ms");
        check("max_memory_restart", Value::Null, json!(300 << 20), "max_memory_restart 300.0M, not unset");
        check("logs.merge", json!(false), json!(true), "merge_logs true, not false");
        check("env.PORT", json!("***"), json!("***"), "env.PORT has another value");
        check("env.PORT", json!("***"), Value::Null, "env.PORT is gone");
        check("command", json!(["a"]), json!(["a", "b"]), r#"command ["a","b"], not ["a"]"#);
        check("reload.hold", json!(30000), json!(60000), "hold of its reload 1m, not 30s");
        check("user", json!("www"), Value::Null, "user unset, not www");
    }

    #[test]
    fn every_name_is_one_of_a_setting() {
        let app = serde_json::to_value(crate::render::describe::tests::app()).unwrap();
        let known = |key: &str| app.pointer(&format!("/{}", key.replace('.', "/"))).is_some();
        for key in NAMES.iter().map(|(json, _)| json).chain(&TIMES).chain(&SIZES) {
            assert!(known(key), "{key}");
        }
    }
}
