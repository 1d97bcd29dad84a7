//! Workers on real sockets, with the thread between them: they join, become
//! ready, are replaced, drain and end at random, while all of them speak in
//! pieces that are cut anywhere. Each gets what was said while it was ready,
//! all of it, in order and once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use supervisor_config::ChannelOptions;
use supervisor_core::WorkerId;
use supervisor_sys::fdpass::stream_pair;

use super::{Channel, Ends, Figures, Left, NewMember};
use crate::link::Link;

/// Far more than anything takes.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Joined,
    Ready,
    Draining,
    Ended,
}

/// One worker.
struct Life {
    id: WorkerId,
    slot: u32,
    generation: u64,
    /// Whose place it takes when it is ready.
    replaces: Option<usize>,
    stage: Stage,
    socket: OwnedFd,
    figures: Arc<Figures>,
    /// What it has begun to say.
    rest: Vec<u8>,
    /// How many lines it has said.
    said: u64,
    got: Vec<u8>,
    /// By sender: what it must get.
    expected: BTreeMap<u64, Vec<u64>>,
}

struct World {
    rng: Rng,
    channel: Channel,
    lives: Vec<Life>,
}

impl World {
    fn new(seed: u64) -> Self {
        // Nobody is at the other end: what the keeper is told is lost.
        let (link, _) = stream_pair().unwrap();
        let channel = Channel::start(Link::new(link).notes().unwrap()).unwrap();
        Self { rng: Rng::with_seed(seed), channel, lives: Vec::new() }
    }

    fn join(&mut self, slot: u32, generation: u64, replaces: Option<usize>) {
        let id = WorkerId(self.lives.len() as u64);
        let Ends { ours, theirs } = Ends::new().unwrap();
        let new = NewMember {
            worker: id,
            app: "web".into(),
            slot,
            generation,
            socket: ours,
            left: Left::default(),
        };
        let options = ChannelOptions { buffer: 1 << 30, ..ChannelOptions::default() };
        let figures = self.channel.join(new, &options);
        self.lives.push(Life {
            id,
            slot,
            generation,
            replaces,
            stage: Stage::Joined,
            socket: theirs,
            figures,
            rest: Vec::new(),
            said: 0,
            got: Vec::new(),
            expected: BTreeMap::new(),
        });
    }

    /// Waits until all lines that were said have been passed on, so that it is
    /// known who was ready then.
    fn settle(&self) {
        let begin = Instant::now();
        let is_behind =
            |life: &Life| life.stage != Stage::Ended && life.figures.status().received < life.said;
        while self.lives.iter().any(is_behind) {
            assert!(begin.elapsed() < DEADLINE, "not all is heard");
            std::thread::yield_now();
        }
    }

    fn ready(&mut self, at: usize) {
        self.settle();
        self.channel.ready(self.lives[at].id);
        self.lives[at].stage = Stage::Ready;
        if let Some(old) = self.lives[at].replaces
            && self.lives[old].stage == Stage::Ready
        {
            self.drain(old);
        }
        self.obeyed();
    }

    fn drain(&mut self, at: usize) {
        self.settle();
        self.channel.drain(self.lives[at].id);
        self.lives[at].stage = Stage::Draining;
        self.obeyed();
    }

    /// The process dies: what it has not read is lost with it.
    fn end(&mut self, at: usize) {
        self.settle();
        self.read(at);
        let (closed, _) = stream_pair().unwrap();
        let life = &mut self.lives[at];
        life.socket = closed;
        life.stage = Stage::Ended;
        self.channel.end(life.id);
        self.obeyed();
    }

    /// Waits until the thread has done what it was told.
    fn obeyed(&self) {
        self.channel.say("nobody".to_owned(), None, Vec::new()).blocking_recv().unwrap();
    }

    /// A worker says the next piece of its lines.
    fn say(&mut self, at: usize) {
        let from = self.lives[at].id.0;
        if self.lives[at].rest.is_empty() {
            let mut text = String::new();
            let first = self.lives[at].said;
            for n in first..first + self.rng.u64(1..30) {
                let filler = "x".repeat(self.rng.usize(..if n % 50 == 0 { 30_000 } else { 60 }));
                writeln!(text, "{{\"broadcast\":true,\"from\":{from},\"n\":{n},\"x\":\"{filler}\"}}")
                    .unwrap();
            }
            self.lives[at].rest = text.into_bytes();
        }
        let life = &mut self.lives[at];
        let piece = if self.rng.bool() { life.rest.len() } else { self.rng.usize(1..=life.rest.len()) };
        let piece: Vec<u8> = life.rest.drain(..piece).collect();
        let mut left = &piece[..];
        while !left.is_empty() {
            let sent = send(&life.socket, left, SendFlags::NOSIGNAL).unwrap();
            left = &left[sent..];
        }
        let first = life.said;
        life.said += memchr::memchr_iter(b'\n', &piece).count() as u64;
        let numbers = first..life.said;
        if numbers.is_empty() {
            return;
        }
        for other in self.lives.iter_mut().filter(|other| other.id.0 != from && other.stage == Stage::Ready) {
            other.expected.entry(from).or_default().extend(numbers.clone());
        }
    }

    fn read(&mut self, at: usize) {
        let life = &mut self.lives[at];
        let mut buffer = [0; 1 << 16];
        while let Ok((len @ 1.., _)) = recv(&life.socket, &mut buffer, RecvFlags::DONTWAIT) {
            life.got.extend_from_slice(&buffer[..len]);
        }
    }

    fn step(&mut self) {
        let with = |stage: &[Stage]| -> Vec<usize> {
            (0..self.lives.len()).filter(|at| stage.contains(&self.lives[*at].stage)).collect()
        };
        let joined = with(&[Stage::Joined]);
        let ready = with(&[Stage::Ready]);
        let draining = with(&[Stage::Draining]);
        let alive = with(&[Stage::Joined, Stage::Ready, Stage::Draining]);
        let choice = self.rng.u8(..40);
        let mut one = |of: &[usize]| self.rng.choice(of).copied();
        match choice {
            0 if alive.len() < 8 => {
                let slot = self.rng.u32(..4);
                self.join(slot, 1, None);
            }
            1 | 2 => {
                if let Some(old) = one(&ready).filter(|_| alive.len() < 12) {
                    let (slot, generation) = (self.lives[old].slot, self.lives[old].generation + 1);
                    self.join(slot, generation, Some(old));
                }
            }
            3..=5 => one(&joined).into_iter().for_each(|at| self.ready(at)),
            6 => one(&ready).into_iter().for_each(|at| self.drain(at)),
            7 => one(&draining).into_iter().for_each(|at| self.end(at)),
            8 if alive.len() > 3 => one(&alive).into_iter().for_each(|at| self.end(at)),
            9..=20 => one(&alive).into_iter().for_each(|at| self.read(at)),
            _ => one(&alive).into_iter().for_each(|at| self.say(at)),
        }
    }

    /// Whether all that a worker must get has come. What it has got must be
    /// right at any time.
    fn has_all(&self, at: usize) -> bool {
        let life = &self.lives[at];
        let mut got: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let whole = memchr::memrchr(b'\n', &life.got).map_or(0, |end| end + 1);
        for line in std::str::from_utf8(&life.got[..whole]).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            got.entry(line["from"].as_u64().unwrap()).or_default().push(line["n"].as_u64().unwrap());
        }
        for (from, got) in &got {
            let expected = life.expected.get(from).map_or(&[][..], Vec::as_slice);
            assert!(expected.starts_with(got), "{:?} of {from}: {got:?} and not {expected:?}", life.id);
        }
        got == life.expected
    }
}

#[test]
fn each_gets_what_was_said_while_it_was_ready() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        for slot in 0..4 {
            world.join(slot, 1, None);
        }
        for _ in 0..600 {
            world.step();
        }
        world.settle();
        for at in 0..world.lives.len() {
            let begin = Instant::now();
            while !world.has_all(at) && world.lives[at].stage != Stage::Ended {
                assert!(
                    begin.elapsed() < DEADLINE,
                    "seed {seed}, {:?}: not all has come",
                    world.lives[at].id
                );
                world.read(at);
            }
        }
        let count = |lives: &[Life]| lives.iter().map(|life| life.said).sum::<u64>();
        assert!(count(&world.lives) > 1000, "seed {seed}: they were silent");
        assert!(world.lives.iter().any(|life| life.generation > 1), "seed {seed}: none was replaced");
    }
}
