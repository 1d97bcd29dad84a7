//! The control API: HTTP/1.1 with JSON on a Unix socket, under `/v1`.
//!
//! Short requests are answered with one JSON object. Orders that take time
//! (`apply`, `start`, `stop`, `restart`, `delete`, `scale`, `kill`) are
//! answered with a stream of JSON objects, one a line, each a [`Progress`];
//! the last one is [`Progress::Done`]. A refused request is answered with a
//! 4xx or 5xx status and an [`ErrorBody`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use supervisor_config::{App, DaemonSettings};

/// The version of the JSON that [`Status`] describes.
pub const SCHEMA: u32 = 1;

/// What `GET /v1/ping` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The daemon itself.
    pub daemon: Daemon,
    /// What people are to know of how the daemon began: which workers of an
    /// earlier one it has taken over, and what of them is lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// The daemon, as every snapshot names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// The version of the running master, such as `0.1.0`.
    pub version: String,
    /// The master's pid.
    pub pid: u32,
    /// The keeper's pid; null when the keeper is gone.
    pub keeper_pid: Option<u32>,
    /// Whole seconds since the master started.
    pub uptime_s: u64,
    /// Why the daemon is in safe mode; null when it is not.
    #[serde(default)]
    pub safe_mode: Option<String>,
    /// What does not work at this moment, in words.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What `GET /v1/status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// The daemon itself.
    pub daemon: Daemon,
    /// The apps, in order of their names.
    pub apps: Vec<AppStatus>,
}

/// One app in a [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    /// The app's name, unique in the daemon.
    pub name: String,
    /// The group of apps that it belongs to.
    pub namespace: String,
    /// What the app is doing.
    pub state: AppState,
    /// Why it is in that state, where there is something to tell.
    pub reason: Option<String>,
    /// `cluster` or `fork`.
    pub exec_mode: String,
    /// Counts the settings that the app has had, from 1.
    pub generation: u64,
    /// How many workers there should be and are.
    pub instances: Instances,
    /// Automatic restarts of all slots since the app was declared.
    pub restarts: u64,
    /// The addresses that the app serves.
    pub listeners: Vec<Listener>,
    /// One entry a slot, in order of the slots.
    pub workers: Vec<WorkerStatus>,
    /// How the last order about it ended; null before there was one.
    #[serde(default)]
    pub last_order: Option<LastOrder>,
}

/// How an order about an app ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastOrder {
    /// What it meant for the app.
    pub change: Change,
    /// The generation that the app had, or was to have.
    pub generation: u64,
    /// When it ended, as an RFC 3339 time in UTC.
    pub at: String,
    /// How.
    pub outcome: OrderOutcome,
    /// What went wrong, in words.
    pub reason: Option<String>,
    /// Whether the master that began it died, and the next one ended it.
    pub by_next_master: bool,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderOutcome {
    /// As it was meant to.
    Done,
    /// It failed, and nothing was taken back.
    Failed,
    /// It failed, or was aborted, and the app is what it was before.
    RolledBack,
}

/// How many workers an app should have and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Slots that should have a running worker.
    pub wanted: u32,
    /// Workers that may take connections.
    pub ready: u32,
    /// Workers whose process exists.
    pub running: u32,
}

/// An address that an app serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `127.0.0.1:8080`, `[::]:8080` or a Unix socket's path.
    pub address: String,
    /// Who asked for it.
    pub origin: Origin,
    /// How connections are spread, such as `kernel` or `shared`.
    pub policy: String,
}

/// Who asked for a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `listen:` of the app's settings.
    Declared,
    /// The program itself, by `bind`.
    Captured,
}

/// What an app is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppState {
    /// Every wanted worker is ready.
    Online,
    /// Some wanted workers are ready, others are not.
    Degraded,
    /// No worker is ready yet; they are on their way.
    Starting,
    /// A new generation is being brought in.
    Reloading,
    /// Its workers are ending.
    Stopping,
    /// It has no worker and wants none.
    Stopped,
    /// Its workers kept failing; it waits for the next try or for a person.
    Errored,
}

/// One slot and its worker in a [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The slot, from 0.
    pub slot: u32,
    /// The worker's id, unique in the daemon's life; null without a worker.
    pub id: Option<u64>,
    /// The process id; null without a process.
    pub pid: Option<u32>,
    /// The generation of the worker, or of the slot's last one.
    pub generation: u64,
    /// What the slot is doing.
    pub state: WorkerState,
    /// Seconds since the worker's process was started; null without one.
    pub uptime_s: Option<f64>,
    /// Automatic restarts of this slot since the app was declared.
    pub restarts: u64,
    /// CPU use of the worker's process tree; 100 is one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the worker's process tree in bytes.
    pub memory_bytes: Option<u64>,
    /// Proportional share of the main process's memory in bytes, read rarely.
    pub pss_bytes: Option<u64>,
    /// Connections that wait in the accept queues of the slot's members.
    pub queue: Option<u64>,
    /// Whether new connections are sent to the slot.
    pub in_rotation: bool,
    /// The slot's share of new connections, relative to its siblings.
    pub weight: Option<u32>,
    /// Bytes of the worker's output that could not be written to a file: the
    /// disk was full, or the file could not be made.
    #[serde(default)]
    pub dropped_log_bytes: u64,
    /// Bytes of the worker's output that were thrown away because no master read
    /// them, as this master has heard.
    #[serde(default)]
    pub lost_log_bytes: u64,
    /// The worker's channel to the others; null without one.
    #[serde(default)]
    pub channel: Option<ChannelStatus>,
    /// The worker's own cgroup, as the daemon's `/proc/PID/cgroup` has it;
    /// null where workers have none.
    pub cgroup: Option<String>,
    /// What the worker last said of itself (`STATUS=`).
    pub message: Option<String>,
    /// Seconds until the next start, while in `backoff` or `errored`.
    pub next_start_s: Option<f64>,
    /// How the slot's last life ended.
    pub last_exit: Option<LastExit>,
}

/// What there is to tell of a worker's channel. Counts are of messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Whether the worker's end is open.
    pub open: bool,
    /// Those that the worker has sent.
    pub received: u64,
    /// Those that it was sent.
    pub sent: u64,
    /// Those of the worker that were too long or not understood.
    pub refused: u64,
    /// Those to the worker for which there was no room, because it did not read.
    pub dropped: u64,
    /// What waits for it, in bytes.
    pub queued_bytes: u64,
    /// What it tells of itself, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Its process runs, or is about to, and is not ready yet.
    Starting,
    /// It may take connections.
    Ready,
    /// It takes no new connections and finishes what is in flight.
    Draining,
    /// It has been told to end.
    Stopping,
    /// No process, and none is wanted.
    Stopped,
    /// No process; the next start waits.
    Backoff,
    /// No process; it failed too often in a row.
    Errored,
}

/// How a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// The exit code, when it exited.
    pub code: Option<i32>,
    /// The signal's name, such as `SIGKILL`, when one ended it.
    pub signal: Option<String>,
    /// Why, in words: `exited with code 1`, `not ready within 30s`.
    pub reason: String,
    /// When, as an RFC 3339 time in UTC.
    pub at: String,
}

/// What `GET /v1/describe` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Describe {
    /// The selected apps.
    pub apps: Vec<Description>,
}

/// Everything that there is to know of one app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The settings in force. `inherited_env` and `env` are left out unless
    /// they were to be revealed: they may hold secrets.
    pub settings: App,
    /// The file that they come from; null for a command line.
    #[serde(default)]
    pub source: Option<PathBuf>,
    /// The `NAME` of `--env NAME` that the file was read with.
    #[serde(default)]
    pub env_name: Option<String>,
    /// The names of the variables that a worker gets, in order.
    pub env_names: Vec<String>,
    /// Whether the addresses that its workers bind are shared; null with
    /// `exec_mode: fork`, which asks for none of it.
    #[serde(default)]
    pub capture: Option<Capture>,
    /// The app as [`Status`] has it.
    pub status: AppStatus,
    /// Where each slot's output goes, in order of the slots.
    pub logs: Vec<LogPaths>,
}

/// Whether the addresses that an app's workers bind for themselves are shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Why not; null where they are.
    pub refused: Option<String>,
    /// Its workers gain no privileges by programs with the set-user-id bit.
    pub no_new_privs: bool,
    /// The slots whose workers cannot bind any other address: they have outlived
    /// keeper and master.
    #[serde(default)]
    pub cut_off: Vec<u32>,
}

/// Where a slot's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPaths {
    /// The slot.
    pub slot: u32,
    /// The file of its standard output; null when it is thrown away.
    pub out: Option<String>,
    /// The file of its standard error; null when it is thrown away.
    pub error: Option<String>,
}

/// The body of `POST /v1/apply`: apps that should be so from now on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Apply {
    /// The apps, resolved by the client: absolute paths, whole environment.
    pub apps: Vec<App>,
    /// The file that they come from, absolute. Apps that the same file declared
    /// before and that are not listed any more are named in the answer.
    #[serde(default)]
    pub source: Option<PathBuf>,
    /// The `NAME` of `--env NAME` that it was read with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_name: Option<String>,
    /// Delete those.
    #[serde(default)]
    pub prune: bool,
    /// Reload the apps that have not changed, too.
    #[serde(default)]
    pub reload: bool,
    /// Settings of the daemon itself, all of them; left as they are when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<DaemonSettings>,
}

/// The body of `POST /v1/start`, `stop`, `restart`, `reload`, `abort`, `delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    /// What to act on: a name, `name:slot`, a namespace, `all` or `/regex/`.
    pub selectors: Vec<String>,
    /// Do not wait for anything: `stop` and `delete` kill, `restart` does all
    /// slots at once.
    #[serde(default)]
    pub now: bool,
}

/// The body of `POST /v1/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The app's name.
    pub app: String,
    /// `4`, `+2` or `-1`.
    pub instances: String,
}

/// The body of `POST /v1/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendSignal {
    /// What to act on: a name, `name:slot`, a namespace, `all` or `/regex/`.
    pub selectors: Vec<String>,
    /// A signal's name or number: `HUP`, `SIGUSR2`, `10`.
    pub signal: String,
}

/// What `POST /v1/signal` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    /// How many workers got the signal.
    pub workers: u32,
}

/// The body of `POST /v1/send`: a message to workers, on their channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendMessage {
    /// Whom to send it to: a name, `name:slot`, a namespace, `all` or `/regex/`.
    pub selectors: Vec<String>,
    /// Any JSON value; it is sent as it stands, on one line.
    pub message: Box<RawValue>,
}

/// What `POST /v1/send` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSent {
    /// How many workers it was sent to: those that are ready.
    pub workers: u32,
}

/// One line of `GET /v1/channel`: a message of a worker, or how many were left
/// out because the reader was too slow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Overheard {
    /// The app of the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The slot of the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// What it said, as it stands, unless that is too long to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<RawValue>>,
    /// How long a message is that is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// How many messages were left out here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// The body of `POST /v1/flush`: empties log files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flush {
    /// Whose output is thrown away: a name, `name:slot`, a namespace, `all` or `/regex/`.
    pub selectors: Vec<String>,
}

/// What `POST /v1/flush` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// How many files are empty now. Those that were rotated from them are
    /// deleted and do not count.
    pub files: u32,
}

/// What `GET /v1/env` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environments {
    /// The selected workers that run.
    pub workers: Vec<Environment>,
}

/// The variables that a worker was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The app's name.
    pub app: String,
    /// The slot.
    pub slot: u32,
    /// The worker's main process.
    pub pid: u32,
    /// Names and values. Of what seems secret the value is `***`, unless it was
    /// to be revealed.
    pub env: BTreeMap<String, String>,
}

/// The body of `POST /v1/reset`: counts restarts from 0 again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Whose restarts: a name, `name:slot`, a namespace, `all` or `/regex/`.
    pub selectors: Vec<String>,
}

/// What `POST /v1/reset` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetDone {
    /// How many slots that was about.
    pub slots: u32,
}

/// The body of `POST /v1/reopen`: opens all log files anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reopen {}

/// What `POST /v1/reopen` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reopened {}

/// The body of `POST /v1/kill`: ends the daemon and its workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Kill the workers instead of asking them to end.
    #[serde(default)]
    pub now: bool,
}

/// The body of `POST /v1/upgrade`: replaces the daemon by another binary of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartUpgrade {
    /// Its path, absolute; that of the running one, where a package may have put
    /// another file, when absent.
    #[serde(default)]
    pub binary: Option<PathBuf>,
}

/// What `GET` and `POST /v1/upgrade` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrades {
    /// The daemon as it is now.
    pub daemon: Daemon,
    /// The last upgrade that this daemon has begun; null without any.
    pub upgrade: Option<Upgrade>,
}

/// How far an upgrade has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Told apart from others by this number.
    pub id: u64,
    /// The new binary.
    pub binary: PathBuf,
    /// The version that ordered it.
    pub from: String,
    /// The version of the new binary; null until it has said so.
    pub to: Option<String>,
    /// What is being done.
    pub stage: UpgradeStage,
    /// Why the old version goes on; null otherwise.
    pub cause: Option<String>,
}

/// What is being done for an upgrade, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeStage {
    /// The new binary is asked what it is.
    Checking,
    /// It restores a copy of what the daemon knows, and touches nothing.
    Rehearsing,
    /// The old master makes room.
    Leaving,
    /// The new one is tried out.
    Trying,
    /// The keeper becomes the new binary.
    Settling,
    /// Done.
    Done,
    /// The old version goes on.
    RolledBack,
    /// Of a later version.
    #[serde(other)]
    Other,
}

impl UpgradeStage {
    /// Whether nothing more is to come.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack)
    }

    /// What is being done, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "the new binary is asked what it is",
            Self::Rehearsing => "the new binary restores a copy of what the daemon knows",
            Self::Leaving => "the old master makes room",
            Self::Trying => "the new master is tried out",
            Self::Settling => "the keeper becomes the new binary",
            Self::Done => "done",
            Self::RolledBack => "the old version goes on",
            Self::Other => "a stage that this version does not know",
        }
    }
}

/// One line of an order's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Progress {
    /// What the order means for one app.
    App {
        /// The app's name.
        app: String,
        /// What becomes of it.
        change: Change,
        /// How many of its workers that is about.
        instances: u32,
    },
    /// A worker of a concerned app changed its state.
    Worker {
        /// The app's name.
        app: String,
        /// The slot.
        slot: u32,
        /// The slot's state from now on.
        state: WorkerState,
        /// What happened, in words.
        detail: String,
    },
    /// A reload whose workers take over together, or that goes back, is a step
    /// further.
    Step(Step),
    /// The order failed for one app. Orders for other apps go on.
    Failed(Failure),
    /// The last line: the order is over.
    Done {
        /// The exit code for a command: 0 done, 1 failed, 3, 5, 6 as in
        /// [`ErrorCode`].
        exit_code: u8,
    },
}

/// How far a reload is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The app's name.
    pub app: String,
    /// What it is about.
    pub step: StepKind,
    /// The share of new connections that is for the new workers, in percent;
    /// null when it goes back.
    pub share_percent: Option<u32>,
    /// How many new workers there are at this step; null as before.
    pub workers: Option<u32>,
    /// How many there are going to be; null as before.
    pub of: Option<u32>,
    /// Seconds that the step is held; null for other steps.
    pub hold_s: Option<f64>,
    /// The same in words: `canary 25 %: 1 of 4 workers, holding 30s`.
    pub detail: String,
}

/// What a step of a reload is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// New workers are started beside the old ones.
    Introducing,
    /// They have their share of the new connections.
    Holding,
    /// All have proved themselves and take over.
    Switching,
    /// The old workers get all new connections, and serve on.
    Returning,
}

/// What an order means for one app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Created,
    /// Its settings changed: its workers are replaced.
    Changed,
    /// Nothing to do.
    Unchanged,
    /// It is declared but not in the applied file; it stays as it is.
    Missing,
    /// It is started again.
    Started,
    /// It is stopped.
    Stopped,
    /// Its workers are restarted.
    Restarted,
    /// Its workers are replaced one after another, with the same settings.
    Reloaded,
    /// It is stopped and forgotten.
    Deleted,
    /// Its number of workers changes.
    Scaled,
    /// The reload that is under way goes back.
    Aborted,
}

/// The header of a `POST` that names it: whoever gets no answer sends the same
/// request with the same key again, and it is not carried out twice.
pub const ORDER_KEY: &str = "idempotency-key";
/// The longest key, bytes.
pub const MAX_ORDER_KEY: usize = 128;

/// Why an order failed for one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The app's name.
    pub app: String,
    /// The slot whose worker failed, where one did.
    pub slot: Option<u32>,
    /// The cause, in words: `exec /usr/bin/nodee: no such file or directory`.
    pub reason: String,
    /// The last lines of the failed worker's output, oldest first, at most 20.
    pub last_lines: Vec<String>,
    /// Whether the app's workers are again those of the settings before.
    #[serde(default)]
    pub rolled_back: bool,
}

/// One line of `GET /v1/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum LogLine {
    /// A line that a worker wrote.
    Line {
        /// The app's name.
        app: String,
        /// The slot; null in the history of a file that several slots share.
        slot: Option<u32>,
        /// Where the worker wrote it.
        stream: Stream,
        /// The line without its end; bytes that are not UTF-8 are replaced.
        line: String,
        /// Where it ends in its file, if that was asked for and is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<LogPosition>,
    },
    /// Up to where files have been told, before the first line that is written
    /// from then on. It comes if it was asked for.
    Files {
        /// Those that are there.
        files: Vec<LogPosition>,
    },
    /// The reader was too slow: this much was left out here.
    Missed {
        /// How many pieces of output were left out.
        chunks: u64,
    },
}

/// A place in a file with output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The file's number on its disk, which it keeps when it is renamed.
    pub file: u64,
    /// How many bytes of it come before.
    pub end: u64,
}

/// One of a worker's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// The body of a refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was wrong.
    pub error: ErrorDetail,
}

/// What was wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorDetail {
    /// The kind, for programs.
    pub code: ErrorCode,
    /// The cause and the way out, for people.
    pub message: String,
}

/// The kinds of refusal, each with the exit code that a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// It was tried and did not work (1).
    Failed,
    /// The request is malformed (2).
    Usage,
    /// Nothing has that name (3).
    NoSuchApp,
    /// The caller may not (5).
    Denied,
    /// Something else is under way (5).
    Busy,
}

impl ErrorCode {
    /// The exit code of a command that was refused so (DESIGN §7).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoSuchApp => 3,
            Self::Denied | Self::Busy => 5,
        }
    }
}
