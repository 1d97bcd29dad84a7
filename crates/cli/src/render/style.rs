//! Colours by meaning.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};
use supervisor_protocol::control::{AppState, WorkerState};

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// On its way.
pub(crate) const BUSY: Style = AnsiColor::Yellow.on_default();
/// Something failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// There, but not what to look at.
pub(crate) const QUIET: Style = Style::new().dimmed();
/// What to look at first.
pub(crate) const STRONG: Style = Style::new().bold();

/// Text in a style, or as it is.
pub(crate) fn paint(text: impl Display, style: Style, color: bool) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_string() }
}

/// The state's name and its colour.
pub(crate) const fn app_state(state: AppState) -> (&'static str, Style) {
    match state {
        AppState::Online => ("online", GOOD),
        AppState::Degraded => ("degraded", BUSY),
        AppState::Starting => ("starting", BUSY),
        AppState::Reloading => ("reloading", BUSY),
        AppState::Stopping => ("stopping", BUSY),
        AppState::Stopped => ("stopped", QUIET),
        AppState::Errored => ("errored", BAD),
    }
}

/// The state's name and its colour.
pub(crate) const fn worker_state(state: WorkerState) -> (&'static str, Style) {
    match state {
        WorkerState::Starting => ("starting", BUSY),
        WorkerState::Ready => ("ready", GOOD),
        WorkerState::Draining => ("draining", BUSY),
        WorkerState::Stopping => ("stopping", BUSY),
        WorkerState::Stopped => ("stopped", QUIET),
        WorkerState::Backoff => ("backoff", BAD),
        WorkerState::Errored => ("errored", BAD),
    }
}
