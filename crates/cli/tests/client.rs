//! The commands as a person or a script meets them: arguments in, requests to a
//! daemon, output and exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_daemon;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use fake_daemon::{Answer, FakeDaemon, Run, ok};

const STATUS: &str = r#"{"schema":1, "daemon":{"version":"0.1.0","pid":2,"keeper_pid":1,"uptime_s":65},"apps":[
{"name":"web","namespace":"default","state":"online","reason":null,"exec_mode":"cluster","generation":1,
"instances":{"wanted":1,"ready":1,"running":1},"restarts":0,"listeners":[],"workers":[{"slot":0,"id":1,"pid":3,
"generation":1,"state":"ready","uptime_s":5.2,"restarts":0,"cpu_percent":null,"memory_bytes":1048576,
"pss_bytes":null,"queue":0,"in_rotation":true,"weight":null,"message":null,"next_start_s":null,"last_exit":null}]}
], "a_later_field": 1}"#;

const NO_SUCH_APP: &str =
    r#"{"error":{"code":"no_such_app","message":"no app is named \"wbe\"; there is web"}}"#;

fn refused(to: &'static str, status: u16, body: &str) -> Answer {
    Answer { to, status, body: body.to_owned(), hold: false, version: None }
}

#[track_caller]
fn check(run: &Run, code: i32, stdout: &str, stderr: &str) {
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(code), stdout, stderr));
}

#[test]
fn status_is_a_table_or_the_daemons_json() {
    let daemon = FakeDaemon::new([ok("GET /v1/status", STATUS)]);
    check(&daemon.run(&["status", "--json"]), 0, STATUS, "");
    let table = "NAME  SLOT  PID  GEN  STATE   UPTIME  ↺  CPU   MEM\n\
                 web    1/1         1  online          0       1.0M\n         \
                 0    3    1  ready       5s  0    -  1.0M\n";
    check(&daemon.run(&["ls", "web", "a b"]), 0, table, "");
    assert_eq!(daemon.requests().last().unwrap(), "GET /v1/status?selector=web&selector=a%20b");
}

#[test]
fn nobody_answers() {
    let home = FakeDaemon::absent();
    let path = home.home().display();
    let message = format!("error: no daemon is running in {path}; start one with `supervisor start FILE`\n");
    for args in [&["status"][..], &["stop", "all"], &["ping"], &["kill"], &["logs", "-f"]] {
        check(&home.run(args), 4, "", &message);
    }
    let run = home.run(&["start", "web"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.starts_with("error: there is no file \"web\" here: no daemon is running"), "{run:?}");
    assert_eq!(fs::read_dir(home.home()).unwrap().count(), 0, "looking leaves nothing behind");
}

#[test]
fn a_daemon_between_two_masters_is_waited_for() {
    let home = FakeDaemon::absent();
    fs::create_dir(home.home().join("run")).unwrap();
    let lock = fs::File::create(home.home().join("run/daemon.lock")).unwrap();
    lock.try_lock().unwrap();
    let child = home.command(&["ping"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _daemon = home.begin([ok("GET /v1/ping", STATUS)]);
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
}

#[test]
fn a_daemon_that_stays_away_is_being_replaced() {
    let home = FakeDaemon::absent();
    fs::create_dir(home.home().join("run")).unwrap();
    let lock = fs::File::create(home.home().join("run/daemon.lock")).unwrap();
    lock.try_lock().unwrap();
    let run = home.run(&["status"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.contains("is being replaced"), "{run:?}");
}

#[test]
fn a_refusal_has_its_exit_code() {
    let daemon = FakeDaemon::new([
        refused("POST /v1/stop", 404, NO_SUCH_APP),
        refused("POST /v1/scale", 409, r#"{"error":{"code":"busy","message":"web is being restarted"}}"#),
        refused("GET /v1/status", 502, "<html>"),
    ]);
    check(&daemon.run(&["stop", "wbe"]), 3, "", "error: no app is named \"wbe\"; there is web\n");
    check(&daemon.run(&["scale", "web", "+1"]), 5, "", "error: web is being restarted\n");
    let run = daemon.run(&["status"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("HTTP status 502"), "{run:?}");
}

#[test]
fn a_daemon_of_another_version() {
    let missing = r#"{"error":{"code":"usage","message":"there is nothing at /v1/upgrade"}}"#;
    let daemon = FakeDaemon::new([
        Answer { version: Some("0.99.0"), ..ok("GET /v1/status", STATUS) },
        Answer { version: Some("0.0.9"), ..refused("POST /v1/upgrade", 404, missing) },
        Answer { version: Some("0.99.0"), ..refused("POST /v1/stop", 404, NO_SUCH_APP) },
        Answer { version: Some("7.0.0"), ..ok("POST /v1/restart", "") },
    ]);
    check(&daemon.run(&["status", "--json"]), 0, STATUS, "");
    check(&daemon.run(&["stop", "wbe"]), 3, "", "error: no app is named \"wbe\"; there is web\n");
    let run = daemon.run(&["upgrade"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("the daemon is of version 0.0.9, and this command of"), "{run:?}");
    let run = daemon.run(&["restart", "web"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("the daemon is of version 7.0.0, and this command of"), "{run:?}");
    assert!(run.stderr.contains("use the command that belongs to it"), "{run:?}");
}

#[test]
fn a_home_of_somebody_else_is_refused() {
    let daemon = FakeDaemon::new([]);
    let locked = daemon.home().join("run");
    let program = tempfile::tempdir().unwrap();
    let path = program.path().join("supervisor");
    // Copied by another process: a child of another test may inherit what this
    // one writes to, and a file that is open for writing cannot be executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_supervisor")).arg(&path).status().unwrap();
    assert!(copied.success());
    for folder in [program.path(), daemon.home()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(path);
    command.arg("status").env("SUPERVISOR_HOME", daemon.home()).current_dir("/");
    if rustix::process::geteuid().is_root() {
        // Nothing is closed to root.
        command.uid(65_534);
    }
    let run = Run::from(command.output().unwrap());
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(run.stderr.contains("permission denied") && run.stderr.contains("sudo"), "{run:?}");
}

#[test]
fn orders_are_followed_to_their_end() {
    let stop = r#"{"event":"app","app":"web","change":"stopped","instances":1}
{"event":"worker","app":"web","slot":0,"state":"stopping","detail":"SIGTERM"}
{"event":"worker","app":"web","slot":0,"state":"stopped","detail":"exited with code 0"}
{"event":"done","exit_code":0}
"#;
    let daemon = FakeDaemon::new([
        ok("POST /v1/stop", stop),
        ok("POST /v1/restart", stop.replace(r#""exit_code":0"#, r#""exit_code":6"#)),
        ok("POST /v1/delete", stop.split_inclusive('\n').take(2).collect::<String>()),
        ok("POST /v1/scale", r#"{"event":"done","exit_code":0}"#.to_owned() + "\n"),
        ok("POST /v1/signal", r#"{"workers":2}"#),
    ]);
    let steps = "web:0 stopping: SIGTERM\nweb:0 stopped: exited with code 0\nweb stopped\n";
    check(&daemon.run(&["stop", "web", "--now"]), 0, "", steps);
    check(
        &daemon.run(&["restart", "web"]),
        6,
        "",
        &format!("{steps}rolled back: the old version serves on\n"),
    );
    let run = daemon.run(&["delete", "web"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("error: the daemon's answer broke off"), "{run:?}");
    check(&daemon.run(&["scale", "web", "-1"]), 0, "", "");
    check(&daemon.run(&["signal", "hup", "web:0"]), 0, "", "SIGHUP sent to 2 workers\n");
    assert_eq!(
        daemon.requests(),
        [
            r#"POST /v1/stop {"selectors":["web"],"now":true}"#,
            r#"POST /v1/restart {"selectors":["web"],"now":false}"#,
            r#"POST /v1/delete {"selectors":["web"],"now":false}"#,
            r#"POST /v1/scale {"app":"web","instances":"-1"}"#,
            r#"POST /v1/signal {"selectors":["web:0"],"signal":"SIGHUP"}"#,
        ]
    );
}

const FAILED_START: &str = r#"{"event":"app","app":"web","change":"created","instances":2}
{"event":"app","app":"other","change":"missing","instances":0}
{"event":"worker","app":"web","slot":0,"state":"starting","detail":""}
{"event":"failed","app":"web","slot":0,"reason":"exec /x/nodee: no such file or directory","last_lines":["a","b"]}
{"event":"done","exit_code":1}
"#;

#[test]
fn a_failed_start_says_why() {
    let daemon = FakeDaemon::new([ok("GET /v1/ping", STATUS), ok("POST /v1/apply", FAILED_START)]);
    let run = Run::from(
        daemon
            .command(&["start", "--name", "web", "--", "/x/nodee", "--flag"])
            .env("SECRET", "kept")
            .env("LISTEN_FDS", "1")
            .output()
            .unwrap(),
    );
    let expected = "web:0 starting\n\
                    web:0 failed: exec /x/nodee: no such file or directory\n    a\n    b\n\
                    web failed\n\
                    the daemon keeps trying; see `supervisor status`\n\
                    `supervisor delete web` forgets it\n";
    check(&run, 1, "", expected);
    let request = daemon.requests().pop().unwrap();
    let apply: serde_json::Value =
        serde_json::from_str(request.strip_prefix("POST /v1/apply ").unwrap()).unwrap();
    let app = &apply["apps"][0];
    assert_eq!(app["command"], serde_json::json!(["/x/nodee", "--flag"]));
    assert_eq!(app["inherited_env"], serde_json::json!({"SECRET": "kept"}));
    assert_eq!((&apply["source"], &apply["prune"]), (&serde_json::Value::Null, &false.into()));
}

#[test]
fn no_wait_leaves_once_the_order_is_accepted() {
    let accepted = FAILED_START.lines().next().unwrap().to_owned() + "\n";
    let daemon = FakeDaemon::new([Answer { hold: true, ..ok("POST /v1/apply", accepted) }]);
    check(
        &daemon.run(&["start", "--no-wait", "--name", "web", "--", "/bin/true"]),
        0,
        "",
        "web: start ordered, 2 workers\n",
    );
}

#[test]
fn a_word_is_an_app_or_a_program() {
    let started = r#"{"event":"app","app":"web","change":"started","instances":1}
{"event":"done","exit_code":0}
"#;
    let daemon = FakeDaemon::new([ok("POST /v1/start", started)]);
    check(&daemon.run(&["start", "web"]), 0, "", "web started\n");
    let daemon =
        FakeDaemon::new([refused("POST /v1/start", 404, NO_SUCH_APP), ok("POST /v1/apply", started)]);
    let message = "error: there is no file \"wbe\" here: no app is named \"wbe\"; there is web\n";
    check(&daemon.run(&["start", "wbe"]), 3, "", message);
    let program = daemon.home().join("wbe");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    check(&daemon.run(&["start", "wbe"]), 0, "", "web started\n");
    let last = daemon.requests().pop().unwrap();
    assert!(last.starts_with("POST /v1/apply") && last.contains(program.to_str().unwrap()), "{last}");
}

#[test]
fn slips_end_with_2_and_a_way_out() {
    let home = FakeDaemon::absent();
    let cases: [(&[&str], &str); 11] = [
        (&["scale", "web:1", "2"], "scale takes the name of one app"),
        (&["scale", "all", "2"], "scale takes the name of one app"),
        (&["start", "shop.yaml", "web"], "use `--only web`"),
        (&["start", "npm", "--", "start"], "write `start -- npm start`"),
        (&["start"], "supervisor init"),
        (&["run", "--env", "production"], "--env goes with a file or a program"),
        (&["check", "absent.yaml"], "absent.yaml"),
        (&["run", "absent.yaml"], "there is no file \"absent.yaml\" here"),
        (&["signal", "SIGNOPE", "web"], "SIGNOPE"),
        (&["scale", "web", "many"], "use a number such as 4, +2 or -1"),
        (&["start", "--prune", "--", "true"], "--prune does not go with a program"),
    ];
    for (args, words) in cases {
        let run = home.run(args);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    let long = format!("/tmp/{}", "x".repeat(120));
    let run = Run::from(home.command(&["status"]).env("SUPERVISOR_HOME", long).output().unwrap());
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("107"), "{run:?}");
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let home = FakeDaemon::absent();
    fs::write(home.home().join("ecosystem.yaml"), "apps:\n  - nmae: web\n    command: /bin/true\n").unwrap();
    for command in [&["start"][..], &["run", "ecosystem.yaml"], &["check"]] {
        let run = home.run(command);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stderr.contains("nmae") && run.stderr.contains("1 mistake in ecosystem.yaml"), "{run:?}");
    }
    assert_eq!(fs::read_dir(home.home()).unwrap().count(), 1, "no daemon was begun");
}

#[test]
fn a_file_stands_for_its_apps() {
    let daemon = FakeDaemon::new([ok("POST /v1/stop", "{\"event\":\"done\",\"exit_code\":0}\n")]);
    let file = "apps:\n  - name: web\n    command: /bin/true\n  - name: api\n    command: /bin/true\n";
    fs::write(daemon.home().join("shop.yaml"), file).unwrap();
    check(&daemon.run(&["stop", "shop.yaml", "other"]), 0, "", "");
    assert_eq!(daemon.requests(), [r#"POST /v1/stop {"selectors":["web","api","other"],"now":false}"#]);
}

#[test]
fn a_file_says_where_it_is() {
    let done = "{\"event\":\"done\",\"exit_code\":0}\n";
    let daemon = FakeDaemon::new([ok("POST /v1/apply", done)]);
    let file = "apps:\n  - name: web\n    command: /bin/true\n  - name: api\n    command: /bin/true\n";
    let path = daemon.home().join("ecosystem.yaml");
    fs::write(&path, file).unwrap();
    check(&daemon.run(&["start", "--only", "api"]), 0, "", "");
    let request = daemon.requests().pop().unwrap();
    let apply: serde_json::Value =
        serde_json::from_str(request.strip_prefix("POST /v1/apply ").unwrap()).unwrap();
    assert_eq!(apply["source"], path.to_str().unwrap());
    assert_eq!(apply["apps"].as_array().unwrap().len(), 1);
    let run = daemon.run(&["start", "--only", "apl"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("the file has web, api"), "{run:?}");
}

#[test]
fn logs_are_prefixed_or_json() {
    let lines = r#"{"event":"line","app":"web","slot":0,"stream":"out","line":"hello"}
{"event":"line","app":"web","slot":1,"stream":"error","line":"oh"}
{"event":"missed","chunks":1}
"#;
    let daemon = FakeDaemon::new([ok("GET /v1/logs", lines)]);
    let text = "web:0 | hello\nweb:1 ! oh\n… 1 piece of output left out: this reader was too slow\n";
    check(&daemon.run(&["logs", "web", "--err"]), 0, text, "");
    check(&daemon.run(&["logs", "--json", "-n", "3"]), 0, lines, "");
    assert_eq!(
        daemon.requests(),
        ["GET /v1/logs?selector=web&stream=error&lines=15", "GET /v1/logs?lines=3"]
    );
}

const MASTER: &str = r#"{"daemon":{"version":"0.1.0","pid":7,"keeper_pid":6,"uptime_s":1}}"#;

#[test]
fn following_goes_on_with_the_next_master() {
    let lines = r#"{"event":"line","app":"web","slot":0,"stream":"out","line":"hello"}
{"event":"files","files":[{"file":7,"end":30}]}
{"event":"line","app":"web","slot":0,"stream":"out","line":"there","position":{"file":7,"end":36}}
"#;
    let first = "GET /v1/logs?follow=true&positions=true&lines=15";
    let again = "GET /v1/logs?follow=true&positions=true&after=7.36";
    let daemon = FakeDaemon::new([ok(first, lines), refused(again, 404, NO_SUCH_APP)]);
    let end = "error: the stream has ended: no app is named \"wbe\"; there is web\n";
    check(&daemon.run(&["logs", "-f"]), 1, "web:0 | hello\nweb:0 | there\n", end);
    // It breaks off before the lines of before are all there: they come again.
    let begun = lines.lines().next().unwrap().to_owned() + "\n";
    let daemon = FakeDaemon::new([ok(first, begun)]);
    let mut child = daemon.command(&["logs", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    shown.read_line(&mut line).unwrap();
    while daemon.requests().len() < 4 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    shown.read_line(&mut line).unwrap();
    assert_eq!(line, "web:0 | hello\n");
}

#[test]
fn ctrl_c_ends_what_goes_on() {
    let line = r#"{"event":"line","app":"web","slot":0,"stream":"out","line":"hello"}"#.to_owned() + "\n";
    let logs = Answer { hold: true, ..ok("GET /v1/logs", line) };
    let daemon = FakeDaemon::new([ok("GET /v1/status", STATUS), ok("GET /v1/ping", MASTER), logs]);
    for args in [&["status", "--watch=60"], &["logs", "--follow"]] {
        let mut child = daemon.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    }
}

#[test]
fn output_that_nobody_reads_ends_a_command_quietly() {
    let daemon = FakeDaemon::new([ok("GET /v1/status", STATUS)]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = daemon.command(&["status"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.signal(), Some(13));
    assert!(output.stderr.is_empty());
}

#[test]
fn ping_says_who_answers() {
    let daemon = FakeDaemon::new([ok("GET /v1/ping", STATUS)]);
    let run = daemon.run(&["ping", "--verbose"]);
    let home = daemon.home().display();
    let text = format!("supervisor 0.1.0 answers in {home}: master 2, keeper 1, up for 1m 5s\n");
    check(&run, 0, &text, &format!("asking the daemon in {home}\n"));
}

#[test]
fn run_gives_way_to_a_daemon_that_runs() {
    let daemon = FakeDaemon::new([ok("GET /v1/ping", STATUS)]);
    let lock = fs::File::create(daemon.home().join("run/daemon.lock")).unwrap();
    lock.try_lock().unwrap();
    let run = daemon.run(&["run", "--", "/bin/true"]);
    assert_eq!(run.code, Some(5));
    assert!(run.stderr.starts_with("error: another daemon (pid 1) runs in"), "{run:?}");
}

#[test]
fn kill_waits_until_the_lock_is_free() {
    let done = "{\"event\":\"done\",\"exit_code\":0}\n";
    // The answer of a daemon that ended before its last word counts as well.
    for answer in [done, ""] {
        let daemon = FakeDaemon::new([ok("POST /v1/kill", answer)]);
        let lock = fs::File::create(daemon.home().join("run/daemon.lock")).unwrap();
        lock.try_lock().unwrap();
        let child = daemon.command(&["kill"]).stderr(Stdio::piped()).spawn().unwrap();
        while daemon.requests().is_empty() {
            std::thread::yield_now();
        }
        drop(lock);
        check(&Run::from(child.wait_with_output().unwrap()), 0, "", "the daemon has ended\n");
    }
}

#[test]
fn init_does_not_overwrite() {
    let home = FakeDaemon::absent();
    let path = home.home().join("ecosystem.yaml");
    assert_eq!(home.run(&["init"]).code, Some(0));
    let example = fs::read(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    let run = home.run(&["init"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--force"), "{run:?}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(home.run(&["init", "--force"]).code, Some(0));
    assert_eq!(fs::read(&path).unwrap(), example);
    assert_eq!(home.run(&["init", "x.toml"]).code, Some(2));
}

#[test]
fn values_of_variables_are_masked() {
    let home = FakeDaemon::absent();
    fs::write(home.home().join("ecosystem.yaml"), "apps:\n  - name: web\n    command: /bin/true\n").unwrap();
    let check = |args: &[&str]| Run::from(home.command(args).env("SECRET", "hunter2").output().unwrap());
    let masked = check(&["check", "--json"]);
    assert!(
        masked.stdout.contains("\"SECRET\": \"***\"") && !masked.stdout.contains("hunter2"),
        "{masked:?}"
    );
    assert!(check(&["check", "--json", "--reveal"]).stdout.contains("hunter2"));
    assert!(check(&["check"]).stdout.contains("/bin/true"));
}

#[test]
fn help_and_completions() {
    let home = FakeDaemon::absent();
    let run = home.run(&["--help"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains("Exit codes:\n  0  done\n"), "{run:?}");
    assert!(!run.stdout.contains("keeper"), "{run:?}");
    for shell in ["bash", "zsh", "fish"] {
        let run = home.run(&["completions", shell]);
        assert_eq!(run.code, Some(0));
        assert!(run.stdout.contains("supervisor"));
    }
}
