//! What another version would do with the keeper's table, before it does it: a
//! child reads a copy, and touches nothing.

use std::os::fd::OwnedFd;

use anyhow::bail;
use supervisor_core::{AppId, Supervisor, WorkerId};

use crate::clock;
use crate::inherit::{self, shortened};
use crate::last_words::LastWords;
use crate::link::Link;

/// Reads a copy of the keeper's table, and tells the keeper when a master of
/// this binary could take it over, and a keeper of it the keeper's `state`.
///
/// # Errors
///
/// When it could not: something in the table would be lost.
pub fn rehearse(keeper: OwnedFd, state: anyhow::Result<()>) -> anyhow::Result<()> {
    let words = LastWords::new(&keeper)?;
    let mut link = Link::new(keeper);
    let result = state.and_then(|()| restore(&mut link));
    match &result {
        Ok(()) => link.adopted(),
        Err(error) => words.say(&format!("{error:#}")),
    }
    result
}

fn restore(link: &mut Link) -> anyhow::Result<()> {
    let mut table = inherit::read(link)?;
    crate::next::stage("rehearsal");
    if !table.unreadable.is_empty() {
        let named: Vec<String> =
            table.unreadable.iter().map(|(key, error)| format!("{key}: {error}")).collect();
        bail!("cannot read {} of the daemon's records: {}", named.len(), shortened(&named));
    }
    // The core goes on from what is remembered; what it orders is not done.
    let mut core = Supervisor::new(0, WorkerId(u64::MAX));
    for (id, (app, _)) in (0..).map(AppId).zip(&table.apps.known) {
        let Some(known) = table.apps.memories.of(&app.name) else { continue };
        if core.adopt(clock::now(), id, known.app, known.slots).is_none() {
            bail!("what is known of {} makes no sense", app.name);
        }
    }
    Ok(())
}
