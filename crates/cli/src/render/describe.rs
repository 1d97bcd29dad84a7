//! `describe`: one app's settings, addresses, workers and logs.

use std::fmt::Write as _;
use std::time::Duration;

use supervisor_config::{App, CronRestart, ExecMode, Limit, Ready};
use supervisor_protocol::control::{
    AppStatus, Capture, Change, Description, LastOrder, LogPaths, OrderOutcome, Origin,
};
use supervisor_sys::signal::Signal;

use super::Canvas;
use super::status::{ago, apps, last_exit};
use super::style::{QUIET, STRONG, app_state, paint};
use super::text::{one_line, wrap};
use super::units;
use crate::commands::Described;

/// The width of the names of the fields.
const LABEL: usize = 13;

/// The widest that lists of words become.
const WORDS_WIDTH: usize = 100;

/// All that is known of these apps, a blank line between two.
pub(crate) fn render(apps: &[Described], canvas: Canvas) -> String {
    let texts: Vec<String> = apps.iter().map(|app| description(app, canvas)).collect();
    texts.join("\n")
}

fn description(app: &Described, canvas: Canvas) -> String {
    let Description { settings, env_names, status, logs, capture, .. } = &app.description;
    let mut page = Page { text: String::new(), canvas };
    page.heading(&settings.name);
    state(&mut page, status);
    file(&mut page, app);
    page.field("namespace", &settings.namespace);
    page.field("command", &command_line(&settings.command));
    page.field("folder", &settings.cwd.display().to_string());
    page.field("mode", mode(settings.exec_mode));
    page.field("capture", &capture.as_ref().map(captures).unwrap_or_default());
    for listener in &status.listeners {
        let origin = match listener.origin {
            Origin::Declared => "declared",
            Origin::Captured => "captured",
        };
        page.field("listens on", &format!("{} ({origin}, {})", listener.address, listener.policy));
    }
    page.field("ready", &ready(settings));
    page.field("restarts", &restarts(settings));
    page.field("memory", &memory(settings));
    page.field("reloads at", &settings.cron_restart.as_ref().map(times).unwrap_or_default());
    for path in settings.watch.iter().flat_map(|watch| &watch.paths) {
        page.field("watches", &path.display().to_string());
    }
    page.field("stops with", &stop(settings));
    rights(&mut page, settings);
    page.words("environment", env_names);
    for paths in logs {
        log_paths(&mut page, paths);
    }
    for worker in &status.workers {
        if let Some(cgroup) = &worker.cgroup {
            page.field("cgroup", &format!("{}: {cgroup}", worker.slot));
        }
    }
    for worker in &status.workers {
        if let Some(exit) = &worker.last_exit {
            page.field("last exit", &format!("{}: {}", worker.slot, last_exit(exit, canvas.now)));
        }
    }
    page.text.push('\n');
    page.text.push_str(&apps([status], canvas));
    page.text
}

struct Page {
    text: String,
    canvas: Canvas,
}

impl Page {
    fn heading(&mut self, name: &str) {
        self.text.push_str(&paint(one_line(name), STRONG, self.canvas.color));
        self.text.push('\n');
    }

    /// A named value; nothing for an empty one.
    fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.painted(label, &one_line(value));
        }
    }

    /// Many short values, on as many lines as they need.
    fn words(&mut self, label: &str, words: &[String]) {
        let room = self.canvas.width.min(WORDS_WIDTH).saturating_sub(LABEL + 4);
        let lines = wrap(words.iter().map(String::as_str), room);
        for (index, line) in lines.iter().enumerate() {
            self.field(if index == 0 { label } else { "" }, line);
        }
    }

    fn painted(&mut self, label: &str, value: &str) {
        let label = paint(format_args!("{label:LABEL$}"), QUIET, self.canvas.color);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "  {label}  {value}");
    }
}

fn state(page: &mut Page, status: &AppStatus) {
    let (name, style) = app_state(status.state);
    let reason = status.reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
    let state = paint(name, style, page.canvas.color);
    page.painted("state", &format!("{state}{reason}"));
    let instances = status.instances;
    page.field(
        "workers",
        &format!("{} ready of {} wanted, {} running", instances.ready, instances.wanted, instances.running),
    );
    page.field("generation", &status.generation.to_string());
    if let Some(last) = &status.last_order {
        page.field("last order", &last_order(last, page.canvas.now));
    }
}

/// `reload to generation 7 done by the next master, 5m ago`.
fn last_order(last: &LastOrder, now: jiff::Timestamp) -> String {
    let LastOrder { change, generation, at, outcome, reason, by_next_master } = last;
    let what = match change {
        Change::Created | Change::Started => "start".to_owned(),
        Change::Changed => format!("change to generation {generation}"),
        Change::Reloaded => format!("reload to generation {generation}"),
        Change::Restarted => "restart".to_owned(),
        Change::Stopped => "stop".to_owned(),
        Change::Deleted => "deletion".to_owned(),
        Change::Scaled => "change of the number of workers".to_owned(),
        Change::Aborted => "abort of the reload".to_owned(),
        Change::Unchanged | Change::Missing => "order".to_owned(),
    };
    let how = match outcome {
        OrderOutcome::Done => "done",
        OrderOutcome::Failed => "failed",
        OrderOutcome::RolledBack => "rolled back",
    };
    let whom = if *by_next_master { " by the next master" } else { "" };
    let why = reason.as_ref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
    format!("{what} {how}{whom}{}{why}", ago(at, now))
}

/// The file that the app comes from, and what it says by now.
fn file(page: &mut Page, app: &Described) {
    let Described { description, differences, not_compared } = app;
    let Some(source) = &description.source else { return };
    let options = description.env_name.as_ref().map(|name| format!(" --env {name}")).unwrap_or_default();
    let compared = match (differences, not_compared) {
        (_, Some(why)) => format!(" (not compared: {why})"),
        (Some(differences), None) if !differences.is_empty() => " (has changed)".to_owned(),
        (Some(_) | None, None) => String::new(),
    };
    page.field("file", &format!("{}{options}{compared}", source.display()));
    for difference in differences.iter().flatten() {
        page.field("says", &super::difference::words(difference));
    }
}

/// Whether the addresses that workers bind are shared.
fn captures(capture: &Capture) -> String {
    match capture {
        Capture { refused: Some(why), .. } => format!("impossible, each worker is alone: {why}"),
        Capture { cut_off, .. } if !cut_off.is_empty() => {
            let slots = cut_off.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            format!("on; {slots} cannot bind other addresses until replaced: keeper and master died together")
        }
        Capture { no_new_privs: true, .. } => {
            "on, with no_new_privs: set-user-id programs gain nothing".to_owned()
        }
        Capture { no_new_privs: false, .. } => "on".to_owned(),
    }
}

/// The words as they would be typed into a shell.
pub(crate) fn command_line(words: &[String]) -> String {
    shell_words::join(words)
}

/// The mode's name in a file.
pub(crate) const fn mode(mode: ExecMode) -> &'static str {
    match mode {
        ExecMode::Cluster => "cluster",
        ExecMode::Fork => "fork",
    }
}

fn ready(app: &App) -> String {
    match &app.ready {
        Ready::Auto => format!(
            "when it listens, within {}; if it never does, after living for {}",
            units::setting(app.listen_timeout),
            units::setting(app.min_uptime)
        ),
        Ready::Listen => format!(
            "when it listens, within {}; stable after {}",
            units::setting(app.listen_timeout),
            units::setting(app.min_uptime)
        ),
        Ready::Check(check) => format!(
            "when it passes its {} check, within {}; stable after {}",
            check.attempt.name(),
            units::setting(app.listen_timeout),
            units::setting(app.min_uptime)
        ),
        Ready::Started => format!("after living for {}", units::setting(app.min_uptime)),
        Ready::Notify => format!(
            "when it says READY=1, within {}; stable after {}",
            units::setting(app.listen_timeout),
            units::setting(app.min_uptime)
        ),
        Ready::Ipc => format!(
            "when it sends the message \"ready\", within {}; stable after {}",
            units::setting(app.listen_timeout),
            units::setting(app.min_uptime)
        ),
    }
}

fn restarts(app: &App) -> String {
    if !app.autorestart {
        return "never by itself".to_owned();
    }
    let factor = f64::from(app.restart_backoff_percent) / 100.0;
    let mut text = format!(
        "after {} ×{factor}, errored after {} unstable lives",
        units::setting(app.restart_delay),
        app.max_restarts
    );
    if app.breaker_retry != Duration::ZERO {
        text.push_str(&format!(", then tried every {}", units::setting(app.breaker_retry)));
    }
    if !app.stop_exit_codes.is_empty() {
        let codes: Vec<String> = app.stop_exit_codes.iter().map(ToString::to_string).collect();
        text.push_str(&format!("; not after exit code {}", codes.join(", ")));
    }
    text
}

fn memory(app: &App) -> String {
    let above =
        |what: &str, limit: Option<u64>| limit.map(|limit| format!("{what} above {}", units::bytes(limit)));
    let limits = [above("replaced", app.max_memory_restart), above("killed", app.max_memory_hard)];
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn times(cron: &CronRestart) -> String {
    let zone = cron.timezone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
    format!("{}{zone}", cron.expression)
}

fn stop(app: &App) -> String {
    let signal = Signal::from_raw(app.kill_signal)
        .map_or_else(|| format!("signal {}", app.kill_signal), |signal| signal.to_string());
    let asks = if app.channel.shutdown_with_message { "the message \"shutdown\"" } else { &signal };
    format!("{asks}, SIGKILL after {}", units::setting(app.kill_timeout))
}

fn rights(page: &mut Page, app: &App) {
    page.field("user", app.user.as_deref().unwrap_or_default());
    page.field("group", app.group.as_deref().unwrap_or_default());
    page.field("umask", &app.umask.map(|umask| format!("{umask:04o}")).unwrap_or_default());
    page.field("nice", &app.nice.map(|nice| nice.to_string()).unwrap_or_default());
    page.field("cpus", &app.cpu_affinity.as_ref().map(ToString::to_string).unwrap_or_default());
    page.field("oom score", &app.oom_score_adj.map(|score| score.to_string()).unwrap_or_default());
    for (name, limit) in &app.limits {
        let Limit { soft, hard } = limit;
        page.field("limit", &format!("{name} {}:{}", bound(*soft), bound(*hard)));
    }
}

fn bound(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

fn log_paths(page: &mut Page, paths: &LogPaths) {
    let nowhere = "(thrown away)";
    let out = paths.out.as_deref().unwrap_or(nowhere);
    let error = paths.error.as_deref().unwrap_or(nowhere);
    page.field("log", &format!("{}: {out}", paths.slot));
    if error != out {
        page.field("error log", &format!("{}: {error}", paths.slot));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use supervisor_config::{
        Balance, CpuAffinity, Inherit, ListenAddress, LogOptions, LogPeriod, LogTarget, Reload, Watch,
    };

    use serde_json::Value;

    use super::*;
    use crate::difference::{Difference, MASK};
    use crate::render::status::tests::{canvas, example};

    /// An app with something in most fields.
    pub(crate) fn app() -> App {
        App {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            command: ["node", "server.js", "--title", "two words"].map(str::to_owned).to_vec(),
            cwd: PathBuf::from("/srv/web"),
            exec_mode: ExecMode::Cluster,
            instances: 3,
            inherit: Inherit::default(),
            inherited_env: BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
            env: BTreeMap::from([("PASSWORD".to_owned(), "hunter2".to_owned())]),
            instance_var: "NODE_APP_INSTANCE".to_owned(),
            increment_var: None,
            listen: vec![ListenAddress::Tcp { address: "[::]:8080".parse().unwrap(), dual_stack: true }],
            backlog: 511,
            balance: Balance::Random,
            weights: Vec::new(),
            ready: Ready::Notify,
            listen_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
            restart_delay: Duration::from_millis(100),
            restart_backoff_percent: 150,
            breaker_retry: Duration::from_secs(60),
            autostart: true,
            autorestart: true,
            stop_exit_codes: vec![0, 3],
            max_memory_restart: Some(300 << 20),
            max_memory_hard: None,
            watch: Some(Watch {
                paths: vec![PathBuf::from("/srv/web")],
                ignore: vec!["*.tmp".to_owned()],
                delay: Duration::from_millis(500),
            }),
            cron_restart: Some(CronRestart {
                expression: "0 3 * * *".to_owned(),
                timezone: Some("Europe/Berlin".to_owned()),
            }),
            kill_signal: 15,
            kill_timeout: Duration::from_millis(1600),
            drain_timeout: Duration::from_secs(30),
            hang_timeout: Duration::from_secs(10),
            watchdog: None,
            drain_quiet: Some(Duration::from_millis(250)),
            max_surge: 1,
            reload: Reload::Canary { steps: vec![5, 100], hold: Duration::from_secs(30) },
            channel: supervisor_config::ChannelOptions::default(),
            user: Some("www-data".to_owned()),
            group: None,
            umask: Some(0o022),
            nice: Some(-5),
            cpu_affinity: Some(CpuAffinity::Cpus(vec![0, 4, 5, 6])),
            limits: BTreeMap::from([("nofile".to_owned(), Limit { soft: Some(4096), hard: None })]),
            oom_score_adj: None,
            out_file: LogTarget::Default,
            error_file: LogTarget::Null,
            logs: LogOptions {
                combined_file: None,
                merge: false,
                json: false,
                date_format: None,
                max_size: 100 << 20,
                rotate: LogPeriod::Never,
                rotate_cron: None,
                keep: 10,
                compress: false,
            },
        }
    }

    #[test]
    fn everything_of_an_app() {
        let mut status = example().apps.pop().unwrap();
        status.last_order = Some(LastOrder {
            change: Change::Reloaded,
            generation: 4,
            at: "2026-03-01T11:59:00Z".to_owned(),
            outcome: OrderOutcome::RolledBack,
            reason: Some("exited with code 1".to_owned()),
            by_next_master: true,
        });
        let logs = (0..2)
            .map(|slot| LogPaths {
                slot,
                out: Some(format!("/var/log/supervisor-cluster/web-out-{slot}.log")),
                error: None,
            })
            .collect();
        let env_names =
            ["HOME", "LANG", "NODE_ENV", "PASSWORD", "PATH", "SUPERVISOR_APP", "SUPERVISOR_INSTANCE"];
        let env_names = env_names.map(str::to_owned).to_vec();
        let (source, env_name) = (Some("/srv/shop.yaml".into()), Some("production".to_owned()));
        let capture = Some(Capture { refused: None, no_new_privs: true, cut_off: Vec::new() });
        let description = Description { settings: app(), source, env_name, env_names, capture, status, logs };
        let change =
            |key: &str, running: Value, file: Value| Difference { key: key.to_owned(), running, file };
        let differences = vec![
            change("env.PORT", Value::Null, MASK.into()),
            change("kill_timeout", 1600.into(), 5000.into()),
        ];
        let app = Described { description, differences: Some(differences), not_compared: None };
        insta::assert_snapshot!(render(&[app], canvas(80, false)));
    }
}
