//! `reload`: successors beside the old workers, and back when one fails.

use std::fs;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, pids, text};
use crate::load::Load;
use crate::process;
use crate::programs::{fixture, installed, supervisor, worker};
use crate::terminal::{SIZES, Screen, rows};
use crate::wait::eventually;

/// Settings of a worker with these flags.
fn settings(home: &Home, flags: &str) -> String {
    format!(
        "command: [{}{flags}]\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'",
        text(&worker()),
        home.address()
    )
}

#[test]
fn nothing_is_lost() {
    const RELOADS: u64 = 20;
    let home = Home::new();
    let (node, server) = (installed("node"), fixture("server.js"));
    let address = home.address();
    home.start_app(
        "web",
        &format!(
            "command: [{}, {}]\ninstances: 2\nmin_uptime: 100ms\nlisten: '{address}'",
            text(&node),
            text(&server)
        ),
    );
    let load = Load::with_clients(address, 32);
    load.more(100);
    for _ in 0..RELOADS {
        let before = home.pids("web");
        home.ok(&["reload", "web"]);
        assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
        load.more(20);
    }
    assert_eq!(load.finish(), Vec::<String>::new());
    let web = home.app("web");
    assert_eq!((&web["generation"], &web["restarts"]), (&(RELOADS + 1).into(), &0.into()));
}

#[test]
fn a_file_counts_after_a_scaling_and_a_stop() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    for order in [&["scale", "web", "3"][..], &["stop", "web:0"]] {
        home.ok(order);
        let before = home.pids("web");
        home.ok(&["reload", "app.yaml"]);
        let after = home.app_when("web", "has as many workers as the file says", |app| pids(app).len() == 2);
        assert!(pids(&after).iter().all(|pid| !before.contains(pid)), "{before:?} {after:#}");
        assert_eq!(after["state"], "online");
    }
}

#[test]
fn a_file_is_read_anew() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("web", &settings(&home, "")), ("same", &sleep())]);
    home.ok(&["start", "app.yaml"]);
    let (web, same) = (home.pids("web"), home.pids("same"));
    let changed = format!("{}\nenv: {{COLOUR: blue}}", settings(&home, ""));
    home.write_apps("app.yaml", &[("web", &changed), ("same", &sleep()), ("new", &sleep())]);
    let reloaded = home.ok(&["reload", "app.yaml"]);
    for line in
        ["web changed, 2 workers ready", "same reloaded, 1 worker ready", "new started, 1 worker ready"]
    {
        assert!(reloaded.stderr.contains(line), "{}", reloaded.stderr);
    }
    assert!(home.pids("web").iter().all(|pid| !web.contains(pid)));
    assert_ne!(home.pids("same"), same);
    // A start leaves alone what has not changed.
    let started = home.ok(&["start", "app.yaml"]);
    assert!(started.stderr.contains("web unchanged"), "{}", started.stderr);
}

fn sleep() -> String {
    "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1".to_owned()
}

#[test]
fn progress_is_drawn_on_screens_of_any_size() {
    let home = Home::new();
    // More apps than one of the screens has lines, and a name that is too long
    // for a line of it.
    let long = "a-name-that-is-as-long-as-the-name-of-an-app-can-be-for-a-person".to_owned();
    let names: Vec<String> = (10..40).map(|number| format!("app-{number}")).chain([long.clone()]).collect();
    // Nobody is ready without this file.
    let go = home.write("go", "");
    let settings = format!(
        "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 2\nlisten_timeout: 10m\n\
         ready_check: {{command: [test, -e, {}], interval: 1s, timeout: 10s}}",
        text(&go)
    );
    let apps: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), settings.as_str())).collect();
    home.write_apps("app.yaml", &apps);
    home.ok(&["start", "app.yaml"]);
    for size in SIZES {
        fs::remove_file(&go).unwrap();
        let line = format!("exec {} reload --all", text(&supervisor()));
        let screen = Screen::start(&home, size, &line);
        // A line an app, whatever its length; what there is no room for waits.
        screen.shows_what("a line for each app", |shown| {
            let lines: Vec<&str> = shown.lines().filter(|line| !line.is_empty()).collect();
            lines.iter().all(|line| line.contains(" reloading, "))
                && lines.len() == usize::from(size.0).min(31)
        });
        fs::write(&go, "").unwrap();
        let left = screen.finish();
        let shown = rows(&left.screen);
        assert_eq!(left.code, Some(0), "{shown:#?}");
        assert!(!left.screen.hide_cursor());
        // Then what became of each, and nothing else.
        let outcome = |name: &String| format!("{name} reloaded, 2 workers ready");
        // This one takes two lines of the narrow screen.
        let (first, rest) = (outcome(&long), names[..30].iter().map(outcome));
        let (begin, end) = first.split_at(first.len().min(size.1.into()));
        let all: Vec<String> = [begin.to_owned(), end.to_owned()]
            .into_iter()
            .filter(|line| !line.is_empty())
            .chain(rest)
            .collect();
        let mut shown: Vec<String> = shown;
        while shown.last().is_some_and(String::is_empty) {
            shown.pop();
        }
        let seen = &all[all.len().saturating_sub(usize::from(size.0) - 1)..];
        assert_eq!(shown, seen);

        fs::remove_file(&go).unwrap();
        let screen =
            Screen::start(&home, size, &format!("exec {} reload {long} app-10", text(&supervisor())));
        screen.shows_what("two lines", |shown| {
            let lines: Vec<&str> = shown.lines().filter(|line| !line.is_empty()).collect();
            lines.len() == 2 && lines.iter().all(|line| line.contains(" reloading")) && shown.contains(&long)
        });
        fs::write(&go, "").unwrap();
        assert_eq!(screen.finish().code, Some(0));
    }
}

#[test]
fn a_release_that_fails_at_boot_replaces_nobody() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let before = home.pids("web");
    let bad = settings(&home, ", --say, 'no database', --exit-after, '0', --code, '3'");
    home.write_app("web", &bad.replace("50ms", "1h"));
    for command in ["reload", "start"] {
        let failed = home.ends(6, &[command, "app.yaml"]);
        assert!(failed.stderr.contains("web:0 failed: exited with code 3"), "{}", failed.stderr);
        assert!(failed.stderr.contains("no database"), "{}", failed.stderr);
        assert!(failed.stderr.contains("web rolled back"), "{}", failed.stderr);
        assert!(!failed.stderr.contains("runs on"), "{}", failed.stderr);
        assert_eq!(home.pids("web"), before);
        assert_eq!(home.app("web")["state"], "online");
        assert_eq!(home.app("web")["generation"], 1);
    }
    // It is forgotten: what crashes comes back as it was.
    process::signal(before[1], Signal::KILL);
    home.app_when("web", "has a replacement", |app| app["restarts"] == 1 && app["state"] == "online");
    home.get("/pid").unwrap();
}

#[test]
fn a_release_that_never_gets_ready_replaces_nobody() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let before = home.pids("web");
    home.write_app("web", &format!("{}\nready: notify\nlisten_timeout: 1s", settings(&home, "")));
    let failed = home.ends(6, &["reload", "app.yaml"]);
    assert!(failed.stderr.contains("not ready within 1s"), "{}", failed.stderr);
    assert_eq!(home.pids("web"), before);
}

#[test]
fn one_that_dies_soon_after_it_was_ready_replaces_nobody() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let before = home.pids("web");
    let bad = settings(&home, ", --ready-after, '1', --exit-after, '200'");
    home.write_app("web", &bad.replace("min_uptime: 50ms", "min_uptime: 1h\nready: notify"));
    home.ends(6, &["reload", "app.yaml"]);
    assert_eq!(home.pids("web"), before);
}

#[test]
fn what_has_been_replaced_goes_back_too() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let before = home.pids("web");
    // Who ends before it says that it is ready has failed, whenever that is.
    let script = "case $SUPERVISOR_INSTANCE$BAD in 1yes) exit 4;; esac; exec \"$0\" --ready-after 0";
    home.write_app(
        "web",
        &format!(
            "command: [sh, -c, '{script}', {}]\nenv: {{BAD: 'yes'}}\nmin_uptime: 50ms\nready: notify\ninstances: 2\nlisten: '{}'",
            text(&worker()),
            home.address()
        ),
    );
    let load = Load::start(home.address());
    let failed = home.ends(6, &["reload", "app.yaml"]);
    assert!(failed.stderr.contains("web:1 failed: exited with code 4"), "{}", failed.stderr);
    load.more(100);
    let web = home.app_in_state("web", "online");
    assert_eq!(web["generation"], 1);
    let after = pids(&web);
    assert_eq!(after[1], before[1]);
    assert_ne!(after[0], before[0]);
    let command = fs::read(process::path(after[0], "cmdline")).unwrap();
    assert!(command.starts_with(text(&worker()).as_bytes()));
    // The worker ends at once when it is asked, which is not what this is about.
    load.finish();
}

#[test]
fn where_two_cannot_live_side_by_side() {
    let home = Home::new();
    let settings = format!("{}\nmax_surge: 0", settings(&home, ""));
    home.start_app("web", &settings);
    let before = home.pids("web");
    let reloaded = home.ok(&["reload", "web"]);
    assert!(!reloaded.stderr.contains("takes over"), "{}", reloaded.stderr);
    let after = home.pids("web");
    assert!(after.iter().all(|pid| !before.contains(pid)));
    home.write_app("web", &settings.replace(text(&worker()), "/no/such/program"));
    let failed = home.ends(6, &["reload", "app.yaml"]);
    assert!(failed.stderr.contains("exec /no/such/program"), "{}", failed.stderr);
    let web = home.app_in_state("web", "online");
    assert_eq!(pids(&web)[1], after[1]);
    home.get("/pid").unwrap();
}

#[test]
fn the_number_of_workers_changes_with_the_release() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let more = settings(&home, "").replace("instances: 2", "instances: 3\nenv: {A: b}");
    home.write_app("web", &more);
    home.ok(&["reload", "app.yaml"]);
    assert_eq!(home.pids("web").len(), 3);
    let bad = settings(&home, ", --exit-after, '0', --code, '1'").replace("instances: 2", "instances: 1");
    home.write_app("web", &bad.replace("50ms", "1h"));
    home.ends(6, &["reload", "app.yaml"]);
    assert_eq!(home.pids("web").len(), 3);
    home.write_app("web", &settings(&home, "").replace("instances: 2", "instances: 1"));
    home.ok(&["reload", "app.yaml"]);
    assert_eq!(home.pids("web").len(), 1);
}

#[test]
fn what_is_stopped_stays_stopped() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("web", &settings(&home, "")), ("off", &sleep())]);
    home.ok(&["start", "app.yaml"]);
    home.ok(&["stop", "off", "web:1"]);
    home.ok(&["reload", "--all"]);
    assert_eq!(home.app("off")["state"], "stopped");
    assert_eq!(home.pids("web").len(), 1);
    let failed = home.ends(1, &["reload", "off"]);
    assert!(failed.stderr.contains("it is stopped"), "{}", failed.stderr);
    home.ends(2, &["reload", "web:0"]);
    home.ends(3, &["reload", "api"]);
}

#[test]
fn a_hangup_reloads() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let before = home.pids("web");
    let (keeper, master) = home.daemon();
    process::signal(keeper, Signal::HUP);
    home.app_when("web", "has other workers", |app| {
        app["state"] == "online" && pids(app).len() == 2 && pids(app).iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(home.daemon(), (keeper, master));
}

#[test]
fn stopping_ends_a_reload() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    home.write_app("web", &format!("{}\nready: notify", settings(&home, "")));
    home.ok(&["reload", "--no-wait", "app.yaml"]);
    home.app_in_state("web", "reloading");
    let busy = home.ends(5, &["reload", "web"]);
    assert!(busy.stderr.contains("another order"), "{}", busy.stderr);
    home.ends(5, &["stop", "web:1"]);
    home.ok(&["stop", "web"]);
    home.until_refused();
    assert!(home.pids("web").is_empty());
}

#[test]
fn a_master_that_dies_meanwhile_leaves_the_old_release() {
    let home = Home::new();
    home.start_app("web", &settings(&home, ""));
    let never_ready = "ready: notify\nlisten_timeout: 8s\nenv: {NEW: '1'}";
    home.write_app("web", &format!("{}\n{never_ready}", settings(&home, "")));
    home.ok(&["reload", "--no-wait", "app.yaml"]);
    home.app_when("web", "has a successor", |app| pids(app).len() == 3);
    let (_, master) = home.daemon();
    process::kill_and_wait(master);
    // It waits for the next one.
    home.ok(&["ping"]);
    let web = home.app_in_state("web", "online");
    assert_eq!((pids(&web).len(), &web["generation"]), (2, &1.into()));
    home.get("/pid").unwrap();
}

#[test]
fn nobody_waits_for_a_slot_that_is_backing_off() {
    let home = Home::new();
    // Nobody is ready without this file.
    let go = home.write("go", "");
    let check =
        format!("ready_check: {{command: [test, -e, {}], timeout: 10s}}\nlisten_timeout: 10m", text(&go));
    let settings = settings(&home, "").replace("50ms", "1ms");
    home.start_app("web", &format!("{settings}\nrestart_delay: 60s\n{check}"));
    let pids = home.pids("web");
    fs::remove_file(&go).unwrap();
    process::kill_and_wait(pids[1]);
    // The replacement of a stable life comes at once, and dies too early.
    let second =
        eventually("a replacement", || home.pids("web").get(1).copied().filter(|pid| *pid != pids[1]));
    process::kill_and_wait(second);
    home.app_when("web", "is backing off", |app| app["workers"][1]["state"] == "backoff");
    for _ in 0..50 {
        assert_eq!(home.get("/slot").unwrap(), "0");
    }
    assert_eq!(home.app("web")["workers"][1]["in_rotation"], false);
}

#[test]
fn fewer_slots_lose_nothing() {
    let home = Home::new();
    let (node, server) = (installed("node"), fixture("server.js"));
    let address = home.address();
    home.start_app(
        "web",
        &format!(
            "command: [{}, {}]\ninstances: 4\nmin_uptime: 100ms\nlisten: '{address}'",
            text(&node),
            text(&server)
        ),
    );
    let load = Load::with_clients(address, 32);
    load.more(100);
    home.ok(&["scale", "web", "-1"]);
    load.more(100);
    home.ok(&["stop", "web:1"]);
    load.more(100);
    home.ok(&["scale", "web", "1"]);
    load.more(100);
    assert_eq!(load.finish(), Vec::<String>::new());
}
