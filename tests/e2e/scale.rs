//! `scale`.

use crate::harness::{Home, text};
use crate::process;
use crate::programs::worker;
use crate::wait::until;

#[test]
fn up_and_down() {
    let home = Home::new();
    home.start_app(
        "web",
        &format!(
            "command: [{}]\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'",
            text(&worker()),
            home.address()
        ),
    );
    let two = home.pids("web");
    home.ok(&["scale", "web", "+2"]);
    let four = home.pids("web");
    assert_eq!(four.len(), 4);
    assert_eq!(four[..2], two);
    until("every worker answers", || {
        let mut seen: Vec<String> = (0..64).filter_map(|_| home.get("/slot").ok()).collect();
        seen.sort();
        seen.dedup();
        seen == ["0", "1", "2", "3"]
    });
    home.ok(&["scale", "web", "-1"]);
    assert_eq!(home.pids("web"), four[..3]);
    assert!(!process::is_alive(four[3]));
    home.ok(&["scale", "web", "1"]);
    assert_eq!(home.pids("web"), four[..1]);
    assert_eq!(home.get("/slot").unwrap(), "0");
    home.ok(&["scale", "web", "0"]);
    assert!(home.pids("web").is_empty());
    home.until_refused();
    home.ok(&["scale", "web", "2"]);
    assert_eq!(home.pids("web").len(), 2);
    home.get("/pid").unwrap();
}

#[test]
fn numbers_that_make_no_sense() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1");
    home.ends(2, &["scale", "web", "-2"]);
    home.ends(2, &["scale", "web", "many"]);
    home.ends(3, &["scale", "api", "2"]);
    // More than there are descriptors for: the numbers are told.
    let failed = home.ends(5, &["scale", "web", "4000000"]);
    assert!(failed.stderr.contains("descriptors"), "{}", failed.stderr);
    assert_eq!(home.pids("web").len(), 1);
}
