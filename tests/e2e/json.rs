//! `--json`: what a program reads from each command.

use serde_json::Value;

use crate::harness::Home;

/// The JSON lines of a command's standard output, which is nothing else.
#[track_caller]
fn lines(home: &Home, code: i32, args: &[&str]) -> Vec<Value> {
    let finished = home.ends(code, &[args, &["--json"]].concat());
    let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn orders_print_their_steps() {
    let home = Home::new();
    let settings = "command: [sleep, '600']\ninstances: 1\nmin_uptime: 50ms";
    home.write_app("web", settings);
    let ends_with = |code: i32, args: &[&str]| {
        let lines = lines(&home, code, args);
        assert_eq!(lines[0]["event"], "app", "{args:?}: {lines:?}");
        let last = lines.last().unwrap();
        assert_eq!(
            (&last["event"], &last["exit_code"]),
            (&"done".into(), &code.into()),
            "{args:?}: {lines:?}"
        );
        lines
    };
    let started = ends_with(0, &["start", "app.yaml"]);
    assert!(started.iter().any(|line| line["event"] == "worker" && line["state"] == "ready"), "{started:?}");
    for order in [&["restart", "web"][..], &["reload", "web"], &["scale", "web", "2"], &["stop", "web"]] {
        ends_with(0, order);
    }
    ends_with(0, &["start", "web"]);
    // It would be taken for a good one if it lived for `min_uptime`.
    let failing = settings.replace("sleep, '600'", "sh, -c, 'echo oh no; exit 1'").replace("50ms", "1h");
    home.write_app("web", &failing);
    let failed = ends_with(6, &["reload", "app.yaml"]);
    let failure = failed.iter().find(|line| line["event"] == "failed").unwrap();
    assert_eq!((&failure["rolled_back"], &failure["last_lines"][0]), (&true.into(), &"oh no".into()));
    assert_eq!(lines(&home, 0, &["start", "web", "--no-wait"])[0]["event"], "app");
    ends_with(0, &["delete", "web"]);
}

#[test]
fn answers_are_the_daemons() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\ninstances: 1\nmin_uptime: 50ms");
    let field = |args: &[&str], pointer: &str| {
        let answer = lines(&home, 0, args);
        let value = answer.first().and_then(|answer| answer.pointer(pointer));
        value.cloned().unwrap_or_else(|| panic!("{args:?}: no {pointer} in {answer:?}"))
    };
    assert_eq!(field(&["status"], "/apps/0/name"), "web");
    assert_eq!(field(&["describe", "web"], "/apps/0/settings/name"), "web");
    assert_eq!(field(&["env", "web"], "/workers/0/env/SUPERVISOR_APP"), "web");
    assert_eq!(field(&["signal", "CONT", "web"], "/workers"), 1);
    assert_eq!(field(&["reset", "web"], "/slots"), 1);
    field(&["flush", "web"], "/files");
    field(&["ping"], "/daemon/pid");
    assert_eq!(lines(&home, 0, &["reload-logs"]), [serde_json::json!({})]);
    for command in [&["init"][..], &["completions", "bash"], &["startup", "--print"], &["man"]] {
        let refused = home.ends(2, &[command, &["--json"]].concat());
        assert!(refused.stderr.contains("--json does not go with"), "{refused:?}");
    }
}
