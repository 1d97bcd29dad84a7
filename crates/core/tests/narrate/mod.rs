//! Actions in words: the right-hand side of a scenario. The simulation tells a
//! failing run in the same words, so that it can be pasted here as a scenario.

use std::collections::BTreeMap;
use std::fmt;

use supervisor_core::{
    Action, AppId, Cause, Ending, Exit, Failure, Hang, Next, Notice, OperationId, Outcome, Portion, Refusal,
    SeatId, Side, SlotId, Step, Timestamp,
};

/// What people call things that are numbers in the core.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) apps: BTreeMap<AppId, String>,
    /// An operation is called by the command that began it.
    pub(crate) operations: BTreeMap<OperationId, String>,
}

/// An action and the names to tell it with.
#[derive(Debug)]
pub(crate) struct Told<'a>(pub(crate) &'a Names, pub(crate) &'a Action);

impl Names {
    fn app(&self, id: AppId) -> &str {
        self.apps.get(&id).map_or("?", String::as_str)
    }

    fn operation(&self, id: OperationId) -> &str {
        self.operations.get(&id).map_or("?", String::as_str)
    }

    fn slot(&self, id: SlotId) -> String {
        format!("{}:{}", self.app(id.app), id.index)
    }

    /// The other seat has a mark.
    fn seat(&self, id: SeatId) -> String {
        let mark = match id.side {
            Side::A => "",
            Side::B => "'",
        };
        format!("{}{mark}", self.slot(id.slot))
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names, action) = self;
        match action {
            Action::Open(seat) => write!(f, "open {}", names.seat(*seat)),
            Action::Close(seat) => write!(f, "close {}", names.seat(*seat)),
            Action::Rotate(app, seats) => {
                write!(f, "rotate {}", names.app(*app))?;
                seats.iter().try_for_each(|(seat, weight)| {
                    write!(f, " {}", names.seat(*seat))?;
                    if *weight == 1 { Ok(()) } else { write!(f, "*{weight}") }
                })
            }
            Action::Spawn { worker, seat, generation } => {
                write!(f, "spawn worker {} in {} generation {}", worker.0, names.seat(*seat), generation.0)
            }
            Action::Drain(worker) => write!(f, "drain worker {}", worker.0),
            Action::Revert(app) => write!(f, "revert {}", names.app(*app)),
            Action::Terminate(worker) => write!(f, "terminate worker {}", worker.0),
            Action::Abort(worker) => write!(f, "abort worker {}", worker.0),
            Action::Kill(worker) => write!(f, "kill worker {}", worker.0),
            Action::Forget(app) => write!(f, "forget {}", names.app(*app)),
            Action::Announce(notice) => announce(f, names, notice),
            Action::Report(app, step) => report(f, names.app(*app), *step),
            Action::Finish(operation, outcome) => finish(f, names, *operation, outcome),
        }
    }
}

fn announce(f: &mut fmt::Formatter<'_>, names: &Names, notice: &Notice) -> fmt::Result {
    match notice {
        Notice::Starting(slot, worker) => write!(f, "{} worker {} starts", names.slot(*slot), worker.0),
        Notice::Ready { slot, worker, after } => {
            write!(f, "{} worker {} is ready after {after:?}", names.slot(*slot), worker.0)
        }
        Notice::Switched(slot, worker) => write!(f, "{} worker {} takes over", names.slot(*slot), worker.0),
        Notice::Draining(slot, worker) => write!(f, "{} worker {} is draining", names.slot(*slot), worker.0),
        Notice::Stopping(slot, worker) => write!(f, "{} worker {} is stopping", names.slot(*slot), worker.0),
        Notice::Killing(slot, worker) => {
            write!(f, "{} worker {} did not end in time", names.slot(*slot), worker.0)
        }
        Notice::Ended { slot, worker, ending, next } => {
            write!(f, "{} worker {} {}, ", names.slot(*slot), worker.0, Ended(ending))?;
            f.write_str(&what_next(*next))
        }
        Notice::Hung { slot, worker, hang, next } => {
            write!(f, "{} worker {} hangs: {}", names.slot(*slot), worker.0, how(*hang))?;
            next.map_or(Ok(()), |next| write!(f, ", {}", what_next(next)))
        }
    }
}

fn what_next(next: Next) -> String {
    match next {
        Next::AtOnce => "starts again at once".to_owned(),
        Next::After(pause) => format!("starts again after {pause:?}"),
        Next::Stopped => "stays stopped".to_owned(),
        Next::Errored(Some(retry)) => format!("errored, one slot tries after {retry:?}"),
        Next::Errored(None) => "errored".to_owned(),
        Next::Kept => "the worker stays".to_owned(),
        Next::Replaced => "its successor serves".to_owned(),
        Next::Relieved => "another answers its queue".to_owned(),
    }
}

fn how(hang: Hang) -> String {
    match hang {
        Hang::Queue(time) => format!("its queue stands for {time:?}"),
        Hang::Watchdog(time) => format!("silent for {time:?}"),
    }
}

fn report(f: &mut fmt::Formatter<'_>, app: &str, step: Step) -> fmt::Result {
    let portion = |Portion { share, workers, of }| format!("{share} %, {workers} of {of}");
    match step {
        Step::Introduced(new) => write!(f, "{app} introduces {}", portion(new)),
        Step::Held(new, hold) => write!(f, "{app} holds {} for {hold:?}", portion(new)),
        Step::Switched(new) => write!(f, "{app} switches {}", portion(new)),
        Step::Returning => write!(f, "{app} goes back"),
    }
}

fn finish(f: &mut fmt::Formatter<'_>, names: &Names, id: OperationId, outcome: &Outcome) -> fmt::Result {
    let command = names.operation(id);
    match outcome {
        Outcome::Done => write!(f, "done: {command}"),
        Outcome::Failed(failure) => write!(f, "failed: {command}, {}", Failed(names, failure)),
        Outcome::RolledBack(failure) => write!(f, "rolled back: {command}, {}", Failed(names, failure)),
        Outcome::Aborted => write!(f, "aborted: {command}"),
        Outcome::Superseded => write!(f, "superseded: {command}"),
        Outcome::Refused(refusal) => {
            write!(f, "refused: {command}, ")?;
            match refusal {
                Refusal::NoSuchApp => write!(f, "no such app"),
                Refusal::NoSuchSlot => write!(f, "no such slot"),
                Refusal::Busy => write!(f, "busy"),
                Refusal::NoReload => write!(f, "no reload"),
                Refusal::Returning => write!(f, "it goes back already"),
                Refusal::ShuttingDown => write!(f, "shutting down"),
            }
        }
    }
}

/// The life that an operation failed of.
struct Failed<'a>(&'a Names, &'a Failure);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names, Failure { slot, worker, ending }) = self;
        write!(f, "{} worker {} {}", names.slot(*slot), worker.0, Ended(ending))
    }
}

/// How and why a life ended.
#[derive(Debug)]
pub(crate) struct Ended<'a>(pub(crate) &'a Ending);

impl fmt::Display for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ending { exit, cause, uptime, at: _ } = self.0;
        match exit {
            Some(Exit::Code(code)) => write!(f, "exited with code {code} after {uptime:?}")?,
            Some(Exit::Signal(signal)) => write!(f, "died of signal {signal} after {uptime:?}")?,
            Some(Exit::OutOfMemory { .. }) => write!(f, "ran out of memory after {uptime:?}")?,
            Some(Exit::Unknown) => write!(f, "ended somehow after {uptime:?}")?,
            None if matches!(cause, Cause::Hung(_) | Cause::Memory { .. }) => {
                write!(f, "goes on after {uptime:?}")?
            }
            None => write!(f, "never ran")?,
        }
        match cause {
            Cause::Itself => Ok(()),
            Cause::Asked => write!(f, " as asked"),
            Cause::NotReady { limit, lacks } => {
                let lacks = lacks.as_ref().map_or_else(String::new, |lacks| format!(": {lacks}"));
                write!(f, " because it was not ready within {limit:?}{lacks}")
            }
            Cause::Memory { used, limit } => write!(f, " because it used {used} bytes of {limit}"),
            Cause::Hung(hang) => write!(f, " because it hung: {}", how(*hang)),
            Cause::NotStarted(detail) => write!(f, " ({detail})"),
        }
    }
}

/// A moment, counted from the story's beginning.
pub(crate) fn moment(at: Timestamp) -> String {
    let since_start = at.since(Timestamp::default());
    format!("+{}.{:03}s", since_start.as_secs(), since_start.subsec_millis())
}
