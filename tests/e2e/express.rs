//! The channel in an Express app whose handlers know nothing of it.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::{Home, pids, text};
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, node_packages};
use crate::wait::until;

/// By sender: the numbers of its messages that a worker got.
fn evicted(home: &Home, pid: Number) -> BTreeMap<Number, Vec<u64>> {
    let mut all: BTreeMap<Number, Vec<u64>> = BTreeMap::new();
    let lines = fs::read_to_string(home.path(&format!("evicted-{pid}"))).unwrap_or_default();
    // The last one may be on its way.
    for line in lines.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let (from, n) = numbers(line);
        all.entry(from).or_default().push(n);
    }
    all
}

/// A sender and a number.
fn numbers(text: &str) -> (Number, u64) {
    let (from, n) = text.split_once(' ').unwrap();
    (from.parse().unwrap(), n.parse().unwrap())
}

/// Asks until each of these workers has sent something, and waits until each
/// other one has all that it has sent.
fn all_know_all(home: &Home, workers: &[Number]) {
    let mut last = BTreeMap::new();
    until("each has answered", || {
        let (from, n) = numbers(&home.get("/pid").unwrap());
        last.insert(from, n);
        workers.iter().all(|pid| last.contains_key(pid))
    });
    for (from, n) in last {
        for to in workers.iter().filter(|to| **to != from) {
            until("the last has come", || {
                evicted(home, *to).get(&from).and_then(|got| got.last().copied()) >= Some(n)
            });
        }
    }
}

#[test]
fn unmodified_handlers_through_a_crash_and_a_reload() {
    let home = Home::new();
    let address = home.address();
    let settings = format!(
        "command: [{}, {}]
        cwd: {}
        instances: 4
        min_uptime: 100ms
        ready: listen
        env: {{HOST: {:?}, PORT: {}, NODE_PATH: {}}}",
        text(&installed("node")),
        text(&fixture("express.js")),
        text(&home.path("")),
        address.ip().to_string(),
        address.port(),
        text(&node_packages()),
    );
    home.start_app("web", &settings);
    let old = home.pids("web");
    let mut all = old.clone();
    all_know_all(&home, &old);
    for pid in &old {
        let got = evicted(&home, *pid);
        assert!(got.len() == 3 && got.values().all(|numbers| numbers[0] == 0), "{pid} got {got:?}");
    }

    let load = Load::start(address);
    load.more(200);
    process::kill(old[2]);
    let app = home.app_when("web", "has another", |app| {
        app["state"] == "online" && pids(app).len() == 4 && !pids(app).contains(&old[2])
    });
    all.push(pids(&app)[2]);
    load.more(200);
    home.ok(&["reload", "web"]);
    let new = home.pids("web");
    assert!(new.iter().all(|pid| !all.contains(pid)), "{new:?}");
    all.extend(&new);
    load.more(200);
    let failures = load.finish();
    assert!(failures.len() <= 4, "more than the killed one was answering: {failures:?}");

    all_know_all(&home, &new);
    for pid in all {
        for (from, got) in evicted(&home, pid) {
            assert_ne!(from, pid, "nobody hears itself");
            let gap = got.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(gap, None, "each once and in order, from {from} to {pid}");
        }
    }
}
