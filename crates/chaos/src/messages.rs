//! The messages that workers noted: of each sender in order, none twice, and
//! without a gap but for what a dead master had read and not passed on, and
//! what was dropped in a flood.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::World;
use crate::story::{Moment, Trouble};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) received: u64,
    pub(crate) dropped: u64,
    pub(crate) lost_with_masters: u64,
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
                // One that stands still is sent what came before the gap much later.
                let was = |trouble: Trouble| world.story.was(trouble, None, since.saturating_sub(1_000), at);
                if was(Trouble::Flood) {
                    found.dropped += missing;
                } else if was(Trouble::Master) || was(Trouble::KeeperDeath) {
                    found.lost_with_masters += missing;
                } else {
                    let at = world.story.since_begin(since);
                    world.find(format!(
                        "{missing} messages of {from} to {receiver} are missing after {before} ({at})"
                    ));
                }
            }
        }
    }
    Ok(found)
}
