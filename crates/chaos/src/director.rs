//! What is done when.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::apps::{APPS, App};
use crate::drill;
use crate::faults::{self, Fault};
use crate::lines::{self, Lines};
use crate::machine::Machine;
use crate::messages::{self, Messages};
use crate::options::Options;
use crate::orders::{self, Order, Slots};
use crate::processes::{Process, own};
use crate::rest::{self, Needs};
use crate::{World, clients, locked, report};

/// How long things go wrong between two looks at rest.
const ROUND: Duration = Duration::from_secs(20);
/// The longest pause between two of them, in milliseconds.
const PAUSE: u64 = 900;

/// What was seen, beside what clients count.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) before: Needs,
    pub(crate) after: Needs,
    /// How long the status took to be right after the death of a master or a keeper.
    pub(crate) prompt: Vec<Duration>,
    pub(crate) lines: Lines,
    pub(crate) messages: Messages,
}

/// What keeper and master needed in the beginning and in the end, and [`Seen::prompt`].
type Measured = (Needs, Needs, Vec<Duration>);

/// All of it. An error is a finding, too.
pub(crate) fn run(world: &World, options: Options) -> Result<Seen> {
    let mut rng = Rng::with_seed(options.seed);
    world.story.tell(format_args!("seed {}, {:?}", options.seed, options.time));
    let seen = start(world).and_then(|()| beside_clients(world, options, &mut rng));
    // Whatever has happened, nothing may be left.
    let ended = end(world);
    let (before, after, prompt) = match (seen, ended) {
        (Ok(seen), Ok(())) => seen,
        (Err(error), Ok(())) | (Ok(_), Err(error)) => return Err(error),
        (Err(error), Err(ended)) => {
            world.find(format!("{ended:#}"));
            return Err(error);
        }
    };
    Ok(Seen { before, after, prompt, lines: lines::check(world)?, messages: messages::check(world)? })
}

/// What is done while clients ask.
fn beside_clients(world: &World, options: Options, rng: &mut Rng) -> Result<Measured> {
    scope(|scope| {
        let mut threads = vec![scope.spawn(|| Machine::watch(world))];
        let asked = APPS.iter().filter(|app| app.clients.is_some()).count();
        for app in &APPS {
            let Some(address) = app.port().map(|port| world.home.address(port)) else { continue };
            let usual = app.clients.map_or(0, |(clients, _, _)| clients);
            for _ in 0..options.drill.map_or(usual, |_| drill::CLIENTS / asked) {
                let seed = rng.u64(..);
                threads.push(scope.spawn(move || clients::ask(world, app, address, seed)));
            }
        }
        let seen = under_load(world, options, rng);
        world.give_up();
        join(world, threads);
        seen
    })
}

/// Waits for threads, and notes those that panicked.
fn join(world: &World, threads: Vec<ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        if thread.join().is_err() {
            world.find("a thread of this program panicked".to_owned());
        }
    }
}

/// Declares all apps.
fn start(world: &World) -> Result<()> {
    for app in &APPS {
        let file = world.home.path(&format!("{}.yaml", app.name));
        fs::write(&file, app.file(&world.home, app.instances, 0, None))?;
        let output = world.home.run(&["start", &file.display().to_string()])?;
        ensure!(output.status.success(), "{}: {}", app.name, String::from_utf8_lossy(&output.stderr));
    }
    rest::reach(world)
}

/// Rounds of faults and orders, with rests between them.
fn under_load(world: &World, options: Options, rng: &mut Rng) -> Result<Measured> {
    // The first master has not adopted anything: others are compared with one that has.
    rest::replace_master(world)?;
    rest::reach(world)?;
    // It keeps files of all workers open as soon as it has looked at them.
    sleep(Duration::from_secs(3));
    let before = rest::needs(world)?;
    let end = Instant::now() + options.time;
    let mut prompt = Vec::new();
    let is_done = || match options.drill {
        Some(drill) => drill.left(world) == 0,
        None => Instant::now() >= end,
    };
    while !is_done() && !world.is_over() {
        let round = Instant::now() + ROUND;
        go_wrong(world, options, rng, if options.drill.is_some() { round } else { end.min(round) });
        if world.is_over() {
            break;
        }
        eprintln!("{}", report::progress(world, options));
        world.story.tell("rest");
        rest::reach(world)?;
        let spares_keeper = options.drill.is_some() || rng.bool();
        prompt.push(if spares_keeper { rest::replace_master(world)? } else { rest::replace_keeper(world)? });
        world.story.tell("all is as it should be");
    }
    if !world.is_over() {
        as_in_the_beginning(world)?;
    }
    let after = rest::no_leak(world, &before)?;
    Ok((before, after, prompt))
}

/// A round of faults and orders; returns when all have come to their end.
fn go_wrong(world: &World, options: Options, rng: &mut Rng, end: Instant) {
    let under_way: Mutex<BTreeSet<Fault>> = Mutex::default();
    scope(|scope| {
        let mut threads: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
        if let Some(drill) = options.drill {
            let mut own = rng.fork();
            threads.push(scope.spawn(move || note(world, drill.go_on(world, &mut own, end))));
        }
        while Instant::now() < end && !world.is_over() {
            let mut own = rng.fork();
            if rng.u32(0..5) < 2 {
                if let Some((app, order)) = choose_order(world, rng) {
                    threads.push(scope.spawn(move || note(world, orders::carry_out(world, app, order))));
                }
            } else {
                let fault = Fault::choose(rng);
                let is_allowed = options.drill.is_none() || fault == Fault::KillWorker;
                if is_allowed && fault.may_begin(&locked(&under_way)) {
                    let under_way = &under_way;
                    locked(under_way).insert(fault);
                    threads.push(scope.spawn(move || {
                        note(world, faults::inject(world, fault, &mut own));
                        locked(under_way).remove(&fault);
                    }));
                }
            }
            sleep(Duration::from_millis(rng.u64(0..PAUSE)));
        }
        join(world, threads);
    });
}

fn note(world: &World, result: Result<()>) {
    if let Err(error) = result {
        world.find(format!("{error:#}"));
    }
}

/// An order for an app that none is under way for.
fn choose_order(world: &World, rng: &mut Rng) -> Option<(&'static App, Order)> {
    let app = APPS.get(rng.usize(0..APPS.len()))?;
    world.with_wanted(app.name, |wanted| {
        // What is not known for sure is looked at when all is at rest.
        if wanted.is_busy || wanted.is_uncertain() {
            return None;
        }
        wanted.is_busy = true;
        wanted.orders += 1;
        Some((app, Order::choose(app, wanted, rng)))
    })
}

/// As many workers as in the beginning, so that what they need can be compared.
fn as_in_the_beginning(world: &World) -> Result<()> {
    for app in &APPS {
        for words in [["start", app.name, ""], ["scale", app.name, &app.instances.to_string()]] {
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let output = world.home.run(&words)?;
            ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        world.with_wanted(app.name, |wanted| {
            wanted.slots = Slots { instances: app.instances, ..Slots::default() };
        });
    }
    rest::reach(world)?;
    check_declared(world)
}

/// What is on disk is what is so.
fn check_declared(world: &World) -> Result<()> {
    let state: Value = serde_json::from_slice(&fs::read(world.home.daemon("state/state.json"))?)?;
    let apps = state["apps"].as_array().context("the state file has no apps")?;
    for app in &APPS {
        let declared: Vec<&Value> =
            apps.iter().filter(|entry| entry["settings"]["name"] == app.name).collect();
        let [declared] = declared.as_slice() else {
            anyhow::bail!("the state file has {declared:?} of {}", app.name)
        };
        ensure!(
            declared["instances"] == app.instances && declared["stopped"] == serde_json::json!([]),
            "the state file has {} instances of {}, and {} are stopped",
            declared["instances"],
            app.name,
            declared["stopped"]
        );
    }
    Ok(())
}

/// Ends the daemon. Nothing may be left; what is left all the same is killed.
fn end(world: &World) -> Result<()> {
    let left = world.home.run(&["kill"]).and_then(|output| {
        ensure!(output.status.success(), "`kill` fails: {}", String::from_utf8_lossy(&output.stderr));
        until_none_left(world)
    });
    for own in own(world.home.folder())? {
        if let Ok(process) = Process::open(own.number) {
            process.signal(Signal::KILL);
        }
    }
    left
}

fn until_none_left(world: &World) -> Result<()> {
    let begin = Instant::now();
    loop {
        let left = own(world.home.folder())?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(begin.elapsed() < Duration::from_secs(10), "left when the daemon has ended: {left:?}");
        sleep(Duration::from_millis(50));
    }
}
