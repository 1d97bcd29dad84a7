//! Workers' output: from their pipes into their files, on a thread of its own.
//!
//! ```text
//! pipe ─ pieces ─▶ writer: whole lines ─▶ form: raw, dated, JSON ─▶ sink: a file ─ rotated ─▶ tidy
//!                     └─▶ tail: the last lines      └─▶ followers
//! ```
//!
//! A flood of output of one app delays neither supervision nor another app: the
//! master only sends commands here, and the thread reads a bounded piece of a
//! pipe at a time. A disk that hangs stops this thread alone, and one that is
//! full stops nobody: what cannot be written is dropped and counted.
//!
//! Files have whole lines, whoever shares them, and are rotated between two
//! lines. Whoever follows the output gets pieces through a bounded ring; a
//! reader that is too slow is told how many it missed.

mod access;
mod date;
mod echo;
mod form;
mod lines;
mod rotation;
mod sink;
mod tail;
mod tidy;
mod writer;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use jiff::tz::TimeZone;
use supervisor_config::LogOptions;
use supervisor_core::WorkerId;
use supervisor_protocol::control::{LogPosition, Stream};
use supervisor_sys::poll::Waker;
use tokio::sync::{broadcast, oneshot};

pub(crate) use access::{Access, Place};
pub(crate) use date::zone;
pub(crate) use echo::Echo;
pub use echo::EchoForm;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use form::{Author, Form};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use lines::{Buffer, MAX_LINE};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rotation::Rotation;
pub(crate) use rotation::{COMPRESSED, rotated_files};
use writer::Writer;

/// Pieces that wait for a slow follower before it misses some.
const RING: usize = 64;

/// A piece of output, for those who follow.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) app: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) worker: WorkerId,
    pub(crate) stream: Stream,
    pub(crate) bytes: Arc<[u8]>,
    /// When it was written.
    pub(crate) at: Instant,
    /// Where it is in its file, if there is one.
    pub(crate) place: Option<InFile>,
}

/// Where a piece of output is in its file.
#[derive(Debug, Clone)]
pub(crate) struct InFile {
    /// Where it ends.
    pub(crate) end: LogPosition,
    /// How long its lines are there, if they have another form: bytes.
    pub(crate) lines: Option<Arc<[u64]>>,
}

/// A worker's output stream.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) worker: WorkerId,
    pub(crate) app: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) stream: Stream,
    /// The read end; non-blocking.
    pub(crate) pipe: OwnedFd,
    /// The files that it goes to.
    pub(crate) paths: Vec<Arc<Path>>,
}

/// One output stream of a new worker.
#[derive(Debug)]
pub(crate) struct NewStream {
    pub(crate) source: Source,
    pub(crate) pid: u32,
    pub(crate) generation: u64,
    /// Whose rights to these files count.
    pub(crate) access: Access,
    pub(crate) options: LogOptions,
    /// For times in lines, and of rotations.
    pub(crate) zone: TimeZone,
}

/// Log files could not be emptied.
#[derive(Debug, thiserror::Error)]
#[error("cannot empty {}: {cause}", path.display())]
pub(crate) struct FlushError {
    path: PathBuf,
    cause: io::Error,
}

#[derive(Debug)]
enum Command {
    Add(Vec<NewStream>),
    Tail { worker: WorkerId, reply: oneshot::Sender<Vec<String>> },
    Forget(WorkerId),
    Reopen,
    Finish { reply: oneshot::Sender<()> },
    Leave { reply: oneshot::Sender<()> },
    End,
    Flush { files: Vec<(PathBuf, Access)>, reply: oneshot::Sender<Result<(), FlushError>> },
}

/// How many bytes of each worker's output were dropped. Only workers that lost
/// some are in it.
#[derive(Debug, Default)]
struct Dropped(Mutex<HashMap<WorkerId, u64>>);

impl Dropped {
    fn add(&self, worker: WorkerId, bytes: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(worker).or_default() += bytes;
    }

    fn get(&self, worker: WorkerId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&worker).copied().unwrap_or(0)
    }

    fn forget(&self, worker: WorkerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&worker);
    }
}

/// The master's side.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    followers: broadcast::Sender<Piece>,
    dropped: Arc<Dropped>,
}

impl Output {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let waker = Arc::new(Waker::new()?);
        let (commands, inbox) = mpsc::channel();
        let (followers, _) = broadcast::channel(RING);
        let dropped = Arc::new(Dropped::default());
        let writer = Writer::new(Arc::clone(&waker), inbox, followers.clone(), Arc::clone(&dropped))?;
        thread::Builder::new().name("output".to_owned()).spawn(|| writer.run())?;
        Ok(Self { commands, waker, followers, dropped })
    }

    /// Begins to carry a worker's streams to their files.
    pub(crate) fn add(&self, streams: Vec<NewStream>) {
        if !streams.is_empty() {
            self.send(Command::Add(streams));
        }
    }

    /// The last lines that a worker wrote in this life: of standard error, or
    /// of standard output when there are none.
    pub(crate) fn tail(&self, worker: WorkerId) -> oneshot::Receiver<Vec<String>> {
        let (reply, lines) = oneshot::channel();
        self.send(Command::Tail { worker, reply });
        lines
    }

    /// Forgets a worker's last lines and losses. Its pipes are read on until
    /// they end: a descendant may still write.
    pub(crate) fn forget(&self, worker: WorkerId) {
        self.send(Command::Forget(worker));
    }

    /// Closes all files and opens what is at their paths now.
    pub(crate) fn reopen(&self) {
        self.send(Command::Reopen);
    }

    /// Empties files and deletes what was rotated from them.
    pub(crate) fn flush(&self, files: Vec<(PathBuf, Access)>) -> oneshot::Receiver<Result<(), FlushError>> {
        let (reply, result) = oneshot::channel();
        self.send(Command::Flush { files, reply });
        result
    }

    /// Writes what is in the pipes and the lines that have no end yet: the last
    /// words of workers that have ended.
    pub(crate) fn finish(&self) -> oneshot::Receiver<()> {
        let (reply, done) = oneshot::channel();
        self.send(Command::Finish { reply });
        done
    }

    /// Writes what has been read, and reads no more: what is in the pipes is
    /// another master's.
    pub(crate) fn leave(&self) -> oneshot::Receiver<()> {
        let (reply, done) = oneshot::channel();
        self.send(Command::Leave { reply });
        done
    }

    /// Ends the thread, and with it what followers get.
    pub(crate) fn end(self) {
        self.send(Command::End);
    }

    /// How many bytes of a worker's output could not be written to a file.
    pub(crate) fn dropped(&self, worker: WorkerId) -> u64 {
        self.dropped.get(worker)
    }

    /// What is written from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Piece> {
        self.followers.subscribe()
    }

    fn send(&self, command: Command) {
        // At the end nobody reads any more.
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}
