//! The text of a memo: JSON, in which what is not known is passed over and what
//! is missing has its default, so that versions differ without harm.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use supervisor_core::memo::{
    AppMemo, Awaited, BeforeMemo, FailureMemo, OperationMemo, ReturningMemo, SlotMemo, StepsMemo, WorkerMemo,
};
use supervisor_core::{
    Cause, Ending, Exit, Generation, Hang, OperationId, Policy, ReadyWhen, Reload, Rest, Side, Stage,
    Timestamp, WorkerId,
};

/// Bytes of a failure's words that are kept: a record is small.
const MAX_DETAIL: usize = 1024;

/// A moment: nanoseconds on the clock that does not stop between masters.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Moment(u64);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AppText {
    generation: u64,
    versions: Vec<(u64, PolicyText)>,
    instances: u32,
    #[serde(default)]
    deleting: bool,
    #[serde(default)]
    operation: Option<OperationText>,
    #[serde(default)]
    probe_at: Option<Moment>,
    #[serde(default)]
    vain: (u32, Moment),
}

#[derive(Debug, Serialize, Deserialize)]
struct PolicyText {
    reported: bool,
    listen_timeout: Duration,
    min_uptime: Duration,
    max_restarts: u32,
    restart_delay: Duration,
    restart_backoff_percent: u32,
    breaker_retry: Duration,
    autorestart: bool,
    stop_exit_codes: Vec<i32>,
    kill_timeout: Duration,
    listens: bool,
    drain_timeout: Duration,
    max_surge: u32,
    /// The shares of a reload in steps, and how long each is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<(Vec<u32>, Duration)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OperationText {
    #[serde(default)]
    id: u64,
    stable: bool,
    at_once: usize,
    beside: bool,
    #[serde(default)]
    shrink: Option<u32>,
    /// Generation, number of slots, and which were to run.
    #[serde(default)]
    before: Option<(u64, u32, BTreeSet<u32>)>,
    #[serde(default)]
    steps: Option<StepsText>,
    #[serde(default)]
    returning: Option<ReturningText>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StepsText {
    shares: Vec<u32>,
    hold: Duration,
    at: usize,
    #[serde(default)]
    held_until: Option<Moment>,
    of: u32,
    share: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReturningText {
    /// Slot, worker, and how it ended.
    Failed(u32, u64, EndingText),
    /// By this order.
    Ordered(Option<u64>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SlotText {
    wanted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recycle: Option<CauseText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace: Option<CauseText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<WorkerText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<WorkerText>,
    /// The side is `B`.
    b: bool,
    open: (bool, bool),
    rest: RestText,
    streak: u32,
    restarts: u64,
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<EndingText>,
    /// Ready, turn, gone, introduced, admitted.
    #[serde(default)]
    awaited: (bool, bool, bool, bool, bool),
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fresh: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct WorkerText {
    id: u64,
    /// It sits on side `B`.
    b: bool,
    generation: u64,
    since: Moment,
    stage: StageText,
    #[serde(default)]
    hurry: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relieves: Option<Moment>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StageText {
    Spawning,
    Starting(Moment, Option<String>),
    Ready(Option<Moment>),
    Draining(CauseText, Moment, bool),
    Stopping(CauseText, Option<Moment>, bool),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RestText {
    Stopped,
    Due(Moment),
    Errored,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CauseText {
    Itself,
    Asked,
    NotReady(Duration, Option<String>),
    Memory(u64, u64),
    /// It took no connection for so long.
    Queue(Duration),
    /// It did not say for so long that it is alive.
    Watchdog(Duration),
    NotStarted(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct EndingText {
    exit: Option<ExitText>,
    cause: CauseText,
    at: Moment,
    uptime: Duration,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExitText {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// There was no memory left for it, or it had reached this limit.
    Memory(Option<u64>),
    /// Nobody can tell.
    Unknown,
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        // Half a millennium of nanoseconds.
        Self(u64::try_from(at.since(Timestamp::default()).as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Moment> for Timestamp {
    fn from(at: Moment) -> Self {
        Self::new(Duration::from_nanos(at.0))
    }
}

impl From<Exit> for ExitText {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal(number) => Self::Signal(number),
            Exit::OutOfMemory { limit } => Self::Memory(limit),
            Exit::Unknown => Self::Unknown,
        }
    }
}

impl From<ExitText> for Exit {
    fn from(exit: ExitText) -> Self {
        match exit {
            ExitText::Code(code) => Self::Code(code),
            ExitText::Signal(number) => Self::Signal(number),
            ExitText::Memory(limit) => Self::OutOfMemory { limit },
            ExitText::Unknown => Self::Unknown,
        }
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DETAIL));
    text
}

impl From<Cause> for CauseText {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Itself => Self::Itself,
            Cause::Asked => Self::Asked,
            Cause::NotReady { limit, lacks } => Self::NotReady(limit, lacks.map(shortened)),
            Cause::Memory { used, limit } => Self::Memory(used, limit),
            Cause::Hung(Hang::Queue(time)) => Self::Queue(time),
            Cause::Hung(Hang::Watchdog(time)) => Self::Watchdog(time),
            Cause::NotStarted(detail) => Self::NotStarted(shortened(detail)),
        }
    }
}

impl From<CauseText> for Cause {
    fn from(cause: CauseText) -> Self {
        match cause {
            CauseText::Itself => Self::Itself,
            CauseText::Asked => Self::Asked,
            CauseText::NotReady(limit, lacks) => Self::NotReady { limit, lacks },
            CauseText::Memory(used, limit) => Self::Memory { used, limit },
            CauseText::Queue(time) => Self::Hung(Hang::Queue(time)),
            CauseText::Watchdog(time) => Self::Hung(Hang::Watchdog(time)),
            CauseText::NotStarted(detail) => Self::NotStarted(detail),
        }
    }
}

impl From<Ending> for EndingText {
    fn from(Ending { exit, cause, at, uptime }: Ending) -> Self {
        Self { exit: exit.map(Into::into), cause: cause.into(), at: at.into(), uptime }
    }
}

impl From<EndingText> for Ending {
    fn from(EndingText { exit, cause, at, uptime }: EndingText) -> Self {
        Self { exit: exit.map(Into::into), cause: cause.into(), at: at.into(), uptime }
    }
}

impl From<Stage> for StageText {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Spawning => Self::Spawning,
            Stage::Starting { deadline, lacks } => Self::Starting(deadline.into(), lacks.map(shortened)),
            Stage::Ready { stable_at } => Self::Ready(stable_at.map(Into::into)),
            Stage::Draining { cause, deadline, stable } => {
                Self::Draining(cause.into(), deadline.into(), stable)
            }
            Stage::Stopping { cause, kill_at, stable } => {
                Self::Stopping(cause.into(), kill_at.map(Into::into), stable)
            }
        }
    }
}

impl From<StageText> for Stage {
    fn from(stage: StageText) -> Self {
        match stage {
            StageText::Spawning => Self::Spawning,
            StageText::Starting(deadline, lacks) => Self::Starting { deadline: deadline.into(), lacks },
            StageText::Ready(stable_at) => Self::Ready { stable_at: stable_at.map(Into::into) },
            StageText::Draining(cause, deadline, stable) => {
                Self::Draining { cause: cause.into(), deadline: deadline.into(), stable }
            }
            StageText::Stopping(cause, kill_at, stable) => {
                Self::Stopping { cause: cause.into(), kill_at: kill_at.map(Into::into), stable }
            }
        }
    }
}

const fn side(b: bool) -> Side {
    if b { Side::B } else { Side::A }
}

impl From<WorkerMemo> for WorkerText {
    fn from(WorkerMemo { id, side, generation, since, stage, hurry, relieves }: WorkerMemo) -> Self {
        let (b, generation) = (side == Side::B, generation.0);
        let (since, stage, relieves) = (since.into(), stage.into(), relieves.map(Into::into));
        Self { id: id.0, b, generation, since, stage, hurry, relieves }
    }
}

impl From<WorkerText> for WorkerMemo {
    fn from(WorkerText { id, b, generation, since, stage, hurry, relieves }: WorkerText) -> Self {
        Self {
            id: WorkerId(id),
            side: side(b),
            generation: Generation(generation),
            since: since.into(),
            stage: stage.into(),
            hurry,
            relieves: relieves.map(Into::into),
        }
    }
}

impl SlotText {
    /// Whether a worker sits there.
    pub(super) fn has(&self, id: WorkerId) -> bool {
        [&self.worker, &self.successor, &self.retired].into_iter().flatten().any(|worker| worker.id == id.0)
    }
}

impl From<SlotMemo> for SlotText {
    fn from(slot: SlotMemo) -> Self {
        let Awaited { ready, turn, gone, introduced, admitted, fresh } = slot.awaited;
        Self {
            wanted: slot.wanted,
            recycle: slot.recycle.map(Into::into),
            replace: slot.replace.map(Into::into),
            worker: slot.worker.map(|worker| (*worker).into()),
            successor: slot.successor.map(|worker| (*worker).into()),
            retired: slot.retired.map(|worker| (*worker).into()),
            b: slot.side == Side::B,
            open: slot.open,
            rest: match slot.rest {
                Rest::Stopped => RestText::Stopped,
                Rest::Due(at) => RestText::Due(at.into()),
                Rest::Errored => RestText::Errored,
            },
            streak: slot.streak,
            restarts: slot.restarts,
            generation: slot.generation.0,
            last: slot.last_ending.map(Into::into),
            awaited: (ready, turn, gone, introduced, admitted),
            fresh,
        }
    }
}

impl From<SlotText> for SlotMemo {
    fn from(slot: SlotText) -> Self {
        let (ready, turn, gone, introduced, admitted) = slot.awaited;
        Self {
            wanted: slot.wanted,
            recycle: slot.recycle.map(Into::into),
            replace: slot.replace.map(Into::into),
            worker: slot.worker.map(|worker| Box::new(worker.into())),
            successor: slot.successor.map(|worker| Box::new(worker.into())),
            retired: slot.retired.map(|worker| Box::new(worker.into())),
            side: side(slot.b),
            open: slot.open,
            rest: match slot.rest {
                RestText::Stopped => Rest::Stopped,
                RestText::Due(at) => Rest::Due(at.into()),
                RestText::Errored => Rest::Errored,
            },
            streak: slot.streak,
            restarts: slot.restarts,
            generation: Generation(slot.generation),
            last_ending: slot.last.map(Into::into),
            awaited: Awaited { ready, turn, gone, introduced, admitted, fresh: slot.fresh },
        }
    }
}

impl From<&Policy> for PolicyText {
    fn from(policy: &Policy) -> Self {
        Self {
            reported: policy.ready == ReadyWhen::Reported,
            listen_timeout: policy.listen_timeout,
            min_uptime: policy.min_uptime,
            max_restarts: policy.max_restarts,
            restart_delay: policy.restart_delay,
            restart_backoff_percent: policy.restart_backoff_percent,
            breaker_retry: policy.breaker_retry,
            autorestart: policy.autorestart,
            stop_exit_codes: policy.stop_exit_codes.clone(),
            kill_timeout: policy.kill_timeout,
            listens: policy.listens,
            drain_timeout: policy.drain_timeout,
            max_surge: policy.max_surge,
            steps: match &policy.reload {
                Reload::Rolling => None,
                Reload::Steps { shares, hold } => Some((shares.clone(), *hold)),
            },
        }
    }
}

impl From<PolicyText> for Policy {
    fn from(policy: PolicyText) -> Self {
        Self {
            ready: if policy.reported { ReadyWhen::Reported } else { ReadyWhen::Started },
            listen_timeout: policy.listen_timeout,
            min_uptime: policy.min_uptime,
            max_restarts: policy.max_restarts,
            restart_delay: policy.restart_delay,
            restart_backoff_percent: policy.restart_backoff_percent,
            breaker_retry: policy.breaker_retry,
            autorestart: policy.autorestart,
            stop_exit_codes: policy.stop_exit_codes,
            kill_timeout: policy.kill_timeout,
            listens: policy.listens,
            drain_timeout: policy.drain_timeout,
            max_surge: policy.max_surge,
            reload: match policy.steps {
                None => Reload::Rolling,
                Some((shares, hold)) => Reload::Steps { shares, hold },
            },
        }
    }
}

impl From<StepsMemo> for StepsText {
    fn from(StepsMemo { shares, hold, at, held_until, of, share }: StepsMemo) -> Self {
        Self { shares, hold, at, held_until: held_until.map(Into::into), of, share }
    }
}

impl From<StepsText> for StepsMemo {
    fn from(StepsText { shares, hold, at, held_until, of, share }: StepsText) -> Self {
        Self { shares, hold, at, held_until: held_until.map(Into::into), of, share }
    }
}

impl From<ReturningMemo> for ReturningText {
    fn from(returning: ReturningMemo) -> Self {
        match returning {
            ReturningMemo::Failed(FailureMemo { slot, worker, ending }) => {
                Self::Failed(slot, worker.0, ending.into())
            }
            ReturningMemo::Ordered(by) => Self::Ordered(by.map(|by| by.0)),
        }
    }
}

impl From<ReturningText> for ReturningMemo {
    fn from(returning: ReturningText) -> Self {
        match returning {
            ReturningText::Failed(slot, worker, ending) => {
                Self::Failed(FailureMemo { slot, worker: WorkerId(worker), ending: ending.into() })
            }
            ReturningText::Ordered(by) => Self::Ordered(by.map(OperationId)),
        }
    }
}

impl From<&AppMemo> for AppText {
    fn from(app: &AppMemo) -> Self {
        let before =
            |before: BeforeMemo| (before.generation.0, before.instances, BTreeSet::clone(&before.wanted));
        let operation = |operation: OperationMemo| OperationText {
            id: operation.id.0,
            stable: operation.stable,
            at_once: operation.at_once,
            beside: operation.beside,
            shrink: operation.shrink,
            before: operation.before.map(before),
            steps: operation.steps.map(Into::into),
            returning: operation.returning.map(Into::into),
        };
        Self {
            generation: app.generation.0,
            versions: app.versions.iter().map(|(of, policy)| (of.0, (&**policy).into())).collect(),
            instances: app.instances,
            deleting: app.deleting,
            operation: app.operation.clone().map(operation),
            probe_at: app.probe_at.map(Into::into),
            vain: (app.vain.0, app.vain.1.into()),
        }
    }
}

impl From<AppText> for AppMemo {
    fn from(app: AppText) -> Self {
        let before = |(generation, instances, wanted): (u64, u32, BTreeSet<u32>)| BeforeMemo {
            generation: Generation(generation),
            instances,
            wanted: Rc::new(wanted),
        };
        let operation = |operation: OperationText| OperationMemo {
            id: OperationId(operation.id),
            stable: operation.stable,
            at_once: operation.at_once,
            beside: operation.beside,
            shrink: operation.shrink,
            before: operation.before.map(before),
            steps: operation.steps.map(Into::into),
            returning: operation.returning.map(Into::into),
        };
        let version = |(of, policy): (u64, PolicyText)| (Generation(of), Rc::new(policy.into()));
        Self {
            generation: Generation(app.generation),
            versions: app.versions.into_iter().map(version).collect(),
            instances: app.instances,
            deleting: app.deleting,
            operation: app.operation.map(operation),
            probe_at: app.probe_at.map(Into::into),
            vain: (app.vain.0, app.vain.1.into()),
        }
    }
}
