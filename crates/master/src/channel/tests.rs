//! Streams and members at random: in order, at most once, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use rustix::net::{SendFlags, send};
use supervisor_core::WorkerId;
use supervisor_protocol::channel::{Ask, Line};
use supervisor_sys::fdpass::stream_pair;

use super::hub::{Deliver, Hub, Meaning, Member};
use super::inbound::{Heard, Inbound, WINDOW};
use super::outbound::{Outbound, PIECE, count, fitting, sends_whole};

/// Notes what is delivered.
#[derive(Debug, Default)]
struct Deliveries(BTreeMap<WorkerId, Vec<String>>);

impl Deliver for Deliveries {
    fn deliver(&mut self, to: WorkerId, lines: &[u8]) {
        let lines = std::str::from_utf8(lines).unwrap();
        assert!(lines.ends_with('\n'), "a whole line: {lines:?}");
        self.0.entry(to).or_default().extend(lines.lines().map(str::to_owned));
    }
}

fn member(app: &str, slot: u32) -> Member {
    Member { app: app.into(), slot, generation: 1, retain: 3, retain_bytes: 1 << 20, from: Arc::new([]) }
}

/// The number that a worker gave its `n`th message: a broadcast, or a message
/// about a topic.
fn numbers(lines: &[String], from: WorkerId, topic: bool) -> Vec<u64> {
    let value = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let own = |value: serde_json::Value| {
        let message = if topic { value["supervisor"]["data"].clone() } else { value };
        (message["from"] == from.0).then(|| message["n"].as_u64()).flatten()
    };
    lines.iter().map(value).filter_map(own).collect()
}

/// Members join, become ready, drain and leave at random, and say things all the
/// while. Each gets what it should, once and in order, and nothing else.
#[test]
fn members_at_random() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let (mut hub, mut out) = (Hub::default(), Deliveries::default());
        // By member: what it should have got of whom.
        let mut expected: BTreeMap<WorkerId, Vec<(WorkerId, u64, bool)>> = BTreeMap::new();
        let (mut alive, mut ready, mut subscribed) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let app = |worker: WorkerId| if worker.0.is_multiple_of(3) { "other" } else { "web" };
        let mut next = 0;
        for n in 0..400 {
            let some = |rng: &mut Rng, alive: &[WorkerId]| rng.choice(alive).copied();
            match rng.u8(..12) {
                0 => {
                    let worker = WorkerId(next);
                    next += 1;
                    hub.join(worker, member(app(worker), rng.u32(..4)));
                    alive.push(worker);
                }
                1 | 2 => {
                    if let Some(worker) = some(&mut rng, &alive) {
                        hub.ready(worker);
                        ready.insert(worker);
                    }
                }
                3 if alive.len() > 3 => {
                    let worker = alive.remove(rng.usize(..alive.len()));
                    if rng.bool() {
                        hub.drain(worker);
                    }
                    hub.leave(worker, &mut out);
                    ready.remove(&worker);
                }
                4 => {
                    if let Some(worker) = some(&mut rng, &alive) {
                        ask(&mut hub, worker, r#"{"subscribe":"cache.*"}"#, &mut out);
                        subscribed.insert(worker);
                    }
                }
                kind => {
                    let Some(from) = some(&mut rng, &alive) else { continue };
                    let topic = kind < 8;
                    let text = format!(r#"{{"from":{},"n":{n},"broadcast":true}}"#, from.0);
                    if topic {
                        let publish = format!(r#"{{"publish":"cache.users","data":{text}}}"#);
                        ask(&mut hub, from, &publish, &mut out);
                    } else {
                        hub.broadcast(from, format!("{text}\n").as_bytes(), &mut out);
                    }
                    let heirs = ready.iter().filter(|to| **to != from && app(**to) == app(from));
                    for to in heirs.filter(|to| !topic || subscribed.contains(*to)) {
                        expected.entry(*to).or_default().push((from, n, topic));
                    }
                }
            }
        }
        for worker in (0..next).map(WorkerId) {
            let lines = out.0.remove(&worker).unwrap_or_default();
            let all = expected.remove(&worker).unwrap_or_default();
            assert_eq!(lines.len(), all.len(), "seed {seed}");
            for (from, topic) in (0..next).flat_map(|from| [(WorkerId(from), true), (WorkerId(from), false)])
            {
                let own = all.iter().filter(|(sender, _, about)| (*sender, *about) == (from, topic));
                let own: Vec<u64> = own.map(|(_, n, _)| *n).collect();
                assert_eq!(numbers(&lines, from, topic), own, "seed {seed}, {worker:?} of {from:?}");
            }
        }
    }
}

fn ask(hub: &mut Hub, from: WorkerId, text: &str, out: &mut Deliveries) {
    let ask = serde_json::from_str(text).unwrap();
    assert_eq!(hub.ask(Instant::now(), from, Ask::read(ask).unwrap(), out), Meaning::Done);
}

#[test]
fn a_request_whose_answer_does_not_come() {
    let (mut hub, mut out) = (Hub::default(), Deliveries::default());
    let (asks, replies) = (WorkerId(1), WorkerId(2));
    for worker in [asks, replies] {
        hub.join(worker, member("web", 0));
        hub.ready(worker);
    }
    ask(&mut hub, replies, r#"{"subscribe":"sum"}"#, &mut out);
    for id in 0..3 {
        ask(&mut hub, asks, &format!(r#"{{"request":"sum","id":{id},"timeout":0}}"#), &mut out);
    }
    assert_eq!(out.0[&replies].len(), 3);
    // Nobody else can reply, and nobody twice.
    ask(&mut hub, asks, r#"{"reply":1}"#, &mut out);
    ask(&mut hub, replies, r#"{"reply":1,"data":7}"#, &mut out);
    ask(&mut hub, replies, r#"{"reply":1,"data":8}"#, &mut out);
    assert_eq!(out.0[&asks], [r#"{"supervisor":{"reply":0,"slot":0,"data":7}}"#]);
    hub.leave(replies, &mut out);
    assert_eq!(out.0[&asks].len(), 3);
    assert!(out.0[&asks][2].contains(r#""reply":2,"error":"the worker that was asked has gone""#));
    assert_eq!(hub.next_deadline(), None);
}

/// Any bytes, cut anywhere: what is not a line is refused, and nothing panics.
#[test]
fn any_bytes_are_read() {
    let mut rng = Rng::with_seed(7);
    let words = [
        "{",
        "}",
        "\"supervisor\"",
        ":",
        "\"publish\"",
        "\"a\"",
        ",",
        "true",
        "\"broadcast\"",
        "[",
        "1e9",
        "\\",
    ];
    for _ in 0..20_000 {
        let text: Vec<u8> = if rng.bool() {
            (0..rng.usize(..12)).flat_map(|_| rng.choice(words).unwrap_or_default().bytes()).collect()
        } else {
            (0..rng.usize(..64)).map(|_| rng.u8(..)).collect()
        };
        if let Ok(Line::Envelope(envelope)) = Line::read(&text) {
            let _ = Ask::read(envelope);
        }
    }
}

/// A reader that is killed at any point leaves the next one whole lines: each
/// comes once, and only one of which a part was consumed is missing.
#[test]
fn a_killed_reader_cuts_nothing() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let (ours, theirs) = stream_pair().unwrap();
        let lines: Vec<String> = (0..40)
            .map(|n| format!("{n} {}\n", "x".repeat(rng.usize(..if n % 9 == 0 { 90_000 } else { 40 }))))
            .collect();
        let mut rest: &[u8] = &lines.concat().into_bytes();
        let mut inbound = Inbound::default();
        let (mut noted, mut got, mut lost) = (false, Vec::new(), 0);
        let mut window = vec![0; WINDOW];
        let mut over = false;
        while !over {
            if !rest.is_empty() {
                let most = if rng.bool() { 50 } else { 40_000 };
                let piece = rest.len().min(rng.usize(1..=most));
                if let Ok(sent) = send(&theirs, &rest[..piece], SendFlags::DONTWAIT) {
                    rest = &rest[sent..];
                }
            }
            let at_once = rng.u8(..4) == 0;
            match inbound.read(ours.as_fd(), &mut window, 100_000, at_once, |is_within| noted = is_within) {
                Heard::Lines(len) => {
                    let text = String::from_utf8(window[..len].to_vec()).unwrap();
                    got.extend(text.split_inclusive('\n').filter(|line| *line != "\n").map(str::to_owned));
                }
                Heard::Line(line) => got.push(String::from_utf8(line).unwrap() + "\n"),
                Heard::TooLong => lost += 1,
                Heard::Nothing => over = rest.is_empty(),
                Heard::Part | Heard::Beginning => {}
                Heard::End => unreachable!("both ends are open"),
            }
            if rng.u8(..16) == 0 {
                // What was consumed of a line is lost with it.
                inbound = if noted { Inbound::within_a_line() } else { Inbound::default() };
            }
        }
        assert_eq!(got.len() + lost, lines.len(), "seed {seed}");
        let mut all = lines.iter();
        assert!(got.iter().all(|line| all.any(|other| other == line)), "in order and whole, seed {seed}");
    }
}

fn drain(socket: &OwnedFd) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok((len @ 1.., _)) = rustix::net::recv(socket, &mut buffer, rustix::net::RecvFlags::DONTWAIT) {
        all.extend_from_slice(&buffer[..len]);
    }
    all
}

#[test]
fn a_queue_keeps_order_and_bounds() {
    assert!(sends_whole(stream_pair().unwrap()).unwrap());
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let (ours, theirs) = stream_pair().unwrap();
        supervisor_sys::socket::set_nonblocking(&ours, true).unwrap();
        let mut outbound = Outbound::default();
        let (mut sent, mut dropped, mut got) = (0, 0, Vec::new());
        let (mut held, limit) = (false, 400_000);
        for n in 0..300 {
            let len = if rng.u8(..20) == 0 { rng.usize(PIECE..200_000) } else { rng.usize(..20_000) };
            let line = format!("{n} {}\n", "x".repeat(len));
            let progress = outbound.push(ours.as_fd(), line.as_bytes(), limit);
            assert!(outbound.bytes() <= limit && !progress.closed);
            (sent, dropped) = (sent + progress.sent, dropped + progress.dropped);
            if rng.bool() {
                got.extend(drain(&theirs));
            }
            while let Some(progress) = outbound.send_next(ours.as_fd(), false, |line| held = line.is_some()) {
                (sent, dropped) = (sent + progress.sent, dropped + progress.dropped);
            }
        }
        while !outbound.is_empty() {
            got.extend(drain(&theirs));
            while let Some(progress) = outbound.send_next(ours.as_fd(), false, |line| held = line.is_some()) {
                sent += progress.sent;
            }
        }
        got.extend(drain(&theirs));
        assert_eq!((sent + dropped, outbound.bytes(), held), (300, 0, false), "seed {seed}");
        assert_eq!(count(&got), sent);
        let text = String::from_utf8(got).unwrap();
        let numbers: Vec<u32> =
            text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, two| one < two));
        assert!(text.lines().all(|line| line.split(' ').nth(1).unwrap().bytes().all(|byte| byte == b'x')));
    }
}

/// The next master goes on where the kernel says that the last one was.
#[test]
fn a_long_line_outlives_its_master() {
    let (ours, theirs) = stream_pair().unwrap();
    supervisor_sys::socket::set_nonblocking(&ours, true).unwrap();
    let line = format!("{}\n", "y".repeat(1 << 20));
    let mut first = Outbound::default();
    first.push(ours.as_fd(), line.as_bytes(), 4 << 20);
    let mut held = None;
    while first
        .send_next(ours.as_fd(), false, |line| held = line.map(|line| line.try_clone_to_owned().unwrap()))
        .is_some()
    {}
    assert!(!first.is_empty());
    drop(first);
    let mut next = Outbound::default();
    next.go_on(held.unwrap()).unwrap();
    let mut got = Vec::new();
    while !next.is_empty() {
        got.extend(drain(&theirs));
        while next.send_next(ours.as_fd(), false, |_| {}).is_some() {}
    }
    got.extend(drain(&theirs));
    assert_eq!(got, line.as_bytes());
}

/// A master that leaves takes nothing with it, whatever waits and whatever is
/// leaving.
#[test]
fn what_waits_outlives_a_master_that_leaves() {
    for long_first in [false, true] {
        let (ours, theirs) = stream_pair().unwrap();
        supervisor_sys::socket::set_nonblocking(&ours, true).unwrap();
        let long = format!("{}\n", "y".repeat(1 << 20));
        let short: Vec<String> = (0..9).map(|n| format!("{n} {}\n", "x".repeat(9_000))).collect();
        let all: Vec<&str> = match long_first {
            true => std::iter::once(&*long).chain(short.iter().map(|line| &**line)).collect(),
            false => short.iter().map(|line| &**line).chain([&*long]).collect(),
        };
        let (mut outbound, mut held) = (Outbound::default(), None);
        let copy = |line: BorrowedFd<'_>| line.try_clone_to_owned().unwrap();
        // Each has hardly begun when it makes room for the next.
        for line in all.iter().cycle().take(3 * all.len()) {
            outbound.push(ours.as_fd(), line.as_bytes(), 16 << 20);
            outbound.send_next(ours.as_fd(), false, |line| held = line.map(copy));
            outbound.leave(false, |line| held = Some(copy(line))).unwrap();
            outbound = Outbound::default();
            if let Some(held) = &held {
                outbound.go_on(held.try_clone().unwrap()).unwrap();
            }
        }
        let mut got = Vec::new();
        while !outbound.is_empty() {
            got.extend(drain(&theirs));
            while outbound.send_next(ours.as_fd(), false, |_| {}).is_some() {}
        }
        got.extend(drain(&theirs));
        assert!(got == all.concat().repeat(3).as_bytes(), "{} bytes", got.len());
    }
}

#[test]
fn what_fits() {
    for (lines, room, fits) in
        [("a\nbc\n", 5, 5), ("a\nbc\n", 4, 2), ("a\nbc\n", 1, 0), ("", 3, 0), ("a\n", 9, 2)]
    {
        assert_eq!(fitting(lines.as_bytes(), room), fits, "{lines:?} in {room}");
    }
}
