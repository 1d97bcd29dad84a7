//! Waiting for many descriptors at once: `epoll(7)`, level-triggered unless asked otherwise.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, read, retry_on_intr, write};

/// The most events that one [`Poller::wait`] gives. The kernel goes round, so none is starved.
pub const MAX_EVENTS: usize = 64;

/// What to be told of a descriptor. Errors and a hang-up are always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Nothing more.
    HangupOnly,
    /// It can be read, or its peer has finished writing.
    Read,
    /// It can be written.
    Write,
    /// Either.
    ReadWrite,
    /// Each arrival of something to read, once (`EPOLLET`): what is left unread is not told again.
    /// [`Poller::modify`] tells of it anew.
    ReadEdge,
    /// The same, and each time that it can be written again.
    ReadWriteEdge,
}

impl From<Interest> for EventFlags {
    fn from(interest: Interest) -> Self {
        let read = EventFlags::IN | EventFlags::RDHUP;
        match interest {
            Interest::HangupOnly => EventFlags::empty(),
            Interest::Read => read,
            Interest::Write => EventFlags::OUT,
            Interest::ReadWrite => read | EventFlags::OUT,
            Interest::ReadEdge => read | EventFlags::ET,
            Interest::ReadWriteEdge => read | EventFlags::OUT | EventFlags::ET,
        }
    }
}

/// A descriptor that wants attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// As given to [`Poller::add`].
    pub token: u64,
    /// A read will not block: there is data, or the end.
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
    /// The other side has gone: nothing more will come behind what can still be read.
    pub hangup: bool,
    /// An error is waiting for the next call on the descriptor; also told to a pipe's writer without a
    /// reader.
    pub error: bool,
}

impl From<epoll::Event> for Event {
    fn from(event: epoll::Event) -> Self {
        let epoll::Event { flags, data } = event;
        let hangup = EventFlags::HUP | EventFlags::RDHUP;
        Self {
            token: data.u64(),
            readable: flags.intersects(EventFlags::IN | hangup),
            writable: flags.contains(EventFlags::OUT),
            hangup: flags.intersects(hangup),
            error: flags.contains(EventFlags::ERR),
        }
    }
}

/// A set of descriptors to wait for.
///
/// It is a descriptor itself, readable while one of its own wants attention, and can be in another loop.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Adds a descriptor. The set does not own it: [`remove`](Self::remove) it before it is closed. A
    /// closed one with duplicates elsewhere (in a child, in a message) would be told of for ever.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is in the set, `EPERM` for a kind that is always ready (a regular file).
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, fd, data, interest.into())?)
    }

    /// Changes token and interest of a descriptor in the set.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not in the set.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, fd, data, interest.into())?)
    }

    /// Takes a descriptor out of the set.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not in the set.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until a descriptor wants attention, for at most `timeout` (`None`: for ever), and replaces
    /// `events` by what there is: nothing after the timeout, or when a signal handler has run.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        // More than the kernel's clock can count is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut room = [MaybeUninit::<epoll::Event>::uninit(); MAX_EVENTS];
        let ready = match epoll::wait(&self.epoll, &mut room[..], timeout.as_ref()) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        events.extend(ready.iter().copied().map(Event::from));
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Wakes a [`Poller`] from another thread: an eventfd to be added with [`Interest::Read`].
#[derive(Debug)]
pub struct Waker {
    eventfd: OwnedFd,
}

impl Waker {
    /// A waker at rest.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Makes the descriptor readable until [`reset`](Self::reset). Several calls count as one.
    pub fn wake(&self) {
        // Fails only when it has been woken 2⁶⁴ times without a reset: it is readable then.
        let _ = retry_on_intr(|| write(&self.eventfd, &1_u64.to_ne_bytes()));
    }

    /// Puts it to rest. For the waiting side, before it looks for what it was woken for.
    pub fn reset(&self) {
        // Fails only when it was at rest.
        let _ = retry_on_intr(|| read(&self.eventfd, &mut [0_u8; 8]));
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    fn wait(poller: &Poller, timeout: Option<Duration>) -> Vec<Event> {
        let mut events = Vec::new();
        poller.wait(&mut events, timeout).unwrap();
        events
    }

    fn event(token: u64) -> Event {
        Event { token, readable: false, writable: false, hangup: false, error: false }
    }

    #[test]
    fn a_pipe_tells_what_it_is_ready_for() {
        let poller = Poller::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        poller.add(&reader, 1, Interest::Read).unwrap();
        assert_eq!(wait(&poller, Some(Duration::ZERO)), []);

        writer.write_all(b"x").unwrap();
        let readable = Event { readable: true, ..event(1) };
        for _ in 0..2 {
            assert_eq!(wait(&poller, LONG), [readable]);
        }
        poller.modify(&reader, u64::MAX, Interest::HangupOnly).unwrap();
        assert_eq!(wait(&poller, Some(Duration::ZERO)), []);
        drop(writer);
        let ended = Event { readable: true, hangup: true, ..event(u64::MAX) };
        assert_eq!(wait(&poller, LONG), [ended]);
        poller.remove(&reader).unwrap();
        assert_eq!(wait(&poller, Some(Duration::ZERO)), []);
        assert!(poller.remove(&reader).is_err());
    }

    #[test]
    fn a_writer_learns_that_nobody_reads() {
        let poller = Poller::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        poller.add(&writer, 2, Interest::Write).unwrap();
        let writable = Event { writable: true, ..event(2) };
        assert_eq!(wait(&poller, LONG), [writable]);
        drop(reader);
        let broken = Event { error: true, ..writable };
        assert_eq!(wait(&poller, LONG), [broken]);
    }

    #[test]
    fn a_waker_wakes_a_loop_within_a_loop() {
        let (inner, outer) = (Poller::new().unwrap(), Poller::new().unwrap());
        let waker = Waker::new().unwrap();
        inner.add(&waker, 3, Interest::Read).unwrap();
        outer.add(&inner, 4, Interest::Read).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            assert_eq!(wait(&outer, LONG).len(), 1);
        });
        waker.wake();
        assert_eq!(wait(&inner, LONG).len(), 1);
        waker.reset();
        waker.reset();
        assert_eq!(wait(&outer, Some(Duration::ZERO)), []);
    }

    #[test]
    fn more_than_one_wait_can_tell() {
        let poller = Poller::new().unwrap();
        let wakers: Vec<Waker> = (0..100).map(|_| Waker::new().unwrap()).collect();
        for (token, waker) in (0..).zip(&wakers) {
            poller.add(waker, token, Interest::Read).unwrap();
            waker.wake();
        }
        let mut seen: Vec<u64> = Vec::new();
        while seen.len() < wakers.len() {
            for event in wait(&poller, LONG) {
                seen.push(event.token);
                wakers[usize::try_from(event.token).unwrap()].reset();
            }
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100));
    }
}
