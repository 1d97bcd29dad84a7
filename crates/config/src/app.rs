//! The checked app: what a file's entry means once everything is resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Balance, ChannelOptions, CpuAffinity, CronRestart, LogOptions, Ready, Reload, Watch};

/// One app's settings, checked and complete: every default is filled in, every
/// path is absolute. It is what a client sends to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Unique in the daemon.
    pub name: String,
    /// The group that it belongs to; `default` unless given.
    pub namespace: String,
    /// The program and its arguments; never empty. A program without `/` is
    /// looked up in the worker's `PATH`, one with `/` is relative to `cwd`.
    pub command: Vec<String>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// Whether workers share addresses.
    pub exec_mode: ExecMode,
    /// How many workers.
    pub instances: u32,
    /// Which of the caller's variables are inherited.
    #[serde(default)]
    pub inherit: Inherit,
    /// The caller's environment as far as it is inherited. It does not count
    /// when the daemon asks whether an app has changed.
    pub inherited_env: BTreeMap<String, String>,
    /// The app's own variables: `env_file`, `env`, `env_NAME`, in this order.
    pub env: BTreeMap<String, String>,
    /// The variable that holds the slot's number; `NODE_APP_INSTANCE`.
    pub instance_var: String,
    /// A variable of `env` that holds a number, which each worker gets
    /// increased by its slot.
    pub increment_var: Option<String>,
    /// The addresses that the daemon binds for the workers.
    pub listen: Vec<ListenAddress>,
    /// Connections that may wait in each accept queue.
    pub backlog: u32,
    /// How new connections are spread over the workers.
    #[serde(default)]
    pub balance: Balance,
    /// What each slot weighs, with [`Balance::Weighted`]; 1 for further slots.
    #[serde(default)]
    pub weights: Vec<u32>,
    /// When a worker counts as ready.
    pub ready: Ready,
    /// How long a worker may take to become ready.
    #[serde(with = "millis")]
    pub listen_timeout: Duration,
    /// A worker that lived this long, and is ready, is stable.
    #[serde(with = "millis")]
    pub min_uptime: Duration,
    /// Unstable lives in a row after which a slot is `errored`.
    pub max_restarts: u32,
    /// The pause after the first unstable life.
    #[serde(with = "millis")]
    pub restart_delay: Duration,
    /// What each further unstable life multiplies the pause by, in hundredths:
    /// 200 doubles it, 100 keeps it.
    pub restart_backoff_percent: u32,
    /// How often an errored app tries one slot; zero means never.
    #[serde(with = "millis")]
    pub breaker_retry: Duration,
    /// Whether a new app is started, and not only declared.
    pub autostart: bool,
    /// Whether a worker that ended is started again.
    pub autorestart: bool,
    /// Exit codes after which a worker is not started again.
    pub stop_exit_codes: Vec<i32>,
    /// A worker whose processes use more memory is replaced, in bytes.
    pub max_memory_restart: Option<u64>,
    /// A worker whose processes use more memory is killed, in bytes.
    pub max_memory_hard: Option<u64>,
    /// When its workers are replaced, if ever.
    pub cron_restart: Option<CronRestart>,
    /// The files whose changes replace its workers, if any.
    pub watch: Option<Watch>,
    /// How long a worker may take no connection from its queue; with zero it is
    /// not looked at.
    #[serde(with = "millis", default = "hang_timeout")]
    pub hang_timeout: Duration,
    /// How often a worker says that it is alive, at least, if it does.
    #[serde(with = "optional_millis", default)]
    pub watchdog: Option<Duration>,
    /// The number of the signal that asks a worker to end.
    pub kill_signal: i32,
    /// How long after that a worker is killed.
    #[serde(with = "millis")]
    pub kill_timeout: Duration,
    /// How long a worker that makes room for another may take the connections
    /// that wait for it.
    #[serde(with = "millis", default = "drain_timeout")]
    pub drain_timeout: Duration,
    /// A connection of such a worker is idle when nothing came or went for so
    /// long; without it, when its last request is answered.
    #[serde(with = "optional_millis", default)]
    pub drain_quiet: Option<Duration>,
    /// How many slots of a reload have their successor beside the old worker at
    /// a time; with 0 the old worker ends first.
    #[serde(default)]
    pub max_surge: u32,
    /// How new workers take the place of old ones.
    #[serde(default)]
    pub reload: Reload,
    /// The channel between its workers.
    #[serde(default)]
    pub channel: ChannelOptions,
    /// The user that workers run as, by name or uid; the daemon's when absent.
    pub user: Option<String>,
    /// The group that workers run as, by name or gid; the user's when absent.
    pub group: Option<String>,
    /// The file mode creation mask; the daemon's when absent.
    pub umask: Option<u32>,
    /// The scheduling priority, −20 to 19; the daemon's when absent.
    pub nice: Option<i32>,
    /// The CPUs that workers run on; the daemon's when absent.
    pub cpu_affinity: Option<CpuAffinity>,
    /// Resource limits by the names of `setrlimit(2)`, such as `nofile`.
    pub limits: BTreeMap<String, Limit>,
    /// The out-of-memory score adjustment, −1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Where standard output goes; the log folder when absent.
    pub out_file: LogTarget,
    /// Where standard error goes; the log folder when absent.
    pub error_file: LogTarget,
    /// How output is kept.
    pub logs: LogOptions,
}

/// Which of the caller's variables an app inherits: all unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherit {
    /// These names alone.
    pub only: Option<Vec<String>>,
    /// None whose name has one of these texts in it.
    pub without: Vec<String>,
}

/// Whether workers share addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecMode {
    /// Workers serve the same addresses side by side.
    Cluster,
    /// Workers stand alone.
    Fork,
}

/// An address that the daemon binds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenAddress {
    /// TCP on one address. A bare port is `[::]` with IPv4 as well.
    Tcp {
        /// The address; `[::]` for dual-stack.
        address: std::net::SocketAddr,
        /// Whether an IPv6 socket takes IPv4 connections too.
        dual_stack: bool,
    },
    /// A Unix stream socket at an absolute path.
    Unix(PathBuf),
}

/// A resource limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What the kernel enforces.
    pub soft: Option<u64>,
    /// How far the worker may raise it.
    pub hard: Option<u64>,
}

/// Where a worker's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// `NAME-out-SLOT.log` or `NAME-error-SLOT.log` in the log folder, without
    /// `-SLOT` when the app merges its logs.
    Default,
    /// This file; `-SLOT` is added before its extension unless the app was
    /// declared with one instance or merges its logs.
    File(PathBuf),
    /// Nowhere.
    Null,
}

/// Durations as whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Durations that may be missing.
pub(crate) mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// For what an earlier version wrote down.
const fn drain_timeout() -> Duration {
    Duration::from_secs(30)
}

/// For what an earlier version wrote down.
const fn hang_timeout() -> Duration {
    Duration::from_secs(10)
}
