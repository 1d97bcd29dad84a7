//! The messages that workers noted: of each sender in order, none twice, and
//! without a gap but for what a dead master had read and not passed on, and
//! what was dropped in a flood.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, ensure};

use crate::World;
use crate::processes::Number;
use crate::story::{Moment, Trouble, now};

/// When messages can be lost. A worker that stands still loses nothing by itself, but with the master what
/// waits for it.
const LOSSES: [(Trouble, Option<&str>); 4] = [
    (Trouble::Flood, None),
    (Trouble::Master, None),
    (Trouble::KeeperDeath, None),
    (Trouble::Worker, Some("channel")),
];
/// How much of the end of what a worker notes is read for [`flow`]: some hundred messages.
const TAIL: u64 = 16 * 1024;
/// How old the last message of a sibling may be, in milliseconds, when nothing is wrong.
const FRESH: Moment = 1_000;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) received: u64,
    pub(crate) dropped: u64,
    pub(crate) lost_with_masters: u64,
}

/// Whether each of these workers hears all others now.
pub(crate) fn flow(world: &World, workers: &BTreeSet<Number>) -> Result<()> {
    for receiver in workers {
        let heard = heard(world, *receiver)?;
        let missing: Vec<&Number> =
            workers.iter().filter(|sender| *sender != receiver && !heard.contains(sender)).collect();
        ensure!(missing.is_empty(), "worker {receiver} of channel does not hear {missing:?}");
    }
    Ok(())
}

/// From whom a worker has a fresh message.
fn heard(world: &World, receiver: Number) -> Result<BTreeSet<Number>> {
    let name = format!("got-{receiver}-");
    let own = fs::read_dir(world.home.facts())?.flatten();
    let own = own.filter(|file| file.file_name().to_string_lossy().starts_with(&name));
    // Of two lives with one pid the later one.
    let Some(path) = own.map(|file| file.path()).max() else { return Ok(BTreeSet::new()) };
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let fresh = now().saturating_sub(FRESH);
    let sender = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let sent: Moment = words.next()?.parse().ok()?;
        let (pid, _) = words.next()?.split_once('-')?;
        (sent >= fresh).then_some(pid.parse().ok()?)
    };
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(sender).collect())
}

/// Reads what all workers noted.
pub(crate) fn check(world: &World) -> Result<Messages> {
    let mut found = Messages::default();
    for file in fs::read_dir(world.home.facts())?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(receiver) = name.strip_prefix("got-") else { continue };
        let mut last: BTreeMap<String, (u64, Moment)> = BTreeMap::new();
        let text = fs::read_to_string(file.path())?;
        // The last line may have been cut by the worker's own death.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let mut words = line.splitn(4, ' ');
            let mut next = || words.next().with_context(|| format!("{name}: {line:?}"));
            let (at, sent, from, number) = (next()?.parse()?, next()?.parse()?, next()?, next()?);
            let Ok(number) = number.parse() else {
                world.find(format!("worker {receiver} noted {line:?}"));
                continue;
            };
            if from == "disconnected" {
                // Its channel ends with the whole daemon.
                continue;
            }
            found.received += 1;
            let Some((before, since)) = last.insert(from.to_owned(), (number, sent)) else { continue };
            if number <= before {
                world.find(format!("message {number} of {from} came to {receiver} after {before}"));
            } else if number > before + 1 {
                let missing = number - before - 1;
                let was = |trouble: Trouble| world.story.was(trouble, None, since, at);
                let is_flooded = was(Trouble::Flood);
                let is_cause = is_flooded || was(Trouble::Master) || was(Trouble::KeeperDeath);
                if !is_cause || !world.story.covers(&LOSSES, since, sent) {
                    let at = world.story.since_begin(since);
                    world.find(format!(
                        "{missing} messages of {from} to {receiver} are missing after {before} ({at})"
                    ));
                } else if is_flooded {
                    found.dropped += missing;
                } else {
                    found.lost_with_masters += missing;
                }
            }
        }
    }
    Ok(found)
}
