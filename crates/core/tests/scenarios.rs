//! Stories about the core: `scenarios/*.txt`, events in, actions out.
//!
//! A file is one supervisor's life, in blocks: commands, a line `----`, what
//! came out of them, a blank line. `#` begins a comment.
//! `UPDATE=1 cargo test -p supervisor-core` writes what comes out into the
//! files; the difference is then reviewed like code.
//!
//! | command | meaning |
//! | --- | --- |
//! | `seed N` | the seed of the jitter, before anything else |
//! | `auto [spawned] [ready] [drained] [ended]` | from here on each spawn succeeds at once, each worker reports ready at once, is drained at once, and ends at once when it is asked or killed |
//! | `app NAME [KEY=VALUE…]` | declare it: `instances` `generation` `start=all\|none\|0,1` and the fields of `Policy`; `reload=5,25,100` and `hold` are its steps |
//! | `restored NAME [KEY=VALUE…]` | it was declared earlier: the same settings, and nobody waits |
//! | `start` `stop [--now]` `restart [--now]` `NAME[:0,1]` | orders |
//! | `abort NAME` | the reload under way is to go back |
//! | `reset NAME[:0,1]` | count restarts anew |
//! | `scale NAME N [start=all\|none\|0,1]`, `delete NAME [--now]`, `shutdown [--now]` | orders |
//! | `spawned N`, `spawn-failed N WHY` | the outcome of a spawn |
//! | `unready N WHY` | worker N was looked at and is not ready yet |
//! | `ready N`, `leaving N`, `delayed N TIME` | worker N speaks |
//! | `drained N` | nothing waits for worker N any more |
//! | `memory N USED LIMIT [--now]` | worker N uses too much; with `--now` by far |
//! | `hung N queue\|watchdog TIME` | worker N does nothing any more |
//! | `exit N code=C\|signal=S\|oom\|unknown` | worker N ends |
//! | `after TIME` | time passes, each deadline is met on its way |
//! | `leap TIME` | time passes and nobody looks, as on a suspended machine |
//! | `tick` | the clock is looked at |
//! | `replace` | another supervisor takes over what is remembered of this one |
//! | `status` | print what is known of each app |

mod narrate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use narrate::{Ended, Names, Told, moment};
use supervisor_core::{
    Action, AppId, Event, Exit, Generation, Hang, OperationId, Order, Policy, ReadyWhen, Reload, Slots,
    Supervisor, Timestamp, WorkerId,
};

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut different = 0;
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = play(&expected).unwrap_or_else(|error| panic!("{}:{error}", path.display()));
        if actual == expected {
            continue;
        }
        if update {
            fs::write(&path, actual).unwrap();
        } else {
            different += 1;
            println!("{}\n{}", path.display(), difference(&expected, &actual));
        }
    }
    assert_eq!(different, 0, "scenarios came out differently; UPDATE=1 accepts them");
}

/// Plays a scenario and returns its text with what came out this time.
fn play(text: &str) -> Result<String, String> {
    let mut stage = Stage::new(1);
    let mut result = String::new();
    let mut outputs = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() {
            outputs = false;
        }
        if outputs {
            continue;
        }
        result.push_str(line);
        result.push('\n');
        if line == "----" {
            result.push_str(if stage.output.is_empty() { "(nothing)\n" } else { &stage.output });
            stage.output.clear();
            outputs = true;
        } else if !line.is_empty() && !line.starts_with('#') {
            stage.command(line).map_err(|error| format!("{number}: {error}: {line}"))?;
        }
    }
    if stage.output.is_empty() { Ok(result) } else { Err("the last commands have no ---- line".to_owned()) }
}

/// The lines that differ, with the ones around them left out.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut text = format!("from line {}:\n", same + 1);
    for line in &old[same..old.len() - tail] {
        let _ = writeln!(text, "- {line}");
    }
    for line in &new[same..new.len() - tail] {
        let _ = writeln!(text, "+ {line}");
    }
    text
}

/// A supervisor and the little that a shell around it must know.
struct Stage {
    seed: u64,
    supervisor: Supervisor,
    next_worker: WorkerId,
    now: Timestamp,
    names: Names,
    generations: BTreeMap<AppId, Generation>,
    auto: BTreeSet<String>,
    output: String,
}

/// An app as a command declares it.
struct Declared {
    generation: Generation,
    policy: Policy,
    instances: u32,
    start: Slots,
}

impl Stage {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            supervisor: Supervisor::new(seed, WorkerId(1)),
            next_worker: WorkerId(1),
            now: Timestamp::default(),
            names: Names::default(),
            generations: BTreeMap::new(),
            auto: BTreeSet::new(),
            output: String::new(),
        }
    }

    fn command(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let verb = words.next().ok_or("a command is missing")?;
        let mut arguments: Vec<&str> = words.collect();
        let hurry = arguments.last() == Some(&"--now") && arguments.pop().is_some();
        match (verb, arguments.as_slice()) {
            ("seed", [seed]) => *self = Self::new(number(seed)?),
            ("auto", modes) => self.auto = modes.iter().map(|mode| (*mode).to_owned()).collect(),
            ("app", [name, settings @ ..]) => {
                let (app, declared) = self.declared(name, settings)?;
                let Declared { generation, policy, instances, start } = declared;
                self.give(line, app, Order::Declare { generation, policy, instances, start });
            }
            ("restored", [name, settings @ ..]) => {
                let (app, declared) = self.declared(name, settings)?;
                let Declared { generation, policy, instances, start } = declared;
                self.supervisor.restore(self.now, app, generation, policy, instances, &start);
                self.pass(Duration::ZERO);
            }
            ("abort", [name]) => self.order(line, name, |_| Order::Abort)?,
            ("start", [target]) => self.order(line, target, Order::Start)?,
            ("stop", [target]) => self.order(line, target, |slots| Order::Stop { slots, now: hurry })?,
            ("restart", [target]) => {
                self.order(line, target, |slots| Order::Restart { slots, now: hurry })?
            }
            ("scale", [name, instances, rest @ ..]) => {
                let instances = number(instances)?;
                let start = match rest {
                    [] => Slots::All,
                    [start] => selection(start.strip_prefix("start=").ok_or("start=SLOTS")?)?,
                    _ => return Err("scale APP N [start=all|none|0,1]".to_owned()),
                };
                self.order(line, name, |_| Order::Scale { instances, start })?;
            }
            ("reset", [target]) => {
                let (app, slots) = self.target(target)?;
                let count = self.supervisor.reset_restarts(app, &slots);
                let _ = writeln!(self.output, "{} reset {count} slots", moment(self.now));
            }
            ("delete", [name]) => self.order(line, name, |_| Order::Delete { now: hurry })?,
            ("shutdown", []) => self.handle(Event::ShutdownOrdered { now: hurry }),
            ("spawned", [worker]) => self.handle(Event::WorkerSpawned(id(worker)?)),
            ("spawn-failed", [worker, detail @ ..]) => {
                self.handle(Event::SpawnFailed { worker: id(worker)?, detail: detail.join(" ") });
            }
            ("unready", [worker, lacks @ ..]) => {
                self.handle(Event::WorkerUnready { worker: id(worker)?, lacks: lacks.join(" ") })
            }
            ("ready", [worker]) => self.handle(Event::WorkerReady(id(worker)?)),
            ("leaving", [worker]) => self.handle(Event::WorkerLeaving(id(worker)?)),
            ("delayed", [worker, by]) => {
                self.handle(Event::WorkerDelayed { worker: id(worker)?, by: duration(by)? });
            }
            ("hung", [worker, how, time]) => {
                let time = duration(time)?;
                let hang = match *how {
                    "queue" => Hang::Queue(time),
                    "watchdog" => Hang::Watchdog(time),
                    _ => return Err("hung N queue|watchdog TIME".to_owned()),
                };
                self.handle(Event::WorkerHung { worker: id(worker)?, hang });
            }
            ("drained", [worker]) => self.handle(Event::WorkerDrained(id(worker)?)),
            ("memory", [worker, used, limit]) => {
                let (worker, used, limit) = (id(worker)?, number(used)?, number(limit)?);
                self.handle(Event::MemoryExceeded { worker, used, limit, hard: hurry });
            }
            ("exit", [worker, how]) => {
                let exit = match how.split_once('=') {
                    Some(("code", code)) => Exit::Code(number(code)?),
                    Some(("signal", signal)) => Exit::Signal(number(signal)?),
                    _ if *how == "unknown" => Exit::Unknown,
                    _ if *how == "oom" => Exit::OutOfMemory { limit: None },
                    _ => return Err("no such exit".to_owned()),
                };
                self.handle(Event::WorkerExited { worker: id(worker)?, exit });
            }
            ("after", [time]) => self.pass(duration(time)?),
            ("leap", [time]) => self.now = self.now + duration(time)?,
            ("tick", []) => self.handle(Event::TimePassed),
            ("replace", []) => self.replace(),
            ("status", []) => self.status(),
            _ => return Err("no such command".to_owned()),
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.supervisor.handle(self.now, event) {
                if let Action::Spawn { worker, .. } = action {
                    self.next_worker = WorkerId(worker.0 + 1);
                }
                let _ = writeln!(self.output, "{} {}", moment(self.now), Told(&self.names, &action));
                events.extend(self.answers(&action));
            }
        }
    }

    /// Another supervisor takes over. What it orders again is not performed.
    fn replace(&mut self) {
        let mut next = Supervisor::new(self.seed, self.next_worker);
        for app in self.names.apps.keys() {
            let Some(memo) = self.supervisor.memo(*app) else { continue };
            let slots = self.supervisor.slot_memos(*app).collect();
            for action in next.adopt(self.now, *app, memo, slots).unwrap_or_default() {
                let _ = writeln!(self.output, "{} {}", moment(self.now), Told(&self.names, &action));
            }
        }
        self.supervisor = next;
    }

    /// What a machine on which everything succeeds would report at once.
    fn answers(&self, action: &Action) -> Vec<Event> {
        let on = |mode, event| self.auto.contains(mode).then_some(event);
        match action {
            Action::Spawn { worker, .. } => {
                let spawned = on("spawned", Event::WorkerSpawned(*worker));
                spawned.into_iter().chain(on("ready", Event::WorkerReady(*worker))).collect()
            }
            Action::Terminate(worker) => {
                let exit = Event::WorkerExited { worker: *worker, exit: Exit::Code(0) };
                on("ended", exit).into_iter().collect()
            }
            Action::Kill(worker) => {
                let exit = Event::WorkerExited { worker: *worker, exit: Exit::Signal(9) };
                on("ended", exit).into_iter().collect()
            }
            Action::Drain(worker) => on("drained", Event::WorkerDrained(*worker)).into_iter().collect(),
            Action::Open(_)
            | Action::Close(_)
            | Action::Rotate(..)
            | Action::Abort(_)
            | Action::Revert(_)
            | Action::Forget(_)
            | Action::Announce(_)
            | Action::Report(..)
            | Action::Finish(..) => Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle = 0;
        while let Some(deadline) = self.supervisor.next_deadline().filter(|deadline| *deadline <= end) {
            idle = if deadline > self.now { 0 } else { idle + 1 };
            assert!(idle < 100, "the deadline {deadline:?} is met and stays");
            self.now = self.now.max(deadline);
            self.handle(Event::TimePassed);
        }
        self.now = end;
    }

    /// The id of an app's name: the same for the same name.
    fn app(&mut self, name: &str) -> AppId {
        if let Some((id, _)) = self.names.apps.iter().find(|(_, known)| *known == name) {
            return *id;
        }
        let id = AppId(self.names.apps.last_key_value().map_or(0, |(last, _)| last.0 + 1));
        self.names.apps.insert(id, name.to_owned());
        id
    }

    fn give(&mut self, line: &str, app: AppId, order: Order) {
        let operation = OperationId(self.names.operations.len() as u64 + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        let called = if words[0] == "app" { words[..2].join(" ") } else { words.join(" ") };
        self.names.operations.insert(operation, called);
        self.handle(Event::Ordered { operation, app, order });
    }

    fn order(&mut self, line: &str, target: &str, order: impl FnOnce(Slots) -> Order) -> Result<(), String> {
        let (app, slots) = self.target(target)?;
        self.give(line, app, order(slots));
        Ok(())
    }

    fn target(&mut self, target: &str) -> Result<(AppId, Slots), String> {
        let (name, slots) = match target.split_once(':') {
            Some((name, indexes)) => (name, selection(indexes)?),
            None => (target, Slots::All),
        };
        Ok((self.app(name), slots))
    }

    fn declared(&mut self, name: &str, settings: &[&str]) -> Result<(AppId, Declared), String> {
        let app = self.app(name);
        let mut generation = self.generations.get(&app).copied().unwrap_or(Generation(1));
        let mut policy = defaults();
        let mut instances = 1;
        let mut start = Slots::All;
        let (mut shares, mut held) = (Vec::new(), Duration::ZERO);
        for setting in settings {
            let (key, value) = setting.split_once('=').ok_or("a setting is KEY=VALUE")?;
            match key {
                "instances" => instances = number(value)?,
                "generation" => generation = Generation(number(value)?),
                "start" => start = selection(value)?,
                "ready" => {
                    policy.ready = match value {
                        "started" => ReadyWhen::Started,
                        "notify" => ReadyWhen::Reported,
                        _ => return Err("ready is started or notify".to_owned()),
                    }
                }
                "listen_timeout" => policy.listen_timeout = duration(value)?,
                "min_uptime" => policy.min_uptime = duration(value)?,
                "max_restarts" => policy.max_restarts = number(value)?,
                "restart_delay" => policy.restart_delay = duration(value)?,
                "restart_backoff_percent" => policy.restart_backoff_percent = number(value)?,
                "breaker_retry" => policy.breaker_retry = duration(value)?,
                "autorestart" => policy.autorestart = number(value)?,
                "stop_exit_codes" => {
                    policy.stop_exit_codes = value.split(',').map(number).collect::<Result<_, _>>()?;
                }
                "kill_timeout" => policy.kill_timeout = duration(value)?,
                "listens" => policy.listens = number(value)?,
                "drain_timeout" => policy.drain_timeout = duration(value)?,
                "max_surge" => policy.max_surge = number(value)?,
                "reload" => shares = value.split(',').map(number).collect::<Result<_, _>>()?,
                "hold" => held = duration(value)?,
                _ => return Err(format!("no such setting {key}")),
            }
        }
        if !shares.is_empty() {
            policy.reload = Reload::Steps { shares, hold: held };
        }
        self.generations.insert(app, generation);
        Ok((app, Declared { generation, policy, instances, start }))
    }

    fn status(&mut self) {
        for (id, name) in &self.names.apps {
            let Some(app) = self.supervisor.app(*id) else { continue };
            let _ = writeln!(
                self.output,
                "{} {name} is {}: generation {}, wanted {}, ready {}, running {}",
                moment(self.now),
                format!("{:?}", app.state).to_lowercase(),
                app.generation.0,
                app.wanted,
                app.ready,
                app.running,
            );
            for (index, slot) in app.slots.iter().enumerate() {
                let _ =
                    write!(self.output, "  {name}:{index} {}", format!("{:?}", slot.state).to_lowercase());
                if let Some(worker) = slot.worker {
                    let _ = write!(self.output, ", worker {}", worker.0);
                }
                let _ = write!(self.output, ", generation {}, restarts {}", slot.generation.0, slot.restarts);
                if let Some(since) = slot.since {
                    let _ = write!(self.output, ", since {}", moment(since));
                }
                if let Some(next) = slot.next_start {
                    let _ = write!(self.output, ", next start at {}", moment(next));
                }
                if let Some(ending) = &slot.last_ending {
                    let _ = write!(self.output, ", last {}", Ended(ending));
                }
                self.output.push('\n');
                if let Some(beside) = slot.beside {
                    let state = format!("{:?}", beside.state).to_lowercase();
                    let (worker, generation) = (beside.worker.0, beside.generation.0);
                    let _ = writeln!(
                        self.output,
                        "  {name}:{index} beside it {state}, worker {worker}, generation {generation}"
                    );
                }
            }
        }
    }
}

/// The settings of an app that names none.
fn defaults() -> Policy {
    Policy {
        ready: ReadyWhen::Started,
        listen_timeout: Duration::from_secs(30),
        min_uptime: Duration::from_secs(1),
        max_restarts: 16,
        restart_delay: Duration::from_millis(100),
        restart_backoff_percent: 200,
        breaker_retry: Duration::from_secs(60),
        autorestart: true,
        stop_exit_codes: Vec::new(),
        kill_timeout: Duration::from_secs(5),
        listens: false,
        drain_timeout: Duration::from_secs(30),
        max_surge: 0,
        reload: Reload::Rolling,
    }
}

fn selection(text: &str) -> Result<Slots, String> {
    match text {
        "all" => Ok(Slots::All),
        "none" => Ok(Slots::Only(BTreeSet::new())),
        indexes => Ok(Slots::Only(indexes.split(',').map(number).collect::<Result<_, _>>()?)),
    }
}

fn id(text: &str) -> Result<WorkerId, String> {
    number(text).map(WorkerId)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("no such value {text}"))
}

/// `3s`, `250ms`, `1500us` or `7ns`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or("a time has a unit")?;
    let (amount, unit) = text.split_at(digits);
    let amount = number(amount)?;
    match unit {
        "s" => Ok(Duration::from_secs(amount)),
        "ms" => Ok(Duration::from_millis(amount)),
        "us" => Ok(Duration::from_micros(amount)),
        "ns" => Ok(Duration::from_nanos(amount)),
        _ => Err(format!("no such unit {unit}")),
    }
}
