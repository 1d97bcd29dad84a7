//! What one worker says: read so that a kill of this process between any two
//! instructions cuts no line and doubles none.
//!
//! Lines are looked at first (`MSG_PEEK`), and only whole ones are consumed. A
//! line that the socket has no room for is consumed in parts; before the first
//! one the keeper is told that the stream is in the middle of a line, whose rest
//! a next master would skip. Its end stays in the socket until the keeper is told
//! that this is over: then it is an empty line, which means nothing.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// What is looked at at a time, bytes.
pub(super) const WINDOW: usize = 64 * 1024;

/// Where a worker's stream stands.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The part of a line that has been consumed.
    part: Vec<u8>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// At the beginning of a line.
    #[default]
    Boundary,
    /// Within a line whose beginning is in `part`.
    Within,
    /// Within a line that is too long, or whose beginning an earlier master had.
    Skipping,
}

/// What reading has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many bytes of whole lines in the window.
    Lines(usize),
    /// A line that came in parts, without its end.
    Line(Vec<u8>),
    /// A line that was too long: it is gone.
    TooLong,
    /// Something that is not a line yet; there may be more.
    Part,
    /// The beginning of a line that stays where it is until there is more.
    Beginning,
    /// Nothing to read now.
    Nothing,
    /// Nothing will come any more.
    End,
}

impl Inbound {
    /// A stream that an earlier master left in the middle of a line.
    pub(super) fn within_a_line() -> Self {
        Self { part: Vec::new(), place: Place::Skipping }
    }

    /// Reads what there is into `window`. Lines above `max` bytes are too long.
    /// A line without an end is consumed as far as it goes if `at_once`. `note`
    /// tells the keeper whether the stream is in the middle of a line.
    pub(super) fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        window: &mut [u8],
        max: usize,
        at_once: bool,
        note: impl FnOnce(bool),
    ) -> Heard {
        let seen = match receive(socket, window, RecvFlags::PEEK) {
            Ok(0) => return Heard::End,
            Ok(seen) => seen,
            Err(Errno::AGAIN) => return Heard::Nothing,
            Err(_) => return Heard::End,
        };
        let Some(text) = window.get(..seen) else { return Heard::End };
        match self.place {
            Place::Boundary => match memchr::memrchr(b'\n', text) {
                Some(end) => {
                    consume(socket, window, end + 1);
                    Heard::Lines(end + 1)
                }
                None if at_once || seen == window.len() || seen > max => {
                    note(true);
                    self.place = Place::Within;
                    self.take(socket, window, seen, max)
                }
                None => Heard::Beginning,
            },
            Place::Within | Place::Skipping => match memchr::memchr(b'\n', text) {
                Some(end) => {
                    self.take(socket, window, end, max);
                    note(false);
                    let is_whole = self.place == Place::Within;
                    self.place = Place::Boundary;
                    let line = std::mem::take(&mut self.part);
                    if is_whole { Heard::Line(line) } else { Heard::TooLong }
                }
                None => self.take(socket, window, seen, max),
            },
        }
    }

    /// Consumes a part of a line.
    fn take(&mut self, socket: BorrowedFd<'_>, window: &mut [u8], len: usize, max: usize) -> Heard {
        consume(socket, window, len);
        if self.place == Place::Within && self.part.len() + len <= max {
            self.part.extend_from_slice(window.get(..len).unwrap_or_default());
        } else {
            self.place = Place::Skipping;
            self.part = Vec::new();
        }
        Heard::Part
    }
}

/// Takes what was looked at out of the socket. One call may give less: what came
/// with descriptors is apart.
fn consume(socket: BorrowedFd<'_>, window: &mut [u8], len: usize) {
    let mut done = 0;
    while done < len {
        let Some(room) = window.get_mut(done..len) else { return };
        match receive(socket, room, RecvFlags::empty()) {
            Ok(0) | Err(_) => return,
            Ok(taken) => done += taken,
        }
    }
}

fn receive(socket: BorrowedFd<'_>, room: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| recv(socket, &mut *room, flags | RecvFlags::DONTWAIT)).map(|(len, _)| len)
}
