//! `supervisor-sim`: many seeds, in parallel, until one breaks a property.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use supervisor_sim::{Coverage, Simulation, Violation};

const USAGE: &str = "usage: supervisor-sim [--seeds N] [--from SEED] [--steps N] [--seconds S] [--apps 0,1,2]
                      [--coverage]

Runs N seeds (1000) of so many steps (400), or as many as S seconds allow, from
SEED (0, `fresh` for one that nobody knows). --coverage shows how often each
event met each state. Exits with 1 at the first seed that breaks a property and
prints what it takes to do so: a scenario for crates/core/tests/scenarios.";

/// What was asked for.
#[derive(Debug, Clone)]
struct Options {
    seeds: u64,
    from: u64,
    seconds: Option<u64>,
    /// Show which event met which state.
    coverage: bool,
    /// What to run; the seed is replaced.
    model: Simulation,
}

/// What all threads share.
#[derive(Debug, Default)]
struct Progress {
    next: AtomicU64,
    done: AtomicU64,
    events: AtomicU64,
    failed: AtomicBool,
    violations: Mutex<Vec<Violation>>,
    coverage: Mutex<Coverage>,
}

#[expect(clippy::print_stdout, reason = "the outcome is what the program is for")]
fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Whatever becomes of the run, it can be repeated.
    println!("seeds from {}", options.from);
    let progress = Progress::default();
    let begin = Instant::now();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&options, &progress, begin));
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let done = progress.done.into_inner();
    let events = progress.events.into_inner();
    let coverage = progress.coverage.into_inner().unwrap_or_default();
    if options.coverage {
        println!("{coverage}");
    }
    let speed = seconds.recip() * done as f64;
    println!("{done} seeds, {events} events in {seconds:.1} s: {speed:.0} seeds/s");
    let violations = progress.violations.into_inner().unwrap_or_default();
    let Some(first) = violations.into_iter().min_by_key(|violation| violation.simulation.seed) else {
        return ExitCode::SUCCESS;
    };
    print!("\n{}", first.shrunk());
    ExitCode::FAILURE
}

/// Runs seeds until there are no more, time is over, or one failed.
fn work(options: &Options, progress: &Progress, begin: Instant) {
    let mut coverage = Coverage::default();
    while !progress.failed.load(Ordering::Relaxed) {
        let index = progress.next.fetch_add(1, Ordering::Relaxed);
        let over = match options.seconds {
            Some(seconds) => begin.elapsed() >= Duration::from_secs(seconds),
            None => index >= options.seeds,
        };
        if over {
            break;
        }
        let simulation = Simulation { seed: options.from.wrapping_add(index), ..options.model.clone() };
        match simulation.run() {
            Ok(report) => {
                coverage.add(&report.coverage);
                progress.events.fetch_add(report.events, Ordering::Relaxed);
            }
            Err(violation) => {
                progress.failed.store(true, Ordering::Relaxed);
                if let Ok(mut violations) = progress.violations.lock() {
                    violations.push(*violation);
                }
            }
        }
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
    if let Ok(mut all) = progress.coverage.lock() {
        all.add(&coverage);
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options =
        Options { seeds: 1000, from: 0, seconds: None, coverage: false, model: Simulation::new(0, 400) };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seeds" => options.seeds = number(&value()?)?,
            "--from" => {
                options.from = match value()?.as_str() {
                    "fresh" => fastrand::u64(..1 << 48),
                    seed => number(seed)?,
                }
            }
            "--steps" => options.model.steps = number(&value()?)?,
            "--seconds" => options.seconds = Some(number(&value()?)?),
            "--coverage" => options.coverage = true,
            "--apps" => options.model.apps = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number that fits"))
}
