//! `supervisor events`: what happens, as it happens.

use serde_json::Value;

use crate::follow::Follow;
use crate::harness::{Home, number};
use crate::process;

/// An app of two workers that do nothing.
fn start(home: &Home) {
    home.start_app("web", "command: [sleep, '600']\ninstances: 2\nmin_uptime: 50ms\nkill_timeout: 1s");
}

#[test]
fn orders_crashes_and_failures_are_told() {
    let home = Home::new();
    start(&home);
    let events = Follow::events(&home, &["web"], "web");
    process::kill(home.pids("web")[1]);
    events.until("web:1 killed by SIGKILL; starting again at once");
    events.until("web:1 ready after");
    home.write_app("web", "command: [sh, -c, 'exit 3']\ninstances: 2\nmin_uptime: 1h");
    home.ends(6, &["reload", "app.yaml"]);
    events.until("web changes, 2 workers");
    let failed = events.until("rolled back");
    assert!(failed.contains("exited with code 3"), "{failed}");
    // Others are not its business.
    home.write_app("other", "command: [sleep, '600']\ninstances: 1\nmin_uptime: 50ms");
    home.ok(&["start", "app.yaml"]);
    home.ok(&["delete", "web"]);
    loop {
        let line = events.next();
        assert!(!line.contains("other"), "{line}");
        if line.contains("web is deleted") {
            break;
        }
    }
    assert_eq!(events.interrupt().code, Some(0));
}

#[test]
fn as_json_and_to_the_end() {
    let home = Home::new();
    start(&home);
    let events = Follow::events(&home, &["--json"], "web");
    let pid = home.pids("web")[0];
    process::kill_and_wait(pid);
    events.until(r#""killed by SIGKILL"#);
    let ready: Value = serde_json::from_str(&events.until(r#""state":"ready""#)).unwrap();
    assert_eq!(ready["event"], "worker");
    assert_ne!(number(&ready["pid"]), pid);
    assert!(ready["at"].as_str().unwrap().ends_with('Z'), "{ready}");
    home.ok(&["kill"]);
    events.until("ending all workers");
    assert_eq!(events.finish().code, Some(1));
    home.ends(4, &["events"]);
}
