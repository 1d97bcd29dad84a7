//! Reloads at times that recur.

use serde_json::Value;

use crate::harness::{Home, pids};
use crate::programs::worker;
use crate::wait::until;

/// Each second.
const OFTEN: &str = "cron_restart: '* * * * * *'";

fn generation(app: &Value) -> u64 {
    app["generation"].as_u64().unwrap()
}

#[test]
fn an_app_is_reloaded_and_what_is_stopped_stays_so() {
    let home = Home::new();
    let command = format!("command: {}\nmin_uptime: 50ms\n{OFTEN}", worker().display());
    home.write_apps(
        "app.yaml",
        &[
            ("web", &format!("{command}\ninstances: 2\nlisten: '{}'", home.address())),
            ("half", &format!("{command}\ninstances: 2\nlisten: '{}'", home.second_address())),
            ("stopped", &format!("{command}\ninstances: 1\nautostart: false")),
        ],
    );
    home.ok(&["start", "app.yaml"]);
    let before = home.pids("web");
    // The reload of a moment may be under way.
    until("a slot is stopped", || home.run(&["stop", "half:1"]).code == Some(0));
    for name in ["web", "half"] {
        home.app_when(name, "was reloaded a few times", |app| generation(app) >= 4);
    }
    assert!(home.pids("web").iter().all(|pid| !before.contains(pid)));
    home.until_logged("web: reloading it: the time of its cron_restart has come");
    let half = home.app("half");
    // A worker beside the one of slot 0 is listed as well.
    let last = half["workers"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["slot"], &last["state"]), (&1.into(), &"stopped".into()), "{half:#}");
    assert_eq!(generation(&home.app("stopped")), 1);
    assert_eq!(home.app("stopped")["state"], "stopped");

    until("all of it is stopped", || home.run(&["stop", "half"]).code == Some(0));
    let stopped = generation(&home.app("half"));
    let more = generation(&home.app("web")) + 2;
    home.app_when("web", "goes on", |app| generation(app) >= more);
    assert_eq!(generation(&home.app("half")), stopped);
    assert_eq!(pids(&home.app("half")), [0; 0]);
}

#[test]
fn a_job_runs_each_time() {
    let home = Home::new();
    let job =
        format!("command: [sh, -c, 'echo ran']\ninstances: 1\nautorestart: false\nout_file: ran\n{OFTEN}");
    home.start_app("job", &job);
    until("it has run three times", || {
        std::fs::read_to_string(home.path("ran")).is_ok_and(|ran| ran.lines().count() >= 3)
    });
}

#[test]
fn a_worker_that_fails_does_not_take_the_place_of_one_that_serves() {
    let home = Home::new();
    // Only the first one finds the file.
    let script = format!("rm first && exec {} --ready-after 1", worker().display());
    let app = format!(
        "command: [sh, -c, '{script}']\ninstances: 1\nready: notify\nlisten: '{}'\n{OFTEN}",
        home.address()
    );
    home.write("first", "");
    home.start_app("web", &app);
    let before = home.pids("web");
    home.until_logged("rolled back");
    let app = home.app_in_state("web", "online");
    assert_eq!(pids(&app), before);
    assert_eq!(generation(&app), 1);
}
