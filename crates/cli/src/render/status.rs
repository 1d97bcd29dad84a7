//! `status`: one line an app, one a slot, and why where something is wrong.

use anstyle::Style;
use supervisor_protocol::control::{AppStatus, ChannelStatus, LastExit, Status, WorkerState, WorkerStatus};

use super::Canvas;
use super::style::{BAD, QUIET, STRONG, app_state, worker_state};
use super::table::{Align, Cell, Column, Table};
use super::text::{count, one_line};
use super::units;

const COLUMNS: [Column; 9] = [
    ("NAME", Align::Left),
    ("SLOT", Align::Right),
    ("PID", Align::Right),
    ("GEN", Align::Right),
    ("STATE", Align::Left),
    ("UPTIME", Align::Right),
    ("↺", Align::Right),
    ("CPU", Align::Right),
    ("MEM", Align::Right),
];

/// How many metrics of a worker are shown.
const METRICS: usize = 8;

/// Where the notes below a row begin.
const INDENT: usize = 2;

/// All apps as a table.
pub(crate) fn render(status: &Status, canvas: Canvas) -> String {
    if status.apps.is_empty() {
        return "no apps yet: start some with `supervisor start FILE` or `supervisor start -- COMMAND`\n"
            .to_owned();
    }
    apps(&status.apps, canvas)
}

/// These apps as a table.
pub(crate) fn apps<'a>(apps: impl IntoIterator<Item = &'a AppStatus>, canvas: Canvas) -> String {
    let mut table = Table::new(COLUMNS, 0);
    for app in apps {
        push_app(&mut table, app);
        for worker in &app.workers {
            push_worker(&mut table, worker, canvas.now);
        }
    }
    table.render(canvas.width, canvas.color)
}

fn push_app(table: &mut Table<9>, app: &AppStatus) {
    let (state, style) = app_state(app.state);
    let known = |value: Option<String>| value.unwrap_or_default();
    let cpu = app.workers.iter().filter_map(|worker| worker.cpu_percent).reduce(|a, b| a + b);
    let memory = app.workers.iter().filter_map(|worker| worker.memory_bytes).reduce(u64::saturating_add);
    table.row([
        Cell::new(one_line(&app.name), STRONG),
        Cell::new(format!("{}/{}", app.instances.ready, app.instances.wanted), STRONG),
        Cell::default(),
        app.generation.to_string().into(),
        Cell::new(state, style.bold()),
        Cell::default(),
        app.restarts.to_string().into(),
        known(cpu.map(units::percent)).into(),
        known(memory.map(units::bytes)).into(),
    ]);
    if let Some(reason) = &app.reason {
        table.note(INDENT, Cell::new(one_line(reason), style));
    }
}

fn push_worker(table: &mut Table<9>, worker: &WorkerStatus, now: jiff::Timestamp) {
    let (state, style) = worker_state(worker.state);
    let known = |value: Option<String>| Cell::from(value.unwrap_or_else(|| "-".to_owned()));
    table.row([
        Cell::default(),
        worker.slot.to_string().into(),
        known(worker.pid.map(|pid| pid.to_string())),
        worker.generation.to_string().into(),
        Cell::new(state, style),
        known(worker.uptime_s.map(units::seconds)),
        worker.restarts.to_string().into(),
        known(worker.cpu_percent.map(units::percent)),
        known(worker.memory_bytes.map(units::bytes)),
    ]);
    for (text, style) in notes(worker, now) {
        table.note(INDENT, Cell::new(text, style));
    }
}

/// What the row of a worker does not say.
pub(crate) fn notes(worker: &WorkerStatus, now: jiff::Timestamp) -> Vec<(String, Style)> {
    let mut notes = Vec::new();
    if let Some(message) = &worker.message {
        notes.push((format!("{}: {}", worker.slot, one_line(message)), QUIET));
    }
    if worker.dropped_log_bytes > 0 {
        let bytes = units::bytes(worker.dropped_log_bytes);
        notes.push((format!("{}: {bytes} of its output could not be written to a file", worker.slot), BAD));
    }
    if let Some(channel) = &worker.channel {
        notes.extend(of_channel(channel).map(|(text, style)| (format!("{}: {text}", worker.slot), style)));
    }
    let exit = worker.last_exit.as_ref().map(|exit| last_exit(exit, now));
    let next = worker.next_start_s.map(|wait| format!("next start in {}", units::seconds(wait)));
    let why: Vec<String> = exit.into_iter().chain(next).collect();
    let (wrong, style) = match worker.state {
        WorkerState::Ready => (false, QUIET),
        WorkerState::Backoff | WorkerState::Errored => (true, BAD),
        WorkerState::Starting | WorkerState::Draining | WorkerState::Stopping | WorkerState::Stopped => {
            (true, QUIET)
        }
    };
    if wrong && !why.is_empty() {
        notes.push((format!("{}: {}", worker.slot, why.join("; ")), style));
    }
    notes
}

/// What there is to say of a worker's channel.
fn of_channel(channel: &ChannelStatus) -> impl Iterator<Item = (String, Style)> {
    let lost = (channel.dropped > 0).then(|| {
        (format!("{} to it dropped, because it did not read", count(channel.dropped, "message")), BAD)
    });
    let first = channel.metrics.iter().take(METRICS);
    let mut metrics: Vec<String> = first.map(|(name, value)| format!("{} {value}", one_line(name))).collect();
    if channel.metrics.len() > METRICS {
        metrics.push("…".to_owned());
    }
    let metrics = (!metrics.is_empty()).then(|| (metrics.join(", "), QUIET));
    lost.into_iter().chain(metrics)
}

/// `exited with code 1, 12s ago`
pub(crate) fn last_exit(exit: &LastExit, now: jiff::Timestamp) -> String {
    one_line(&exit.reason) + &ago(&exit.at, now)
}

/// `, 5m ago`; nothing for what is no time.
pub(crate) fn ago(at: &str, now: jiff::Timestamp) -> String {
    at.parse::<jiff::Timestamp>().map_or_else(
        |_| String::new(),
        |at| {
            let seconds = u64::try_from(now.as_second().saturating_sub(at.as_second())).unwrap_or(0);
            format!(", {} ago", units::duration(seconds))
        },
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use supervisor_protocol::control::{AppState, Daemon, Instances, Listener, Origin, SCHEMA};

    use super::*;

    pub(crate) fn canvas(width: usize, color: bool) -> Canvas {
        Canvas { width, color, now: "2026-03-01T12:00:00Z".parse().unwrap() }
    }

    fn worker(slot: u32) -> WorkerStatus {
        WorkerStatus {
            slot,
            id: Some(u64::from(slot) + 40),
            pid: Some(4711 + slot),
            generation: 3,
            state: WorkerState::Ready,
            uptime_s: Some(273_640.5),
            restarts: 1,
            cpu_percent: Some(3.04),
            memory_bytes: Some(22_020_096),
            pss_bytes: None,
            dropped_log_bytes: 0,
            queue: Some(0),
            in_rotation: true,
            weight: None,
            channel: None,
            cgroup: None,
            message: None,
            next_start_s: None,
            last_exit: None,
        }
    }

    /// A worker that is gone, and why.
    fn failing(slot: u32, state: WorkerState, reason: &str) -> WorkerStatus {
        WorkerStatus {
            id: None,
            pid: None,
            state,
            uptime_s: None,
            restarts: 7,
            cpu_percent: None,
            memory_bytes: None,
            queue: None,
            in_rotation: false,
            next_start_s: Some(4.2),
            last_exit: Some(LastExit {
                code: Some(1),
                signal: None,
                reason: reason.to_owned(),
                at: "2026-03-01T11:59:48.5Z".to_owned(),
            }),
            ..worker(slot)
        }
    }

    fn app(name: &str, state: AppState, workers: Vec<WorkerStatus>) -> AppStatus {
        let size = u32::try_from(workers.len()).unwrap();
        AppStatus {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            state,
            reason: None,
            exec_mode: "cluster".to_owned(),
            generation: 3,
            instances: Instances { wanted: size, ready: size, running: size },
            restarts: 2,
            listeners: vec![Listener {
                address: "[::]:8080".to_owned(),
                origin: Origin::Declared,
                policy: "shared".to_owned(),
            }],
            workers,
            last_order: None,
        }
    }

    /// Two healthy workers, one that keeps failing, one app that is errored.
    pub(crate) fn example() -> Status {
        let mut web = app(
            "web",
            AppState::Degraded,
            vec![worker(0), worker(1), failing(2, WorkerState::Backoff, "exited with code 1")],
        );
        web.instances.ready = 2;
        web.workers[1].message = Some("serving \x1b[31m12 clients".to_owned());
        let mut api = app(
            "an-app-with-quite-a-long-name-indeed",
            AppState::Errored,
            vec![failing(
                0,
                WorkerState::Errored,
                "exec /srv/api/bin/server-with-a-long-name: no such file or directory",
            )],
        );
        api.reason = Some("16 unstable lives in a row".to_owned());
        api.instances.ready = 0;
        let mut idle =
            app("idle", AppState::Stopped, vec![failing(0, WorkerState::Stopped, "killed by SIGTERM")]);
        idle.instances = Instances { wanted: 0, ready: 0, running: 0 };
        idle.workers[0].next_start_s = None;
        Status {
            schema: SCHEMA,
            daemon: Daemon { version: "0.1.0".to_owned(), pid: 11, keeper_pid: Some(10), uptime_s: 5 },
            apps: vec![api, idle, web],
        }
    }

    #[test]
    fn a_table_for_80_columns() {
        let text = render(&example(), canvas(80, false));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn colours_by_state() {
        insta::assert_snapshot!(render(&example(), canvas(100, true)).replace('\x1b', "␛"));
    }

    #[test]
    fn nothing_to_show() {
        let status = Status { apps: Vec::new(), ..example() };
        assert!(render(&status, canvas(80, false)).contains("supervisor start"));
    }
}
