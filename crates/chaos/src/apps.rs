//! What runs: programs of several kinds, and how their releases are bad.

use std::fmt::Write;
use std::time::Duration;

use crate::home::Home;

/// How clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A connection for each request.
    Short,
    /// Many requests on a connection.
    KeepAlive,
}

/// An app.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    /// Its workers in the beginning and in the end, and the most of them.
    pub(crate) instances: usize,
    pub(crate) most: usize,
    /// Its clients, and the longest answer in milliseconds that they ask for.
    pub(crate) clients: Option<(usize, Asking, u64)>,
    /// How a release of it can be bad.
    pub(crate) failures: &'static [&'static str],
    command: &'static [&'static str],
    settings: &'static str,
}

/// How long workers of all apps are drained.
pub(crate) const DRAIN: Duration = Duration::from_secs(4);

/// Short times, so that much happens.
const COMMON: &str = "
    min_uptime: 1200ms
    listen_timeout: 10s
    hang_timeout: 4s
    kill_timeout: 4s";

/// All of them. Those with clients have a port each.
pub(crate) const APPS: [App; 6] = [
    App {
        name: "plain",
        instances: 3,
        most: 5,
        clients: Some((4, Asking::Short, 250)),
        failures: &["throw", "silent", "die"],
        command: &["node", "workers/plain.js"],
        settings: "ready: listen",
    },
    App {
        name: "graceful",
        instances: 2,
        most: 4,
        clients: Some((3, Asking::KeepAlive, 250)),
        failures: &["throw", "silent", "die", "ill"],
        command: &["node", "workers/graceful.js"],
        settings: "ready_check: {path: /health}\nreload: all",
    },
    App {
        name: "declared",
        instances: 2,
        most: 4,
        clients: Some((3, Asking::Short, 250)),
        failures: &["throw", "silent", "die"],
        command: &["python3", "workers/declared.py"],
        settings: "ready: notify\nlisten: '{address}'",
    },
    App {
        name: "blocking",
        instances: 3,
        most: 5,
        clients: Some((4, Asking::Short, 20)),
        failures: &["throw", "silent", "die"],
        command: &["blocking"],
        settings: "ready: listen\nmax_surge: 2",
    },
    App {
        name: "channel",
        instances: 3,
        most: 4,
        clients: None,
        failures: &["throw"],
        command: &["node", "workers/channel.js"],
        settings: "max_surge: 1",
    },
    App {
        name: "logger",
        instances: 2,
        most: 3,
        clients: None,
        failures: &["throw"],
        command: &["logger"],
        settings: "max_surge: 1\nlog_max_size: 256K\nlog_keep: 10000",
    },
];

impl App {
    /// The app with this name.
    pub(crate) fn named(name: &str) -> Option<&'static App> {
        APPS.iter().find(|app| app.name == name)
    }

    /// The port of its address, if it has clients.
    pub(crate) fn port(&self) -> Option<u16> {
        self.clients?;
        let position = APPS.iter().position(|app| app.name == self.name)?;
        Some(28_500 + u16::try_from(position).ok()?)
    }

    /// The ecosystem file of a release.
    pub(crate) fn file(
        &self,
        home: &Home,
        instances: usize,
        release: usize,
        failure: Option<&str>,
    ) -> String {
        let mut file = format!("apps:\n  - name: {}\n    instances: {instances}\n", self.name);
        let command: Vec<String> = self.command.iter().map(|word| home.word(word)).collect();
        let mut lines = format!("command: [{}]\ncwd: {}\n", command.join(", "), home.facts().display());
        let address = self.port().map(|port| home.address(port));
        let settings =
            self.settings.replace("{address}", &address.map(|to| to.to_string()).unwrap_or_default());
        lines += &settings;
        lines += COMMON;
        lines += &format!("\ndrain_timeout: {}s", DRAIN.as_secs());
        // Writing to a String cannot fail.
        let release = format!("{release}{}", if failure.is_some() { "-bad" } else { "" });
        let _ = write!(lines, "\nenv: {{RELEASE: '{release}', FAILURE: '{}'", failure.unwrap_or_default());
        if let Some(address) = address {
            let _ = write!(lines, ", HOST: '{}', PORT: '{}'", address.ip(), address.port());
        }
        lines += "}";
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let _ = writeln!(file, "    {line}");
        }
        file
    }
}
