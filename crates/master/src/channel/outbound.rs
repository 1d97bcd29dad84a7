//! What waits for one worker: bounded, and sent in pieces of whole lines that
//! leave whole or not at all.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, fstat, memfd_create, sendfile, tell};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use supervisor_protocol::channel::Tell;

/// The largest piece that one send takes whole or not at all.
pub(super) const PIECE: usize = 32 * 1024;

/// What waits for one worker.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pieces: VecDeque<Piece>,
    /// The bytes of all pieces, and of the long line that is leaving.
    bytes: usize,
    /// A long line of which some has left. It goes before all pieces.
    leaving: Option<LongLine>,
    /// Messages that were dropped and not told of yet.
    lost: usize,
}

#[derive(Debug)]
enum Piece {
    /// At most [`PIECE`] bytes of whole lines.
    Lines(Vec<u8>),
    /// A longer line.
    Long(Vec<u8>),
}

/// A line that does not leave in one send: in a file of memory, whose own
/// offset is what has left. Only the kernel moves it, within the call that
/// sends, so that it is right whenever this process is killed.
#[derive(Debug)]
pub(super) struct LongLine {
    file: OwnedFd,
    left: usize,
}

/// What came of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Messages that have left.
    pub(super) sent: usize,
    /// Messages for which there was no room.
    pub(super) dropped: usize,
    /// The other end is closed.
    pub(super) closed: bool,
}

impl Outbound {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.leaving.is_none()
    }

    /// The bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Goes on with a long line that an earlier master began.
    ///
    /// # Errors
    ///
    /// When the file is none that can be read on.
    pub(super) fn go_on(&mut self, file: OwnedFd) -> io::Result<()> {
        let left = usize::try_from(fstat(&file)?.st_size.unsigned_abs().saturating_sub(tell(&file)?));
        let left = left.map_err(|_| io::ErrorKind::InvalidData)?;
        if left > 0 {
            self.bytes += left;
            self.leaving = Some(LongLine { file, left });
        }
        Ok(())
    }

    /// Sends lines, or lets them wait within `limit` bytes: at most [`PIECE`]
    /// bytes, or one line.
    pub(super) fn push(&mut self, socket: BorrowedFd<'_>, lines: &[u8], limit: usize) -> Progress {
        if lines.len() > PIECE {
            return self.push_long(lines, limit);
        }
        if self.is_empty() {
            match send_piece(socket, lines) {
                Sent::All => return Progress { sent: count(lines), ..Progress::default() },
                Sent::Part(sent) => {
                    // The rest of a line that has begun must follow.
                    self.keep(lines.get(sent..).unwrap_or_default());
                    return Progress::default();
                }
                Sent::Nothing => {}
                Sent::Closed => return Progress { closed: true, ..Progress::default() },
            }
        }
        let kept = fitting(lines, limit.saturating_sub(self.bytes));
        self.keep(lines.get(..kept).unwrap_or_default());
        let dropped = count(lines.get(kept..).unwrap_or_default());
        self.lost += dropped;
        Progress { dropped, ..Progress::default() }
    }

    fn push_long(&mut self, line: &[u8], limit: usize) -> Progress {
        if self.bytes + line.len() > limit {
            self.lost += 1;
            return Progress { dropped: 1, ..Progress::default() };
        }
        self.bytes += line.len();
        self.pieces.push_back(Piece::Long(line.to_vec()));
        Progress::default()
    }

    /// Puts all that waits where a next master goes on with it: behind the long
    /// line that is leaving, or in a file in its place, which `hold` lets the keeper
    /// hold. `tells` says whether the worker is told of losses.
    ///
    /// # Errors
    ///
    /// When there is no memory for it, or no descriptor: then it is lost.
    pub(super) fn leave(&mut self, tells: bool, hold: impl FnOnce(BorrowedFd<'_>)) -> io::Result<()> {
        let mut text = Vec::with_capacity(self.bytes);
        for piece in self.pieces.drain(..) {
            let (Piece::Lines(lines) | Piece::Long(lines)) = piece;
            text.extend_from_slice(&lines);
        }
        if tells && self.lost > 0 {
            text.extend_from_slice(&Tell::Lost { lost: self.lost as u64 }.line());
        }
        match &self.leaving {
            _ if text.is_empty() => {}
            // Where it is read from is not where it is written.
            Some(line) => {
                let end = fstat(&line.file)?.st_size.unsigned_abs();
                let file = File::from(line.file.try_clone()?);
                // Lines leave whole or not at all.
                file.write_all_at(&text, end).or_else(|error| file.set_len(end).and(Err(error)))?;
            }
            None => hold(in_memory(&text)?.as_fd()),
        }
        Ok(())
    }

    /// Sends one of the pieces that wait. `tells` says whether the worker is
    /// told of losses; `hold` lets the keeper hold a long line that is about
    /// to leave, or none any more. `None`: it does not take any now.
    pub(super) fn send_next(
        &mut self,
        socket: BorrowedFd<'_>,
        tells: bool,
        mut hold: impl FnMut(Option<BorrowedFd<'_>>),
    ) -> Option<Progress> {
        let mut progress = Progress::default();
        if self.leaving.is_none()
            && let Some(Piece::Long(_)) = self.pieces.front()
            && let Some(Piece::Long(line)) = self.pieces.pop_front()
        {
            match in_memory(&line) {
                Ok(file) => {
                    hold(Some(file.as_fd()));
                    self.leaving = Some(LongLine { file, left: line.len() });
                }
                Err(error) => {
                    tracing::error!("no memory for a message of {} bytes: {error}", line.len());
                    self.bytes -= line.len();
                    self.lost += 1;
                    return Some(Progress { dropped: 1, ..progress });
                }
            }
        }
        if let Some(line) = &mut self.leaving {
            match sendfile(socket, &line.file, None, line.left) {
                Ok(sent) if sent > 0 => {
                    let sent = sent.min(line.left);
                    line.left -= sent;
                    self.bytes -= sent;
                    if line.left == 0 {
                        progress.sent = 1;
                        self.leaving = None;
                        hold(None);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return None,
                Ok(_) | Err(_) => progress.closed = true,
            }
        } else if let Some(Piece::Lines(lines)) = self.pieces.front_mut() {
            match send_piece(socket, lines) {
                Sent::All => {
                    progress.sent = count(lines);
                    self.bytes -= lines.len();
                    self.pieces.pop_front();
                }
                Sent::Part(sent) => {
                    lines.drain(..sent);
                    self.bytes -= sent;
                }
                Sent::Nothing => return None,
                Sent::Closed => progress.closed = true,
            }
        } else {
            return None;
        }
        if progress.closed {
            if self.leaving.is_some() {
                hold(None);
            }
            *self = Self::default();
        } else if self.lost > 0 && tells {
            // It reads again. What was lost was lost here: nothing has come in
            // between, because there was no room.
            let lost = std::mem::take(&mut self.lost);
            self.keep(&Tell::Lost { lost: lost as u64 }.line());
        }
        Some(progress)
    }

    /// Lets lines wait: behind those of the last piece, if they fit.
    fn keep(&mut self, mut lines: &[u8]) {
        self.bytes += lines.len();
        if let Some(Piece::Lines(last)) = self.pieces.back_mut() {
            let fits = fitting(lines, PIECE.saturating_sub(last.len()));
            let (first, rest) = lines.split_at(fits);
            last.extend_from_slice(first);
            lines = rest;
        }
        if !lines.is_empty() {
            self.pieces.push_back(Piece::Lines(lines.to_vec()));
        }
    }
}

/// A file of memory with this text, at its beginning.
fn in_memory(text: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("line", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
}

/// How many bytes of whole lines fit into `room`.
pub(super) fn fitting(lines: &[u8], room: usize) -> usize {
    match lines.get(..room) {
        None => lines.len(),
        Some(head) => memchr::memrchr(b'\n', head).map_or(0, |end| end + 1),
    }
}

/// How many lines there are.
pub(super) fn count(lines: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', lines).count()
}

enum Sent {
    All,
    /// Only on a kernel that [`sends_whole`] warns of.
    Part(usize),
    Nothing,
    Closed,
}

fn send_piece(socket: BorrowedFd<'_>, lines: &[u8]) -> Sent {
    loop {
        return match send(socket, lines, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent < lines.len() => Sent::Part(sent),
            Ok(_) => Sent::All,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Sent::Nothing,
            Err(_) => Sent::Closed,
        };
    }
}

/// Whether this kernel sends a piece whole or not at all.
pub(super) fn sends_whole(pair: (OwnedFd, OwnedFd)) -> io::Result<bool> {
    let (ours, theirs) = pair;
    let piece = [b'x'; PIECE];
    let mut sent = 0;
    loop {
        match send(&ours, &piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(PIECE) => sent += PIECE,
            Ok(_) => return Ok(false),
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Nor is anything of the last one there.
    drop(ours);
    let mut buffer = [0; PIECE];
    let mut received = 0;
    loop {
        match rustix::io::read(&theirs, &mut buffer)? {
            0 => return Ok(received == sent && sent > 0),
            len => received += len,
        }
    }
}
