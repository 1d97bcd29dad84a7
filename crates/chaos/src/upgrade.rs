//! The daemon becomes another version of itself, or tries to.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;

use crate::World;
use crate::faults::daemon;
use crate::processes::Process;
use crate::story::{Trouble, now};

/// How a version can be broken. Not by a keeper that hangs: its master alone could help, and may be killed.
const FAILURES: [&str; 7] = [
    "identify exit",
    "restore panic",
    "rehearsal hang",
    "master exit",
    "master hang",
    "serving exit",
    KEEPER_EXIT,
];
/// The new keeper ends at once.
const KEEPER_EXIT: &str = "keeper exit";
/// These break before the old master has gone.
const HARMLESS: [&str; 3] = ["identify exit", "restore panic", "rehearsal hang"];
/// How long one that its command has lost sight of may take: all its stages, and a master that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Upgrades to this version, to the next one, or to one that is broken.
pub(crate) fn carry_out(world: &World, rng: &mut Rng) -> Result<()> {
    let home = &world.home;
    let failure = if rng.u32(0..3) == 0 { FAILURES.get(rng.usize(0..FAILURES.len())) } else { None };
    let (binary, wanted) = match failure {
        Some(fault) => {
            fs::write(home.path("bin/broken.fault"), fault)?;
            (home.path("bin/broken"), 6)
        }
        None => (if rng.bool() { home.next() } else { home.supervisor() }, 0),
    };
    let Ok(before) = version(world) else { return Ok(()) };
    // One that breaks when it serves takes with it what it had read. Another one loses nothing.
    let harmful = failure.filter(|fault| !HARMLESS.contains(fault));
    let mut troubles: Vec<usize> =
        harmful.iter().map(|_| world.story.trouble(Trouble::Master, None)).collect();
    // Its master is about to be the keeper.
    if failure == Some(&KEEPER_EXIT) {
        troubles.push(world.story.trouble(Trouble::KeeperDeath, None));
    }
    let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = failure.map_or(name.clone(), |fault| (*fault).to_owned());
    world.story.tell(format_args!("`upgrade` from {before} to {what} …"));
    let begin = now();
    let output = home.run(&["upgrade", "--binary", &binary.display().to_string()])?;
    let over = until_over(world);
    for trouble in troubles {
        world.story.over(trouble);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let code = output.status.code().context("`upgrade` was killed")?;
    let last = said.lines().last().unwrap_or_default();
    world.story.tell(format_args!("`upgrade` to {what} exits with {code}: {last}"));
    over?;
    let _ = fs::remove_file(home.path("bin/broken.fault"));
    world.count(format!("upgrade, {what}: exit code {code}"));
    let causes = [Trouble::Keeper, Trouble::Forks, Trouble::Descriptors];
    let masters = usize::from(harmful.is_some());
    let is_excused = causes.iter().any(|trouble| world.story.was(*trouble, None, begin, now()))
        || world.story.count(Trouble::Master, begin, now()) > masters;
    ensure!(code == wanted || is_excused, "`upgrade` to {what} exits with {code}, not {wanted}: {said}");
    let after = version(world)?;
    let is_right = match code {
        0 => after.ends_with("next") == (binary != home.supervisor()),
        6 => after == before,
        _ => true,
    };
    ensure!(is_right, "`upgrade` from {before} to {what} exits with {code}, and {after} runs: {said}");
    Ok(())
}

/// The version that runs. A master may be killed while it answers: the next one does, then.
fn version(world: &World) -> Result<String> {
    let begin = Instant::now();
    let status = loop {
        match world.home.ask("/v1/status") {
            Ok(status) => break status,
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    };
    Ok(status["daemon"]["version"].as_str().context("no version")?.to_owned())
}

/// Waits until it is over, whatever its command has seen of it, and keeper and master are there.
fn until_over(world: &World) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let stage = world.home.ask("/v1/upgrade").map(|answer| answer["upgrade"]["stage"].clone());
        let is_over = stage.is_ok_and(|stage| stage.is_null() || stage == "done" || stage == "rolled_back");
        let is_kept = || daemon(world).is_ok_and(|(keeper, _)| Process::open(keeper).is_ok());
        if is_over && is_kept() {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    bail!("an upgrade is not over after {PATIENCE:?}");
}
