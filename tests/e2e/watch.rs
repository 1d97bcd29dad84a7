//! Reloads when files have changed.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Home, finish, pids, text};
use crate::programs::worker;
use crate::wait::{eventually, until};

/// What is changed together is changed within this time, also where little time is to be had.
const QUICK: &str = "min_uptime: 50ms\nwatch_delay: 1s";

/// Starts an app in the folder `site` that is watched.
fn start(home: &Home, more: &str) {
    fs::create_dir_all(home.path("site/src")).unwrap();
    home.write("site/src/main.js", "1");
    let settings = format!(
        "command: {}\ncwd: site\ninstances: 1\nlisten: '{}'\n{QUICK}\n{more}",
        worker().display(),
        home.address()
    );
    home.start_app("web", &settings);
}

fn generation(app: &Value) -> u64 {
    app["generation"].as_u64().unwrap()
}

/// Waits for the reload to this generation.
#[track_caller]
fn reloaded(home: &Home, to: u64) -> Value {
    home.app_when("web", &format!("is reloaded to generation {to}"), |app| {
        generation(app) == to && app["state"] == "online" && pids(app).len() == 1
    })
}

/// The paths that reloads were for, as soon as there are this many.
#[track_caller]
fn reasons(home: &Home, count: usize) -> Vec<String> {
    let folder = home.path("").canonicalize().unwrap();
    let reason = |line: &str| {
        let (_, why) = line.split_once("reloading it: ")?;
        Some(why.replace(folder.to_str().unwrap(), "").trim_start_matches('/').to_owned())
    };
    eventually("reloads are in the log", || {
        let reasons: Vec<String> = home.daemon_log().lines().filter_map(reason).collect();
        (reasons.len() >= count).then_some(reasons)
    })
}

/// Writes a file as careful editors do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new~");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_change_reloads_and_what_is_ignored_does_not() {
    let home = Home::new();
    fs::create_dir_all(home.path("site/node_modules/left-pad")).unwrap();
    fs::create_dir_all(home.path("site/.git")).unwrap();
    start(&home, "watch: true\nignore_watch: ['*.tmp', /data]\nout_file: site/shown");
    let before = home.pids("web");
    let ignored = |text: &str| {
        for name in
            ["node_modules/left-pad/index.js", ".git/index", ".hidden", "x.log", "src/x.tmp", "src/x~"]
        {
            home.write(&format!("site/{name}"), text);
        }
        fs::create_dir_all(home.path("site/data")).unwrap();
        home.write("site/data/db", text);
        // Its own output, and what becomes of it.
        home.get("/out?hello").unwrap();
        home.ok(&["flush", "web"]);
        home.ok(&["reload-logs"]);
    };
    ignored("1");
    home.write("site/src/main.js", "2");
    assert_ne!(pids(&reloaded(&home, 2)), before);
    ignored("2");
    replace(&home.path("site/src/main.js"), "3");
    reloaded(&home, 3);
    ignored("3");
    fs::remove_file(home.path("site/src/main.js")).unwrap();
    reloaded(&home, 4);
    assert_eq!(reasons(&home, 3), ["site/src/main.js has changed"; 3]);
}

#[test]
fn folders_come_and_go() {
    let home = Home::new();
    start(&home, "watch: ['.']");
    fs::create_dir_all(home.path("site/a/b/c")).unwrap();
    reloaded(&home, 2);
    home.write("site/a/b/c/file", "1");
    reloaded(&home, 3);
    fs::rename(home.path("site/a"), home.path("elsewhere")).unwrap();
    reloaded(&home, 4);
    // It is somebody else's now.
    home.write("elsewhere/b/c/file", "2");
    fs::rename(home.path("site"), home.path("before")).unwrap();
    fs::create_dir(home.path("site")).unwrap();
    reloaded(&home, 5);
    home.write("site/file", "3");
    reloaded(&home, 6);
    let reasons = reasons(&home, 5);
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    assert_eq!(reasons[4], "site/file has changed");
}

#[test]
fn a_single_file() {
    let home = Home::new();
    start(&home, "watch: [src/main.js]");
    home.write("site/src/other.js", "1");
    home.write("site/src/main.js", "2");
    reloaded(&home, 2);
    // Another file of that name, twice.
    replace(&home.path("site/src/main.js"), "3");
    reloaded(&home, 3);
    replace(&home.path("site/src/main.js"), "4");
    reloaded(&home, 4);
    assert_eq!(reasons(&home, 3), ["site/src/main.js has changed"; 3]);
}

#[test]
fn many_changes_are_one_reload() {
    let home = Home::new();
    start(&home, "watch: true");
    for number in 0..500 {
        home.write(&format!("site/src/{number}.js"), "1");
    }
    reloaded(&home, 2);
    assert_eq!(reasons(&home, 1), ["site/src/0.js has changed"]);
}

#[test]
fn what_is_stopped_stays_so_and_starts_with_what_is_watched() {
    let home = Home::new();
    start(&home, "watch: true");
    home.ok(&["stop", "web"]);
    home.write_apps(
        "other.yaml",
        &[("other", &format!("command: [sleep, '600']\ninstances: 1\ncwd: site\nwatch: true\n{QUICK}"))],
    );
    home.ok(&["start", "other.yaml"]);
    home.write("site/src/main.js", "2");
    home.app_when("other", "is reloaded", |app| generation(app) == 2);
    let web = home.app("web");
    assert_eq!((&web["state"], generation(&web)), (&"stopped".into(), 1));
    home.ok(&["start", "web"]);
    home.write("site/src/main.js", "3");
    reloaded(&home, 2);
    home.app_when("other", "is reloaded", |app| generation(app) == 3 && app["state"] == "online");
    // Without `watch` it is left alone.
    fs::write(
        home.path("app.yaml"),
        fs::read_to_string(home.path("app.yaml")).unwrap().replace("watch: true", ""),
    )
    .unwrap();
    home.ok(&["start", "app.yaml"]);
    reloaded(&home, 3);
    home.write("site/src/main.js", "4");
    home.app_when("other", "is reloaded", |app| generation(app) == 4);
    reloaded(&home, 3);
}

#[test]
fn a_change_during_another_order_waits_for_it() {
    let home = Home::new();
    fs::create_dir_all(home.path("site")).unwrap();
    // Nobody is ready without this file.
    let go = home.write("go", "");
    let check = format!("ready_check: {{command: [test, -e, {}], interval: 50ms, timeout: 10s}}", text(&go));
    let settings = "command: [sleep, '600']\ncwd: site\ninstances: 1\nlisten_timeout: 10m\nwatch: true";
    home.start_app("web", &format!("{settings}\n{check}\n{QUICK}"));
    fs::remove_file(&go).unwrap();
    let restart = home.command(&["restart", "web"]).spawn().unwrap();
    home.app_in_state("web", "reloading");
    home.write("site/file", "1");
    let uptime = || home.status()["daemon"]["uptime_s"].as_f64().unwrap();
    let written = uptime();
    until("the delay is over", || uptime() > written + 2.0);
    fs::write(&go, "").unwrap();
    let finished = finish(restart);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    reloaded(&home, 2);
    assert_eq!(reasons(&home, 1), ["site/file has changed"]);
}

#[test]
fn a_person_is_told_what_a_new_daemon_waits_for() {
    let home = Home::new();
    fs::create_dir_all(home.path("src")).unwrap();
    let settings = format!("command: {}\ninstances: 1\n{QUICK}\nwatch: src", worker().display());
    home.start_app("web", &settings);
    home.ok(&["kill"]);
    fs::remove_dir(home.path("src")).unwrap();
    // The daemon that this starts has known the app before it is asked.
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("src: no such file or directory"), "{failed:?}");
}

#[test]
fn a_path_that_cannot_be_watched_fails_the_start() {
    let home = Home::new();
    let settings = format!("command: {}\ninstances: 1\n{QUICK}\nwatch: [absent/folder]", worker().display());
    home.write_app("web", &settings);
    let failed = home.ends(1, &["start", "app.yaml"]);
    let expected = format!("watch {}: no such file or directory", home.path("absent/folder").display());
    assert!(failed.stderr.contains(&expected), "{failed:?}");
    // It runs all the same, and another try may succeed.
    home.app_in_state("web", "online");
    home.ends(1, &["start", "app.yaml"]);
    fs::create_dir_all(home.path("absent/folder")).unwrap();
    home.ok(&["start", "app.yaml"]);
    home.write("absent/folder/file", "1");
    reloaded(&home, 2);

    // A new daemon waits for what is not there yet.
    home.ok(&["kill"]);
    fs::rename(home.path("absent"), home.path("moved")).unwrap();
    home.ok(&["start", "web"]);
    home.until_logged("looking for it each second");
    fs::rename(home.path("moved"), home.path("absent")).unwrap();
    reloaded(&home, 3);
    home.write("absent/folder/file", "2");
    reloaded(&home, 4);
}
