//! A master that is killed is replaced by one that takes everything over: the
//! workers do not notice, and neither do clients.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, number, pids, text};
use crate::http;
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, worker};
use crate::wait::{eventually, until};

/// How often masters are killed: more, to look longer.
pub(crate) fn kills() -> usize {
    std::env::var("SUPERVISOR_TEST_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(10)
}

/// Settings of workers with these flags, at [`Home::address`].
fn settings(home: &Home, instances: u32, flags: &str) -> String {
    format!(
        "command: [{}{flags}]\nmin_uptime: 50ms\ninstances: {instances}\nlisten: '{}'",
        text(&worker()),
        home.address()
    )
}

/// Settings of a Node program that binds [`Home::second_address`] for itself.
fn binding(home: &Home) -> String {
    let (node, server) = (installed("node"), fixture("bind/server.js"));
    let address = home.second_address();
    format!(
        "command: [{}, {}]\nmin_uptime: 100ms\ninstances: 2\nkill_timeout: 1s\nenv: {{HOST: {}, PORT: '{}'}}",
        text(&node),
        text(&server),
        address.ip(),
        address.port()
    )
}

/// Kills the master and waits for the next one.
#[track_caller]
pub(crate) fn replace_master(home: &Home) {
    let (keeper, master) = home.daemon();
    process::kill_and_wait(master);
    until_replaced(home, keeper, master);
}

#[track_caller]
fn until_replaced(home: &Home, keeper: Number, master: Number) {
    home.app_when("web", "is known to another master", |_| true);
    let now = eventually("another master", || Some(home.daemon()).filter(|now| now.1 != master));
    assert_eq!(now.0, keeper);
}

/// The number of open descriptors of a process.
fn descriptors(pid: Number) -> usize {
    fs::read_dir(process::path(pid, "fd")).unwrap().count()
}

fn is_new(app: &Value, before: &[Number]) -> bool {
    app["state"] == "online" && pids(app).iter().all(|pid| !before.contains(pid))
}

#[test]
fn nobody_notices() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("web", &settings(&home, 2, "")), ("node", &binding(&home))]);
    home.ok(&["start", "app.yaml"]);
    until("the program listens", || http::get(home.second_address(), "/").is_ok());
    let loads = [home.address(), home.second_address()].map(|address| Load::with_clients(address, 4));
    let known = || (home.pids("web"), home.pids("node"));
    let before = known();
    let keeper = home.daemon().0;
    replace_master(&home);
    let open = |pids: &[Number]| pids.iter().copied().map(descriptors).collect::<Vec<_>>();
    let counts = || open(&[&[keeper][..], &before.1].concat());
    let first = eventually("descriptors", || Some(counts()));
    for round in 0..kills() {
        loads.iter().for_each(|load| load.more(20));
        let word = format!("word-{round}");
        home.get(&format!("/out?{word}")).unwrap();
        replace_master(&home);
        assert_eq!(known(), before);
        home.get(&format!("/out?{word}-after")).unwrap();
    }
    for app in [home.app("web"), home.app("node")] {
        assert_eq!(
            (&app["state"], &app["restarts"], &app["generation"]),
            (&"online".into(), &0.into(), &1.into())
        );
        assert_eq!(app["listeners"][0]["policy"], "random", "{app:#}");
    }
    for load in loads {
        assert_eq!(load.finish(), Vec::<String>::new());
    }
    // What was written while nobody read is there, too.
    let log = || home.log("web-out-0.log") + &home.log("web-out-1.log");
    for round in 0..kills() {
        until("the last lines are there", || log().contains(&format!("word-{round}-after\n")));
    }
    // A client's connection, and a packet under way, may be open at this moment.
    until("nothing is left open", || counts().iter().zip(&first).all(|(now, then)| *now <= then + 8));
}

#[test]
fn reloads_crashes_and_scaling_go_on() {
    let home = Home::new();
    home.write_apps("app.yaml", &[("web", &settings(&home, 3, "")), ("node", &binding(&home))]);
    home.ok(&["start", "app.yaml"]);
    until("the program listens", || http::get(home.second_address(), "/").is_ok());
    let loads = [home.address(), home.second_address()].map(|address| Load::with_clients(address, 4));
    let mut killed = 0;
    for round in 0..kills() {
        loads.iter().for_each(|load| load.more(10));
        let order: &[&str] = match round % 4 {
            0 => &["reload", "web"],
            1 => &["scale", "web", "4"],
            2 => &["reload", "node"],
            _ => &["scale", "web", "3"],
        };
        let order = home.command(order).spawn().unwrap();
        if round % 2 == 1 {
            killed += 1;
            process::signal(home.pids("web")[0], Signal::KILL);
        }
        replace_master(&home);
        // Whoever ordered it is told how it ended. What is killed may spoil it.
        let told = finish(order);
        assert!(told.code == Some(0) || round % 2 == 1, "{told:?}");
        let wanted = home.app("web")["instances"]["wanted"].clone();
        home.app_when("web", "is as it should be", |app| {
            app["state"] == "online" && pids(app).len() == app["instances"]["wanted"]
        });
        assert!(wanted == 3 || wanted == 4, "{wanted}");
        home.app_in_state("node", "online");
    }
    let failures: Vec<String> = loads.into_iter().flat_map(Load::finish).collect();
    // What a killed worker was answering is lost with it.
    assert!(failures.len() <= killed * 4, "{killed} were killed: {failures:?}");
    assert!(failures.iter().all(|failure| !failure.contains("refused")), "{failures:?}");
}

#[test]
fn a_reload_is_finished_by_the_next_master() {
    let home = Home::new();
    home.write("check.sh", "test -e go-$SUPERVISOR_INSTANCE");
    let go = |slot: u32| home.write(&format!("go-{slot}"), "");
    (0..3).for_each(|slot| _ = go(slot));
    let check = "ready_check: {command: sh check.sh, interval: 50ms, timeout: 10s}\nlisten_timeout: 10m";
    home.start_app("web", &format!("{}\n{check}", settings(&home, 3, "")));
    let before = home.pids("web");
    let load = Load::start(home.address());
    // The second one waits until it may go on.
    fs::remove_file(home.path("go-1")).unwrap();
    let reload = home.command(&["reload", "web"]).spawn().unwrap();
    home.app_when("web", "is half-way", |app| app["workers"][0]["generation"] == 2);
    replace_master(&home);
    assert_eq!(home.app("web")["state"], "reloading");
    go(1);
    let app = home.app_when("web", "is reloaded", |app| is_new(app, &before));
    assert_eq!((&app["generation"], &app["restarts"]), (&2.into(), &0.into()));
    load.more(20);
    assert_eq!(load.finish(), Vec::<String>::new());
    let reload = finish(reload);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    assert_eq!(reload.stderr.matches("web:1 starting").count(), 1, "{reload:?}");
    assert!(reload.stderr.contains("web reloaded, 3 workers ready"), "{reload:?}");
    home.until_logged("web: the order that was under way goes on");
    let done = "web: the reload to generation 2, which an earlier master began, is done";
    home.until_logged(done);
    let last = &home.app("web")["last_order"];
    assert_eq!((&last["outcome"], &last["by_next_master"]), (&"done".into(), &true.into()), "{last:#}");
    let described = home.ok(&["describe", "web"]).stdout;
    assert!(described.contains("reload to generation 2 done by the next master"), "{described}");
    // Its settings are there to stay.
    replace_master(&home);
    assert_eq!(home.app("web")["generation"], 2);
    home.ok(&["reload", "web"]);
    assert_eq!(home.app("web")["generation"], 3);
}

#[test]
fn a_bad_release_is_rolled_back_by_the_next_master() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2, ""));
    let before = home.pids("web");
    let load = Load::start(home.address());
    // The release looks good until it is told to fail.
    let bad =
        "command: [sh, -c, 'until test -e fail; do sleep 0.02; done; exit 3']\ninstances: 2\nmin_uptime: 1h";
    home.write_app("web", &format!("{bad}\nlisten: '{}'", home.address()));
    let reload = home.command(&["start", "app.yaml"]).spawn().unwrap();
    home.app_when("web", "has a successor", |app| pids(app).len() == 3);
    replace_master(&home);
    home.write("fail", "");
    home.until_logged("rolled back");
    let app = home.app_in_state("web", "online");
    assert_eq!((&app["generation"], pids(&app)), (&1.into(), before));
    load.more(20);
    assert_eq!(load.finish(), Vec::<String>::new());
    let reload = finish(reload);
    assert_eq!(reload.code, Some(6), "{reload:?}");
    assert_eq!(reload.stderr.matches(" failed: ").count(), 1, "{reload:?}");
    // Nothing is left of the release, but that it was.
    replace_master(&home);
    assert_eq!(home.app("web")["generation"], 1);
    let reason = home.app("web")["reason"].as_str().unwrap().to_owned();
    let told = "the change to generation 2 was rolled back by the next master: ";
    assert!(reason.starts_with(told), "{reason}");
    assert_eq!(home.app("web")["state"], "online");
}

/// No master is there while this is done.
#[track_caller]
pub(crate) fn without_a_master(home: &Home, act: impl FnOnce()) {
    let (keeper, master) = home.daemon();
    process::stop_and_wait(keeper);
    process::kill_and_wait(master);
    act();
    process::signal(keeper, Signal::CONT);
    until_replaced(home, keeper, master);
}

#[test]
fn who_ends_without_a_master_is_replaced() {
    let home = Home::new();
    home.start_app("web", &settings(&home, 2, ""));
    let before = home.pids("web");
    let mut gone = 0;
    without_a_master(&home, || {
        // The one who answers ends.
        gone = home.get("/pid").unwrap().parse().unwrap();
        process::kill_and_wait(gone);
    });
    let slot = before.iter().position(|pid| *pid == gone).unwrap();
    let app = home.app_when("web", "has another worker, and tells how it ended", |app| {
        app["state"] == "online"
            && !pids(app).contains(&gone)
            && app["workers"][slot]["last_exit"]["signal"] == "SIGKILL"
    });
    assert_eq!(app["restarts"], 1, "{app:#}");
    assert_eq!(pids(&app)[1 - slot], before[1 - slot]);

    // The next one's end is told by the keeper, too.
    let other = before[1 - slot];
    while home.get("/pid").unwrap() != other.to_string() {}
    until("it has been asked", || {
        let _ = http::get(home.address(), "/exit?7");
        !process::is_alive(other)
    });
    home.app_when("web", "tells how it ended", |app| {
        app["workers"][1 - slot]["last_exit"]["code"] == 7 && app["state"] == "online"
    });
}

#[test]
fn a_bind_waits_for_the_next_master() {
    let home = Home::new();
    let (node, go) = (installed("node"), home.path("go"));
    let address = home.address();
    let script = format!(
        "const look = setInterval(() => {{ if (!require('fs').existsSync('{}')) return; clearInterval(look); \
         require('http').createServer((q, r) => r.end(String(process.pid))).listen({}, '{}'); }}, 20)",
        text(&go),
        address.port(),
        address.ip()
    );
    let script = home.write("late.js", &script);
    home.start_app(
        "web",
        &format!("command: [{}, {}]\nmin_uptime: 100ms\ninstances: 2", text(&node), text(&script)),
    );
    let before = home.pids("web");
    without_a_master(&home, || {
        home.write("go", "");
        let in_bind = |pid: Number| {
            let call = fs::read_to_string(process::path(pid, "syscall")).unwrap_or_default();
            call.starts_with("49 ") || call.starts_with("200 ")
        };
        until("they wait in bind", || before.iter().all(|pid| in_bind(*pid)));
    });
    until("they listen", || home.get("/").is_ok());
    let app = home.app_when("web", "shares its address", |app| app["listeners"][0]["policy"] == "random");
    assert_eq!(pids(&app), before);
}

/// Settings of workers that end when they are killed, and no sooner.
fn deaf(home: &Home) -> String {
    settings(home, 2, ", --ignore-term, --ready-after, '0'") + "\nready: notify\nkill_timeout: 10m"
}

#[test]
fn a_shutdown_goes_on() {
    let home = Home::new();
    home.start_app("web", &deaf(&home));
    let (keeper, master) = home.daemon();
    let (all, workers) = (process::descendants(keeper), home.pids("web"));
    let kill = home.command(&["kill"]).spawn().unwrap();
    home.app_in_state("web", "stopping");
    process::kill_and_wait(master);
    // The next one waits for them as well.
    home.app_in_state("web", "stopping");
    workers.into_iter().for_each(process::kill);
    let kill = finish(kill);
    assert_eq!(kill.code, Some(0), "{kill:?}");
    until("all are gone", || all.iter().chain([&keeper]).all(|pid| !process::is_alive(*pid)));
}

#[test]
fn a_deletion_goes_on() {
    let home = Home::new();
    let web = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1";
    home.write_apps("app.yaml", &[("slow", &deaf(&home)), ("web", web)]);
    home.ok(&["start", "app.yaml"]);
    let slow = home.pids("slow");
    let delete = home.command(&["delete", "slow"]).spawn().unwrap();
    home.app_in_state("slow", "stopping");
    replace_master(&home);
    home.app_in_state("slow", "stopping");
    slow.into_iter().for_each(process::kill);
    let delete = finish(delete);
    assert_eq!(delete.code, Some(0), "{delete:?}");
    until("it is gone", || home.status()["apps"].as_array().unwrap().len() == 1);
    home.until_refused();
}

/// What an order is tried out with, and what must be so in the end.
struct Step {
    order: &'static [&'static str],
    /// How many workers there are then.
    workers: usize,
}

/// The process that answers clients.
type Asked<'a> = &'a dyn Fn() -> Option<Number>;

fn asked(address: std::net::SocketAddr) -> Option<Number> {
    http::get(address, "/pid").ok()?.parse().ok()
}

/// Every how many steps a master dies: 1 tries each of them.
fn stride() -> usize {
    std::env::var("SUPERVISOR_TEST_STRIDE").ok().and_then(|number| number.parse().ok()).unwrap_or(9)
}

/// Has the master die at each step of orders in turn, and looks at what became
/// of them.
#[track_caller]
fn die_at_each_step(home: &Home, ask: Asked<'_>, order: &Step, back: Option<&Step>, first: usize) {
    let fault = home.path("fault");
    let mut at = first;
    loop {
        fs::write(&fault, at.to_string()).unwrap();
        let given = home.run(order.order);
        let died = !fault.exists();
        let _ = fs::remove_file(&fault);
        assert_eq!(given.code, Some(0), "step {at} of {:?}: {given:?}", order.order);
        settle(home, ask, order.workers, at, order.order);
        if let Some(back) = back {
            home.ok(back.order);
            settle(home, ask, back.workers, at, back.order);
        }
        if !died {
            break;
        }
        at += stride();
    }
    assert!(at > first, "no step was met");
}

/// Waits until nothing is under way, and looks whether all is well: as many
/// processes as workers, each known, and all answer.
#[track_caller]
fn settle(home: &Home, ask: Asked<'_>, workers: usize, at: usize, order: &[&str]) {
    let app = home.app_when("web", &format!("is at rest (step {at} of {order:?})"), |app| {
        let running = pids(app).len();
        ["online", "stopped"].contains(&app["state"].as_str().unwrap())
            && app["instances"]["wanted"] == running
            && workers == running
    });
    let mut known = pids(&app);
    known.sort_unstable();
    let (keeper, master) = home.daemon();
    until(&format!("nobody is lost, doubled or left (step {at} of {order:?})"), || {
        let mut there: Vec<Number> =
            process::children(keeper).into_iter().chain(process::children(master)).collect();
        there.retain(|pid| *pid != master && process::is_alive(*pid));
        there.sort_unstable();
        there == known
    });
    if !known.is_empty() {
        let pid = ask().unwrap_or_else(|| panic!("nobody answers (step {at} of {order:?})"));
        assert!(known.contains(&pid), "step {at} of {order:?}");
    }
}

/// Runs an app in a daemon whose masters may be told to die.
#[track_caller]
fn run_mortal(home: &Home, settings: &str) -> Child {
    home.write_app("web", settings);
    let mut run = home.command(&["run", "app.yaml"]);
    let run = run.env("SUPERVISOR_FAULT", home.path("fault")).stdout(Stdio::null()).stderr(Stdio::null());
    let run = run.spawn().unwrap();
    home.app_in_state("web", "online");
    run
}

#[test]
fn a_master_may_die_at_any_step() {
    let home = Home::new();
    let run = run_mortal(&home, &(settings(&home, 2, "") + "\ndrain_timeout: 50ms"));
    let open = descriptors(home.daemon().0);
    let ask: Asked<'_> = &|| asked(home.address());
    let step = |order, workers| Step { order, workers };
    let back = step(&["start", "web"], 2);
    die_at_each_step(&home, ask, &step(&["reload", "web"], 2), None, 0);
    die_at_each_step(&home, ask, &step(&["stop", "web"], 0), Some(&back), 1);
    die_at_each_step(&home, ask, &step(&["restart", "web"], 2), None, 2);
    die_at_each_step(&home, ask, &step(&["scale", "web", "3"], 3), Some(&step(&["scale", "web", "2"], 2)), 3);
    die_at_each_step(&home, ask, &step(&["stop", "web", "--now"], 0), Some(&back), 4);
    let keeper = home.daemon().0;
    until("nothing is left open", || descriptors(keeper) <= open + 8);
    end(&home, run);
}

#[test]
fn a_master_may_die_at_any_step_of_a_capture() {
    let home = Home::new();
    let settings = binding(&home) + "\ndrain_timeout: 50ms";
    let run = run_mortal(&home, &settings);
    let address = home.second_address();
    until("the program listens", || http::get(address, "/").is_ok());
    let reload = Step { order: &["reload", "web"], workers: 2 };
    die_at_each_step(&home, &|| asked(address), &reload, None, 5);
    let app = home.app_in_state("web", "online");
    assert_eq!(app["listeners"][0]["policy"], "random", "{app:#}");
    assert_eq!(app["restarts"], 0, "{app:#}");
    end(&home, run);
}

#[test]
fn a_master_may_die_at_any_step_of_a_bind_at_a_path() {
    let home = Home::new();
    let socket = home.path("web.sock");
    let settings = format!(
        "command: {}\ninstances: 2\nmin_uptime: 100ms\nready: listen\ndrain_timeout: 50ms\nenv: {{SOCKET: {}}}",
        crate::paths::in_node(&home),
        text(&socket)
    );
    let run = run_mortal(&home, &settings);
    let ask: Asked<'_> = &|| crate::paths::asked(&socket);
    until("the program listens", || ask().is_some());
    let reload = Step { order: &["reload", "web"], workers: 2 };
    die_at_each_step(&home, ask, &reload, None, 6);
    let stop = Step { order: &["stop", "web", "--now"], workers: 0 };
    die_at_each_step(&home, ask, &stop, Some(&Step { order: &["start", "web"], workers: 2 }), 7);
    let app = home.app_in_state("web", "online");
    assert_eq!((&app["listeners"][0]["policy"], &app["restarts"]), (&"shared".into(), &0.into()), "{app:#}");
    end(&home, run);
    assert!(!socket.exists());
}

#[test]
fn a_master_may_die_at_any_step_of_a_canary() {
    let home = Home::new();
    let canary = "\ndrain_timeout: 3s\nreload: {mode: canary, steps: [50%, 100%], hold: 50ms}";
    let run = run_mortal(&home, &(settings(&home, 2, "") + canary));
    let load = Load::start(home.address());
    let reload = Step { order: &["reload", "web"], workers: 2 };
    die_at_each_step(&home, &|| asked(home.address()), &reload, None, 8);
    assert_eq!(home.app("web")["restarts"], 0);
    assert_eq!(load.finish(), Vec::<String>::new());
    end(&home, run);
}

#[track_caller]
fn end(home: &Home, run: Child) {
    home.ok(&["kill", "--now"]);
    assert_eq!(finish(run).code, Some(0));
}

#[test]
fn a_line_goes_on_where_it_was() {
    let home = Home::new();
    let script = "process.stdout.write('begun '); process.stdin.resume(); \
                  setInterval(() => { if (require('fs').existsSync(process.argv[2])) { console.log('ended'); process.exit(0) } }, 20)";
    let script = home.write("lines.js", script);
    let go = home.path("go");
    home.start_app(
        "web",
        &format!(
            "command: [{}, {}, {}]\nmin_uptime: 100ms\ninstances: 1\nautorestart: false",
            text(&installed("node")),
            text(&script),
            text(&go)
        ),
    );
    until("the beginning is written", || home.log("web-out-0.log").contains("begun "));
    replace_master(&home);
    fs::write(&go, "").unwrap();
    until("the end is written", || home.log("web-out-0.log") == "begun ended\n");
    assert_eq!(number(&home.app_in_state("web", "stopped")["restarts"]), 0);
}
