//! What the fuzz targets call: any bytes, and what must hold of them. Each
//! function panics when something does not.

mod control;
mod lines;
mod records;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

use std::time::Duration;

pub use control::control;
pub use lines::lines;
pub use records::{records, state};

use crate::notify::{Word, parse};

/// A datagram of `sd_notify(3)`.
pub fn notify(message: &[u8]) {
    let words = parse(message);
    assert!(words.len() <= message.len(), "a word takes a line");
    for word in words {
        match word {
            Word::Status(text) => {
                assert!(text.chars().count() <= 256 && !text.contains(char::is_control), "{text:?}");
            }
            Word::Extend(time) => assert!(time <= Duration::from_secs(24 * 60 * 60), "{time:?}"),
            Word::Ready | Word::Stopping | Word::Watchdog => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn control() {
        replay("control", super::control);
    }

    #[test]
    fn lines() {
        replay("lines", super::lines);
    }

    #[test]
    fn notify() {
        replay("notify", super::notify);
    }

    #[test]
    fn records() {
        replay("records", super::records);
    }

    #[test]
    fn state() {
        replay("state", super::state);
    }
}
