//! The lines that loggers wrote: each is there, once, whole and in order, but
//! for what the disk refused and what a dead master had read and not written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::World;
use crate::story::{Moment, Trouble};

/// A line and when it was written.
type Line = (u64, Moment);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) written: u64,
    pub(crate) refused: u64,
    pub(crate) lost_with_masters: u64,
}

/// Reads all files when the daemon has ended.
pub(crate) fn check(world: &World) -> Result<Lines> {
    let mut lives: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for file in log_files(&world.home.daemon("log"))? {
        for line in String::from_utf8_lossy(&fs::read(&file)?).lines() {
            match parse(line) {
                Some((life, line)) => lives.entry(life.to_owned()).or_default().push(line),
                None => world.find(format!("{} has a broken line: {line:?}", file.display())),
            }
        }
    }
    let mut found = Lines::default();
    for file in fs::read_dir(world.home.facts())?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(life) = name.strip_prefix("count-") else { continue };
        let lines = lives.remove(life).unwrap_or_default();
        check_life(world, life, &lines, noted(&fs::read(file.path())?), &mut found);
    }
    for life in lives.keys() {
        world.find(format!("there are lines of logger {life}, which has never been"));
    }
    Ok(found)
}

/// The loggers' files, each slot's in the order of what was written.
fn log_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|file| (file.file_name().to_string_lossy().into_owned(), file.path()))
        .filter(|(name, _)| name.starts_with("logger-out-"))
        .collect();
    // Rotated ones have their time as a suffix; the one without is written last.
    files.sort_by_cached_key(
        |(name, _)| if name.ends_with(".log") { format!("{name}.~") } else { name.clone() },
    );
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// The last line that a logger has counted. Nothing, if it ended before it could.
fn noted(bytes: &[u8]) -> Line {
    let number = |place: usize| {
        let bytes = bytes.get(place..place + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    (number(0).unwrap_or_default(), number(8).unwrap_or_default())
}

fn check_life(world: &World, life: &str, lines: &[Line], (count, last): Line, found: &mut Lines) {
    found.written += count;
    let began = life.rsplit_once('-').and_then(|(_, began)| began.parse().ok()).unwrap_or_default();
    let mut before = (0, began);
    // The last one may have been written and not counted.
    let is_counted = lines.last().is_none_or(|(number, _)| *number <= count);
    let end = is_counted.then_some((count + 1, last));
    for next in lines.iter().copied().chain(end) {
        if next.0 <= before.0 {
            world.find(format!("line {} of logger {life} comes after line {}", next.0, before.0));
        } else if next.0 > before.0 + 1 {
            gap(world, life, before, next, found);
        }
        before = next;
    }
}

/// Lines are missing between these two.
fn gap(world: &World, life: &str, before: Line, next: Line, found: &mut Lines) {
    const LOSSES: [Trouble; 4] = [Trouble::Disk, Trouble::Master, Trouble::KeeperDeath, Trouble::Descriptors];
    let missing = next.0 - before.0 - 1;
    if !world.story.covers(&LOSSES.map(|trouble| (trouble, None)), before.1, next.1) {
        let at = world.story.since_begin(before.1);
        world.find(format!("{missing} lines of logger {life} are missing after {} ({at})", before.0));
    } else if world.story.was(Trouble::Disk, None, before.1, next.1) {
        found.refused += missing;
    } else {
        found.lost_with_masters += missing;
    }
}

/// The life that a line is of, and the line.
fn parse(line: &str) -> Option<(&str, Line)> {
    let mut words = line.strip_prefix("line ")?.split(' ');
    let mut next = || words.next();
    let parsed = (next()?, (next()?.parse().ok()?, next()?.parse().ok()?));
    words.next().is_none().then_some(parsed)
}
