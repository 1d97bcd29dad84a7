//! What happened, in words for people.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use supervisor_config::ranges;
use supervisor_core::{Cause, Ending, Exit, Hang, Next, Portion, Refusal, Step};
use supervisor_protocol::control::{self, Change, StepKind, WorkerState};
use supervisor_sys::cpus::allowed_cpus;
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::ResolveError;

/// `exited with code 1`, `killed by SIGKILL`.
pub(crate) fn exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(number) => format!("killed by {}", signal(number)),
        Exit::OutOfMemory { limit: Some(limit) } => {
            format!("killed by the kernel: out of memory, limit {}", size(limit))
        }
        Exit::OutOfMemory { limit: None } => "killed by the kernel: out of memory".to_owned(),
        Exit::Unknown => "ended, nobody saw how".to_owned(),
    }
}

/// `SIGTERM`; the number for a signal that has no name.
pub(crate) fn signal(number: i32) -> String {
    Signal::from_raw(number).map_or_else(|| format!("signal {number}"), |signal| signal.to_string())
}

/// An error of the system as a fragment: `permission denied`.
pub(crate) fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// The same, and for what the machine lacks what can be done.
pub(crate) fn lack(error: &io::Error) -> String {
    let cause = errno(error);
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => "raise the daemon's limit (`LimitNOFILE=`, `ulimit -Hn`) or scale down",
        Some(Errno::NFILE) => "the machine's limit is sysctl fs.file-max",
        Some(Errno::AGAIN) => {
            "no more processes: see `pids.max` of the cgroup (`TasksMax=`), `ulimit -u` and memory"
        }
        Some(Errno::NOMEM) => "the machine or the cgroup has no memory left",
        Some(Errno::NOSPC | Errno::DQUOT) => "the disk is full",
        Some(_) | None => return cause,
    };
    format!("{cause}; {hint}")
}

/// Why a program cannot be executed, known before it was tried.
pub(crate) fn no_program(error: &ResolveError) -> String {
    match error {
        ResolveError::NotFound(name) if name.as_encoded_bytes().contains(&b'/') => {
            format!("exec {}: no such file or directory", name.display())
        }
        ResolveError::NotFound(name) => format!("exec {}: not found in PATH", name.display()),
        ResolveError::NotExecutable(path) => format!("exec {}: not an executable file", path.display()),
    }
}

/// Why a worker cannot run on these CPUs.
pub(crate) fn no_cpu(asked: &[u32]) -> String {
    let allowed = allowed_cpus().unwrap_or_default();
    format!(
        "cpu_affinity: none of the CPUs {} may be used here, which are {}",
        ranges(asked),
        ranges(&allowed)
    )
}

/// Why a life ended, with the process's own last word where it tells something.
pub(crate) fn ending(ending: &Ending) -> String {
    let how = ending.exit.map(exit);
    match (&ending.cause, how) {
        (Cause::Itself, Some(how)) => how,
        (Cause::Asked, Some(how)) => format!("stopped as ordered, {how}"),
        (Cause::NotReady { limit, lacks: Some(lacks) }, Some(how)) => {
            format!("not ready within {}: {lacks}; {how}", duration(*limit))
        }
        (Cause::NotReady { limit, lacks: None }, Some(how)) => {
            format!("not ready within {}, {how}", duration(*limit))
        }
        (Cause::Memory { used, limit }, how) => {
            let what = format!("used {} of memory, more than {}", size(*used), size(*limit));
            how.map_or_else(|| what.clone(), |how| format!("{what}; {how}"))
        }
        (Cause::Hung(how), Some(exit)) => format!("hung: {}; {exit}", hang(*how)),
        (Cause::Hung(how), None) => format!("hung: {}", hang(*how)),
        (Cause::NotStarted(detail), _) => detail.clone(),
        (Cause::Itself | Cause::Asked | Cause::NotReady { .. }, None) => "ended".to_owned(),
    }
}

/// How it was seen that a worker does nothing any more.
fn hang(hang: Hang) -> String {
    match hang {
        Hang::Queue(limit) => format!("took no connection from its queue for {}", duration(limit)),
        Hang::Watchdog(interval) => format!("no WATCHDOG=1 for {}", duration(interval)),
    }
}

/// That a worker hangs, and what becomes of its slot.
pub(crate) fn hung(how: Hang, next: Option<Next>, process: &str) -> String {
    let what = format!("hangs, aborting it: {}{process}", hang(how));
    next.map_or_else(|| what.clone(), |next| with_next(&what, next))
}

/// Why a life ended, and what becomes of its slot.
pub(crate) fn ended(life: &Ending, next: Next) -> String {
    with_next(&ending(life), next)
}

fn with_next(why: &str, next: Next) -> String {
    match next {
        Next::AtOnce => format!("{why}; starting again at once"),
        Next::After(pause) => format!("{why}; starting again in {}", duration(pause)),
        Next::Stopped => format!("{why}; stays stopped"),
        Next::Errored(Some(retry)) => format!("{why}; failed too often, next try within {}", duration(retry)),
        Next::Errored(None) => format!("{why}; failed too often, no further try"),
        Next::Kept => format!("the successor has ended, the old worker stays: {why}"),
        Next::Replaced => format!("the old worker has ended: {why}"),
        Next::Relieved => format!("{why}; another worker answers what waited in its queue"),
    }
}

/// What a slot is doing from then on.
pub(crate) const fn state_after(next: Next) -> WorkerState {
    match next {
        Next::AtOnce | Next::After(_) => WorkerState::Backoff,
        Next::Stopped => WorkerState::Stopped,
        Next::Relieved => WorkerState::Starting,
        Next::Errored(_) => WorkerState::Errored,
        Next::Kept | Next::Replaced => WorkerState::Ready,
    }
}

/// How far an app's reload is.
pub(crate) fn step(app: String, step: Step) -> control::Step {
    let share = |Portion { share, workers, of }: Portion| {
        let plural = if of == 1 { "" } else { "s" };
        let whom = if share < 100 { format!("canary {share} %") } else { "all".to_owned() };
        format!("{whom}: {workers} of {of} worker{plural}")
    };
    let (kind, new, hold, detail) = match step {
        Step::Introduced(new) => {
            (StepKind::Introducing, Some(new), None, format!("{}, starting", share(new)))
        }
        Step::Held(new, hold) => {
            let detail = format!("{}, holding {}", share(new), duration(hold));
            (StepKind::Holding, Some(new), Some(hold.as_secs_f64()), detail)
        }
        Step::Switched(new) => (StepKind::Switching, Some(new), None, format!("{} take over", share(new))),
        Step::Returning => (StepKind::Returning, None, None, "going back to the version before".to_owned()),
    };
    control::Step {
        app,
        step: kind,
        share_percent: new.map(|new| new.share),
        workers: new.map(|new| new.workers),
        of: new.map(|new| new.of),
        hold_s: hold,
        detail,
    }
}

/// What another order does to an app, as a noun.
pub(crate) const fn under_way(change: Change) -> &'static str {
    match change {
        Change::Created | Change::Started => "a start",
        Change::Changed => "a reload with other settings",
        Change::Reloaded => "a reload",
        Change::Restarted => "a restart",
        Change::Stopped => "a stop",
        Change::Deleted => "its deletion",
        Change::Scaled => "a change of its number of workers",
        Change::Aborted => "the return from a reload",
        Change::Unchanged | Change::Missing => "an order",
    }
}

/// What an order was, with the settings that it brought: `the reload to
/// generation 7`.
pub(crate) fn order(change: Change, generation: u64) -> String {
    match change {
        Change::Created | Change::Started => "the start".to_owned(),
        Change::Changed => format!("the change to generation {generation}"),
        Change::Reloaded => format!("the reload to generation {generation}"),
        Change::Restarted => "the restart".to_owned(),
        Change::Stopped => "the stop".to_owned(),
        Change::Deleted => "its deletion".to_owned(),
        Change::Scaled => "the change of its number of workers".to_owned(),
        Change::Aborted => "the abort of its reload".to_owned(),
        Change::Unchanged | Change::Missing => "the order".to_owned(),
    }
}

/// Why an order was not begun.
pub(crate) fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::NoSuchApp => "there is no such app any more",
        Refusal::NoSuchSlot => "there is no such slot any more",
        Refusal::Busy => "another order for it is under way; wait for it, or stop the app first",
        Refusal::NoReload => "no reload of it is under way",
        Refusal::Returning => "its reload goes back already",
        Refusal::ShuttingDown => "the daemon is ending",
    }
    .to_owned()
}

/// `512 KiB`, `1.5 MiB`, `20 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let unit = (1..UNITS.len()).rev().find(|unit| bytes >> (10 * unit) > 0).unwrap_or(0);
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if tenth == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenth} {}", UNITS[unit])
    }
}

/// `250ms`, `1.5s`, `2m 5s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => {
            let tenths = duration.subsec_millis() / 100;
            if tenths == 0 { format!("{seconds}s") } else { format!("{seconds}.{tenths}s") }
        }
        60.. if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60.. => format!("{}m {}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536 * 1024, "1.5 MiB");
        check(200 << 20, "200 MiB");
        check(u64::MAX, "17179869183 GiB");
    }

    #[test]
    fn durations_are_short() {
        let check = |millis, expected: &str| assert_eq!(duration(Duration::from_millis(millis)), expected);
        check(0, "0ms");
        check(250, "250ms");
        check(1000, "1s");
        check(1520, "1.5s");
        check(60_000, "1m");
        check(125_000, "2m 5s");
    }
}
