//! What people see: pure functions from the daemon's values to text, with the
//! width, the colours and the time given.

pub(crate) mod channel;
pub(crate) mod check;
pub(crate) mod describe;
pub(crate) mod difference;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod status;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod units;

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Canvas {
    /// Columns that a line may take; `usize::MAX` for no end.
    pub(crate) width: usize,
    /// Whether to use colours.
    pub(crate) color: bool,
    /// What "ago" counts from.
    pub(crate) now: jiff::Timestamp,
}
