//! A second `start` of the same file: the difference is applied.

use crate::harness::Home;
use crate::wait::until;

const SLEEP: &str = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 2";

#[test]
fn only_what_differs_is_touched() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("same", SLEEP), ("other", SLEEP), ("gone", SLEEP)]);
    home.ok(&["start", "app.yaml"]);
    let (same, other, gone) = (home.pids("same"), home.pids("other"), home.pids("gone"));

    let changed = format!("{SLEEP}\nenv: {{COLOUR: blue}}");
    home.write_apps("app.yaml", &[("same", SLEEP), ("other", &changed), ("new", SLEEP)]);
    let second = home.ok(&["start", "app.yaml"]);
    assert!(second.stderr.contains("same unchanged"), "{}", second.stderr);
    assert!(second.stderr.contains("other changed, 2 workers ready"), "{}", second.stderr);
    assert!(second.stderr.contains("new started, 2 workers ready"), "{}", second.stderr);
    assert!(second.stderr.contains("gone is declared but no longer in this file"), "{}", second.stderr);

    assert_eq!(home.pids("same"), same);
    assert!(home.pids("other").iter().all(|pid| !other.contains(pid)));
    assert_eq!(home.app("other")["generation"], 2);
    assert_eq!(home.pids("new").len(), 2);
    assert_eq!(home.pids("gone"), gone);

    let third = home.ok(&["start", "app.yaml", "--prune"]);
    assert!(third.stderr.contains("gone deleted"), "{}", third.stderr);
    let names: Vec<_> =
        home.status()["apps"].as_array().unwrap().iter().map(|app| app["name"].clone()).collect();
    assert_eq!(names, ["new", "other", "same"]);
    assert_eq!(home.pids("same"), same);
}

#[test]
fn another_number_of_instances_is_a_scaling() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("web", SLEEP)]);
    home.ok(&["start", "app.yaml"]);
    let before = home.pids("web");
    home.write_apps("app.yaml", &[("web", &SLEEP.replace("instances: 2", "instances: 3"))]);
    home.ok(&["start", "app.yaml"]);
    let after = home.pids("web");
    assert_eq!(after.len(), 3);
    assert_eq!(after[..2], before);
}

#[test]
fn part_of_a_file() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("one", SLEEP), ("two", SLEEP)]);
    home.ok(&["start", "app.yaml", "--only", "two"]);
    assert_eq!(home.status()["apps"].as_array().unwrap().len(), 1);
    let failed = home.ends(2, &["start", "app.yaml", "--only", "three"]);
    assert!(failed.stderr.contains("three"), "{}", failed.stderr);
}

#[test]
fn apps_of_other_files_are_not_missing() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    let pids = home.pids("web");
    home.write_apps("other.yaml", &[("api", SLEEP)]);
    let other = home.ok(&["start", "other.yaml", "--prune"]);
    assert!(!other.stderr.contains("web"), "{}", other.stderr);
    assert_eq!(home.pids("web"), pids);
}

#[test]
fn variables_of_a_named_environment() {
    let home = Home::new();
    let settings = "command: [sh, -c, 'echo $MODE; exec sleep 600']
        min_uptime: 50ms
        instances: 1
        env: {MODE: plain}
        env_production: {MODE: production}";
    home.start_app("web", settings);
    until("the first has written", || home.log("web-out-0.log") == "plain\n");
    home.ok(&["start", "app.yaml", "--env", "production"]);
    until("both lives have written", || home.log("web-out-0.log") == "plain\nproduction\n");
    let failed = home.ends(2, &["start", "app.yaml", "--env", "staging"]);
    assert!(failed.stderr.contains("production"), "{}", failed.stderr);
}

#[test]
fn restart_brings_new_processes_with_the_same_settings() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    let before = home.pids("web");
    home.ok(&["restart", "web:1"]);
    let one = home.pids("web");
    assert_eq!(one[0], before[0]);
    assert_ne!(one[1], before[1]);
    home.ok(&["restart", "web", "--now"]);
    let all = home.pids("web");
    assert!(all.iter().all(|pid| !one.contains(pid)));
    let app = home.app("web");
    assert_eq!(app["generation"], 1);
    // Asked for, so not counted among the automatic ones.
    assert_eq!(app["restarts"], 0);
}

#[test]
fn delete_forgets() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("one", SLEEP), ("two", SLEEP)]);
    home.ok(&["start", "app.yaml"]);
    home.ok(&["delete", "one"]);
    home.ends(3, &["status", "one"]);
    assert_eq!(home.app("two")["state"], "online");
    home.ok(&["start", "app.yaml"]);
    home.ok(&["delete", "app.yaml"]);
    assert_eq!(home.status()["apps"].as_array().unwrap().len(), 0);
}

#[test]
fn an_app_without_autostart_waits_for_a_person() {
    let home = Home::new();
    let stopped = || home.app("job")["state"] == "stopped";
    home.write_apps("app.yaml", &[("web", SLEEP), ("job", &format!("{SLEEP}\nautostart: false"))]);
    let first = home.ok(&["start", "app.yaml"]);
    assert!(first.stderr.contains("job declared, not started"), "{}", first.stderr);
    assert!(stopped());
    let again = home.ok(&["start", "app.yaml"]);
    assert!(again.stderr.contains("job unchanged") && stopped(), "{}", again.stderr);

    let changed = format!("{SLEEP}\nautostart: false\nenv: {{COLOUR: blue}}");
    home.write_apps("app.yaml", &[("web", SLEEP), ("job", &changed.replace("instances: 2", "instances: 3"))]);
    home.ok(&["start", "app.yaml"]);
    assert!(stopped());

    home.ok(&["start", "job"]);
    assert_eq!(home.pids("job").len(), 3);
    home.ok(&["start", "app.yaml"]);
    assert_eq!(home.pids("job").len(), 3);
}
