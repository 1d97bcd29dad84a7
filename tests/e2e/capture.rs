//! Programs that bind their addresses for themselves, unmodified: they share
//! them, and lose no connection when they crash or are replaced.

use std::io;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, text};
use crate::http;
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::{compile, fixture, in_python_environment, installed, supervisor, worker};
use crate::wait::{eventually, until};

/// Settings of a program that serves [`Home::address`].
fn settings(home: &Home, command: &str, more: &str) -> String {
    let address = home.address();
    format!(
        "command: {command}\ninstances: 2\nmin_uptime: 100ms\nkill_timeout: 1s\nhang_timeout: 10m\n\
         env: {{HOST: {}, PORT: '{}'}}\n{more}",
        address.ip(),
        address.port()
    )
}

fn node() -> String {
    format!("[{}, {}]", text(&installed("node")), text(&fixture("bind/server.js")))
}

fn python(script: &str) -> String {
    format!("[{}, {}]", text(&in_python_environment("python")), text(&fixture(script)))
}

/// Which worker an answer came from: the process that answered, or its parent.
fn asked(home: &Home, workers: &[Number]) -> Number {
    let pid: Number = eventually("an answer", || home.get("/").ok()?.trim().parse().ok());
    if workers.contains(&pid) { pid } else { process::parent(pid) }
}

/// Waits until each worker has answered. Until a worker listens, its siblings do.
#[track_caller]
fn all_answer(home: &Home) {
    let workers = home.pids("web");
    let mut missing = workers.clone();
    until("every worker has answered", || {
        let pid = asked(home, &workers);
        assert!(workers.contains(&pid), "{pid} is none of {workers:?}");
        missing.retain(|one| *one != pid);
        missing.is_empty()
    });
}

/// Two workers at one address, one of them killed, all replaced, all stopped.
#[track_caller]
fn check(home: &Home, command: &str, more: &str) {
    home.start_app("web", &settings(home, command, more));
    all_answer(home);
    let listeners = &home.app("web")["listeners"];
    assert_eq!(listeners[0]["address"], home.address().to_string());
    assert_eq!((&listeners[0]["origin"], &listeners[0]["policy"]), (&"captured".into(), &"random".into()));

    let pids = home.pids("web");
    process::signal(pids[1], Signal::KILL);
    home.app_when("web", "has a replacement", |app| {
        app["state"] == "online" && app["workers"][1]["pid"] != pids[1]
    });
    all_answer(home);

    let load = Load::start(home.address());
    load.more(20);
    home.ok(&["reload", "web"]);
    assert!(home.pids("web").iter().all(|pid| !pids.contains(pid)));
    load.more(20);
    assert_eq!(load.finish(), [""; 0]);
    all_answer(home);

    home.ok(&["stop", "web"]);
    home.until_refused();
    home.ok(&["start", "web"]);
    all_answer(home);
}

#[test]
fn a_node_server() {
    let home = Home::new();
    check(&home, &node(), "");
}

#[test]
fn a_python_server() {
    let home = Home::new();
    check(&home, &python("bind/server.py"), "");
}

#[test]
fn a_static_c_program() {
    let home = Home::new();
    let program = home.path("server");
    compile("bind/server.c", &program);
    check(&home, &format!("[{}]", text(&program)), "");
}

#[test]
fn a_server_of_several_paths() {
    let home = Home::new();
    check(&home, &python("bind/multipath.py"), "");
}

#[test]
fn a_program_behind_a_shell_as_another_user() {
    let home = Home::new();
    let program = home.path("server");
    compile("bind/server.c", &program);
    home.let_others_in();
    // The shell stays, and the program is its child.
    check(&home, &format!("[sh, -c, '{}; true']", text(&program)), "user: www-data");
}

#[test]
fn a_root_that_may_not_trace_captures_other_users() {
    let home = Home::new();
    home.write_app("first", "command: [sleep, '600']\nmin_uptime: 50ms");
    let mut limited = home.program(installed("setpriv"));
    limited.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]);
    let start = finish(limited.arg(supervisor()).args(["start", "app.yaml"]).spawn().unwrap());
    assert_eq!(start.code, Some(0), "{start:#?}");
    let program = home.path("server");
    compile("bind/server.c", &program);
    home.let_others_in();
    check(&home, &format!("[{}]", text(&program)), "user: www-data");
}

#[test]
fn slow_answers_outlive_a_reload_without_a_handler() {
    let home = Home::new();
    home.start_app("web", &settings(&home, &node(), ""));
    all_answer(&home);
    let slow: Vec<_> = (0..8).map(|_| http::send(home.address(), "/slow?1500").unwrap()).collect();
    home.ok(&["reload", "web"]);
    for client in slow {
        let pid: Number = http::receive(client).unwrap().trim().parse().unwrap();
        assert!(!process::is_alive(pid) || !home.pids("web").contains(&pid));
    }
}

#[test]
fn a_queue_is_answered_by_the_replacement() {
    let home = Home::new();
    let busy = home.write("busy", "");
    let settings = settings(&home, &python("bind/queue.py"), "").replace("instances: 2", "instances: 1");
    home.start_app("web", &settings.replace("env: {", &format!("env: {{BUSY: {}, ", text(&busy))));
    let connect = || http::send(home.address(), "/");
    let clients: Vec<_> = (0..5).map(|_| eventually("a connection", || connect().ok())).collect();
    let before = home.pids("web")[0];
    home.app_when("web", "has five waiting", |app| app["workers"][0]["queue"] == 5);
    // From now on it accepts nothing.
    process::stop_and_wait(before);
    std::fs::remove_file(&busy).unwrap();
    process::kill(before);
    let answers: Vec<String> = clients.into_iter().map(|client| http::receive(client).unwrap()).collect();
    let pid = home.app_in_state("web", "online")["workers"][0]["pid"].to_string();
    assert_eq!(answers, [pid.as_str(); 5]);
}

#[test]
fn a_queue_outlasts_a_replacement_that_does_not_listen() {
    let home = Home::new();
    let (busy, silent) = (home.write("busy", ""), home.path("silent"));
    // It takes its time to end, too.
    let (python, queue) = (in_python_environment("python"), fixture("bind/queue.py"));
    let wait = format!("while test -e {}; do sleep 0.02; done", text(&silent));
    let command = format!(r#"[sh, -c, "trap '' TERM; {wait}; exec {} {}"]"#, text(&python), text(&queue));
    let settings = settings(&home, &command, "ready: listen\nlisten_timeout: 5s")
        .replace("instances: 2", "instances: 1");
    home.start_app("web", &settings.replace("env: {", &format!("env: {{BUSY: {}, ", text(&busy))));
    let clients: Vec<_> =
        (0..5).map(|_| eventually("a connection", || http::send(home.address(), "/").ok())).collect();
    home.app_when("web", "has five waiting", |app| app["workers"][0]["queue"] == 5);
    home.write("silent", "");
    process::kill(home.pids("web")[0]);
    home.until_logged("not ready within 5s");
    for file in [busy, silent] {
        std::fs::remove_file(file).unwrap();
    }
    for client in clients {
        http::receive(client).unwrap();
    }
}

#[test]
fn a_queue_of_one_that_crashes_while_it_is_drained_is_answered() {
    let home = Home::new();
    let busy = home.write("busy", "");
    let settings = settings(&home, &python("bind/queue.py"), "");
    home.start_app("web", &settings.replace("env: {", &format!("env: {{BUSY: {}, ", text(&busy))));
    let [_, dies] = home.pids("web")[..] else { panic!("two workers") };
    let mut clients = Vec::new();
    until("both have queues", || {
        clients.extend(http::send(home.address(), "/"));
        let app = home.app("web");
        let queue = |slot: usize| app["workers"][slot]["queue"].as_u64().unwrap_or(0);
        queue(0) > 0 && queue(1) > 0
    });
    let scale = home.command(&["scale", "web", "1"]).spawn().unwrap();
    home.app_when("web", "drains", |app| app["workers"][1]["state"] == "draining");
    process::kill(dies);
    home.app_when("web", "has another", |app| {
        app["workers"][1]["pid"].as_u64().is_some_and(|pid| pid != u64::from(dies))
    });
    std::fs::remove_file(&busy).unwrap();
    for client in clients {
        http::receive(client).unwrap();
    }
    let scale = finish(scale);
    assert_eq!(scale.code, Some(0), "{}", scale.stderr);
    assert_eq!(home.pids("web").len(), 1);
}

#[test]
fn a_worker_that_shuts_its_socket_down_is_waited_for() {
    let home = Home::new();
    let settings =
        settings(&home, &python("bind/shutdown.py"), "ready: listen").replace("instances: 2", "instances: 1");
    home.start_app("web", &settings);
    let before = home.pids("web")[0];
    process::signal(before, Signal::TERM);
    // It says so and stays for a while.
    until("the socket is shut down", || home.log("web-out-0.log").contains("shut down"));
    let clients: Vec<_> =
        (0..5).map(|_| eventually("a connection", || http::send(home.address(), "/").ok())).collect();
    for client in clients {
        let pid: Number = http::receive(client).unwrap().parse().unwrap();
        assert_ne!(pid, before);
    }
}

#[test]
fn a_socket_that_its_program_closes_keeps_nobody() {
    let home = Home::new();
    home.start_app("web", &settings(&home, &node(), "ready: listen"));
    all_answer(&home);
    // One of the two goes on without its server.
    let closed: Number = home.get("/close").unwrap().parse().unwrap();
    let mut clients = Vec::new();
    until("its socket is given up", || {
        clients.extend(http::send(home.address(), "/"));
        home.daemon_log().contains("it has closed")
    });
    let load = Load::start(home.address());
    load.more(40);
    assert_eq!(load.finish(), [""; 0]);
    assert!(process::is_alive(closed));
    // The other one, too.
    home.get("/close").unwrap();
    until("nobody is kept waiting", || {
        let client = http::send(home.address(), "/");
        client.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    home.app_when("web", "goes on without a socket", |app| {
        app["state"] == "online" && app["listeners"] == serde_json::json!([])
    });
}

#[test]
fn a_worker_that_dies_has_closed_nothing() {
    let home = Home::new();
    let address = home.address();
    let program = format!("{}, --bind, '{address}', --hold", text(&worker()));
    home.start_app(
        "web",
        &format!("command: [{program}]\nready: listen\nmin_uptime: 50ms\ninstances: 2\nhang_timeout: 1h"),
    );
    let clients: Vec<_> = (0..8).map(|_| http::send(address, "/").unwrap()).collect();
    for round in 1..=6 {
        // Somebody waits at each socket since the look before.
        home.app_when("web", "has queues", |app| {
            let workers = app["workers"].as_array().unwrap();
            let waits = |worker: &serde_json::Value| worker["queue"].as_u64() > Some(0);
            workers.iter().all(|worker| waits(worker) && worker["uptime_s"].as_f64() > Some(2.5))
        });
        // Its end and the next look are there at once.
        let (victim, master) = (home.pids("web")[0], home.daemon().1);
        process::stop_and_wait(master);
        process::kill_and_wait(victim);
        let begin = std::time::Instant::now();
        until("a look is due", || begin.elapsed() > std::time::Duration::from_millis(1_100));
        process::signal(master, Signal::CONT);
        home.app_when("web", "has another worker", |app| {
            app["restarts"] == round && app["state"] == "online"
        });
    }
    assert!(!home.daemon_log().contains("it has closed"), "{}", home.daemon_log());
    for mut client in clients {
        client.set_nonblocking(true).unwrap();
        let read = io::Read::read(&mut client, &mut [0]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn an_address_has_one_app() {
    let home = Home::new();
    home.start_app("web", &settings(&home, &node(), ""));
    all_answer(&home);
    let fast = "listen_timeout: 5s\nready: listen";
    home.write_app("other", &settings(&home, &python("bind/server.py"), fast));
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("Address already in use"), "{failed:?}");
    assert!(failed.stderr.contains("app web has this address already"), "{failed:?}");
    home.ok(&["delete", "--now", "other"]);
    all_answer(&home);
}

#[test]
fn an_address_of_another_program() {
    let home = Home::new();
    let _other = std::net::TcpListener::bind(home.address()).unwrap();
    home.write_app("web", &settings(&home, &python("bind/server.py"), "ready: listen"));
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("Address already in use"), "{failed:?}");
    assert!(failed.stderr.contains(&format!("another program (pid {}", std::process::id())), "{failed:?}");
    home.until_logged("another program (pid ");
}

#[test]
fn a_bad_release_does_not_get_through() {
    let home = Home::new();
    home.start_app("web", &settings(&home, &node(), ""));
    all_answer(&home);
    let pids = home.pids("web");
    let load = Load::start(home.address());
    let bad = [
        ("[sh, -c, 'echo broken; exit 1']", "broken"),
        ("[sleep, '600']", "not ready within 5s"),
        ("[sh, -c, 'sleep 0.05; exit 3']", "exited with code 3"),
    ];
    for (command, cause) in bad {
        home.write_app("web", &settings(&home, command, "listen_timeout: 5s"));
        let failed = home.ends(6, &["reload", "app.yaml"]);
        assert!(failed.stderr.contains(cause), "{failed:?}");
        assert_eq!(home.pids("web"), pids);
    }
    load.more(20);
    assert_eq!(load.finish(), [""; 0]);
}

#[test]
fn alone_without_cluster() {
    let home = Home::new();
    let settings =
        settings(&home, &python("bind/server.py"), "exec_mode: fork").replace("instances: 2", "instances: 1");
    home.start_app("web", &settings);
    assert_eq!(asked(&home, &home.pids("web")), home.pids("web")[0]);
    assert_eq!(home.app("web")["listeners"], serde_json::json!([]));
}

#[test]
fn a_declared_address_may_be_bound_by_the_program() {
    let home = Home::new();
    let listen = format!("listen: '{}'", home.address());
    home.start_app("web", &settings(&home, &node(), &listen));
    all_answer(&home);
    assert_eq!(home.app("web")["listeners"][0]["origin"], "declared");
}
