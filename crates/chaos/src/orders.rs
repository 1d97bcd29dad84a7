//! Orders that a person gives, and which exit codes they may have.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use crate::World;
use crate::apps::App;
use crate::rest;
use crate::story::{Moment, Trouble, now};

/// How long an order that a dead master has left may take.
const LEFT: Duration = Duration::from_secs(90);

/// Which slots an app has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) instances: usize,
    pub(crate) stopped: BTreeSet<usize>,
}

/// What is known of an app's wanted state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) slots: Slots,
    /// What they may be instead: an order may have been carried out or not.
    pub(crate) or: Vec<Slots>,
    /// An order is under way.
    pub(crate) is_busy: bool,
    /// Counts its orders.
    pub(crate) orders: usize,
    /// Counts its releases.
    pub(crate) release: usize,
}

impl Wanted {
    /// Whether it is not known what came of an order.
    pub(crate) fn is_uncertain(&self) -> bool {
        !self.or.is_empty()
    }
}

/// An order for an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// New settings, which are right.
    Reload,
    /// New settings, which fail like this.
    ReloadBad(&'static str),
    /// New settings, and second thoughts after so many milliseconds.
    Abort(u64),
    Scale(usize),
    StopSlot(usize),
    StartSlot(usize),
    Restart,
    /// Stops all of it, and starts it after so many milliseconds.
    StopAndStart(u64),
}

impl Order {
    /// One that fits what is wanted of the app.
    pub(crate) fn choose(app: &App, wanted: &Wanted, rng: &mut Rng) -> Self {
        let Slots { instances, stopped } = &wanted.slots;
        if let Some(slot) = stopped.first()
            && rng.bool()
        {
            return Self::StartSlot(*slot);
        }
        match rng.u32(0..20) {
            0..6 => Self::Reload,
            6..11 => Self::ReloadBad(app.failures.get(rng.usize(0..app.failures.len())).unwrap_or(&"throw")),
            11 => Self::Abort(rng.u64(0..3_000)),
            12..15 => Self::Scale(rng.usize(2..=app.most)),
            15..17 if stopped.is_empty() => Self::StopSlot(rng.usize(0..*instances)),
            15..18 => Self::Restart,
            _ => Self::StopAndStart(rng.u64(0..1_000)),
        }
    }

    /// For the count.
    pub(crate) fn kind(self) -> String {
        match self {
            Self::Reload => "reload".into(),
            Self::ReloadBad(how) => format!("reload, bad: {how}"),
            Self::Abort(_) => "reload, aborted".into(),
            Self::Scale(_) => "scale".into(),
            Self::StopSlot(_) => "stop slot".into(),
            Self::StartSlot(_) => "start slot".into(),
            Self::Restart => "restart".into(),
            Self::StopAndStart(_) => "stop and start".into(),
        }
    }
}

/// Carries out an order, and looks at how its commands end. The app is busy until it is at rest again.
pub(crate) fn carry_out(world: &World, app: &'static App, order: Order) -> Result<()> {
    world.count(format!("order: {}", order.kind()));
    let result = give(world, app, order);
    world.with_wanted(app.name, |wanted| wanted.is_busy = false);
    result
}

fn give(world: &World, app: &'static App, order: Order) -> Result<()> {
    let name = app.name;
    let start_all = |slots: &mut Slots| slots.stopped.clear();
    match order {
        Order::Reload => reload(world, app, None, &[0])?,
        Order::ReloadBad(how) => reload(world, app, Some(how), &[6])?,
        Order::Abort(after) => {
            std::thread::scope(|scope| {
                let reload = scope.spawn(|| reload(world, app, None, &[0, 6]));
                sleep(Duration::from_millis(after));
                command(
                    world,
                    app,
                    &["reload".into(), "--abort".into(), name.into()],
                    &[0, 1, 5],
                    1,
                    |_| (),
                )?;
                reload.join().unwrap_or_else(|_| bail!("a reload panicked here"))
            })?;
        }
        Order::Scale(instances) => {
            command(world, app, &["scale".into(), name.into(), instances.to_string()], &[0], 1, |slots| {
                slots.instances = instances;
                slots.stopped.retain(|slot| *slot < instances);
            })?;
        }
        Order::StopSlot(slot) => {
            command(world, app, &["stop".into(), format!("{name}:{slot}")], &[0], 0, |slots| {
                slots.stopped.insert(slot);
            })?;
        }
        Order::StartSlot(slot) => {
            command(world, app, &["start".into(), format!("{name}:{slot}")], &[0], 1, |slots| {
                slots.stopped.remove(&slot);
            })?;
        }
        // It starts what was stopped, too.
        Order::Restart => command(world, app, &["restart".into(), name.into()], &[0], 1, start_all)?,
        Order::StopAndStart(after) => {
            let nobody = world.story.trouble(Trouble::Nobody, Some(name));
            command(world, app, &["stop".into(), name.into()], &[0], 0, |_| ())?;
            sleep(Duration::from_millis(after));
            command(world, app, &["start".into(), name.into()], &[0], 1, start_all)?;
            until_at_rest(world, app)?;
            world.story.over(nobody);
        }
    }
    Ok(())
}

fn reload(world: &World, app: &'static App, failure: Option<&str>, right: &[i32]) -> Result<()> {
    // The file says how many there are.
    command(world, app, &reload_words(world, app, failure)?, right, 6, |slots| slots.stopped.clear())
}

/// Writes the next release.
fn reload_words(world: &World, app: &'static App, failure: Option<&str>) -> Result<Vec<String>> {
    let (instances, release) = world.with_wanted(app.name, |wanted| {
        wanted.release += 1;
        (wanted.slots.instances, wanted.release)
    });
    let file = world.home.path(&format!("{}.yaml", app.name));
    fs::write(&file, app.file(&world.home, instances, release, failure))?;
    Ok(vec!["reload".into(), file.display().to_string()])
}

/// Runs a command that changes the app's slots like this. Its exit code must be one of `right`; or, when a
/// worker of the app was struck meanwhile or the machine had nothing left, `failed`.
fn command(
    world: &World,
    app: &'static App,
    words: &[String],
    right: &[i32],
    failed: i32,
    change: impl Fn(&mut Slots),
) -> Result<()> {
    let begin = now();
    let shown = words.join(" ");
    let shown = shown.replace(&format!("{}/", world.home.folder().display()), "");
    world.story.tell(format_args!("`{shown}` …"));
    let was_uncertain = world.with_wanted(app.name, |wanted| wanted.is_uncertain());
    let output = world.home.run(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    let code = output.status.code().context("a command was killed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    world
        .story
        .tell(format_args!("`{shown}` exits with {code}: {}", said.lines().last().unwrap_or_default()));
    world.count(format!("exit code {code}"));
    let excuse = excuse(world, app, code, failed, begin, was_uncertain);
    if !right.contains(&code) && excuse.is_none() {
        world.find(format!("`{shown}` exits with {code}, not {right:?}: {said}"));
    }
    let is_uncertain = matches!(code, 1 | 4 | 5);
    world.with_wanted(app.name, |wanted| {
        let changed = |mut slots: Slots| {
            change(&mut slots);
            slots
        };
        if is_uncertain {
            let all: Vec<Slots> = std::iter::once(&wanted.slots).chain(&wanted.or).cloned().collect();
            wanted.or.extend(all.into_iter().map(changed));
        } else if code == 0 {
            change(&mut wanted.slots);
            wanted.or.iter_mut().for_each(&change);
        }
    });
    if is_uncertain { until_at_rest(world, app) } else { Ok(()) }
}

/// Why an exit code may be another one.
fn excuse(
    world: &World,
    app: &App,
    code: i32,
    failed: i32,
    begin: Moment,
    was_uncertain: bool,
) -> Option<Trouble> {
    let of = |troubles: &[Trouble]| {
        let was = |trouble: &Trouble| world.story.was(*trouble, Some(app.name), begin, now());
        troubles.iter().copied().find(was)
    };
    let failure = || {
        let troubles = [Trouble::Worker, Trouble::Forks, Trouble::Descriptors, Trouble::Keeper];
        if code == failed { of(&troubles) } else { None }
    };
    match code {
        // The state file could not be written.
        1 => of(&[Trouble::Disk, Trouble::Forks, Trouble::Descriptors]).or_else(failure),
        // What a dead master has left goes on.
        5 if was_uncertain => Some(Trouble::Master),
        // More workers than there may be descriptors; masters that cannot begin, and so one in safe mode.
        5 => of(&[Trouble::Descriptors, Trouble::Forks]),
        _ => failure(),
    }
}

/// Waits until nothing is under way for an app.
fn until_at_rest(world: &World, app: &App) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < LEFT && !world.is_over() {
        let state = rest::state(world, app.name).unwrap_or_default();
        if ["online", "stopped"].contains(&state.as_str()) {
            return Ok(());
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}
