//! Workers that end by themselves.

use std::time::Duration;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, pids, text};
use crate::process;
use crate::programs::worker;
use crate::wait::{eventually, until};

/// Lives of `web:0` that the daemon's log tells the end of, and what came then.
fn endings(home: &Home) -> Vec<String> {
    let log = home.daemon_log();
    log.lines()
        .filter_map(|line| Some(line.split_once("web:0: ")?.1))
        .filter_map(|detail| Some(detail.split_once("; ")?.1.to_owned()))
        .collect()
}

/// The pause that `starting again in 52ms` tells of.
fn pause(text: &str) -> Option<Duration> {
    let text = text.strip_prefix("starting again in ")?;
    if let Some(millis) = text.strip_suffix("ms") {
        return Some(Duration::from_millis(millis.parse().ok()?));
    }
    Some(Duration::from_secs_f64(text.strip_suffix('s')?.parse().ok()?))
}

#[test]
fn pauses_grow_until_the_breaker_opens() {
    let home = Home::new();
    home.write_app(
        "web",
        &format!(
            "command: [{}, --exit-after, '5', --code, '7']
            instances: 1
            listen: '{}'
            min_uptime: 1h
            restart_delay: 40ms
            max_restarts: 6
            breaker_retry: 500ms",
            text(&worker()),
            home.address()
        ),
    );
    home.ends(1, &["start", "app.yaml"]);
    let app = home.app_in_state("web", "errored");
    let slot = &app["workers"][0];
    assert_eq!(slot["state"], "errored");
    assert_eq!(slot["last_exit"]["code"], 7);
    assert_eq!(slot["last_exit"]["signal"], serde_json::Value::Null);
    assert_eq!(app["reason"], "exited with code 7");
    home.until_refused();

    // No life counts as stable, however long it takes. Five pauses of 40 ms times two to the power of n, each up to a fifth off.
    let endings = eventually("six lives are told of", || {
        let endings = endings(&home);
        (endings.len() >= 6).then_some(endings)
    });
    for (n, text) in (0..).zip(&endings[..5]) {
        let middle = Duration::from_millis(40) * 2_u32.pow(n);
        let pause = pause(text).unwrap_or_else(|| panic!("no pause in {text:?}"));
        // The log leaves out what is less than a millisecond.
        let slack = Duration::from_millis(1);
        assert!(pause + slack >= middle * 4 / 5 && pause <= middle * 6 / 5, "pause {n} is {pause:?}");
    }
    assert_eq!(endings[5], "failed too often, next try within 500ms");

    // Half open: one life every `breaker_retry`.
    let before = app["restarts"].as_u64().unwrap();
    home.app_when("web", "is tried again", |app| app["restarts"].as_u64().unwrap() >= before + 2);
    home.app_in_state("web", "errored");
}

#[test]
fn a_try_that_succeeds_closes_the_breaker() {
    let home = Home::new();
    home.write_app(
        "web",
        &format!(
            "command: [sh, -c, 'test -e repaired || exit 9; exec {} --ready-after 0']
            instances: 2
            listen: '{}'
            ready: notify
            min_uptime: 50ms
            restart_delay: 10ms
            max_restarts: 2
            breaker_retry: 300ms",
            text(&worker()),
            home.address()
        ),
    );
    home.ends(1, &["start", "app.yaml"]);
    home.app_in_state("web", "errored");
    home.write("repaired", "");
    let app = home.app_in_state("web", "online");
    assert_eq!(app["instances"]["ready"], 2);
    home.get("/pid").unwrap();
}

#[test]
fn a_person_closes_the_breaker_too() {
    let home = Home::new();
    home.write_app(
        "web",
        &format!(
            "command: [sh, -c, 'test -e repaired || exit 9; exec {} --ready-after 0']
            instances: 1
            ready: notify
            min_uptime: 50ms
            restart_delay: 10ms
            max_restarts: 2
            breaker_retry: 0",
            text(&worker())
        ),
    );
    home.ends(1, &["start", "app.yaml"]);
    home.app_in_state("web", "errored");
    home.write("repaired", "");
    home.ok(&["start", "web"]);
    home.app_in_state("web", "online");
}

#[test]
fn a_stable_worker_is_replaced_at_once() {
    let home = Home::new();
    // A pause would never end within the test.
    home.start_app("web", "command: [sleep, '600']\ninstances: 2\nmin_uptime: 50ms\nrestart_delay: 10m");
    let before = home.pids("web");
    process::signal(before[0], Signal::ABRT);
    let app = home.app_when("web", "has a replacement", |app| {
        app["state"] == "online" && pids(app).first() != before.first()
    });
    assert_eq!(pids(&app)[1], before[1]);
    assert_eq!(app["restarts"], 1);
    assert_eq!(app["workers"][0]["restarts"], 1);
    assert_eq!(app["workers"][1]["restarts"], 0);
    let exit = &app["workers"][0]["last_exit"];
    assert_eq!(exit["signal"], "SIGABRT");
    assert_eq!(exit["code"], serde_json::Value::Null);
    assert_eq!(exit["reason"], "killed by SIGABRT");
    let at = exit["at"].as_str().unwrap();
    assert!(at.len() >= 20 && at.contains('T') && at.ends_with('Z'), "{at} is no RFC 3339 time in UTC");
    assert_eq!(app["workers"][1]["last_exit"], serde_json::Value::Null);
}

#[test]
fn what_a_crashed_worker_leaves_in_its_group_is_killed() {
    let home = Home::new();
    let command = format!("command: [{}, --grandchildren, '2']", text(&worker()));
    home.start_app("web", &format!("{command}\nmin_uptime: 50ms\ninstances: 1"));
    let worker = home.pids("web")[0];
    // One stays in the group, the other leaves it.
    let (stays, leaves) = eventually("both have started", || {
        let (stay, leave): (Vec<_>, Vec<_>) =
            process::children(worker).into_iter().partition(|child| process::group(*child) == Some(worker));
        (stay.len() == 1 && leave.len() == 1).then(|| (stay[0], leave[0]))
    });
    process::signal(worker, Signal::KILL);
    until("who stayed is gone", || !process::is_alive(stays));
    // Nothing that lives on by its own will is killed by guess.
    assert!(process::is_alive(leaves));
    process::kill(leaves);
}

#[test]
fn it_may_end_for_good() {
    let home = Home::new();
    let done = home.start_app("job", "command: [sh, -c, exit 0]\ninstances: 1\nautorestart: false");
    assert!(done.stderr.contains("stays stopped"), "{}", done.stderr);
    let app = home.app_in_state("job", "stopped");
    assert_eq!(app["workers"][0]["last_exit"]["code"], 0);
    assert_eq!(app["restarts"], 0);

    home.write_app("other", "command: [sh, -c, exit 42]\ninstances: 1\nstop_exit_codes: [0, 42]");
    home.ok(&["start", "app.yaml"]);
    let app = home.app_in_state("other", "stopped");
    assert_eq!(app["workers"][0]["last_exit"]["reason"], "exited with code 42");
}

#[test]
fn many_lives_leave_nothing_behind() {
    let home = Home::new();
    home.start_app(
        "web",
        &format!(
            "command: [{}]\ninstances: 2\nmin_uptime: 1ms\nlisten: '{}'",
            text(&worker()),
            home.address()
        ),
    );
    let (keeper, master) = home.daemon();
    let count = |pid| std::fs::read_dir(process::path(pid, "fd")).unwrap().count();
    let all = || (count(keeper), count(master));
    let mut restarts = 0;
    let mut crash = |times: usize| {
        for _ in 0..times {
            process::signal(home.pids("web")[0], Signal::KILL);
            restarts += 1;
            home.app_when("web", "has a replacement", |app| {
                app["restarts"] == restarts && app["state"] == "online"
            });
        }
    };
    crash(2);
    // Looking at a worker takes descriptors, too.
    home.app_when("web", "has been looked at", |app| {
        app["workers"].as_array().unwrap().iter().all(|worker| worker["cpu_percent"].is_number())
    });
    let before = all();
    crash(20);
    // The last life's pipes may be on their way out, and may have been then.
    until("there are no more descriptors than before", || {
        let (keeper, master) = all();
        keeper <= before.0 && master <= before.1
    });
    until("the master and two workers are left", || process::descendants(keeper).len() == 3);
}

#[test]
fn restarts_are_counted_anew() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 1ms\ninstances: 2");
    process::signal(home.pids("web")[1], Signal::KILL);
    home.app_when("web", "has a replacement", |app| app["restarts"] == 1 && app["state"] == "online");
    let reset = home.ok(&["reset", "web:1"]);
    assert!(reset.stderr.contains("restarts of 1 slot are counted from 0 again"), "{}", reset.stderr);
    let web = home.app("web");
    assert_eq!((&web["restarts"], &web["workers"][1]["restarts"]), (&0.into(), &0.into()));
    // How it ended is known all the same.
    assert_eq!(web["workers"][1]["last_exit"]["signal"], "SIGKILL");
    home.ends(3, &["reset", "api"]);
}
