//! `events`: what happens, a line each, with the caller's local time.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use supervisor_protocol::control::Change;
use supervisor_protocol::events::{Event, Happening};

use super::style::{BAD, BUSY, GOOD, QUIET, STRONG, paint, worker_state};
use super::text::{count, one_line};

/// The line of an event, ended by `\n`.
pub(crate) fn line(event: &Event, color: bool) -> String {
    line_in(&TimeZone::system(), event, color)
}

fn line_in(zone: &TimeZone, event: &Event, color: bool) -> String {
    let time = event.at.parse::<Timestamp>().map_or_else(
        |_| one_line(&event.at),
        |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    );
    let strong = |text: String| paint(text, STRONG, color);
    let place = |app: &str, slot: Option<u32>| {
        strong(slot.map_or_else(|| one_line(app), |slot| format!("{}:{slot}", one_line(app))))
    };
    let text = match &event.what {
        Happening::App { app, change, instances, reason } => {
            let reason =
                reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
            let workers = count(u64::from(*instances), "worker");
            format!("{} {}, {workers}{reason}", place(app, None), ordered(*change))
        }
        Happening::Worker { app, slot, pid: _, state, detail } => {
            let (_, style) = worker_state(*state);
            format!("{} {}", place(app, Some(*slot)), paint(one_line(detail), style, color))
        }
        Happening::Step(step) => format!("{} {}", place(&step.app, None), one_line(&step.detail)),
        Happening::Done { app, change, generation, by_next_master } => {
            let (done, whose) = (paint(done(*change), GOOD, color), by(*by_next_master));
            format!("{} {done}{whose}, generation {generation}", place(app, None))
        }
        Happening::Failed { app, slot, reason, rolled_back, by_next_master } => {
            let what = if *rolled_back { "rolled back" } else { "failed" };
            let whose = by(*by_next_master);
            format!("{} {}{whose}: {}", place(app, *slot), paint(what, BAD, color), one_line(reason))
        }
        Happening::Daemon { detail } => format!("{} {}", strong("daemon".to_owned()), one_line(detail)),
        Happening::Missed { events } => {
            let text = format!("… {} left out: this reader was too slow", count(*events, "event"));
            paint(text, BUSY, color)
        }
    };
    format!("{}  {text}\n", paint(time, QUIET, color))
}

/// Who ended an order, if that was not who began it.
const fn by(next_master: bool) -> &'static str {
    if next_master { " by the next master" } else { "" }
}

/// What has become of an app, in a word or two.
const fn done(change: Change) -> &'static str {
    match change {
        Change::Created | Change::Started => "has started",
        Change::Changed => "has changed",
        Change::Unchanged | Change::Missing => "is as it was",
        Change::Stopped => "has stopped",
        Change::Restarted => "has restarted",
        Change::Reloaded => "has reloaded",
        Change::Deleted => "has ended",
        Change::Scaled => "has scaled",
        Change::Aborted => "is what it was before",
    }
}

/// What is going to become of an app, in a word or two.
const fn ordered(change: Change) -> &'static str {
    match change {
        Change::Created => "is new",
        Change::Changed => "changes",
        Change::Unchanged => "is unchanged",
        Change::Missing => "is missing",
        Change::Started => "is started",
        Change::Stopped => "is stopped",
        Change::Restarted => "is restarted",
        Change::Reloaded => "is reloaded",
        Change::Deleted => "is deleted",
        Change::Scaled => "is scaled",
        Change::Aborted => "is to go back",
    }
}

#[cfg(test)]
mod tests {
    use supervisor_protocol::control::WorkerState;

    use super::*;

    #[test]
    fn every_event_is_a_line() {
        let check = |what: Happening, expected: &str| {
            let event = Event { at: "2026-03-01T12:00:00.25Z".to_owned(), what };
            assert_eq!(
                line_in(&TimeZone::UTC, &event, false),
                format!("2026-03-01 12:00:00.250  {expected}\n")
            );
        };
        let app = || "web".to_owned();
        let reason = Some("a.js has changed".to_owned());
        check(
            Happening::App { app: app(), change: Change::Reloaded, instances: 2, reason },
            "web is reloaded, 2 workers: a.js has changed",
        );
        let detail = "ready after 1s (pid 7)".to_owned();
        check(
            Happening::Worker { app: app(), slot: 1, pid: Some(7), state: WorkerState::Ready, detail },
            "web:1 ready after 1s (pid 7)",
        );
        let reason = "exited with code 1".to_owned();
        check(
            Happening::Failed { app: app(), slot: None, reason, rolled_back: true, by_next_master: false },
            "web rolled back: exited with code 1",
        );
        let done =
            Happening::Done { app: app(), change: Change::Reloaded, generation: 7, by_next_master: true };
        check(done, "web has reloaded by the next master, generation 7");
        check(Happening::Daemon { detail: "ending all workers".to_owned() }, "daemon ending all workers");
        check(Happening::Missed { events: 1 }, "… 1 event left out: this reader was too slow");
    }
}
