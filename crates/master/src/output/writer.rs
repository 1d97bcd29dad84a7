//! The thread that reads pipes and writes files.
//!
//! Output is taken in large pieces: after a round of reading the thread pauses
//! for a moment while the pipes fill again, so that a worker which writes line
//! by line wakes it a thousand times a second at most, not for every line. A pipe
//! that fills faster is taken off the poller meanwhile: while a pipe is polled
//! the kernel tells the poller of every write, at the writer's expense.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_setpipe_size;
use supervisor_core::WorkerId;
use supervisor_protocol::control::{LogPosition, Stream};
use supervisor_sys::poll::{Interest, Poller, Waker};
use tokio::sync::broadcast;

use super::form::{Author, Form};
use super::lines::Buffer;
use super::rotation::Rotation;
use super::sink::{self, Now, Sink};
use super::tail::Tail;
use super::tidy::Tidy;
use super::{Access, Command, Dropped, FlushError, InFile, NewStream, Piece, Source};

/// A line whose end has not come for this long is written without it.
const LINE_PAUSE: Duration = Duration::from_millis(200);
/// The pause between two rounds of reading.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
/// A pipe that has this much in it fills faster than rounds come, bytes: half
/// of a pipe's usual size.
const MUCH: usize = 32 * 1024;
/// What such a pipe is enlarged to, bytes; the most that anybody may.
const WIDE: usize = 1024 * 1024;
/// How many pipes are enlarged, and how many are read without being asked for
/// it: the kernel limits a user's pipes altogether, and a round is to be short.
const MAX_BUSY: usize = 16;
/// After so many rounds without a byte a pipe is not busy any more.
const IDLE_ROUNDS: u32 = 20;
/// Followers get smaller pieces, which bounds what waits for them, bytes.
const FOLLOWED: usize = 64 * 1024;
/// How many pieces of a stream are read at once when its last ones are wanted.
const LAST_PIECES: usize = 8;

/// The token of the waker; streams are counted from the next one.
const WAKER: u64 = 0;

/// The thread's side.
#[derive(Debug)]
pub(super) struct Writer {
    poller: Poller,
    waker: Arc<Waker>,
    inbox: mpsc::Receiver<Command>,
    /// In boxes: half of the places are empty.
    streams: HashMap<u64, Box<Carried>>,
    tails: HashMap<WorkerId, [Tail; 2]>,
    next_token: u64,
    /// How many pipes have been enlarged.
    wide: usize,
    /// The streams that are read in each round, at most [`MAX_BUSY`].
    busy: Vec<Busy>,
    /// When an unfinished line has to be written.
    next_pause: Option<Instant>,
    buffer: Buffer,
    outlet: Outlet,
}

/// A stream that is off the poller.
#[derive(Debug)]
struct Busy {
    token: u64,
    /// Rounds since it had something.
    idle: u32,
}

/// An open stream.
#[derive(Debug)]
struct Carried {
    source: Source,
    form: Form,
    /// The beginning of a line whose end has not come.
    unfinished: Vec<u8>,
    /// When it has to be written.
    pause: Option<Instant>,
    is_wide: bool,
    /// It is off the poller, and in the list of those.
    is_busy: bool,
}

/// Where lines go.
#[derive(Debug)]
struct Outlet {
    /// In boxes, as streams are.
    sinks: HashMap<Arc<Path>, Box<Sink>>,
    tidy: Tidy,
    dropped: Arc<Dropped>,
    followers: broadcast::Sender<Piece>,
    /// Lines in their form, for the moment.
    rendered: Vec<u8>,
}

/// What one look at a pipe found.
enum Found {
    Nothing,
    Bytes(usize),
    End,
}

impl Writer {
    pub(super) fn new(
        waker: Arc<Waker>,
        inbox: mpsc::Receiver<Command>,
        followers: broadcast::Sender<Piece>,
        dropped: Arc<Dropped>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(waker.as_fd(), WAKER, Interest::Read)?;
        Ok(Self {
            poller,
            waker,
            inbox,
            streams: HashMap::new(),
            tails: HashMap::new(),
            next_token: WAKER + 1,
            wide: 0,
            busy: Vec::new(),
            next_pause: None,
            buffer: Buffer::new(),
            outlet: Outlet {
                sinks: HashMap::new(),
                tidy: Tidy::default(),
                dropped,
                followers,
                rendered: Vec::new(),
            },
        })
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        let mut events = Vec::new();
        loop {
            if let Err(error) = self.poller.wait(&mut events, self.timeout()) {
                tracing::error!("output: cannot wait for pipes: {error}");
                return;
            }
            let (mut most, mut is_over) = (None, false);
            for event in &events {
                if event.token == WAKER {
                    self.waker.reset();
                    is_over = !self.take_commands();
                } else {
                    most = most.max(Some(self.carry(event.token)));
                }
            }
            most = most.max(self.carry_busy());
            self.end_pauses();
            if is_over {
                return;
            }
            if most.is_some_and(|bytes| bytes < MUCH) {
                thread::sleep(ROUND_PAUSE);
            }
        }
    }

    /// How long to wait for pipes: not at all while some are busy.
    fn timeout(&self) -> Option<Duration> {
        match self.busy.is_empty() {
            true => self.next_pause.map(|at| at.saturating_duration_since(Instant::now())),
            false => Some(Duration::ZERO),
        }
    }

    /// Reads the busy pipes. Returns the most that one of them had.
    fn carry_busy(&mut self) -> Option<usize> {
        let mut most = None;
        for mut busy in std::mem::take(&mut self.busy) {
            let length = self.carry(busy.token);
            most = most.max(Some(length));
            busy.idle = if length == 0 { busy.idle + 1 } else { 0 };
            // It may just have ended.
            let Some(stream) = self.streams.get_mut(&busy.token) else { continue };
            if busy.idle == IDLE_ROUNDS {
                // When memory is short the next rounds try again.
                busy.idle = 0;
                stream.is_busy = self.poller.add(&stream.source.pipe, busy.token, Interest::Read).is_err();
            }
            if stream.is_busy {
                self.busy.push(busy);
            }
        }
        most
    }

    /// Returns whether more commands can come.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Add(streams)) => streams.into_iter().for_each(|stream| self.begin(stream)),
                Ok(Command::Tail { worker, reply }) => {
                    // Nobody waits for it any more when this fails.
                    let _ = reply.send(self.last_lines(worker));
                }
                Ok(Command::Forget(worker)) => {
                    self.tails.remove(&worker);
                    self.outlet.dropped.forget(worker);
                }
                Ok(Command::Reopen) => {
                    let now = Now::read();
                    self.outlet.sinks.values_mut().for_each(|sink| sink.reopen(now));
                }
                Ok(Command::Finish { reply }) => {
                    self.carry_rest(self.streams.keys().copied().collect());
                    for (token, stream) in &mut self.streams {
                        stream.write_unfinished(*token, &mut self.outlet, Now::read());
                    }
                    // Nobody waits for it any more when this fails.
                    let _ = reply.send(());
                }
                Ok(Command::Leave { reply }) => {
                    for (token, stream) in &mut self.streams {
                        stream.write_unfinished(*token, &mut self.outlet, Now::read());
                    }
                    self.streams.clear();
                    let _ = reply.send(());
                    return false;
                }
                Ok(Command::End) => return false,
                Ok(Command::Flush { files, reply }) => {
                    let _ = reply.send(self.outlet.flush(&files));
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, new: NewStream) {
        let token = self.next_token;
        let source = &new.source;
        if let Err(error) = self.poller.add(source.pipe.as_fd(), token, Interest::Read) {
            tracing::error!("{}:{}: cannot read its output: {error}", source.app, source.slot);
            return;
        }
        self.next_token += 1;
        self.tails.entry(source.worker).or_default();
        self.outlet.add(&new);
        let author = Author {
            app: &source.app,
            slot: source.slot,
            pid: new.pid,
            generation: new.generation,
            stream: match source.stream {
                Stream::Out => "out",
                Stream::Error => "error",
            },
        };
        let form = Form::new(&new.options, new.zone, &author);
        let carried = Carried {
            source: new.source,
            form,
            unfinished: Vec::new(),
            pause: None,
            is_wide: false,
            is_busy: false,
        };
        self.streams.insert(token, Box::new(carried));
    }

    /// All writers of a stream are gone.
    fn end(&mut self, token: u64) {
        let Some(mut stream) = self.streams.remove(&token) else { return };
        stream.write_unfinished(token, &mut self.outlet, Now::read());
        // The keeper has the pipe too, so closing it here would not take it off
        // the poller.
        let _ = self.poller.remove(&stream.source.pipe);
        self.wide -= usize::from(stream.is_wide);
        self.outlet.remove(&stream.source);
    }

    /// Carries one piece. Returns its length.
    fn carry(&mut self, token: u64) -> usize {
        let Some(stream) = self.streams.get_mut(&token) else { return 0 };
        let length = match fill(self.buffer.room(), &stream.source.pipe) {
            Found::Bytes(length) => length,
            Found::Nothing => return 0,
            Found::End => {
                self.end(token);
                return 0;
            }
        };
        if length >= MUCH {
            if !stream.is_wide && self.wide < MAX_BUSY {
                // Where the kernel refuses, the pipe is as good as it was.
                stream.is_wide = fcntl_setpipe_size(&stream.source.pipe, WIDE).is_ok();
                self.wide += usize::from(stream.is_wide);
            }
            if !stream.is_busy && self.busy.len() < MAX_BUSY {
                stream.is_busy = self.poller.remove(&stream.source.pipe).is_ok();
                self.busy.extend(stream.is_busy.then_some(Busy { token, idle: 0 }));
            }
        }
        let now = Now::read();
        let piece = self.buffer.piece(length);
        if let Some(tails) = self.tails.get_mut(&stream.source.worker) {
            tails[index(stream.source.stream)].push(piece);
        }
        let lines = self.buffer.lines(&mut stream.unfinished, length);
        if !lines.is_empty() {
            self.outlet.write(token, &stream.source, &mut stream.form, lines, now);
        }
        stream.pause = (!stream.unfinished.is_empty()).then(|| now.instant + LINE_PAUSE);
        self.next_pause = earlier(self.next_pause, stream.pause);
        length
    }

    /// Writes the lines whose ends are long in coming.
    fn end_pauses(&mut self) {
        if self.next_pause.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let now = Now::read();
        self.next_pause = None;
        for (token, stream) in &mut self.streams {
            if stream.pause.is_some_and(|at| at <= now.instant) {
                stream.write_unfinished(*token, &mut self.outlet, now);
            }
            self.next_pause = earlier(self.next_pause, stream.pause);
        }
    }

    /// Carries what is in these streams' pipes now.
    fn carry_rest(&mut self, tokens: Vec<u64>) {
        for token in tokens {
            let mut pieces = 0;
            while pieces < LAST_PIECES && self.carry(token) > 0 {
                pieces += 1;
            }
        }
    }

    fn last_lines(&mut self, worker: WorkerId) -> Vec<String> {
        // What it wrote just before it ended may still be in its pipes.
        let streams = self.streams.iter().filter(|(_, carried)| carried.source.worker == worker);
        let tokens: Vec<u64> = streams.map(|(token, _)| *token).collect();
        self.carry_rest(tokens);
        let Some(tails) = self.tails.get(&worker) else { return Vec::new() };
        let [error, out] = [Stream::Error, Stream::Out].map(|stream| tails[index(stream)].lines());
        if error.is_empty() { out } else { error }
    }
}

impl Carried {
    fn write_unfinished(&mut self, token: u64, outlet: &mut Outlet, now: Now) {
        self.pause = None;
        let line = std::mem::take(&mut self.unfinished);
        if line.is_empty() {
            return;
        }
        outlet.write(token, &self.source, &mut self.form, &line, now);
    }
}

impl Outlet {
    /// Adds a stream's files, unless others write to them already.
    fn add(&mut self, new: &NewStream) {
        let (rotation, now) = (Rotation::new(&new.options, new.zone.clone()), Now::read());
        for path in &new.source.paths {
            let sink = match self.sinks.entry(Arc::clone(path)) {
                Entry::Occupied(entry) => {
                    let sink = entry.into_mut();
                    sink.set_rotation(rotation.clone(), now);
                    sink
                }
                Entry::Vacant(entry) => {
                    let sink = Sink::new(Arc::clone(path), new.access.clone(), rotation.clone());
                    entry.insert(Box::new(sink))
                }
            };
            sink.streams += 1;
        }
    }

    /// Closes those that no other stream writes to.
    fn remove(&mut self, source: &Source) {
        for path in &source.paths {
            if let Some(sink) = self.sinks.get_mut(path) {
                sink.streams -= 1;
                if sink.streams == 0 {
                    self.sinks.remove(path);
                }
            }
        }
    }

    /// Writes lines in their form, the last of which may have no end yet, and
    /// gives them to followers: text as files have it, and what an object says.
    fn write(&mut self, token: u64, source: &Source, form: &mut Form, lines: &[u8], now: Now) {
        match form {
            Form::Raw => {
                self.store(token, source, lines, now);
                self.show(source, lines, None, now);
            }
            Form::Dated(_) | Form::Json { .. } => {
                let mut rest = lines;
                let mut rendered = std::mem::take(&mut self.rendered);
                while !rest.is_empty() {
                    let before = rest;
                    form.render(&mut rest, now.time, &mut rendered);
                    self.store(token, source, &rendered, now);
                    match form {
                        Form::Raw | Form::Dated(_) => self.show(source, &rendered, None, now),
                        Form::Json { .. } => {
                            let said = &before[..before.len() - rest.len()];
                            self.show(source, said, Some(&rendered), now);
                        }
                    }
                }
                self.rendered = rendered;
            }
        }
    }

    fn store(&mut self, token: u64, source: &Source, lines: &[u8], now: Now) {
        let mut dropped = 0;
        for path in &source.paths {
            if let Some(sink) = self.sinks.get_mut(path) {
                dropped += sink.write(token, lines, now, &self.tidy);
            }
        }
        if dropped > 0 {
            self.dropped.add(source.worker, dropped);
        }
    }

    /// Gives lines to followers. `written` is what the file has of them, if that
    /// is something else.
    fn show(&self, source: &Source, lines: &[u8], written: Option<&[u8]>, now: Now) {
        if self.followers.receiver_count() == 0 {
            return;
        }
        let end = source.paths.first().and_then(|path| self.sinks.get(path)?.position());
        let mut shown = 0;
        // Where each line is in the file must be known of all lines of a piece.
        for bytes in lines.chunks(if written.is_some() { lines.len() } else { FOLLOWED }) {
            shown += bytes.len();
            let after = (lines.len() - shown) as u64;
            let place = end.and_then(|end| {
                let end = LogPosition { end: end.end.checked_sub(after)?, ..end };
                let lengths = |text: &[u8]| {
                    text.split_inclusive(|byte| *byte == b'\n').map(|line| line.len() as u64).collect()
                };
                Some(InFile { end, lines: written.map(lengths) })
            });
            let Source { app, slot, worker, stream, .. } = source;
            let piece = Piece {
                app: Arc::clone(app),
                slot: *slot,
                worker: *worker,
                stream: *stream,
                bytes: bytes.into(),
                at: now.instant,
                place,
            };
            // The last follower may just have left.
            let _ = self.followers.send(piece);
        }
    }

    /// Empties files, open or not.
    fn flush(&mut self, files: &[(PathBuf, Access)]) -> Result<(), FlushError> {
        let mut result = Ok(());
        for (path, access) in files {
            let flushed = match self.sinks.get_mut(path.as_path()) {
                Some(sink) => sink.flush(),
                None => sink::flush(path, access),
            };
            // One that cannot be emptied keeps no other from it.
            result = result.and(flushed.map_err(|cause| FlushError { path: path.clone(), cause }));
        }
        result
    }
}

/// Reads a piece.
fn fill(room: &mut [u8], pipe: impl AsFd) -> Found {
    match rustix::io::read(pipe, room) {
        Ok(0) => Found::End,
        Ok(length) => Found::Bytes(length),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Found::Nothing,
        Err(_) => Found::End,
    }
}

/// Where a worker's tail of a stream is.
const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Out => 0,
        Stream::Error => 1,
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
