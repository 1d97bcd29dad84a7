//! `supervisor describe`: what runs beside what its file says by now.

use serde_json::{Value, json};

use crate::harness::Home;

const SETTINGS: &str = "command: [sleep, '600']\ninstances: 1\nmin_uptime: 50ms\nkill_timeout: 1s\n\
                        env: {PASSWORD: hunter2, MODE: a}\nenv_production: {MODE: live}";

/// The differences as JSON.
#[track_caller]
fn differences(home: &Home) -> (Value, Value) {
    let described = home.ok(&["describe", "web", "--json"]).stdout;
    let mut app: Value = serde_json::from_str::<Value>(&described).unwrap()["apps"][0].take();
    assert!(!described.contains("hunter2"), "{described}");
    (app["differences"].take(), app["not_compared"].take())
}

#[test]
fn changes_of_a_file_are_shown_until_they_are_in_force() {
    let home = Home::new();
    home.write_app("web", SETTINGS);
    home.ok(&["start", "app.yaml", "--env", "production"]);
    assert_eq!(differences(&home), (json!([]), Value::Null));
    home.ok(&["scale", "web", "2"]);
    home.write_app(
        "web",
        &SETTINGS.replace("1s", "2s").replace("hunter2", "swordfish").replace("MODE: a", "MODE: b"),
    );
    let (found, _) = differences(&home);
    assert_eq!(
        found,
        json!([
            {"key": "env.PASSWORD", "running": "***", "file": "***"},
            {"key": "instances", "running": 2, "file": 1},
            {"key": "kill_timeout", "running": 1000, "file": 2000},
        ])
    );
    let text = home.ok(&["describe", "web"]).stdout;
    assert!(text.contains("app.yaml --env production (has changed)"), "{text}");
    assert!(text.contains("says           kill_timeout 2s, not 1s"), "{text}");
    assert!(!text.contains("swordfish"), "{text}");
    home.ok(&["reload", "app.yaml", "--env", "production"]);
    assert_eq!(differences(&home), (json!([]), Value::Null));
}

#[test]
fn a_file_that_cannot_tell_says_why() {
    let home = Home::new();
    home.start_app("web", SETTINGS);
    let not_compared = || differences(&home).1.as_str().unwrap().to_owned();
    home.write("app.yaml", "apps: [{name: web, comand: x}]");
    assert_eq!(not_compared(), "it has 1 mistake; `supervisor check` shows them");
    home.write_app("other", SETTINGS);
    assert_eq!(not_compared(), "it has no such app any more");
    std::fs::remove_file(home.path("app.yaml")).unwrap();
    assert!(not_compared().contains("o such file"));
    // What came from a command line is compared with nothing.
    home.ok(&["start", "--name", "web", "--", "sleep", "600"]);
    assert_eq!(differences(&home), (Value::Null, Value::Null));
}

#[test]
fn javascript_of_others_is_not_run() {
    let home = Home::new();
    let file = home.write(
        "ecosystem.config.js",
        "module.exports = {apps: [{name: 'web', command: ['sleep', '600'], instances: 1}]}",
    );
    home.ok(&["start", "ecosystem.config.js"]);
    assert_eq!(differences(&home), (json!([]), Value::Null));
    std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
    assert!(differences(&home).1.as_str().unwrap().contains("it is not run"));
}
