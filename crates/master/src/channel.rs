//! The channel between the workers of an app, on a thread of its own.
//!
//! ```text
//! worker ─ stream socket ─▶ inbound: whole lines ─▶ hub: for whom ─▶ outbound of each ─▶ workers
//! ```
//!
//! A worker that floods is slowed by its own socket: each gets a window read in
//! turn. One that does not read has a queue of bounded bytes; what goes beyond
//! is dropped and counted. So nobody can hold up this thread, and this thread
//! never holds up the master.

mod figures;
mod hub;
mod inbound;
mod outbound;
mod ports;
#[cfg(test)]
mod random_lives;
mod relay;
mod requests;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use supervisor_config::ChannelOptions;
use supervisor_core::WorkerId;
use supervisor_sys::poll::{Poller, Waker};
use supervisor_sys::{fdpass, own, socket};
use tokio::sync::{broadcast, mpsc as news, oneshot};

pub(crate) use figures::Figures;
use hub::Member;
use ports::Ports;
use relay::Relay;

use crate::link::Notes;

/// Messages that wait for a slow listener before it misses some. None of them
/// is longer than [`outbound::PIECE`].
const RING: usize = 1024;
/// A message is passed on within such a slice, so the thread asks for a short
/// one and has it early: on busy CPUs that takes 5 to 25 % off a message's p99.
const SLICE: Duration = Duration::from_micros(100);

/// A message of a worker, for those who look at the channel.
#[derive(Debug, Clone)]
pub(crate) struct Overheard {
    pub(crate) app: Arc<str>,
    pub(crate) slot: u32,
    /// Without its end.
    pub(crate) text: Arc<[u8]>,
    /// How long it is: longer than the text, which is empty then, when it is
    /// too long to be shown.
    pub(crate) bytes: usize,
}

/// A worker's channel.
#[derive(Debug)]
pub(crate) struct Channel {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    ready: news::UnboundedReceiver<WorkerId>,
    listeners: broadcast::Sender<Overheard>,
}

/// Both ends of a worker's channel.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) ours: OwnedFd,
    pub(crate) theirs: OwnedFd,
}

/// A worker whose channel is to be served.
#[derive(Debug)]
pub(crate) struct NewMember {
    pub(crate) worker: WorkerId,
    pub(crate) app: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    pub(crate) socket: OwnedFd,
    pub(crate) left: Left,
}

/// What an earlier master left of a worker's channel: nothing, for a new one.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// There was an earlier master: nothing is read before [`Channel::begin`], as
    /// its siblings may not be there yet.
    pub(crate) is_adopted: bool,
    /// It was in the middle of a line of the worker's: the keeper has its
    /// `channel:ID`.
    pub(crate) within_a_line: bool,
    /// The long line to the worker that was leaving: the keeper has it as its
    /// `line:ID`.
    pub(crate) line: Option<OwnedFd>,
    /// What it had subscribed to, once it knew the envelope: the keeper has it
    /// as its `topics:ID`.
    pub(crate) topics: Option<Vec<String>>,
}

#[derive(Debug)]
enum Command {
    Join(Joining),
    Begin,
    Ready(WorkerId),
    Drain(WorkerId),
    End(WorkerId),
    Forget(String),
    Leave(oneshot::Sender<()>),
    Tell(WorkerId, &'static [u8]),
    Send { app: String, slot: Option<u32>, line: Vec<u8>, reply: oneshot::Sender<u32> },
}

#[derive(Debug)]
struct Joining {
    worker: WorkerId,
    member: Member,
    socket: OwnedFd,
    left: Left,
    figures: Arc<Figures>,
    max_message: usize,
    buffer: usize,
}

impl Ends {
    /// A new pair.
    pub(crate) fn new() -> io::Result<Self> {
        let (ours, theirs) = fdpass::stream_pair()?;
        socket::set_nonblocking(&ours, true)?;
        Ok(Self { ours, theirs })
    }

    /// What `SUPERVISOR_IPC` says of the worker's end, when it has this number
    /// there: `FD:DEV:INODE`.
    pub(crate) fn name(&self, number: usize) -> io::Result<String> {
        let stat = rustix::fs::fstat(&self.theirs)?;
        Ok(format!("{number}:{}:{}", stat.st_dev, stat.st_ino))
    }
}

impl Channel {
    /// Starts the thread. It tells the keeper by `keeper` what a next master
    /// must know.
    pub(crate) fn start(keeper: Notes) -> io::Result<Self> {
        if !outbound::sends_whole(fdpass::stream_pair()?)? {
            tracing::warn!("this kernel may cut messages between workers when the master is killed");
        }
        let waker = Arc::new(Waker::new()?);
        let (commands, inbox) = mpsc::channel();
        let (ready_sender, ready) = news::unbounded_channel();
        let (listeners, _) = broadcast::channel(RING);
        let ports = Ports { poller: Poller::new()?, keeper, all: HashMap::new() };
        let relay = Relay::new(Arc::clone(&waker), inbox, ready_sender, listeners.clone(), ports)?;
        thread::Builder::new().name("channel".to_owned()).spawn(|| {
            // Where that is not allowed, it works as well.
            let _ = own::set_slice(SLICE);
            relay.run();
        })?;
        Ok(Self { commands, waker, ready, listeners })
    }

    /// Serves a worker's channel from now on: of a new worker, or of one that
    /// an earlier master started.
    pub(crate) fn join(&self, new: NewMember, options: &ChannelOptions) -> Arc<Figures> {
        let NewMember { worker, app, slot, generation, socket, left } = new;
        let figures = Arc::new(Figures::default());
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let member = Member {
            app,
            slot,
            generation,
            retain: usize::try_from(options.retain).unwrap_or(usize::MAX),
            retain_bytes: bytes(options.buffer),
            from: options.from.as_slice().into(),
        };
        self.send(Command::Join(Joining {
            worker,
            member,
            socket,
            left,
            figures: Arc::clone(&figures),
            max_message: bytes(options.max_message),
            buffer: bytes(options.buffer),
        }));
        figures
    }

    /// All workers of an earlier master are there: they are heard from now on.
    pub(crate) fn begin(&self) {
        self.send(Command::Begin);
    }

    /// A worker gets messages from now on.
    pub(crate) fn ready(&self, worker: WorkerId) {
        self.send(Command::Ready(worker));
    }

    /// A worker gets none any more; what it says still counts.
    pub(crate) fn drain(&self, worker: WorkerId) {
        self.send(Command::Drain(worker));
    }

    /// A worker's process is gone.
    pub(crate) fn end(&self, worker: WorkerId) {
        self.send(Command::End(worker));
    }

    /// An app is gone.
    pub(crate) fn forget(&self, app: &str) {
        self.send(Command::Forget(app.to_owned()));
    }

    /// Leaves the channels to the next master, with what waits in them.
    pub(crate) async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.send(Command::Leave(done));
        // The thread has ended before, or it has left.
        let _ = left.await;
    }

    /// Asks a worker to end, by a message.
    pub(crate) fn shut_down(&self, worker: WorkerId) {
        self.send(Command::Tell(worker, b"\"shutdown\"\n"));
    }

    /// Sends a line to the ready workers of an app, or of one of its slots. The
    /// answer is to how many.
    pub(crate) fn say(&self, app: String, slot: Option<u32>, line: Vec<u8>) -> oneshot::Receiver<u32> {
        let (reply, count) = oneshot::channel();
        self.send(Command::Send { app, slot, line, reply });
        count
    }

    /// What workers say from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Overheard> {
        self.listeners.subscribe()
    }

    /// The next worker that says that it is ready.
    pub(crate) async fn said_ready(&mut self) -> Option<WorkerId> {
        self.ready.recv().await
    }

    fn send(&self, command: Command) {
        // At the end nobody reads any more.
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}
