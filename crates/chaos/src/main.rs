//! The real program on the real kernel, under load, while things go wrong at
//! random: `scripts/chaos`.
//!
//! [`apps`] run under the eyes of [`clients`], which count each request that
//! fails. The [`director`] has [`faults`] happen and gives [`orders`], and now
//! and then waits until all must be at [`rest`]. Whatever fails must be
//! explained by the [`story`]: a request by the worker that had accepted it
//! and was struck, or because nobody was to serve; an exit code by what went
//! wrong meanwhile; a missing line or message by a full disk, a flood or the
//! death of a master. The first that is not ends the run.
//!
//! A [`drill`] does one thing very often instead.
//!
//! The seed decides what is done, not how the kernel and the program get on
//! meanwhile: the same seed is a similar run, not the same one.

mod apps;
mod clients;
mod director;
mod drill;
mod faults;
mod home;
mod lines;
mod machine;
mod messages;
mod options;
mod orders;
mod processes;
mod report;
mod rest;
mod story;
mod upgrade;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use apps::APPS;
use clients::Counts;
use home::Home;
use machine::Machine;
use options::{Options, USAGE};
use orders::{Slots, Wanted};
use story::Story;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) story: Story,
    counts: BTreeMap<&'static str, Counts>,
    wanted: Mutex<BTreeMap<&'static str, Wanted>>,
    tally: Mutex<BTreeMap<String, usize>>,
    findings: Mutex<Vec<String>>,
    /// How long each time of a drill took.
    drilled: Mutex<Vec<Duration>>,
    machine: Mutex<Machine>,
    over: Arc<AtomicBool>,
}

impl World {
    fn new(home: Home) -> Result<Self> {
        let story = Story::new(&home.path("story"))?;
        let wanted = |app: &apps::App| {
            let slots = Slots { instances: app.instances, ..Slots::default() };
            (app.name, Wanted { slots, ..Wanted::default() })
        };
        Ok(Self {
            home,
            story,
            counts: APPS.iter().map(|app| (app.name, Counts::default())).collect(),
            wanted: Mutex::new(APPS.iter().map(wanted).collect()),
            tally: Mutex::default(),
            findings: Mutex::default(),
            drilled: Mutex::default(),
            machine: Mutex::default(),
            over: Arc::default(),
        })
    }

    /// Whether everybody is to come to an end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Something is not explained: what follows would hide it.
    pub(crate) fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Something is wrong.
    pub(crate) fn find(&self, what: String) {
        self.story.tell(format_args!("UNEXPLAINED: {what}"));
        locked(&self.findings).push(what);
        self.give_up();
    }

    /// What became of an app's requests.
    pub(crate) fn counts(&self, app: &str) -> &Counts {
        &self.counts[app]
    }

    /// Changes what is wanted of an app.
    pub(crate) fn with_wanted<T>(&self, app: &'static str, change: impl FnOnce(&mut Wanted) -> T) -> T {
        change(locked(&self.wanted).entry(app).or_default())
    }

    /// Counts something by its name.
    pub(crate) fn count(&self, what: String) {
        *locked(&self.tally).entry(what).or_default() += 1;
    }
}

/// What a thread that panicked has left is good enough.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::print_stdout, reason = "help is what was asked for")]
fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all is well.
fn run(options: Options) -> Result<bool> {
    let world = World::new(Home::new()?)?;
    for signal in [2, 15] {
        signal_hook::flag::register(signal, Arc::clone(&world.over))?;
    }
    let result = director::run(&world, options);
    report::print(&world, options, &result);
    let is_well = result.is_ok() && !report::has_findings(&world);
    let World { home, .. } = world;
    if is_well && !options.keep {
        home.remove()?;
    } else {
        eprintln!("all that is left of it is in {}", home.keep().display());
    }
    Ok(is_well)
}
