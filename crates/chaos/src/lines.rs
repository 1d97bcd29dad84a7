//! The lines that loggers wrote: each is there, once, whole and in order, but
//! for what the disk refused and what a dead master had read and not written.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;

use crate::World;
use crate::story::{Moment, Trouble};

/// How long before the death of a master a line may have been written that is lost with it.
const IN_FLIGHT: Moment = 1_500;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) written: u64,
    pub(crate) refused: u64,
    pub(crate) lost_with_masters: u64,
}

/// Reads all files when the daemon has ended.
pub(crate) fn check(world: &World) -> Result<Lines> {
    let mut all: BTreeMap<String, Vec<(u64, Moment)>> = BTreeMap::new();
    let mut files: Vec<_> =
        fs::read_dir(world.home.daemon("log"))?.flatten().map(|file| file.path()).collect();
    // Rotated files have their time as a suffix, so they come in order, after the one that is being written.
    files.sort();
    let is_logs = |name: &str| name.starts_with("logger-out-");
    files.retain(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(is_logs));
    let mut found = Lines::default();
    for file in &files {
        for line in String::from_utf8_lossy(&fs::read(file)?).lines() {
            match parse(line) {
                Some((life, number, at)) => all.entry(life.to_owned()).or_default().push((number, at)),
                None => world.find(format!("{} has a broken line: {line:?}", file.display())),
            }
        }
    }
    for (life, mut lines) in all {
        lines.sort_unstable();
        let name = format!("count-{life}");
        let count = fs::read(world.home.facts().join(&name)).ok();
        let count =
            count.and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?))).unwrap_or_default();
        found.written += count;
        let mut before = (0, lines.first().map_or(0, |(_, at)| *at));
        let end = (count + 1, lines.last().map_or(0, |(_, at)| at + 10));
        // The last one may have been written and not counted.
        let end = if lines.last().is_some_and(|(number, _)| *number == end.0) { None } else { Some(end) };
        for next in lines.into_iter().chain(end) {
            if next.0 == before.0 {
                world.find(format!("line {} of logger {life} is there twice", next.0));
            } else if next.0 != before.0 + 1 {
                gap(world, &life, before, next, &mut found);
            }
            before = next;
        }
    }
    Ok(found)
}

/// Lines are missing between these two.
fn gap(world: &World, life: &str, before: (u64, Moment), next: (u64, Moment), found: &mut Lines) {
    let missing = next.0.saturating_sub(before.0 + 1);
    let was = |trouble: Trouble| world.story.was(trouble, None, before.1, next.1 + IN_FLIGHT);
    if was(Trouble::Disk) {
        found.refused += missing;
    } else if [Trouble::Master, Trouble::KeeperDeath, Trouble::Descriptors].into_iter().any(was) {
        found.lost_with_masters += missing;
    } else {
        let at = world.story.since_begin(before.1);
        world.find(format!("{missing} lines of logger {life} are missing after {} ({at})", before.0));
    }
}

/// The life, the number and the moment that a line has.
fn parse(line: &str) -> Option<(&str, u64, Moment)> {
    let mut words = line.strip_prefix("line ")?.split(' ');
    let mut next = || words.next();
    let parsed = (next()?, next()?.parse().ok()?, next()?.parse().ok()?);
    words.next().is_none().then_some(parsed)
}
