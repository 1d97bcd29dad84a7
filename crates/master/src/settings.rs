//! One generation of an app's settings, with what is worked out from them once.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use jiff::tz::TimeZone;
use supervisor_config::{
    App, Balance, CpuAffinity, ExecMode, ListenAddress, LogTarget, Ready, Reload, speaks_node,
};
use supervisor_core::{self as core, Policy, ReadyWhen};
use supervisor_sys::cpus::allowed_cpus;
use supervisor_sys::limits::{Limit, Resource};
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::Credentials;
use supervisor_sys::user::User;

use crate::output::{self, Access};
use crate::sampler::Ceilings;
use crate::words;

/// Where a Node program looks for its channel, and how messages are written
/// there.
const NODE_CHANNEL: &str = "NODE_CHANNEL_FD";
const NODE_SERIALIZATION: &str = "NODE_CHANNEL_SERIALIZATION_MODE";

/// Settings as workers are started with them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) app: App,
    pub(crate) generation: u64,
    /// The user to run as; looked up when the first worker needs it.
    identity: OnceCell<Option<Identity>>,
}

/// The user that an app's workers run as.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) credentials: Credentials,
    name: Option<String>,
    home: Option<PathBuf>,
    shell: Option<PathBuf>,
}

/// What a worker's place adds to its environment.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) slot: u32,
    pub(crate) instances: u32,
    pub(crate) notify_socket: &'a str,
    /// The names of the listeners passed from fd 3 on.
    pub(crate) listeners: &'a [String],
    /// What `SUPERVISOR_IPC` is to say of the channel, if there is one.
    pub(crate) channel: Option<&'a str>,
}

impl Settings {
    pub(crate) fn new(app: App, generation: u64) -> Rc<Self> {
        Rc::new(Self { app, generation, identity: OnceCell::new() })
    }

    /// What the core needs to know of them. `capture` tells whether this daemon
    /// can capture sockets, `listened` whether a worker of the app was seen to
    /// listen.
    pub(crate) fn policy(&self, capture: bool, listened: bool) -> Policy {
        let app = &self.app;
        let declares = !app.listen.is_empty();
        let captures = capture && self.wants_capture();
        Policy {
            ready: match app.ready {
                Ready::Notify | Ready::Ipc | Ready::Check(_) => ReadyWhen::Reported,
                Ready::Listen if captures => ReadyWhen::Reported,
                Ready::Auto if captures && listened => ReadyWhen::Reported,
                Ready::Started | Ready::Listen | Ready::Auto => ReadyWhen::Started,
            },
            listen_timeout: app.listen_timeout,
            min_uptime: app.min_uptime,
            max_restarts: app.max_restarts,
            restart_delay: app.restart_delay,
            restart_backoff_percent: app.restart_backoff_percent,
            breaker_retry: app.breaker_retry,
            autorestart: app.autorestart,
            stop_exit_codes: app.stop_exit_codes.clone(),
            kill_timeout: app.kill_timeout,
            listens: declares || captures,
            drain_timeout: app.drain_timeout,
            // Two that do not share their addresses cannot live side by side.
            max_surge: if declares || captures || !self.wants_capture() { app.max_surge } else { 0 },
            reload: match &app.reload {
                Reload::Rolling => core::Reload::Rolling,
                Reload::All => core::Reload::Steps { shares: vec![100], hold: Duration::ZERO },
                Reload::Canary { steps, hold } => core::Reload::Steps { shares: steps.clone(), hold: *hold },
            },
        }
    }

    /// Whether a worker that listens is ready, unless its app is new to that.
    pub(crate) fn ready_by_listening(&self) -> bool {
        matches!(self.app.ready, Ready::Listen | Ready::Auto)
    }

    /// Whether a check from outside tells when a worker is ready.
    pub(crate) fn is_checked(&self) -> bool {
        matches!(self.app.ready, Ready::Check(_))
    }

    /// Whether the sockets that its workers bind are to be captured.
    pub(crate) fn wants_capture(&self) -> bool {
        self.app.exec_mode == ExecMode::Cluster
    }

    /// Whether workers of these settings would differ from those of `other`.
    /// The number of workers, whether they start by themselves, and the
    /// caller's environment do not count, nor does who gets connections, unless
    /// that takes other sockets.
    pub(crate) fn differ_from(&self, other: &App) -> bool {
        let mut same = other.clone();
        if (self.app.balance == Balance::Shared) == (other.balance == Balance::Shared) {
            same.balance = self.app.balance;
        }
        same.weights.clone_from(&self.app.weights);
        same.instances = self.app.instances;
        same.inherited_env.clone_from(&self.app.inherited_env);
        same.autostart = self.app.autostart;
        same != self.app
    }

    /// Whether `other` spreads connections otherwise.
    pub(crate) fn spreads_unlike(&self, other: &App) -> bool {
        (self.app.balance, &self.app.weights) != (other.balance, &other.weights)
    }

    /// The signal that asks a worker to end.
    pub(crate) fn kill_signal(&self) -> Signal {
        Signal::from_raw(self.app.kill_signal).unwrap_or(Signal::TERM)
    }

    /// The user to run as; `None` keeps the daemon's.
    ///
    /// # Errors
    ///
    /// In words: the stage and the name that is unknown.
    pub(crate) fn identity(&self) -> Result<Option<&Identity>, String> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity.as_ref());
        }
        let identity = look_up(self.app.user.as_deref(), self.app.group.as_deref())?;
        Ok(self.identity.get_or_init(|| identity).as_ref())
    }

    /// The whole environment of one worker, except `LISTEN_PID`.
    ///
    /// The caller's, then the user's names when there is one, then the app's
    /// own, then ours.
    pub(crate) fn environment(&self, place: &Place<'_>) -> Vec<(OsString, OsString)> {
        let app = &self.app;
        let mut env: BTreeMap<&str, String> = BTreeMap::new();
        env.extend(app.inherited_env.iter().map(|(name, value)| (name.as_str(), value.clone())));
        if let Some(Some(identity)) = self.identity.get() {
            let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
            let facts = [
                ("HOME", text(&identity.home)),
                ("SHELL", text(&identity.shell)),
                ("USER", identity.name.clone()),
                ("LOGNAME", identity.name.clone()),
            ];
            env.extend(facts.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        env.extend(app.env.iter().map(|(name, value)| (name.as_str(), value.clone())));
        if let Some((name, first)) =
            app.increment_var.as_deref().and_then(|name| Some((name, app.env.get(name)?)))
            && let Ok(first) = first.parse::<i64>()
        {
            env.insert(name, first.saturating_add(place.slot.into()).to_string());
        }
        env.insert("SUPERVISOR_APP", app.name.clone());
        env.insert("SUPERVISOR_INSTANCE", place.slot.to_string());
        env.insert("SUPERVISOR_INSTANCES", place.instances.to_string());
        env.insert("SUPERVISOR_GENERATION", self.generation.to_string());
        env.insert(&app.instance_var, place.slot.to_string());
        env.insert("NOTIFY_SOCKET", place.notify_socket.to_owned());
        if let Some(interval) = app.watchdog {
            env.insert("WATCHDOG_USEC", interval.as_micros().to_string());
        }
        if !place.listeners.is_empty() {
            env.insert("LISTEN_FDS", place.listeners.len().to_string());
            env.insert("LISTEN_FDNAMES", place.listeners.join(":"));
        }
        // The caller may have one itself: as a child of Node, or as a worker.
        for name in ["SUPERVISOR_IPC", NODE_CHANNEL, NODE_SERIALIZATION, "NODE_UNIQUE_ID"] {
            env.remove(name);
        }
        if let Some(channel) = place.channel {
            if speaks_node(&app.command) {
                let number = channel.split(':').next().unwrap_or_default();
                env.insert(NODE_CHANNEL, number.to_owned());
                env.insert(NODE_SERIALIZATION, "json".to_owned());
            }
            env.insert("SUPERVISOR_IPC", channel.to_owned());
        }
        env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// The limits to set: the daemon's raised limit of open files is taken
    /// back, then the app's own.
    ///
    /// # Errors
    ///
    /// In words: a limit that this system does not know.
    pub(crate) fn limits(&self, open_files: Limit) -> Result<Vec<(Resource, Limit)>, String> {
        let mut limits = vec![(Resource::Nofile, open_files)];
        for (name, limit) in &self.app.limits {
            let resource = name.parse().map_err(|error| format!("limits: {error}"))?;
            let limit = Limit { soft: limit.soft, hard: limit.hard };
            limits.retain(|(other, _)| *other != resource);
            limits.push((resource, limit));
        }
        Ok(limits)
    }

    /// The memory that a worker may use.
    pub(crate) const fn ceilings(&self) -> Ceilings {
        Ceilings { soft: self.app.max_memory_restart, hard: self.app.max_memory_hard }
    }

    /// The CPUs that a slot's workers run on; empty for the daemon's.
    ///
    /// # Errors
    ///
    /// In words: the daemon's own cannot be told.
    pub(crate) fn cpus(&self, slot: u32) -> Result<Vec<u32>, String> {
        match &self.app.cpu_affinity {
            None => Ok(Vec::new()),
            Some(CpuAffinity::Cpus(cpus)) => Ok(cpus.clone()),
            Some(CpuAffinity::Auto) => {
                let allowed =
                    allowed_cpus().map_err(|error| format!("cpu_affinity: {}", words::errno(&error)))?;
                let one = allowed.get(slot as usize % allowed.len().max(1));
                Ok(one.copied().into_iter().collect())
            }
        }
    }

    /// The file of a slot's standard output; `None` without one.
    pub(crate) fn out_path(&self, log_dir: &Path, slot: u32) -> Option<PathBuf> {
        self.log_path(&self.app.out_file, log_dir, "out", slot)
    }

    /// The file of a slot's standard error; `None` without one.
    pub(crate) fn error_path(&self, log_dir: &Path, slot: u32) -> Option<PathBuf> {
        self.log_path(&self.app.error_file, log_dir, "error", slot)
    }

    /// The file that both go to besides; `None` without one.
    pub(crate) fn combined_path(&self, slot: u32) -> Option<PathBuf> {
        self.app.logs.combined_file.as_deref().map(|path| self.of_slot(path, slot))
    }

    /// Whose rights to these files count.
    ///
    /// # Errors
    ///
    /// As [`Self::identity`].
    pub(crate) fn access(&self) -> Result<Access, String> {
        Ok(Access::new(self.identity()?.map(|identity| &identity.credentials)))
    }

    /// The zone for times in output, and of its rotation: the workers', the
    /// caller's, the system's.
    pub(crate) fn zone(&self) -> TimeZone {
        let of = |env: &BTreeMap<String, String>| env.get("TZ").cloned();
        output::zone(of(&self.app.env).or_else(|| of(&self.app.inherited_env)).as_deref())
    }

    fn log_path(&self, target: &LogTarget, log_dir: &Path, stream: &str, slot: u32) -> Option<PathBuf> {
        let name = &self.app.name;
        match target {
            LogTarget::Null => None,
            LogTarget::Default if self.app.logs.merge => Some(log_dir.join(format!("{name}-{stream}.log"))),
            LogTarget::Default => Some(log_dir.join(format!("{name}-{stream}-{slot}.log"))),
            LogTarget::File(path) => Some(self.of_slot(path, slot)),
        }
    }

    /// A file that was named: just that, when one worker writes to it, or all
    /// do.
    fn of_slot(&self, path: &Path, slot: u32) -> PathBuf {
        let is_alone = self.app.instances == 1 && slot == 0;
        if is_alone || self.app.logs.merge { path.to_owned() } else { with_slot(path, slot) }
    }
}

/// `/var/log/web.log` → `/var/log/web-2.log`.
fn with_slot(path: &Path, slot: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{slot}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, String> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    // With a group of its own the user's entry gives the other groups only.
    let spec = user.map(|user| group.map_or_else(|| user.to_owned(), |group| format!("{user}:{group}")));
    let user = spec.map(|spec| User::lookup(&spec).map_err(|error| format!("user: {error}"))).transpose()?;
    Ok(Some(match user {
        Some(user) => {
            Identity { credentials: user.credentials(), name: user.name, home: user.home, shell: user.shell }
        }
        None => {
            let gid = supervisor_sys::user::lookup_group(group.unwrap_or_default())
                .map_err(|error| format!("group: {error}"))?;
            let uid = rustix::process::getuid().as_raw();
            Identity {
                credentials: Credentials { uid, gid, groups: vec![gid] },
                name: None,
                home: None,
                shell: None,
            }
        }
    }))
}

/// A listener's name in `LISTEN_FDNAMES`, where a colon separates the names:
/// `tcp-8080`, `unix-web.sock`.
pub(crate) fn listener_name(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { address, .. } => format!("tcp-{}", address.port()),
        ListenAddress::Unix(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("unix-{}", name.replace(':', "_"))
        }
    }
}

/// A listener's address as people write it.
pub(crate) fn address_text(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { address, .. } => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    }
}
