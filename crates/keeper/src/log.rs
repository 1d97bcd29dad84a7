//! Lines for the operator, on standard error.

use std::fmt;
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Writes a line of the keeper, formatted as by [`format!`]. See [`write()`].
macro_rules! say {
    ($($argument:tt)*) => { $crate::log::write(format_args!($($argument)*)) };
}
pub(crate) use say;

/// Writes one line, unless that would have to wait: a stopped terminal or a
/// pipe that nobody reads must not stop the keeper. Nor may one whose reader
/// has gone end it, as [`eprintln!`] would.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let line = format!("keeper: {text}\n");
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // A pipe is writable when it has room for 4096 bytes; lines are shorter.
    if poll(&mut fds, Some(&Timespec::default())) == Ok(1) && fds[0].revents() == PollFlags::OUT {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}
