//! What is told in the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::director::Seen;
use crate::options::Options;
use crate::{World, locked};

/// How much of the story is told when something is wrong.
const LAST: usize = 60;

/// Whether anything is not explained.
pub(crate) fn has_findings(world: &World) -> bool {
    !locked(&world.findings).is_empty()
        || world.counts.values().any(|counts| !locked(&counts.unexplained).is_empty())
}

/// Prints the report.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn print(world: &World, options: Options, result: &Result<Seen>) {
    println!("seed {}, {} s", options.seed, options.time.as_secs());
    for (what, count) in locked(&world.tally).iter() {
        println!("{count:>8}  {what}");
    }
    println!(
        "\n{:<10} {:>9} {:>22} {:>14} {:>15} {:>12} {:>11}",
        "app",
        "answered",
        "lost with its worker",
        "nobody serves",
        "no replacement",
        "unexplained",
        "slowest ms"
    );
    for (app, counts) in &world.counts {
        let unexplained = locked(&counts.unexplained).len();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        if count(&counts.answered) > 0 || unexplained > 0 {
            println!(
                "{app:<10} {:>9} {:>22} {:>14} {:>15} {unexplained:>12} {:>11}",
                count(&counts.answered),
                count(&counts.struck),
                count(&counts.nobody),
                count(&counts.short),
                count(&counts.slowest)
            );
        }
    }
    match result {
        Ok(seen) => print_seen(seen),
        Err(error) => println!("\nUNEXPLAINED: {error:#}"),
    }
    let findings = locked(&world.findings);
    for finding in findings.iter() {
        println!("UNEXPLAINED: {finding}");
    }
    let requests = world.counts.values().flat_map(|counts| locked(&counts.unexplained).clone());
    requests.for_each(|finding| println!("{finding}"));
    drop(findings);
    if result.is_err() || has_findings(world) {
        println!("\nwhat happened last:\n{}", world.story.last(LAST));
        println!("\nagain: scripts/chaos --seed {} --seconds {}", options.seed, options.time.as_secs());
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn print_seen(seen: &Seen) {
    let Seen { before, after, prompt, lines, messages } = seen;
    let mut prompt = prompt.clone();
    prompt.sort_unstable();
    let millis = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
    println!(
        "\nstatus right after the death of a master or a keeper: median {} ms, at most {} ms ({} times)",
        millis(prompt.get(prompt.len() / 2)),
        millis(prompt.last()),
        prompt.len()
    );
    println!(
        "lines: {} written, {} refused by the disk, {} lost with masters",
        lines.written, lines.refused, lines.lost_with_masters
    );
    println!(
        "messages: {} received, {} dropped in floods, {} lost with masters",
        messages.received, messages.dropped, messages.lost_with_masters
    );
    println!("keeper: {}, {} in the beginning", after.keeper, before.keeper);
    println!("master: {}, {} in the beginning", after.master, before.master);
}
