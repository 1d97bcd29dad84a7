//! What happened, in the words of the core's scenarios.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use supervisor_core::{Action, AppId, Event, Exit, Hang, Order, Policy, ReadyWhen, Reload, Slots, Timestamp};

use crate::narrate::{Names, Told, moment};

/// A run as a scenario: commands, and what came out of them.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) names: Names,
    lines: Vec<Line>,
    told_at: Timestamp,
    hash: u64,
}

#[derive(Debug)]
enum Line {
    Command(String),
    Output(String),
}

impl Trace {
    pub(crate) fn new(seed: u64, apps: &BTreeSet<u32>) -> Self {
        let mut trace = Self {
            names: Names::default(),
            lines: Vec::new(),
            told_at: Timestamp::default(),
            hash: 0xcbf2_9ce4_8422_2325,
        };
        trace.add(Line::Command(format!("seed {seed}")));
        trace.names.apps = apps.iter().map(|app| (AppId(*app), format!("app{app}"))).collect();
        let names: Vec<&str> = trace.names.apps.values().map(String::as_str).collect();
        trace.add(Line::Command(format!("apps {}", names.join(" "))));
        trace
    }

    /// FNV-1a of all lines.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn event(&mut self, now: Timestamp, event: &Event) {
        self.leap(now);
        let command = self.command(event);
        if let Event::Ordered { operation, order, .. } = event {
            let name = if matches!(order, Order::Declare { .. }) {
                command.split(' ').take(2).collect::<Vec<_>>().join(" ")
            } else {
                command.clone()
            };
            self.names.operations.insert(*operation, name);
        }
        self.add(Line::Command(command));
    }

    /// Another master has taken over.
    pub(crate) fn replaced(&mut self, now: Timestamp) {
        self.leap(now);
        self.add(Line::Command("replace".to_owned()));
    }

    pub(crate) fn action(&mut self, now: Timestamp, action: &Action) {
        let line = format!("{} {}", moment(now), Told(&self.names, action));
        self.add(Line::Output(line));
    }

    /// The run as lines of a scenario.
    pub(crate) fn story(&self) -> Vec<String> {
        let mut story = Vec::new();
        let mut told = false;
        for line in &self.lines {
            match line {
                Line::Command(command) => {
                    if told {
                        story.push(String::new());
                    }
                    told = false;
                    story.push(command.clone());
                }
                Line::Output(output) => {
                    if !told {
                        story.push("----".to_owned());
                    }
                    told = true;
                    story.push(output.clone());
                }
            }
        }
        story
    }

    fn leap(&mut self, now: Timestamp) {
        if now != self.told_at {
            self.add(Line::Command(format!("leap {}", time(now.since(self.told_at)))));
            self.told_at = now;
        }
    }

    fn add(&mut self, line: Line) {
        let (Line::Command(text) | Line::Output(text)) = &line;
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines.push(line);
    }

    fn command(&self, event: &Event) -> String {
        match event {
            Event::Ordered { app, order, .. } => {
                ordered(self.names.apps.get(app).map_or("?", String::as_str), order)
            }
            Event::WorkerSpawned(worker) => format!("spawned {}", worker.0),
            Event::SpawnFailed { worker, detail } => format!("spawn-failed {} {detail}", worker.0),
            Event::WorkerReady(worker) => format!("ready {}", worker.0),
            Event::WorkerUnready { worker, lacks } => format!("unready {} {lacks}", worker.0),
            Event::WorkerLeaving(worker) => format!("leaving {}", worker.0),
            Event::WorkerDelayed { worker, by } => format!("delayed {} {}", worker.0, time(*by)),
            Event::WorkerDrained(worker) => format!("drained {}", worker.0),
            Event::MemoryExceeded { worker, used, limit, hard } => {
                format!("memory {} {used} {limit}{}", worker.0, hurry(*hard))
            }
            Event::WorkerHung { worker, hang: Hang::Queue(stood) } => {
                format!("hung {} queue {}", worker.0, time(*stood))
            }
            Event::WorkerHung { worker, hang: Hang::Watchdog(silent) } => {
                format!("hung {} watchdog {}", worker.0, time(*silent))
            }
            Event::WorkerExited { worker, exit } => match exit {
                Exit::Code(code) => format!("exit {} code={code}", worker.0),
                Exit::Signal(signal) => format!("exit {} signal={signal}", worker.0),
                Exit::OutOfMemory { .. } => format!("exit {} oom", worker.0),
                Exit::Unknown => format!("exit {} unknown", worker.0),
            },
            Event::TimePassed => "tick".to_owned(),
            Event::ShutdownOrdered { now } => format!("shutdown{}", hurry(*now)),
        }
    }
}

fn ordered(name: &str, order: &Order) -> String {
    match order {
        Order::Declare { generation, policy, instances, start } => {
            let (generation, start, settings) = (generation.0, selection(start), settings(policy));
            format!("app {name} instances={instances} generation={generation} start={start}{settings}")
        }
        Order::Start(slots) => format!("start {name}{}", target(slots)),
        Order::Stop { slots, now } => format!("stop {name}{}{}", target(slots), hurry(*now)),
        Order::Restart { slots, now } => format!("restart {name}{}{}", target(slots), hurry(*now)),
        Order::Scale { instances, start } => format!("scale {name} {instances} start={}", selection(start)),
        Order::Abort => format!("abort {name}"),
        Order::Delete { now } => format!("delete {name}{}", hurry(*now)),
    }
}

fn settings(policy: &Policy) -> String {
    let Policy {
        ready,
        listen_timeout,
        min_uptime,
        max_restarts,
        restart_delay,
        restart_backoff_percent,
        breaker_retry,
        autorestart,
        stop_exit_codes,
        kill_timeout,
        listens,
        drain_timeout,
        max_surge,
        reload,
    } = policy;
    let ready = match ready {
        ReadyWhen::Started => "started",
        ReadyWhen::Reported => "notify",
    };
    let mut text = format!(" ready={ready}");
    for (key, value) in [
        ("listen_timeout", listen_timeout),
        ("min_uptime", min_uptime),
        ("restart_delay", restart_delay),
        ("breaker_retry", breaker_retry),
        ("kill_timeout", kill_timeout),
        ("drain_timeout", drain_timeout),
    ] {
        let _ = write!(text, " {key}={}", time(*value));
    }
    let _ = write!(text, " restart_backoff_percent={restart_backoff_percent}");
    let _ = write!(text, " max_restarts={max_restarts} autorestart={autorestart}");
    let _ = write!(text, " listens={listens} max_surge={max_surge}");
    if let Reload::Steps { shares, hold } = reload {
        let shares: Vec<_> = shares.iter().map(ToString::to_string).collect();
        let _ = write!(text, " reload={} hold={}", shares.join(","), time(*hold));
    }
    if !stop_exit_codes.is_empty() {
        let codes: Vec<_> = stop_exit_codes.iter().map(ToString::to_string).collect();
        let _ = write!(text, " stop_exit_codes={}", codes.join(","));
    }
    text
}

fn target(slots: &Slots) -> String {
    match slots {
        Slots::All => String::new(),
        Slots::Only(_) => format!(":{}", selection(slots)),
    }
}

fn selection(slots: &Slots) -> String {
    match slots {
        Slots::All => "all".to_owned(),
        Slots::Only(indexes) if indexes.is_empty() => "none".to_owned(),
        Slots::Only(indexes) => indexes.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

const fn hurry(now: bool) -> &'static str {
    if now { " --now" } else { "" }
}

/// Exact, in the largest unit that fits.
fn time(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    match [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")]
        .into_iter()
        .find(|(unit, _)| nanoseconds.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", nanoseconds / unit),
        None => format!("{nanoseconds}ns"),
    }
}
