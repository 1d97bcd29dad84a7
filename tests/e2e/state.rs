//! What is declared outlives the daemon.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish};
use crate::process;
use crate::wait::until;

const SLEEP: &str = "command: [sleep, '600']\nmin_uptime: 50ms";

fn file(home: &Home) -> PathBuf {
    home.daemon_folder().join("state/state.json")
}

/// The names in the file.
fn kept(home: &Home) -> Vec<String> {
    let state: Value = serde_json::from_slice(&fs::read(file(home)).unwrap()).unwrap();
    let apps = state["apps"].as_array().unwrap();
    apps.iter().map(|app| app["settings"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Declares these apps with two workers each.
fn declare(home: &Home, names: &[&str]) {
    let settings = format!("{SLEEP}\ninstances: 2");
    let apps: Vec<(&str, &str)> = names.iter().map(|name| (*name, settings.as_str())).collect();
    home.write_apps("app.yaml", &apps);
    home.ok(&["start", "app.yaml"]);
}

/// Ends the daemon as a power cut does.
fn cut_power(home: &Home) {
    let (keeper, _) = home.daemon();
    let all = [vec![keeper], process::descendants(keeper)].concat();
    all.iter().for_each(|pid| process::stop_and_wait(*pid));
    // The keeper last: a master that is left alone takes its place, even from a stop.
    all.iter().rev().for_each(|pid| process::kill(*pid));
    until("all are gone", || all.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
fn a_person_s_orders_outlive_the_daemon() {
    let home = Home::new();
    declare(&home, &["web", "off", "half", "wide", "gone"]);
    home.ok(&["stop", "off", "half:1"]);
    home.ok(&["scale", "wide", "3"]);
    home.ok(&["delete", "gone"]);
    for end in ["kill", "power cut", "kill"] {
        let before = fs::metadata(file(&home)).unwrap();
        if end == "kill" {
            home.ok(&["kill"]);
        } else {
            cut_power(&home);
        }
        let after = fs::metadata(file(&home)).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{end}");
        assert_eq!(after.permissions().mode() & 0o777, 0o600);
        // A new daemon knows the names, and runs the others as well.
        home.ok(&["start", "web"]);
        home.app_when("wide", "is back", |app| app["state"] == "online" && app["instances"]["ready"] == 3);
        let half = home.app_when("half", "is back", |app| app["instances"]["ready"] == 1);
        assert_eq!(half["workers"][1]["state"], "stopped");
        assert_eq!(home.app("off")["state"], "stopped");
        assert_eq!(home.status()["apps"].as_array().unwrap().len(), 4);
    }
    // It still knows where they come from.
    let again = home.ok(&["start", "app.yaml"]);
    assert!(again.stderr.contains("wide scaled to 2 workers"), "{}", again.stderr);
}

#[test]
fn a_changed_file_is_applied_by_a_new_daemon() {
    let home = Home::new();
    declare(&home, &["web"]);
    home.ok(&["kill"]);
    home.write_app("web", &format!("{SLEEP}\ninstances: 3\nenv: {{NEW: '1'}}"));
    home.ok(&["start", "app.yaml"]);
    let web = home.app("web");
    assert_eq!((&web["generation"], &web["instances"]["ready"]), (&2.into(), &3.into()));
}

#[test]
fn what_is_deleted_does_not_come_back() {
    let home = Home::new();
    // One that takes its time to end.
    let slow = "command: [sh, -c, \"trap '' TERM; echo deaf; while :; do sleep 1; done\"]\n\
                min_uptime: 50ms\ninstances: 1";
    home.write_apps("app.yaml", &[("web", SLEEP), ("slow", slow)]);
    home.ok(&["start", "app.yaml"]);
    until("its trap is set", || home.log("slow-out-0.log") == "deaf\n");
    let delete = home.command(&["delete", "slow"]).spawn().unwrap();
    home.app_in_state("slow", "stopping");
    // The order is answered when it is on disk; this does not wait for that.
    until("it is on disk", || kept(&home) == ["web"]);
    let (_, master) = home.daemon();
    process::kill_and_wait(master);
    let _ = finish(delete);
    home.app_in_state("web", "online");
    until("it is gone", || home.status()["apps"].as_array().unwrap().len() == 1);
    home.ok(&["delete", "all"]);
    home.ok(&["kill"]);
    assert!(kept(&home).is_empty());
}

#[test]
fn run_without_a_file_runs_what_is_declared() {
    let home = Home::new();
    declare(&home, &["web"]);
    home.ok(&["kill"]);
    let before = fs::read(file(&home)).unwrap();
    let run = home.command(&["run"]).spawn().unwrap();
    home.app_in_state("web", "online");
    process::signal(run.id(), Signal::TERM);
    assert_eq!(finish(run).code, Some(0));
    assert_eq!(fs::read(file(&home)).unwrap(), before);
    // Without a declared app it waits for one.
    fs::remove_file(file(&home)).unwrap();
    home.write_apps("ecosystem.yaml", &[("other", SLEEP)]);
    let run = home.command(&["run"]).spawn().unwrap();
    until("it answers", || home.run(&["ping"]).code == Some(0));
    declare(&home, &["web"]);
    process::signal(run.id(), Signal::TERM);
    let ended = finish(run);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("use `supervisor run ecosystem.yaml`"), "{}", ended.stderr);
    assert_eq!(kept(&home), ["web"]);
    home.ends(2, &["run", "--env", "x"]);
}

#[test]
fn run_with_a_file_keeps_nothing() {
    let home = Home::new();
    declare(&home, &["web"]);
    home.ok(&["kill"]);
    let before = fs::read(file(&home)).unwrap();
    home.write_app("other", SLEEP);
    let run = home.command(&["run", "app.yaml"]).spawn().unwrap();
    home.app_in_state("other", "online");
    assert_eq!(home.status()["apps"].as_array().unwrap().len(), 1);
    home.ok(&["start", "--name", "more", "--", "sleep", "600"]);
    home.ok(&["delete", "other"]);
    // The next master is of the same kind.
    process::kill_and_wait(home.daemon().1);
    home.app_in_state("more", "online");
    home.ok(&["stop", "more"]);
    process::signal(run.id(), Signal::TERM);
    finish(run);
    assert_eq!(fs::read(file(&home)).unwrap(), before);
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let home = Home::new();
    declare(&home, &["web"]);
    home.ok(&["kill"]);
    let text = fs::read(file(&home)).unwrap();
    fs::write(file(&home), &text[..text.len() / 2]).unwrap();
    declare(&home, &["other"]);
    assert_eq!(kept(&home), ["other"]);
    let names: Vec<String> = fs::read_dir(home.daemon_folder().join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("damaged"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let moved = home.daemon_folder().join("state").join(&names[0]);
    assert_eq!(fs::read(&moved).unwrap(), &text[..text.len() / 2]);
    home.until_logged(&format!("it is moved to {}", moved.display()));
}

#[test]
fn what_cannot_be_kept_is_told() {
    let home = Home::new();
    fs::create_dir(home.daemon_folder()).unwrap();
    fs::write(home.daemon_folder().join("state"), "in the way").unwrap();
    home.write_app("web", SLEEP);
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("the next daemon will not know of it"), "{}", failed.stderr);
    home.app_in_state("web", "online");
    fs::remove_file(home.daemon_folder().join("state")).unwrap();
    home.ok(&["start", "app.yaml"]);
    assert_eq!(kept(&home), ["web"]);
}

#[test]
fn habits_from_pm2_are_harmless() {
    let home = Home::new();
    for command in ["save", "resurrect"] {
        let done = home.ok(&[command]);
        assert!(done.stderr.starts_with("not needed"), "{}", done.stderr);
    }
}
