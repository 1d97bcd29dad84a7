//! What people and programs notice of a master that dies again and again:
//! commands go on, streams lose no line, orders are carried out once, and
//! nobody is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use supervisor_sys::signal::Signal;

use crate::adoption::{kills, replace_master, without_a_master};
use crate::follow::Follow;
use crate::harness::{Home, finish, number, pids, text};
use crate::http;
use crate::load::Load;
use crate::process::{self, Number};
use crate::programs::{fixture, installed, worker};
use crate::wait::{eventually, until};

/// Settings of Node programs that count, in lines and in messages.
fn counting(home: &Home, instances: u32, more: &str) -> String {
    format!(
        "command: [{}, {}]\ncwd: {}\nmin_uptime: 50ms\ninstances: {instances}\n{more}",
        text(&installed("node")),
        text(&fixture("counting.js")),
        text(&home.path("")),
    )
}

/// Gives an order with a key. Returns its answer's lines.
fn give(home: &Home, key: &str, path: &str, body: &Value) -> Vec<Value> {
    let body = body.to_string();
    let mut stream = UnixStream::connect(home.socket()).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let answer = http::read(&mut stream).unwrap();
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_order_with_a_key_is_carried_out_once() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 2");
    let more = json!({"app": "web", "instances": "+1"});
    let first = give(&home, "one", "/v1/scale", &more);
    let meant = json!({"event": "app", "app": "web", "change": "scaled", "instances": 3});
    let done = json!({"event": "done", "exit_code": 0});
    assert_eq!((&first[0], first.last()), (&meant, Some(&done)));
    let known = [meant, done];
    assert_eq!(give(&home, "one", "/v1/scale", &more), known);
    replace_master(&home);
    assert_eq!(give(&home, "one", "/v1/scale", &more), known);
    assert_eq!(home.app("web")["instances"]["wanted"], 3);
    give(&home, "two", "/v1/scale", &more);
    assert_eq!(home.app("web")["instances"]["wanted"], 4);
    // A signal may have been sent or not: it is not sent again.
    let signal = json!({"selectors": ["web"], "signal": "CONT"});
    assert_eq!(give(&home, "three", "/v1/signal", &signal)[0]["workers"], 4);
    replace_master(&home);
    let refused = &give(&home, "three", "/v1/signal", &signal)[0]["error"];
    assert_eq!(refused["code"], "failed", "{refused}");
    assert_eq!(give(&home, &"x".repeat(200), "/v1/reload", &json!({}))[0]["error"]["code"], "usage");
}

#[test]
fn nobody_is_refused_without_a_master() {
    let home = Home::new();
    home.start_app("web", "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 1");
    let mut waiting = Vec::new();
    without_a_master(&home, || {
        waiting.push(home.command(&["status"]).spawn().unwrap());
        waiting.push(home.command(&["scale", "web", "2"]).spawn().unwrap());
        // They are in the queue of the socket that the keeper holds.
        UnixStream::connect(home.socket()).unwrap();
    });
    for waiting in waiting {
        let waiting = finish(waiting);
        assert_eq!(waiting.code, Some(0), "{waiting:?}");
    }
    assert_eq!(home.app("web")["instances"]["wanted"], 2);
}

/// The numbers of the lines that a command has printed, by their authors.
fn printed(output: &str) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in output.lines() {
        let (author, number) = line.split_once(" | n ").unwrap_or_else(|| panic!("{line:?}"));
        all.entry(author.to_owned()).or_default().push(number.parse().unwrap());
    }
    all
}

/// The numbers of the lines in a log file, which may be JSON.
fn written(home: &Home, author: &str) -> Vec<u64> {
    let log = home.log(&format!("{}.log", author.replace(':', "-out-")));
    let number = |line: &str| {
        let digits = line.rsplit_once("n ")?.1.trim_end_matches(['"', '}']);
        digits.parse().ok()
    };
    log.lines().map(|line| number(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
}

/// What was followed is what is in the files, each line once. What a master had
/// read and not written is lost with it: at most a piece for each death.
#[track_caller]
fn check_followed(home: &Home, output: &str, authors: usize, deaths: usize) {
    let all = printed(output);
    assert_eq!(all.len(), authors, "{:?}", all.keys());
    for (author, numbers) in &all {
        let written = written(home, author);
        let begin = written.iter().position(|number| *number == numbers[0]).unwrap();
        let end = begin + numbers.len();
        assert!(end <= written.len() && written[begin..end] == numbers[..], "{author} differs");
        let gaps = written.windows(2).filter(|pair| pair[1] != pair[0] + 1);
        assert!(gaps.clone().all(|pair| pair[1] > pair[0]), "{author} is out of order");
        assert!(gaps.count() <= deaths, "{author} has lost lines");
    }
}

/// Ends a command as Ctrl-C does. Returns what it had printed.
#[track_caller]
fn interrupt(command: Child) -> String {
    process::signal(command.id(), Signal::INT);
    let finished = finish(command);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    finished.stdout
}

#[test]
fn streams_go_on() {
    let home = Home::new();
    let apps = [("raw", ""), ("dated", "time: true"), ("json", "log_type: json")];
    let settings = apps.map(|(name, more)| (name, counting(&home, 2, more)));
    home.write_apps("app.yaml", &settings.each_ref().map(|(name, text)| (*name, text.as_str())));
    home.ok(&["start", "app.yaml"]);
    let follow = |app: &str| home.command(&["logs", "-f", "-n", "3", app]).spawn().unwrap();
    let (raw, json) = (follow("raw"), follow("json"));
    let events = Follow::events(&home, &["--json"], "dated");
    for round in 0..kills() {
        let (_, master) = home.daemon();
        process::kill_and_wait(master);
        eventually("another master", || Some(home.daemon()).filter(|now| now.1 != master));
        let killed = home.pids("dated")[round % 2];
        process::kill(killed);
        // It is told once, also where nobody was there to listen.
        let ended = events.until("killed by SIGKILL");
        let ready: Value = serde_json::from_str(&events.until("\"state\":\"ready\"")).unwrap();
        assert!(number(&ready["pid"]) != killed && ended.contains("\"dated\""), "{ended} {ready}");
    }
    let last = |app: &str| home.log(&format!("{app}-out-0.log")).lines().count();
    let enough = last("raw") + 20;
    until("more is written", || last("raw") >= enough);
    for follower in [raw, json] {
        check_followed(&home, &interrupt(follower), 2, kills());
    }
    events.interrupt();
}

/// What is counted over many deaths.
#[derive(Debug, Default)]
struct Counts {
    over: AtomicBool,
    orders: AtomicUsize,
    crashes: AtomicUsize,
}

/// Reloads, scales and kills workers until it is over.
fn stir(home: &Home, counts: &Counts) {
    for round in 0_usize.. {
        if counts.over.load(Ordering::Relaxed) {
            return;
        }
        let order: &[&str] = match round % 4 {
            0 => &["reload", "web"],
            1 => &["scale", "web", "5"],
            2 => &["reload", "own"],
            _ => &["scale", "web", "4"],
        };
        // A drain begins anew with each master: among many deaths that takes time.
        let told = home.command(order).output().unwrap();
        assert!(told.status.success(), "{order:?}: {told:?}");
        counts.orders.fetch_add(1, Ordering::Relaxed);
        if round % 4 == 3 {
            process::kill(
                home.app_in_state("web", "online")["workers"][1]["pid"].as_u64().unwrap().try_into().unwrap(),
            );
            counts.crashes.fetch_add(1, Ordering::Relaxed);
            home.app_when("web", "is whole", |app| app["state"] == "online" && pids(app).len() == 4);
        }
    }
}

/// Kills the master, and looks how long it takes until `status` is right.
fn kill_once(home: &Home, before: &[Number]) -> Duration {
    let (_, master) = home.daemon();
    process::kill(master);
    let begin = Instant::now();
    eventually("the status is right", || {
        let answer = http::ask(&home.socket(), "GET", "/v1/status", "").ok()?;
        let status: Value = serde_json::from_str(&answer.body).ok()?;
        let apps = status["apps"].as_array()?;
        let counting = apps.iter().find(|app| app["name"] == "counting")?;
        let is_right = number(&status["daemon"]["pid"]) != master
            && apps.len() == 3
            && counting["state"] == "online"
            && pids(counting) == before;
        is_right.then_some(())
    });
    begin.elapsed()
}

#[test]
fn a_master_may_die_often() {
    let home = Home::new();
    let (address, own) = (home.address(), home.second_address());
    let web = format!(
        "command: [{}]\nmin_uptime: 50ms\ninstances: 4\ndrain_timeout: 3s\nlisten: '{address}'",
        text(&worker())
    );
    let own_settings = format!(
        "command: [{}, {}]\nmin_uptime: 100ms\ninstances: 2\nkill_timeout: 1s\ndrain_timeout: 3s\nenv: {{HOST: {}, PORT: '{}'}}",
        text(&installed("node")),
        text(&fixture("bind/server.js")),
        own.ip(),
        own.port()
    );
    let counting = counting(&home, 3, "");
    home.write_apps("app.yaml", &[("web", &web), ("own", &own_settings), ("counting", &counting)]);
    home.ok(&["start", "app.yaml"]);
    until("the program listens", || http::get(own, "/").is_ok());
    let followed = home.path("followed");
    let mut follower = home.command(&["logs", "-f", "-n", "0", "counting"]);
    let follower = follower.stdout(fs::File::create(&followed).unwrap()).spawn().unwrap();
    let before = home.pids("counting");
    replace_master(&home);
    let keeper = home.daemon().0;
    let open = || fs::read_dir(process::path(keeper, "fd")).unwrap().count();
    let first = open();
    let loads = [(address, 24), (own, 8)].map(|(address, clients)| Load::with_clients(address, clients));
    let counts = Counts::default();
    let mut times = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| stir(&home, &counts));
        for round in 0..kills() {
            // Any moment of what is under way.
            thread::sleep(Duration::from_millis((round as u64 * 7_919) % 601));
            times.push(kill_once(&home, &before));
        }
        counts.over.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let (orders, crashes) = (counts.orders.into_inner(), counts.crashes.into_inner());
    let answers: Vec<usize> = loads.iter().map(Load::answers).collect();
    let failures: Vec<String> = loads.into_iter().flat_map(Load::finish).collect();
    eprintln!(
        "{} deaths, {orders} orders, {crashes} crashes, {answers:?} answers; {} failed: {failures:?}; \
         the status was right after {:?} (median), {:?} (longest)",
        times.len(),
        failures.len(),
        times[times.len() / 2],
        times[times.len() - 1],
    );
    // What a killed worker was answering is lost with it.
    assert!(failures.iter().all(|failure| !failure.contains("refused")), "{failures:?}");
    assert!(failures.len() <= crashes * 24, "{failures:?}");
    let app = home.app_in_state("counting", "online");
    assert_eq!((pids(&app), &app["restarts"]), (before.clone(), &0.into()));
    assert_eq!(home.app("own")["restarts"], 0);
    assert_eq!(number(&home.app("web")["restarts"]), u32::try_from(crashes).unwrap());
    heard_in_order(&home, &before);
    interrupt(follower);
    check_followed(&home, &fs::read_to_string(followed).unwrap(), 3, kills() + 1);
    until("nothing is left open", || open() <= first + 8);
}

/// What each heard of the others came in order. What a master had read and not
/// passed on is lost with it.
#[track_caller]
fn heard_in_order(home: &Home, all: &[Number]) {
    for pid in all {
        let file = BufReader::new(fs::File::open(home.path(&format!("heard-{pid}"))).unwrap());
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        let (mut heard, mut lost) = (0, 0);
        for line in file.lines().map_while(Result::ok) {
            let Some((from, number)) = line.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap();
            if let Some(before) = last.insert(from.to_owned(), number) {
                assert!(number > before, "{pid} heard {number} of {from} after {before}");
                lost += number - before - 1;
            }
            heard += 1;
        }
        eprintln!("{pid} heard {heard} messages in order, {lost} were lost");
        assert_eq!(last.len(), all.len() - 1);
    }
}
