//! Workers' output: from their pipes into their files, on a thread of its own.
//!
//! A flood of output of one app delays neither supervision nor another app: the
//! master only sends commands here, and the thread reads a bounded piece of a
//! pipe at a time. A disk that hangs stops this thread alone.
//!
//! Whoever follows the output gets pieces through a bounded ring; a reader that
//! is too slow is told how many it missed.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use std::sync::{Arc, Weak, mpsc};
use std::thread;

use supervisor_core::WorkerId;
use supervisor_protocol::control::Stream;
use supervisor_sys::poll::{Interest, Poller, Waker};
use tokio::sync::{broadcast, oneshot};

/// The most that is read from a pipe at a time, bytes: a pipe's usual size.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for a slow follower before it misses some.
const RING: usize = 64;
/// The most that is read back of a failed worker's output, bytes.
const TAIL: u64 = 4 * 1024;
/// The most lines of it that are told.
const TAIL_LINES: usize = 20;

/// A piece of output, for those who follow.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) app: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) worker: WorkerId,
    pub(crate) stream: Stream,
    pub(crate) bytes: Arc<[u8]>,
}

/// One output stream of a new worker.
#[derive(Debug)]
pub(crate) struct NewStream {
    pub(crate) worker: WorkerId,
    pub(crate) app: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) stream: Stream,
    /// The read end; non-blocking.
    pub(crate) pipe: OwnedFd,
    pub(crate) path: PathBuf,
}

#[derive(Debug)]
enum Command {
    Add(NewStream),
    Tail { worker: WorkerId, reply: oneshot::Sender<Vec<String>> },
    Forget(WorkerId),
}

/// The master's side.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    followers: broadcast::Sender<Piece>,
}

impl Output {
    /// Starts the thread. It ends when every handle is dropped.
    pub(crate) fn start() -> io::Result<Self> {
        let poller = Poller::new()?;
        let waker = Arc::new(Waker::new()?);
        poller.add(waker.as_fd(), WAKER, Interest::Read)?;
        let (commands, inbox) = mpsc::channel();
        let (followers, _) = broadcast::channel(RING);
        let writer = Writer {
            poller,
            waker: Arc::clone(&waker),
            inbox,
            followers: followers.clone(),
            streams: HashMap::new(),
            lives: HashMap::new(),
            files: HashMap::new(),
            next_token: WAKER + 1,
            buffer: vec![0; PIECE].into_boxed_slice(),
        };
        thread::Builder::new().name("output".to_owned()).spawn(|| writer.run())?;
        Ok(Self { commands, waker, followers })
    }

    /// Begins to carry a stream to its file.
    pub(crate) fn add(&self, stream: NewStream) {
        self.send(Command::Add(stream));
    }

    /// The last lines that a worker wrote in this life: of standard error, or
    /// of standard output when there are none.
    pub(crate) fn tail(&self, worker: WorkerId) -> oneshot::Receiver<Vec<String>> {
        let (reply, lines) = oneshot::channel();
        self.send(Command::Tail { worker, reply });
        lines
    }

    /// Forgets where a worker's life begins in its files. Its pipes are read on
    /// until they end: a descendant may still write.
    pub(crate) fn forget(&self, worker: WorkerId) {
        self.send(Command::Forget(worker));
    }

    /// What is written from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Piece> {
        self.followers.subscribe()
    }

    fn send(&self, command: Command) {
        // The thread ends only when all handles are gone, so somebody reads.
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

/// The token of the waker; streams are counted from the next one.
const WAKER: u64 = 0;

/// An open stream.
#[derive(Debug)]
struct Carried {
    new: NewStream,
    file: Option<Arc<File>>,
}

/// Where the output of one life begins.
#[derive(Debug)]
struct Beginning {
    stream: Stream,
    path: PathBuf,
    offset: u64,
}

/// The thread's side.
#[derive(Debug)]
struct Writer {
    poller: Poller,
    waker: Arc<Waker>,
    inbox: mpsc::Receiver<Command>,
    followers: broadcast::Sender<Piece>,
    streams: HashMap<u64, Carried>,
    lives: HashMap<WorkerId, Vec<Beginning>>,
    /// Open files, shared by streams with the same path.
    files: HashMap<PathBuf, Weak<File>>,
    next_token: u64,
    buffer: Box<[u8]>,
}

impl Writer {
    fn run(mut self) {
        let mut events = Vec::new();
        loop {
            if let Err(error) = self.poller.wait(&mut events, None) {
                tracing::error!("output: cannot wait for pipes: {error}");
                return;
            }
            for event in &events {
                if event.token == WAKER {
                    self.waker.reset();
                    if !self.take_commands() {
                        return;
                    }
                } else {
                    self.carry(event.token);
                }
            }
        }
    }

    /// Returns whether more commands can come.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Add(stream)) => self.begin(stream),
                Ok(Command::Tail { worker, reply }) => {
                    // Nobody waits for it any more when this fails.
                    let _ = reply.send(self.last_lines(worker));
                }
                Ok(Command::Forget(worker)) => {
                    self.lives.remove(&worker);
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, new: NewStream) {
        let file = match self.open(&new.path) {
            Ok(file) => {
                let offset = file.metadata().map_or(0, |metadata| metadata.len());
                let beginning = Beginning { stream: new.stream, path: new.path.clone(), offset };
                self.lives.entry(new.worker).or_default().push(beginning);
                Some(file)
            }
            Err(error) => {
                tracing::error!("{}:{}: cannot write to {}: {error}", new.app, new.slot, new.path.display());
                None
            }
        };
        let token = self.next_token;
        self.next_token += 1;
        match self.poller.add(new.pipe.as_fd(), token, Interest::Read) {
            Ok(()) => {
                self.streams.insert(token, Carried { new, file });
            }
            Err(error) => tracing::error!("{}:{}: cannot read its output: {error}", new.app, new.slot),
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let file = Arc::new(OpenOptions::new().append(true).read(true).create(true).mode(0o640).open(path)?);
        self.files.retain(|_, file| file.strong_count() > 0);
        self.files.insert(path.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }

    /// Carries one piece. Returns whether there may be more.
    fn carry(&mut self, token: u64) -> bool {
        let Some(stream) = self.streams.get(&token) else { return false };
        let read = match rustix::io::read(&stream.new.pipe, &mut *self.buffer) {
            Ok(0) => None,
            Ok(read) => Some(read),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            Err(_) => None,
        };
        let Some(read) = read else {
            // All writers are gone. The keeper has the pipe too, so closing it
            // here would not take it off the poller.
            let _ = self.poller.remove(&stream.new.pipe);
            self.streams.remove(&token);
            return false;
        };
        let bytes = &self.buffer[..read];
        if let Some(file) = &stream.file
            && let Err(error) = (&**file).write_all(bytes)
        {
            tracing::warn!("cannot write to {}: {error}; {read} bytes lost", stream.new.path.display());
        }
        if self.followers.receiver_count() > 0 {
            let NewStream { app, slot, worker, stream, .. } = &stream.new;
            let piece = Piece {
                app: Arc::clone(app),
                slot: *slot,
                worker: *worker,
                stream: *stream,
                bytes: bytes.into(),
            };
            // The last follower may just have left.
            let _ = self.followers.send(piece);
        }
        true
    }

    fn last_lines(&mut self, worker: WorkerId) -> Vec<String> {
        // What it wrote just before it ended may still be in its pipes: at
        // most a pipe's size each.
        let tokens: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, carried)| carried.new.worker == worker)
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            let mut pieces = 0;
            while pieces < 16 && self.carry(token) {
                pieces += 1;
            }
        }
        let Some(life) = self.lives.get(&worker) else { return Vec::new() };
        let lines = |stream| {
            let beginning = life.iter().find(|beginning| beginning.stream == stream)?;
            let lines = read_tail(&beginning.path, beginning.offset).ok()?;
            (!lines.is_empty()).then_some(lines)
        };
        lines(Stream::Error).or_else(|| lines(Stream::Out)).unwrap_or_default()
    }
}

/// The last lines of a file, not looking back beyond `from`.
fn read_tail(path: &Path, from: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let start = from.max(end.saturating_sub(TAIL));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // The first line was cut when the read began in its middle.
    if start > from && lines.len() > 1 {
        lines.remove(0);
    }
    let surplus = lines.len().saturating_sub(TAIL_LINES);
    lines.drain(..surplus);
    Ok(lines)
}
