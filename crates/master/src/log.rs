//! The daemon's own log: a file for each day, and standard error in the
//! foreground.

use std::io::{self, IsTerminal};
use std::path::Path;

use supervisor_config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Lines that wait for the disk before more are lost: a storm of thousands of
/// workers writes a few for each. Room is taken for all at once, 32 bytes a line;
/// the library's own default takes 4 MiB.
const FILE_LINES: usize = 8 * 1024;
/// Days whose files are kept.
const DAYS: usize = 14;
/// Lines that wait for standard error.
const LINES: usize = 1024;

/// Times as `2026-01-31T12:00:00.123Z`.
struct Time;

impl FormatTime for Time {
    fn format_time(&self, writer: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

/// The running log. What was logged is written when it is dropped.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) level: Level,
    _file: WorkerGuard,
    _stderr: Option<WorkerGuard>,
}

/// What the log has; it can be changed.
#[derive(Debug, Default)]
pub(crate) struct Level(Option<reload::Handle<Targets, Registry>>);

impl Level {
    /// Lets the log have lines of this level and the more severe ones.
    pub(crate) fn set(&self, level: LogLevel) {
        if let Some(handle) = &self.0 {
            // The log lives as long as the process.
            let _ = handle.reload(targets(level));
        }
    }
}

/// Details of our own, but not of the libraries.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_target("supervisor", level)
}

/// Starts the log.
pub(crate) fn start(log_dir: &Path, foreground: bool) -> io::Result<Log> {
    // In a folder of its own: old files are removed by the beginning and the end
    // of their names, which an app's files could have, too.
    let folder = log_dir.join("daemon");
    std::fs::create_dir_all(&folder)?;
    let files = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("supervisor")
        .filename_suffix("log")
        .max_log_files(DAYS)
        .build(folder)
        .map_err(io::Error::other)?;
    // A disk that hangs must not stop the master, either.
    let (files, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(FILE_LINES).finish(files);
    let to_file = fmt::layer().with_timer(Time).with_target(false).with_ansi(false).with_writer(files);
    // A stopped terminal or a full pipe must not stop the master: lines are lost.
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES);
    let (stderr, stderr_guard) = foreground.then(|| builder.finish(io::stderr())).unzip();
    let to_stderr = stderr.map(|stderr| {
        fmt::layer()
            .with_timer(Time)
            .with_target(false)
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_writer(stderr)
    });
    let (level, handle) = reload::Layer::new(targets(LogLevel::default()));
    let all = Registry::default().with(level).with(to_file).with(to_stderr);
    tracing::subscriber::set_global_default(all).map_err(io::Error::other)?;
    Ok(Log { level: Level(Some(handle)), _file: guard, _stderr: stderr_guard })
}
