//! One thing done again and again at random moments, while workers are killed
//! and orders given and nothing else goes wrong.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use serde_json::Value;

use crate::apps::{APPS, App};
use crate::faults::{daemon, pid_of};
use crate::processes::{Number, own};
use crate::story::{Moment, Trouble, now};
use crate::{World, locked, rest, upgrade};

/// The longest pause between two times, in milliseconds.
const PAUSE: u64 = 400;
/// How many clients there are in all, as many for each app that has any.
pub(crate) const CLIENTS: usize = 32;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// The master is killed; it is done when the next one's status is right.
    KillMaster,
    /// The daemon is upgraded, back, or to a version that is broken; it is done when that is over.
    Upgrade,
}

/// What is done, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drill {
    pub(crate) act: Act,
    pub(crate) times: u64,
}

impl Drill {
    /// How often it has still to be done.
    pub(crate) fn left(self, world: &World) -> u64 {
        self.times.saturating_sub(locked(&world.drilled).len().try_into().unwrap_or(u64::MAX))
    }

    /// Goes on with it until it is done, or it is time to rest. Workers to which nothing else happens must live on.
    pub(crate) fn go_on(self, world: &World, rng: &mut Rng, end: Instant) -> Result<()> {
        while self.left(world) > 0 && Instant::now() < end && !world.is_over() {
            world.count(format!("fault: {:?}", self.act));
            let before = Undisturbed::see(world)?;
            let took = match self.act {
                Act::KillMaster => kill_master(world)?,
                Act::Upgrade => {
                    let begin = Instant::now();
                    upgrade::carry_out(world, rng)?;
                    begin.elapsed()
                }
            };
            before.check(world)?;
            locked(&world.drilled).push(took);
            sleep(Duration::from_millis(rng.u64(0..PAUSE)));
        }
        Ok(())
    }
}

/// Kills the master while anything may be under way, and waits until the next one knows all workers that
/// there are, and no others. Returns how long that took.
fn kill_master(world: &World) -> Result<Duration> {
    let (_, master) = daemon(world)?;
    world.story.tell(format_args!("the master {master} is killed"));
    rest::replace(world, Trouble::Master, master, master, know_workers)
}

/// The workers that are ready, of apps that no order is about.
struct Undisturbed {
    since: Moment,
    /// Of each app: how many orders it had, and who is ready.
    apps: Vec<(&'static App, usize, BTreeSet<Number>)>,
}

impl Undisturbed {
    /// For so long a worker that was struck may be said to be ready, in milliseconds.
    const LAG: Moment = 2_000;

    fn see(world: &World) -> Result<Self> {
        let since = now().saturating_sub(Self::LAG);
        let orders: Vec<Option<usize>> = APPS.iter().map(|app| Self::orders(world, app)).collect();
        let status = world.home.ask("/v1/status")?;
        let mut apps = Vec::new();
        for (app, orders) in APPS.iter().zip(orders) {
            let Some(orders) = orders else { continue };
            let is_ready = |worker: &&Value| worker["state"] == "ready";
            apps.push((
                app,
                orders,
                rest::listed(&status, app)?.iter().filter(is_ready).filter_map(pid_of).collect(),
            ));
        }
        Ok(Self { since, apps })
    }

    /// How many orders it had; `None` while one is under way.
    fn orders(world: &World, app: &App) -> Option<usize> {
        world.with_wanted(app.name, |wanted| (!wanted.is_busy).then_some(wanted.orders))
    }

    fn check(self, world: &World) -> Result<()> {
        let status = world.home.ask("/v1/status")?;
        for (app, orders, ready) in self.apps {
            let now: BTreeSet<Number> = rest::listed(&status, app)?.iter().filter_map(pid_of).collect();
            let is_struck = world.story.was(Trouble::Worker, Some(app.name), self.since, Moment::MAX);
            let is_ordered = Self::orders(world, app) != Some(orders);
            ensure!(
                ready.is_subset(&now) || is_struck || is_ordered,
                "{}: {ready:?} were ready before a death or an upgrade, and there are {now:?}",
                app.name
            );
        }
        Ok(())
    }
}

fn know_workers(world: &World) -> Result<()> {
    let status = world.home.ask("/v1/status")?;
    let mut workers = rest::Workers::new();
    for app in &APPS {
        workers.insert(app.name, rest::listed(&status, app)?.iter().filter_map(pid_of).collect());
    }
    rest::check_workers(&own(world.home.folder())?, &workers)
}
