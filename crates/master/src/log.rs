//! The daemon's own log: a file for each day, and standard error in the
//! foreground.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use supervisor_config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::problems::{About, Problems};
use crate::words;

/// Lines that wait for the disk before more are lost: a storm of thousands of
/// workers writes a few for each. Room is taken for all at once, 32 bytes a line;
/// the library's own default takes 4 MiB.
const FILE_LINES: usize = 8 * 1024;
/// Days whose files are kept.
const DAYS: usize = 14;
/// Lines that wait for standard error.
const LINES: usize = 1024;
/// The target of lines that are for the file alone.
const FILE_ONLY: &str = "file";
/// How soon a folder that could not be used is tried again.
const AGAIN: Duration = Duration::from_secs(5);

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

/// Starts a log on standard error alone.
pub(crate) fn start_without_file() -> io::Result<()> {
    let to_stderr = fmt::layer().with_timer(Time).with_target(false).with_ansi(false).with_writer(io::stderr);
    let all = Registry::default().with(targets(LogLevel::default())).with(to_stderr);
    tracing::subscriber::set_global_default(all).map_err(io::Error::other)
}

/// The log's files, as soon as there can be any: a folder that cannot be used
/// now keeps no master from serving.
struct Files {
    folder: PathBuf,
    appender: Option<RollingFileAppender>,
    /// When the folder could not be used.
    failed: Option<Instant>,
    problems: Problems,
}

impl Files {
    fn new(log_dir: &Path, problems: Problems) -> Self {
        // In a folder of its own: old files are removed by the beginning and the
        // end of their names, which an app's files could have, too.
        Self { folder: log_dir.join("daemon"), appender: None, failed: None, problems }
    }

    fn open(&mut self) {
        if self.appender.is_some() || self.failed.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        let build = || {
            std::fs::create_dir_all(&self.folder)?;
            RollingFileAppender::builder()
                .rotation(Rotation::DAILY)
                .filename_prefix("supervisor")
                .filename_suffix("log")
                .max_log_files(DAYS)
                .build(&self.folder)
                .map_err(io::Error::other)
        };
        match build() {
            Ok(appender) => {
                self.appender = Some(appender);
                self.note(None);
            }
            Err(error) => {
                self.failed = Some(Instant::now());
                self.note(Some(cause(&error)));
            }
        }
    }

    fn note(&self, error: Option<String>) {
        match error {
            None => _ = self.problems.solve(About::Log),
            Some(cause) => {
                let words = format!("no log is written in {}: {cause}", self.folder.display());
                // This is the log: there is nobody else to tell.
                if self.problems.note(About::Log, words.clone()) {
                    let _ = writeln!(io::stderr(), "{words}");
                }
            }
        }
    }
}

impl Write for Files {
    /// Lines that cannot be written are lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.open();
        if let Some(appender) = &mut self.appender {
            let result = appender.write_all(line);
            self.note(result.err().map(|error| words::errno(&error)));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.appender.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Writes to the file if it could not be written before, so that it is tried
/// again though there is nothing to say. To be called once a second.
pub(crate) fn look_after_file(problems: &Problems) {
    if problems.has(About::Log) {
        tracing::error!(target: FILE_ONLY, "lines before this one may be missing");
    }
}

/// What is behind an error of the library, which names the folder as well.
fn cause(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|error| error.source());
    let system = inner.and_then(|error| error.downcast_ref::<io::Error>()).unwrap_or(error);
    words::errno(system)
}

/// Starts the log.
pub(crate) fn start(log_dir: &Path, foreground: bool, problems: Problems) -> io::Result<Log> {
    // A disk that hangs must not stop the master, either.
    let (files, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(FILE_LINES)
        .finish(Files::new(log_dir, problems));
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
            .with_filter(filter_fn(|line| line.target() != FILE_ONLY))
    });
    let (level, handle) = reload::Layer::new(targets(LogLevel::default()));
    let all = Registry::default().with(level).with(to_file).with(to_stderr);
    tracing::subscriber::set_global_default(all).map_err(io::Error::other)?;
    Ok(Log { level: Level(Some(handle)), _file: guard, _stderr: stderr_guard })
}
