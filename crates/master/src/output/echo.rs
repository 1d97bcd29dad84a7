//! Workers' output on the daemon's own standard output and error, in the foreground.
//!
//! Each stream has a thread, which alone waits when nobody reads: then it misses what
//! leaves the ring meanwhile, and nobody else notices.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use supervisor_core::WorkerId;
use supervisor_protocol::control::Stream;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Output, Piece};

/// Writing needs little; the default would reserve much more.
const STACK: usize = 128 * 1024;
/// The least time between two warnings that pieces were missed.
const WARNING_PAUSE: Duration = Duration::from_secs(10);

/// How output is shown in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EchoForm {
    /// As the worker wrote it.
    Plain,
    /// With the name of the app and the slot before each line: `web:0 | `.
    Named,
}

/// The threads that show output.
#[derive(Debug)]
pub(crate) struct Echo {
    /// Hangs up when both have ended.
    running: Receiver<()>,
}

impl Echo {
    /// Shows what comes from now on.
    pub(crate) fn start(output: &Output, form: EchoForm) -> io::Result<Self> {
        let (alive, running) = mpsc::channel();
        for stream in [Stream::Out, Stream::Error] {
            let (pieces, alive): (_, Sender<()>) = (output.follow(), alive.clone());
            thread::Builder::new().name("echo".to_owned()).stack_size(STACK).spawn(move || {
                let ended = match stream {
                    Stream::Out => show(pieces, stream, form, Waiting(io::stdout())),
                    Stream::Error => show(pieces, stream, form, Waiting(io::stderr())),
                };
                if let Err(error) = ended {
                    tracing::warn!("output is shown no longer, but goes to its files: {error}");
                }
                drop(alive);
            })?;
        }
        Ok(Self { running })
    }

    /// Waits until all is shown that came before [`Output::end`],
    /// but no longer than this.
    pub(crate) fn finish(self, limit: Duration) {
        // Nothing is ever sent: it ends by time or by hanging up.
        let _ = self.running.recv_timeout(limit);
    }
}

/// Shows one stream of all workers until no more can come.
fn show(
    mut pieces: broadcast::Receiver<Piece>,
    stream: Stream,
    form: EchoForm,
    mut to: impl Write,
) -> io::Result<()> {
    let mut unfinished = None;
    let mut text = Vec::new();
    let (mut missed, mut next_warning) = (0, Instant::now());
    loop {
        match pieces.blocking_recv() {
            Ok(piece) if piece.stream == stream => {
                text.clear();
                render(&piece, form, &mut unfinished, &mut text);
                to.write_all(&text)?;
                to.flush()?;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(more)) => {
                missed += more;
                if next_warning <= Instant::now() {
                    // Pieces of both streams: which they were is not known.
                    tracing::warn!("output is read too slowly: up to {missed} pieces are in log files only");
                    (missed, next_warning) = (0, Instant::now() + WARNING_PAUSE);
                }
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Adds a piece to `text`. `unfinished` is the worker whose line is not ended yet:
/// lines of two workers are never mixed.
fn render(piece: &Piece, form: EchoForm, unfinished: &mut Option<WorkerId>, text: &mut Vec<u8>) {
    if unfinished.is_some_and(|other| other != piece.worker) {
        text.push(b'\n');
        *unfinished = None;
    }
    for line in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
        if form == EchoForm::Named && unfinished.is_none() {
            text.extend_from_slice(format!("{}:{} | ", piece.app, piece.slot).as_bytes());
        }
        text.extend_from_slice(line);
        *unfinished = (!line.ends_with(b"\n")).then_some(piece.worker);
    }
}

/// Waits for room where somebody else has made the stream non-blocking.
struct Waiting<W>(W);

impl<W: Write + std::os::fd::AsFd> Write for Waiting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(worker: u64, slot: u32, text: &str) -> Piece {
        let bytes = text.as_bytes().into();
        let (worker, at) = (WorkerId(worker), Instant::now());
        Piece { app: "web".into(), slot, worker, stream: Stream::Out, bytes, at, place: None }
    }

    #[track_caller]
    fn check(form: EchoForm, pieces: &[Piece], expected: &str) {
        let (mut unfinished, mut text) = (None, Vec::new());
        for piece in pieces {
            render(piece, form, &mut unfinished, &mut text);
        }
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn lines_of_two_workers_are_not_mixed() {
        let pieces =
            [piece(1, 0, "a\nb"), piece(1, 0, "c\n\nprompt: "), piece(2, 1, "d\n"), piece(1, 0, "e\n")];
        check(EchoForm::Plain, &pieces, "a\nbc\n\nprompt: \nd\ne\n");
        check(
            EchoForm::Named,
            &pieces,
            "web:0 | a\nweb:0 | bc\nweb:0 | \nweb:0 | prompt: \nweb:1 | d\nweb:0 | e\n",
        );
    }
}
