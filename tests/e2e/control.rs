//! The control socket: who may speak, and what becomes of nonsense.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::harness::{Home, finish, text};
use crate::http;
use crate::process;
use crate::programs::{installed, supervisor, worker};
use crate::wait::{DEADLINE, eventually, until};

fn home() -> Home {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1");
    home
}

/// Sends bytes, closes the sending side, and returns all that comes back. The
/// daemon may have had enough before.
fn talk(home: &Home, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(home.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The daemon is the one it was, and answers.
#[track_caller]
fn goes_on(home: &Home, before: (u32, u32)) {
    assert_eq!(home.daemon(), before);
    assert_eq!(home.app("web")["state"], "online");
}

#[test]
fn random_bytes() {
    let home = home();
    let before = home.daemon();
    // A generator of our own (xorshift), so that every run sends the same.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..200 {
        let bytes: Vec<u8> = (0..round * 7)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[3]
            })
            .collect();
        let answer = talk(&home, &bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    }
    goes_on(&home, before);
}

#[test]
fn requests_that_are_cut_off() {
    let home = home();
    let before = home.daemon();
    let request = "POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{\"selectors\":[\"web\"]}";
    for length in 0..request.len() {
        talk(&home, &request.as_bytes()[..length]);
    }
    goes_on(&home, before);
}

#[test]
fn requests_that_never_end() {
    let home = home();
    // More than are served at a time: they are sent away after a while.
    let begin = ["", "GET /v1/ping HTTP/1.1\r\nHo", "POST /v1/stop HTTP/1.1\r\nContent-Length: 40\r\n\r\n{"];
    let held: Vec<UnixStream> = begin
        .iter()
        .cycle()
        .take(200)
        .map(|begin| {
            let mut stream = UnixStream::connect(home.socket()).unwrap();
            stream.write_all(begin.as_bytes()).unwrap();
            stream
        })
        .collect();
    let answer = eventually("it answers", || http::ask(&home.socket(), "GET", "/v1/ping", "").ok());
    assert_eq!(answer.code, 200);
    drop(held);
    assert_eq!(home.app("web")["state"], "online");
}

#[test]
fn heads_that_are_too_large() {
    let home = home();
    let before = home.daemon();
    let long = "x".repeat(2 << 20);
    for request in [
        format!("GET /v1/ping HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /v1/ping HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000)),
        format!("{long} / HTTP/1.1\r\n\r\n"),
    ] {
        let answer = talk(&home, request.as_bytes());
        // The rest of the request may break the connection before it is read.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:.80}");
    }
    goes_on(&home, before);
}

#[test]
fn bodies_that_are_too_large() {
    const LARGE: usize = 17 << 20;
    let home = home();
    let before = home.daemon();
    for framing in [
        format!("Content-Length: {LARGE}\r\n\r\n"),
        format!("Transfer-Encoding: chunked\r\n\r\n{LARGE:x}\r\n"),
    ] {
        let mut request = format!("POST /v1/apply HTTP/1.1\r\nHost: x\r\n{framing}").into_bytes();
        request.resize(request.len() + LARGE, b' ');
        let answer = talk(&home, &request);
        // What was not read of it may break the connection before the answer is.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer:.80}");
    }
    // One that is only announced is refused at once.
    let head =
        "POST /v1/apply HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n";
    let mut stream = UnixStream::connect(home.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let answer = http::read(&mut stream).unwrap();
    assert_eq!(answer.code, 400);
    assert!(answer.body.contains("larger than"), "{answer:?}");
    goes_on(&home, before);
}

/// A request that is refused with this status, and an error that says so.
#[track_caller]
fn check_refusal(home: &Home, (method, path, body): (&str, &str, &str), status: u16, code: &str, word: &str) {
    let answer = http::ask(&home.socket(), method, path, body).unwrap();
    assert_eq!(answer.code, status, "{answer:?}");
    let error: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(error["error"]["code"], code, "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains(word), "{error}");
}

#[test]
fn requests_that_mean_nothing() {
    let home = home();
    let before = home.daemon();
    let check = |request, status, code, word| check_refusal(&home, request, status, code, word);
    check(("GET", "/", ""), 404, "usage", "nothing at /");
    check(("GET", "/v1/nothing", ""), 404, "usage", "/v1/nothing");
    check(("GET", "/v2/status", ""), 404, "usage", "/v2/status");
    check(("DELETE", "/v1/status", ""), 405, "usage", "DELETE");
    check(("GET", "/v1/stop", ""), 405, "usage", "GET");
    check(("GET", "/v1/status?colour=red", ""), 400, "usage", "colour");
    check(("GET", "/v1/status?selector=api", ""), 404, "no_such_app", "api");
    check(("GET", "/v1/logs?lines=many", ""), 400, "usage", "lines");
    check(("POST", "/v1/stop", ""), 400, "usage", "body");
    check(("POST", "/v1/stop", "{"), 400, "usage", "body");
    check(("POST", "/v1/stop", "[]"), 400, "usage", "body");
    check(("POST", "/v1/stop", r#"{"selectors":["web"],"colour":1}"#), 400, "usage", "colour");
    check(("POST", "/v1/stop", r#"{"selectors":[]}"#), 400, "usage", "nothing is selected");
    check(("POST", "/v1/stop", r#"{"selectors":["api"]}"#), 404, "no_such_app", "api");
    check(("POST", "/v1/stop", r#"{"selectors":["/(/"]}"#), 400, "usage", "regular expression");
    check(("POST", "/v1/scale", r#"{"app":"web","instances":"x"}"#), 400, "usage", "x");
    check(("POST", "/v1/signal", r#"{"selectors":["web"],"signal":"NOSUCH"}"#), 400, "usage", "NOSUCH");
    check(("POST", "/v1/apply", r#"{"apps":[{}]}"#), 400, "usage", "body");
    check(("POST", "/v1/apply", &"[".repeat(100_000)), 400, "usage", "body");
    goes_on(&home, before);
}

#[test]
fn it_belongs_to_its_user() {
    let home = home();
    let mode = |path: &str| home.daemon_folder().join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("run/control.sock"), 0o600);
    for folder in ["run", "log"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }

    // Others cannot reach it.
    home.let_others_in();
    std::fs::set_permissions(home.daemon_folder(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = home.copy("supervisor", &supervisor());
    let status = |home: &Home| {
        let mut command = home.program(installed("setpriv"));
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(&program).arg("status");
        finish(command.spawn().unwrap())
    };
    let denied = status(&home);
    assert_eq!(denied.code, Some(5), "{denied:?}");
    // And if they could, the daemon would see who they are.
    for (file, mode) in [("run", 0o755), ("run/control.sock", 0o666)] {
        std::fs::set_permissions(home.daemon_folder().join(file), PermissionsExt::from_mode(mode)).unwrap();
    }
    let denied = status(&home);
    assert_eq!(denied.code, Some(5), "{denied:?}");
    assert!(denied.stderr.contains("belongs to another user"), "{denied:?}");
}

#[test]
fn a_reader_that_does_not_read_holds_nobody() {
    let home = Home::new();
    home.start_app(
        "web",
        &format!("command: [{}, --flood]\nmin_uptime: 50ms\ninstances: 1", text(&worker())),
    );
    let mut stream = UnixStream::connect(home.socket()).unwrap();
    stream.write_all(b"GET /v1/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // More than all buffers on the way hold: somebody reads.
    let pid = home.pids("web")[0];
    let before = process::written(pid);
    until("output goes on", || process::written(pid) > before + (4 << 20));
    assert_eq!(home.app("web")["state"], "online");
    // When it reads again, it is told what it missed.
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut seen = String::new();
    let mut piece = [0; 65536];
    until("it is told", || {
        let read = stream.read(&mut piece).unwrap();
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        seen.contains("\"event\":\"missed\"")
    });
}
