//! The channel between workers, with plain Node programs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use supervisor_sys::signal::Signal;

use crate::harness::{Home, pids, text};
use crate::keeper_death::{kill_both, until_written};
use crate::process::{self, Number};
use crate::programs::{fixture, installed};
use crate::wait::{DEADLINE, eventually, until};

/// Node programs that note what they are sent.
fn start(home: &Home, instances: u32, more: &str) -> Vec<Number> {
    home.start_app(
        "web",
        &format!(
            "command: [{}, {}]
            cwd: {}
            instances: {instances}
            min_uptime: 50ms
            max_surge: 1
            kill_timeout: 10m
            {more}",
            text(&installed("node")),
            text(&fixture("channel.js")),
            text(&home.path("")),
        ),
    );
    home.pids("web")
}

/// Has a worker evaluate a line of JavaScript.
fn tell(home: &Home, pid: Number, code: &str) -> Value {
    let path = home.path(&format!("do-{pid}"));
    let mut stream = eventually("it takes orders", || UnixStream::connect(&path).ok());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    writeln!(stream, "{code}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// What a worker was sent.
fn got(home: &Home, pid: Number) -> Vec<Value> {
    let lines = fs::read_to_string(home.path(&format!("got-{pid}"))).unwrap_or_default();
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect()
}

/// The numbers of the broadcasts that a worker was sent.
fn numbers(home: &Home, pid: Number, from: &str) -> Vec<u64> {
    let got = got(home, pid).into_iter().filter(|message| message["from"] == from);
    got.filter_map(|message| message["n"].as_u64()).collect()
}

#[track_caller]
fn none_uncaught(home: &Home) {
    assert_eq!(fs::read_to_string(home.path("uncaught")).unwrap_or_default(), "");
}

#[test]
fn it_outlives_keeper_and_master() {
    let home = Home::new();
    let workers = start(&home, 2, "");
    // They have begun.
    workers.iter().for_each(|pid| _ = tell(&home, *pid, "0"));
    until_written(&home, &workers);
    kill_both(&home);
    // Nobody reads that, and it is not lost.
    tell(
        &home,
        workers[0],
        "process.send({broadcast: true, n: 1}); console.log('alone'); console.error('too')",
    );
    let started = home.ok(&["start", "app.yaml"]);
    assert!(!["channel", "standard"].iter().any(|word| started.stderr.contains(word)), "{}", started.stderr);
    assert_eq!(home.pids("web"), workers);
    until("it is heard", || got(&home, workers[1]) == [json!({"broadcast": true, "n": 1})]);
    until("it is kept", || home.log("web-out-0.log") == "alone\n");
    until("it is kept, too", || home.log("web-error-0.log") == "too\n");
    tell(&home, workers[1], "process.send({broadcast: true, n: 2})");
    until("it is heard", || got(&home, workers[0]) == [json!({"broadcast": true, "n": 2})]);
    none_uncaught(&home);
}

#[test]
fn a_broadcast_reaches_the_others_once() {
    let home = Home::new();
    let all = start(&home, 4, "");
    for n in 0..100 {
        tell(&home, all[0], &format!("process.send({{broadcast: true, from: 'first', n: {n}, ö: '\\n ü'}})"));
    }
    tell(&home, all[3], "process.send({broadcast: true, from: 'last', n: 0})");
    for pid in &all[1..3] {
        until("all have come", || got(&home, *pid).len() == 101);
        assert_eq!(numbers(&home, *pid, "first"), (0..100).collect::<Vec<_>>());
        assert_eq!(got(&home, *pid)[0], json!({"broadcast": true, "from": "first", "n": 0, "ö": "\n ü"}));
    }
    until("the other way", || numbers(&home, all[0], "last") == [0]);
    assert!(numbers(&home, all[0], "first").is_empty(), "nobody hears itself");
    none_uncaught(&home);
    let status = home.app_when("web", "has counted them", |app| {
        app["workers"][0]["channel"]["received"] == 100 && app["workers"][1]["channel"]["sent"] == 101
    });
    assert_eq!(status["workers"][1]["channel"]["dropped"], 0);
}

/// Has a worker broadcast numbers without end.
fn count(home: &Home, pid: Number) {
    tell(
        home,
        pid,
        "let n = 0; global.timer = setInterval(() => { \
         process.send({broadcast: true, from: String(process.pid), n: n++}) }, 20); 0",
    );
}

/// What a worker got of each other one is in order and without a gap.
#[track_caller]
fn check_order(home: &Home, receiver: Number, senders: &[Number]) {
    for sender in senders {
        let numbers = numbers(home, receiver, &sender.to_string());
        let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!(gap, None, "from {sender} to {receiver}");
    }
}

#[test]
fn each_once_and_in_order_through_a_crash_and_a_reload() {
    let home = Home::new();
    let old = start(&home, 4, "");
    let mut all = old.clone();
    old.iter().for_each(|pid| count(&home, *pid));
    until("it runs", || numbers(&home, old[0], &old[1].to_string()).len() > 20);

    process::kill(old[3]);
    let app = home.app_when("web", "has another", |app| {
        app["state"] == "online" && pids(app).len() == 4 && !pids(app).contains(&old[3])
    });
    let another = pids(&app)[3];
    all.push(another);
    count(&home, another);
    until("the replacement hears", || numbers(&home, another, &old[0].to_string()).len() > 20);
    until("and is heard", || numbers(&home, old[0], &another.to_string()).len() > 20);

    home.ok(&["reload", "web"]);
    let new = home.pids("web");
    assert!(new.iter().all(|pid| !all.contains(pid)), "{new:?}");
    new.iter().for_each(|pid| count(&home, *pid));
    all.extend(&new);
    until("the new ones hear each other", || {
        new.iter()
            .all(|one| new.iter().all(|two| one == two || numbers(&home, *one, &two.to_string()).len() > 20))
    });
    all.iter().for_each(|receiver| check_order(&home, *receiver, &all));
    none_uncaught(&home);
}

#[test]
fn lines_in_pieces_and_lines_that_are_none() {
    let home = Home::new();
    let all = start(&home, 2, "");
    let write = |text: &str| {
        let text = serde_json::to_string(text).unwrap();
        tell(
            &home,
            all[0],
            &format!("fs.writeSync(Number(process.env.SUPERVISOR_IPC.split(':')[0]), {text})"),
        );
    };
    for piece in ["{\"broad", "cast\":true,\"n\":", "1}\n{\"broadcast\":true,\"n\":2}", "\n\n \n"] {
        write(piece);
        // So long that the part is taken out of the socket.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let refused = ["nonsense\n", "{\"broadcast\":true,}\n", "{\"broadcast\":true} {}\n", "\"\u{1}\"\n"];
    refused.iter().for_each(|line| write(line));
    let long = |length| format!("{{\"broadcast\":true,\"x\":\"{}\"}}\n", "x".repeat(length));
    write(&long(100_000));
    write(&long(32 * 1024));
    write(&long(32 * 1024 - 27));
    write("{\"broadcast\":true,\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\"}\n");
    write("{\"broadcast\":true,\"n\":3}\n");
    until("the last one has come", || got(&home, all[1]).last().is_some_and(|last| last["n"] == 3));
    let got = got(&home, all[1]);
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(got[..2], [json!({"broadcast": true, "n": 1}), json!({"broadcast": true, "n": 2})]);
    assert_eq!(got[2]["x"].as_str().unwrap().len(), 32 * 1024 - 27);
    home.app_when("web", "has counted what was refused", |app| {
        app["workers"][0]["channel"]["refused"] == refused.len() + 2
    });
    none_uncaught(&home);
}

#[test]
fn long_messages_by_choice() {
    let home = Home::new();
    let all = start(&home, 3, "ipc_max_message: 1M");
    tell(&home, all[0], "process.send({broadcast: true, from: 'a', n: 0})");
    tell(&home, all[0], "process.send({broadcast: true, from: 'a', n: 1, x: 'x'.repeat(1e6)})");
    tell(&home, all[0], "process.send({broadcast: true, from: 'a', n: 2, x: 'x'.repeat(2e6)})");
    tell(&home, all[0], "process.send({broadcast: true, from: 'a', n: 3})");
    for pid in &all[1..] {
        until("the last has come", || numbers(&home, *pid, "a").contains(&3));
        assert_eq!(numbers(&home, *pid, "a"), [0, 1, 3]);
        assert_eq!(got(&home, *pid)[1]["x"].as_str().unwrap().len(), 1_000_000);
    }
    none_uncaught(&home);
}

#[test]
fn a_closed_channel() {
    let home = Home::new();
    let all = start(&home, 3, "");
    tell(&home, all[1], "process.disconnect()");
    home.app_when("web", "sees it", |app| app["workers"][1]["channel"]["open"] == false);
    tell(&home, all[0], "process.send({broadcast: true, from: 'a', n: 0})");
    until("the third has it", || numbers(&home, all[2], "a") == [0]);
    assert_eq!(got(&home, all[1]), ["disconnected"]);
    assert_eq!(home.app("web")["workers"][1]["state"], "ready");
}

#[test]
fn without_a_channel() {
    let home = Home::new();
    let all = start(&home, 1, "channel: false");
    assert_eq!(
        tell(&home, all[0], "[typeof process.send, process.env.SUPERVISOR_IPC]"),
        json!(["undefined", null])
    );
    assert_eq!(home.app("web")["workers"][0]["channel"], Value::Null);
}

#[test]
fn ready_is_said_on_the_channel() {
    let home = Home::new();
    let settings = format!(
        "command: [{}, {}]\ncwd: {}\ninstances: 1\nmin_uptime: 50ms\nwait_ready: true\nlisten_timeout: 10m",
        text(&installed("node")),
        text(&fixture("channel.js")),
        text(&home.path("")),
    );
    home.write_app("web", &settings);
    home.ok(&["start", "app.yaml", "--no-wait"]);
    let pid = eventually("it has a process", || home.pids("web").first().copied());
    tell(&home, pid, "1");
    assert_eq!(home.app("web")["state"], "starting");
    tell(&home, pid, "process.send('ready')");
    home.app_in_state("web", "online");
}

#[test]
fn asked_to_end_by_a_message() {
    let home = Home::new();
    let all = start(&home, 2, "shutdown_with_message: true");
    for pid in &all {
        tell(&home, *pid, "process.on('message', (m) => m === 'shutdown' && process.exit(7)); 0");
    }
    tell(&home, all[1], "process.disconnect()");
    home.app_when("web", "sees it", |app| app["workers"][1]["channel"]["open"] == false);
    home.ok(&["stop", "web"]);
    let app = home.app("web");
    assert_eq!(app["workers"][0]["last_exit"]["code"], 7);
    assert_eq!(app["workers"][1]["last_exit"]["signal"], "SIGTERM");
}

#[test]
fn topics_requests_and_the_rest() {
    let home = Home::new();
    let all = start(&home, 3, "ipc_retain: 2");
    let ask = |pid: Number, ask: &str| tell(&home, pid, &format!("process.send({{supervisor: {ask}}})"));
    let last = |pid: Number| got(&home, pid).pop().unwrap_or_default()["supervisor"].clone();
    ask(all[1], "{subscribe: 'cache.*'}");
    ask(all[2], "{subscribe: ['sum', 'cache.users']}");
    // Asks of one worker are taken in order: when this is answered, all is known.
    for pid in &all[1..] {
        ask(*pid, "{status: 1}");
        until("it is told", || last(*pid)["status"] == 1);
    }
    let peers: Vec<Value> =
        (0..3).map(|slot| json!({"slot": slot, "generation": 1, "ready": true})).collect();
    assert_eq!(last(all[2]), json!({"status": 1, "app": "web", "slot": 2, "workers": peers}));

    ask(all[0], "{publish: 'cache.users', data: {key: 7}}");
    let expected = json!({"message": "cache.users", "app": "web", "slot": 0, "data": {"key": 7}});
    for pid in &all[1..] {
        until("it has come", || last(*pid) == expected);
    }
    ask(all[0], "{publish: 'cache.flags', data: 1}");
    until("one hears it", || last(all[1])["message"] == "cache.flags");
    ask(all[0], "{publish: 'cache.users', to: 1, data: 2}");
    until("one slot hears it", || last(all[1])["data"] == 2);
    assert_eq!(last(all[2]), expected);

    ask(all[0], "{request: 'sum', id: 5, data: [1, 2]}");
    until("it is asked", || last(all[2])["request"] == "sum");
    let request = last(all[2]);
    assert_eq!((&request["slot"], &request["data"]), (&json!(0), &json!([1, 2])));
    ask(all[2], &format!("{{reply: {}, data: 3}}", request["id"]));
    until("it is answered", || last(all[0]) == json!({"reply": 5, "slot": 2, "data": 3}));
    ask(all[0], "{request: 'sum', id: 6, timeout: 20}");
    until("it gives up", || last(all[0]) == json!({"reply": 6, "error": "no reply in time"}));
    ask(all[0], "{request: 'none', id: 7}");
    until("nobody", || {
        last(all[0])["error"].as_str().is_some_and(|error| error.contains("has subscribed to `none`"))
    });
    ask(all[0], "{publsh: 'a'}");
    until("a slip", || {
        last(all[0])["error"].as_str().is_some_and(|error| error.contains("unknown field `publsh`"))
    });
    ask(all[0], "{publish: 'a', to: {app: 'other'}}");
    until("strangers", || last(all[0])["error"].as_str().is_some_and(|error| error.contains("ipc_from")));

    ask(all[0], "{metric: {hits: {add: 2}, size: 4.5}}");
    ask(all[0], "{metric: {hits: {add: 1}}}");
    home.app_when("web", "shows it", |app| {
        app["workers"][0]["channel"]["metrics"] == json!({"hits": 3.0, "size": 4.5})
    });

    let shown = home.ok(&["status"]).stdout;
    assert!(shown.contains("0: hits 3, size 4.5"), "{shown}");

    // A new generation catches up.
    home.ok(&["reload", "web"]);
    let new = home.pids("web");
    ask(new[0], "{subscribe: 'cache.*', replay: true}");
    until("it is told again", || got(&home, new[0]).len() == 2);
    let replay: Vec<Value> =
        got(&home, new[0]).iter().map(|line| line["supervisor"]["message"].clone()).collect();
    assert_eq!(replay, ["cache.users", "cache.flags"]);
    none_uncaught(&home);
}

#[test]
fn one_that_does_not_read() {
    let home = Home::new();
    let all = start(&home, 3, "ipc_buffer: 256K");
    let ask = |pid: Number, ask: &str| tell(&home, pid, &format!("process.send({{supervisor: {ask}}})"));
    ask(all[2], "{status: 1}");
    until("it is told", || got(&home, all[2]).len() == 1);
    process::stop_and_wait(all[1]);
    process::stop_and_wait(all[2]);
    let send = "for (let i = 0; i < 1000; i++) process.send({broadcast: true, from: 'a', n: global.n++, x: 'x'.repeat(200)})";
    tell(&home, all[0], "global.n = 0");
    for _ in 0..20 {
        tell(&home, all[0], send);
    }
    let dropped = |app: &Value, slot: usize| app["workers"][slot]["channel"]["dropped"].as_u64().unwrap_or(0);
    home.app_when("web", "has dropped some", |app| {
        app["workers"][0]["channel"]["received"] == 20_000 && dropped(app, 1) > 0
    });
    let app = home.app("web");
    assert_eq!(dropped(&app, 0), 0);
    assert!(app["workers"][1]["channel"]["queued_bytes"].as_u64().unwrap() <= 256 << 10);
    process::signal(all[1], Signal::CONT);
    process::signal(all[2], Signal::CONT);
    // Who knows the envelope is told, the other only gets what there was room for.
    let lost = |pid: Number| -> u64 {
        got(&home, pid).iter().filter_map(|line| line["supervisor"]["lost"].as_u64()).sum()
    };
    let count = |pid: Number| numbers(&home, pid, "a").len() as u64;
    until("nothing is missing", || count(all[2]) + lost(all[2]) == 20_000);
    until("nothing else is", || count(all[1]) + dropped(&home.app("web"), 1) == 20_000);
    assert_eq!(lost(all[1]), 0);
    assert!(lost(all[2]) > 0);
    let shown = home.ok(&["status"]).stdout;
    assert!(shown.contains("to it dropped, because it did not read"), "{shown}");
    // And on it goes.
    tell(&home, all[0], "process.send({broadcast: true, from: 'a', n: 20000})");
    for pid in &all[1..] {
        until("the next one comes", || numbers(&home, *pid, "a").last() == Some(&20_000));
        let numbers = numbers(&home, *pid, "a");
        assert!(numbers.is_sorted_by(|one, two| one < two), "in order, none twice");
    }
    none_uncaught(&home);
}

#[test]
fn an_operator_sends_and_looks_on() {
    let home = Home::new();
    let all = start(&home, 2, "");
    let tail = home.command(&["tail-channel", "web", "--json"]).spawn().unwrap();
    let sent = home.ok(&["send", "web", "{\"cmd\": \"reload\",\n \"b\": 1.50}"]);
    assert_eq!(sent.stderr, "sent to 2 workers\n");
    home.ok(&["send", "web:1", "\"dump\""]);
    until("both have come", || got(&home, all[1]) == [json!({"cmd": "reload", "b": 1.5}), json!("dump")]);
    until("the other has its own", || got(&home, all[0]) == [json!({"cmd": "reload", "b": 1.5})]);
    assert_eq!(home.ends(2, &["send", "web", "dump"]).stdout, "");
    home.ends(3, &["send", "nobody", "1"]);
    let long = format!("\"{}\"", "x".repeat(40_000));
    assert!(home.ends(2, &["send", "web", &long]).stderr.contains("ipc_max_message"));

    // Whoever looks on sees it some time after the command has begun.
    let (mut tail, mut line) = (tail, String::new());
    let mut output = BufReader::new(tail.stdout.take().unwrap());
    tell(&home, all[0], "global.timer = setInterval(() => process.send({z: 1, a: [1.50, 'ä']}), 10); 0");
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"app\":\"web\",\"slot\":0,\"message\":{\"z\":1,\"a\":[1.5,\"ä\"]}}\n");
    process::kill(tail.id());
    tail.wait().unwrap();
}

#[test]
fn an_onlooker_that_does_not_look() {
    let home = Home::new();
    let all = start(&home, 2, "ipc_max_message: 1M");
    let mut tail = home.command(&["tail-channel", "web", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    tell(&home, all[0], "global.timer = setInterval(() => process.send({z: 1}), 10); 0");
    assert_eq!(next()["message"], json!({"z": 1}));
    tell(&home, all[0], "clearInterval(global.timer); process.send({z: 2})");
    while next()["message"] == json!({"z": 1}) {}

    process::stop_and_wait(tail.id());
    let count = 5_000;
    let sent = format!("for (let n = 0; n < {count}; n++) process.send({{n, x: 'x'.repeat(4000)}})");
    tell(&home, all[0], &sent);
    let received = |app: &Value| app["workers"][0]["channel"]["received"].as_u64().unwrap();
    let before = received(&home.app("web"));
    home.app_when("web", "has sent all", |app| received(app) >= before.max(count));
    tell(&home, all[0], "process.send({long: 'x'.repeat(100000)})");
    tell(&home, all[0], "process.send('end')");
    process::signal(tail.id(), Signal::CONT);
    let (mut shown, mut missed, mut last) = (0, 0, Value::Null);
    while last["message"] != "end" {
        last = next();
        shown += u64::from(last["message"]["n"].is_u64());
        missed += last["missed"].as_u64().unwrap_or(0);
        assert!(last["bytes"].is_null() || last == json!({"app": "web", "slot": 0, "bytes": 100_011}));
    }
    assert_eq!(shown + missed, count, "what is not shown is counted");
    assert!(missed > 0, "all was kept for it");
    process::kill(tail.id());
    tail.wait().unwrap();
}

#[test]
fn a_flood_is_the_flooders_own() {
    let home = Home::new();
    let app = |name: &str| {
        let settings = format!(
            "command: [{}, {}]
            cwd: {}
            instances: 2
            min_uptime: 50ms
            ipc_buffer: 256K",
            text(&installed("node")),
            text(&fixture("channel.js")),
            text(&home.path("")),
        );
        (name.to_owned(), settings)
    };
    let apps = [app("web"), app("calm")];
    home.write_apps("app.yaml", &apps.each_ref().map(|(name, settings)| (name.as_str(), settings.as_str())));
    home.ok(&["start", "app.yaml"]);
    let (loud, calm) = (home.pids("web"), home.pids("calm"));
    // The sibling does not even read.
    process::stop_and_wait(loud[1]);
    let flood = "let left = 0; const more = () => { while (left < 400) { left++; \
        process.send({broadcast: true, x: 'x'.repeat(1000)}, () => { if (--left === 0) more(); }); } }; more(); 0";
    tell(&home, loud[0], flood);
    home.app_when("web", "is loud", |app| app["workers"][1]["channel"]["dropped"].as_u64() > Some(10_000));
    for n in 0..200 {
        tell(&home, calm[0], &format!("process.send({{broadcast: true, from: 'a', n: {n}}})"));
    }
    until("all have come", || numbers(&home, calm[1], "a").len() == 200);
    assert_eq!(home.app("calm")["workers"][1]["channel"]["dropped"], 0);
    let queued = home.app("web")["workers"][1]["channel"]["queued_bytes"].as_u64().unwrap();
    assert!(queued <= 256 << 10, "{queued}");
    process::signal(loud[1], Signal::CONT);
}

#[test]
fn the_next_master_goes_on_relaying() {
    let home = Home::new();
    let workers = start(&home, 3, "");
    let send = |numbers: std::ops::Range<u64>| {
        for n in numbers {
            tell(&home, workers[0], &format!("process.send({{broadcast: true, from: 'a', n: {n}}})"));
        }
    };
    tell(&home, workers[2], "process.send({supervisor: {subscribe: ['cache.*']}})");
    send(0..5);
    until("all has come", || workers[1..].iter().all(|pid| numbers(&home, *pid, "a").len() == 5));
    let master = home.daemon().1;
    process::kill_and_wait(master);
    // These wait for the next one, too.
    send(5..10);
    home.app_in_state("web", "online");
    assert_ne!(home.daemon().1, master);
    send(10..15);
    let expected: Vec<u64> = (0..15).collect();
    for pid in &workers[1..] {
        until("the rest has come", || numbers(&home, *pid, "a").len() >= 15);
        assert_eq!(numbers(&home, *pid, "a"), expected);
    }
    let publish = "process.send({supervisor: {publish: 'cache.users', data: 7}})";
    tell(&home, workers[0], publish);
    until("it has its topic", || {
        got(&home, workers[2]).iter().any(|message| message["supervisor"]["data"] == 7)
    });
    assert!(got(&home, workers[1]).iter().all(|message| message["supervisor"]["data"] != 7));
    assert_eq!(home.pids("web"), workers);
    none_uncaught(&home);
}
