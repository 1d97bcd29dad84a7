//! What is told in the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::director::Seen;
use crate::options::Options;
use crate::story::now;
use crate::{World, locked};

/// How much of the story is told when something is wrong.
const LAST: usize = 60;

/// Whether anything is not explained.
pub(crate) fn has_findings(world: &World) -> bool {
    !locked(&world.findings).is_empty()
        || world.counts.values().any(|counts| !locked(&counts.unexplained).is_empty())
}

/// How far it has come, in a line.
pub(crate) fn progress(world: &World, options: Options) -> String {
    let tally = locked(&world.tally);
    let count = |kind: &str| -> usize {
        tally.iter().filter(|(what, _)| what.starts_with(kind)).map(|(_, count)| count).sum()
    };
    let answered: u64 = world.counts.values().map(|counts| counts.answered.load(Ordering::Relaxed)).sum();
    let far = match options.drill {
        Some(drill) => format!("{} of {}", locked(&world.drilled).len(), drill.times),
        None => format!("of {} s", options.time.as_secs()),
    };
    format!(
        "{} {far}: {} faults, {} orders, {answered} requests answered",
        world.story.since_begin(now()),
        count("fault: "),
        count("order: ")
    )
}

/// Prints the report.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn print(world: &World, options: Options, result: &Result<Seen>) {
    println!("{}", options.again());
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
    println!("\nmachine: {}", *locked(&world.machine));
    if let Some(drill) = options.drill {
        print_times(&format!("{:?}", drill.act), &locked(&world.drilled));
    }
    match result {
        Ok(seen) => print_seen(seen),
        Err(error) => println!("UNEXPLAINED: {error:#}"),
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
        println!("\nagain: {}", options.again());
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn print_seen(seen: &Seen) {
    let Seen { before, after, prompt, lines, messages } = seen;
    print_times("status right after the death of a master or a keeper, at rest", prompt);
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

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn print_times(what: &str, times: &[Duration]) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let millis = |place: usize| times.get(place).map_or(0, Duration::as_millis);
    println!(
        "{what}, {} times: median {} ms, p99 {} ms, at most {} ms",
        times.len(),
        millis(times.len() / 2),
        millis(times.len() * 99 / 100),
        times.last().map_or(0, Duration::as_millis)
    );
}
