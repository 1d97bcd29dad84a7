//! What must be so when nothing is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use supervisor_sys::diag::Diag;
use supervisor_sys::signal::Signal;

use crate::apps::{APPS, App};
use crate::faults::{daemon, pid_of};
use crate::orders::{Slots, Wanted};
use crate::processes::{Number, Own, Process, own};
use crate::story::Trouble;
use crate::{World, messages};

/// How long it may take until all is as it should be: the longest pause between two starts is 18 s, and old
/// sockets are watched for 10 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon after the death of a master or a keeper the status must be right.
const PROMPT: Duration = Duration::from_secs(5);
/// How many descriptors more than in the beginning there may be: what is open for a moment.
const MOMENTARY: usize = 8;

/// The workers of each app.
pub(crate) type Workers = BTreeMap<&'static str, BTreeSet<Number>>;

/// What keeper and master need.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) keeper: Need,
    pub(crate) master: Need,
}

/// What one of them needs.
#[derive(Debug)]
pub(crate) struct Need {
    descriptors: BTreeMap<String, usize>,
    /// In KiB.
    memory: u64,
}

impl Need {
    fn of(number: Number) -> Result<Self> {
        let process = Process::open(number)?;
        Ok(Self { descriptors: process.descriptors()?, memory: process.memory()? })
    }

    fn is_about(&self, other: &Self) -> bool {
        let open = |need: &Self| need.descriptors.values().sum::<usize>();
        open(self) <= open(other) + MOMENTARY
    }
}

impl Display for Need {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let descriptors: usize = self.descriptors.values().sum();
        write!(formatter, "{descriptors} descriptors, {} KiB", self.memory)
    }
}

/// An app's state.
pub(crate) fn state(world: &World, name: &str) -> Option<String> {
    Some(find(&world.home.ask("/v1/status").ok()?, name)?["state"].as_str()?.to_owned())
}

fn find<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["apps"].as_array()?.iter().find(|app| app["name"] == name)
}

/// Waits until all is as it should be. An error that says what is not.
pub(crate) fn reach(world: &World) -> Result<()> {
    let begin = Instant::now();
    loop {
        let seen = look(world).and_then(|workers| messages::flow(world, &workers["channel"]));
        if seen.is_ok() || begin.elapsed() > PATIENCE {
            return seen.with_context(|| format!("not at rest within {PATIENCE:?}"));
        }
        sleep(Duration::from_millis(100));
    }
}

/// Looks whether status and processes are as they should be. Returns each app's workers.
fn look(world: &World) -> Result<Workers> {
    let status = world.home.ask("/v1/status").context("the daemon does not answer")?;
    let mut workers = Workers::new();
    for app in &APPS {
        let seen = find(&status, app.name).with_context(|| format!("{} is unknown", app.name))?;
        let pids = check_app(world, app, seen)?;
        if let Some(port) = app.port() {
            let listening = Diag::new()?.listeners(Some(port))?;
            let address = world.home.address(port);
            let listening = listening.iter().filter(|listening| listening.local == address).count();
            ensure!(
                listening == pids.len(),
                "{listening} sockets listen for {} workers of {}",
                pids.len(),
                app.name
            );
        }
        workers.insert(app.name, pids);
    }
    check_processes(world, &status, &workers)?;
    Ok(workers)
}

/// Returns the pids of its workers.
fn check_app(world: &World, app: &App, seen: &Value) -> Result<BTreeSet<Number>> {
    let name = app.name;
    ensure!(seen["state"] == "online", "{name} is {}: {}", seen["state"], seen["reason"]);
    let count = |field: &str| seen["instances"][field].as_u64().and_then(|count| usize::try_from(count).ok());
    let list = seen["workers"].as_array().context("no workers")?;
    let (stopped, running): (Vec<&Value>, Vec<&Value>) =
        list.iter().partition(|worker| worker["state"] == "stopped");
    let numbers = |workers: &[&Value]| -> BTreeSet<usize> {
        workers.iter().filter_map(|worker| worker["slot"].as_u64()?.try_into().ok()).collect()
    };
    let (slots, stopped) = (numbers(&running), numbers(&stopped));
    for field in ["wanted", "ready", "running"] {
        ensure!(
            count(field) == Some(slots.len()),
            "{name}: {} of {}: {}",
            field,
            slots.len(),
            seen["instances"]
        );
    }
    for worker in &running {
        ensure!(worker["state"] == "ready", "a worker of {name} is {}", worker["state"]);
        ensure!(
            app.port().is_none() || worker["in_rotation"] == true,
            "a worker of {name} is out of rotation"
        );
    }
    let seen = Slots { instances: list.len(), stopped };
    let is_whole = (0..seen.instances).all(|slot| slots.contains(&slot) != seen.stopped.contains(&slot));
    ensure!(is_whole, "{name} has workers in the slots {slots:?}, and {:?} are stopped", seen.stopped);
    world.with_wanted(name, |wanted| -> Result<()> {
        let Wanted { slots: should, or, .. } = wanted;
        let is_right = *should == seen || or.contains(&seen);
        ensure!(is_right, "{name} has {seen:?}, not {should:?} or one of {or:?}");
        // What came of an order is known now that nothing is under way.
        *should = seen;
        or.clear();
        Ok(())
    })?;
    Ok(running.into_iter().filter_map(pid_of).collect())
}

/// Every process is known, and every one that is known is there.
fn check_processes(world: &World, status: &Value, workers: &Workers) -> Result<()> {
    let all = own(world.home.folder())?;
    check_workers(&all, workers)?;
    let daemons: BTreeSet<Number> =
        all.iter().filter(|own| own.app.is_none() && !own.zombie).map(|own| own.number).collect();
    let known = ["pid", "keeper_pid"].map(|field| status["daemon"][field].as_u64().unwrap_or_default());
    let known: BTreeSet<Number> = known.into_iter().filter_map(|number| number.try_into().ok()).collect();
    ensure!(daemons == known, "keeper and master are {known:?}, and there are {all:?}");
    let zombies: Vec<Number> = all.iter().filter(|own| own.zombie).map(|own| own.number).collect();
    ensure!(zombies.is_empty(), "nobody reaps {zombies:?}");
    Ok(())
}

/// The workers of each app that are known are those that there are. What a worker has started is not one:
/// `python3` may be a script that does so before it becomes Python.
pub(crate) fn check_workers(all: &[Own], workers: &Workers) -> Result<()> {
    for (name, known) in workers {
        let family: BTreeMap<Number, Option<Number>> = all
            .iter()
            .filter(|own| own.app.as_deref() == Some(name))
            .map(|own| (own.number, own.parent))
            .collect();
        let is_child = |parent: &Option<Number>| parent.is_some_and(|parent| family.contains_key(&parent));
        let there: BTreeSet<Number> =
            family.iter().filter(|(_, parent)| !is_child(parent)).map(|(number, _)| *number).collect();
        ensure!(there == *known, "{name}: the status knows {known:?}, and there are {there:?}");
    }
    Ok(())
}

/// Kills the master, and waits until the status is right. Returns how long that took.
pub(crate) fn replace_master(world: &World) -> Result<Duration> {
    let (_, master) = daemon(world)?;
    replace(world, Trouble::Master, master, master, |world| look(world).map(drop))
}

/// The same of the keeper.
pub(crate) fn replace_keeper(world: &World) -> Result<Duration> {
    let (keeper, master) = daemon(world)?;
    replace(world, Trouble::KeeperDeath, keeper, master, |world| look(world).map(drop))
}

/// An app's workers in a status.
pub(crate) fn listed<'a>(status: &'a Value, app: &App) -> Result<&'a Vec<Value>> {
    let seen = find(status, app.name).with_context(|| format!("{} is unknown", app.name))?;
    seen["workers"].as_array().context("no workers")
}

/// Kills one of them, and waits until it is `right` what there is. The next master must not be this one.
pub(crate) fn replace(
    world: &World,
    trouble: Trouble,
    victim: Number,
    master: Number,
    right: fn(&World) -> Result<()>,
) -> Result<Duration> {
    let trouble = world.story.trouble(trouble, None);
    let begin = Instant::now();
    Process::open(victim)?.signal(Signal::KILL);
    let mut last = None;
    loop {
        let seen = daemon(world).and_then(|(_, now)| {
            ensure!(now != master, "it still answers");
            right(world)
        });
        let took = begin.elapsed();
        match seen {
            Ok(()) => {
                world.story.over(trouble);
                world.story.tell(match last {
                    Some(error) => format!("right after {took:?}, until then: {error:#}"),
                    None => format!("right after {took:?}"),
                });
                return Ok(took);
            }
            Err(error) if took > PROMPT => {
                return Err(
                    error.context(format!("the status is wrong {took:?} after the death of {victim}"))
                );
            }
            Err(error) => {
                last = Some(error);
                sleep(Duration::from_millis(5));
            }
        }
    }
}

/// What keeper and master need now.
pub(crate) fn needs(world: &World) -> Result<Needs> {
    let (keeper, master) = daemon(world)?;
    Ok(Needs { keeper: Need::of(keeper)?, master: Need::of(master)? })
}

/// Waits until no more descriptors are open than there were with as many workers.
pub(crate) fn no_leak(world: &World, before: &Needs) -> Result<Needs> {
    let begin = Instant::now();
    loop {
        let now = needs(world)?;
        if world.is_over() || now.keeper.is_about(&before.keeper) && now.master.is_about(&before.master) {
            return Ok(now);
        }
        ensure!(begin.elapsed() < PATIENCE, "descriptors leak: {now:?}, and {before:?} in the beginning");
        sleep(Duration::from_millis(200));
    }
}
