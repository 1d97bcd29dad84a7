//! What happened, in words for people.

use std::io;
use std::time::Duration;

use supervisor_config::ranges;
use supervisor_core::{Cause, Ending, Exit, Next, Refusal};
use supervisor_protocol::control::WorkerState;
use supervisor_sys::cpus::allowed_cpus;
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::ResolveError;

/// `exited with code 1`, `killed by SIGKILL`.
pub(crate) fn exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(number) => format!("killed by {}", signal(number)),
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
        (Cause::NotReady(limit), Some(how)) => format!("not ready within {}, {how}", duration(*limit)),
        (Cause::NotStarted(detail), _) => detail.clone(),
        (Cause::Itself | Cause::Asked | Cause::NotReady(_), None) => "ended".to_owned(),
    }
}

/// What becomes of a slot after a life.
pub(crate) fn next(next: Next) -> String {
    match next {
        Next::AtOnce => "starting again at once".to_owned(),
        Next::After(pause) => format!("starting again in {}", duration(pause)),
        Next::Stopped => "stays stopped".to_owned(),
        Next::Errored(Some(retry)) => format!("failed too often, next try within {}", duration(retry)),
        Next::Errored(None) => "failed too often, no further try".to_owned(),
    }
}

/// What a slot is doing from then on.
pub(crate) const fn state_after(next: Next) -> WorkerState {
    match next {
        Next::AtOnce | Next::After(_) => WorkerState::Backoff,
        Next::Stopped => WorkerState::Stopped,
        Next::Errored(_) => WorkerState::Errored,
    }
}

/// Why an order was not begun.
pub(crate) fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::NoSuchApp => "there is no such app any more",
        Refusal::NoSuchSlot => "there is no such slot any more",
        Refusal::Busy => "another order for it is under way; wait for it, or stop the app first",
        Refusal::ShuttingDown => "the daemon is ending",
    }
    .to_owned()
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
