//! Workers that get no new connections: when may they be asked to end?
//!
//! When nobody waits in their queues, no handshake is left that began before
//! they were taken out of the rotation, and nothing is in flight on their
//! connections, as far as that can be seen from outside of any program
//! (`supervisor_sys::diag`). A client that goes on asking on a connection that it
//! keeps would hold this up for ever: once each connection in flight has been
//! answered since the drain began, it is waited for a moment when all are idle,
//! but not for long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use supervisor_core::{Event, WorkerId};
use supervisor_sys::diag::{Connection, HalfOpen};

use crate::master::Master;

/// How often is looked, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// A look may take this share of the time: one in so many.
const SHARE: u32 = 10;
/// How long nothing must have been seen: a handshake that nobody has seen half
/// open may still end in a queue.
const QUIET: Duration = Duration::from_millis(200);
/// How long a connection counts as in flight on which bytes came and went within
/// one tick of the kernel: nobody can tell which came first.
const TIE: Duration = Duration::from_secs(5);
/// How long it is waited for an idle moment of connections that have been
/// answered since the drain began.
const IDLE_MOMENT: Duration = Duration::from_secs(1);

/// What there is to see of a worker.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// Connections in its queues.
    pub(crate) queue: u64,
    /// Those that it has accepted.
    pub(crate) connections: Vec<Connection>,
    /// Handshakes at its addresses, whoever of its siblings they are for.
    pub(crate) half_open: Vec<HalfOpen>,
    /// Not the order of bytes tells whether a connection is idle, but that none
    /// came or went for so long.
    pub(crate) quiet: Option<Duration>,
}

/// The workers that are being drained.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    drains: BTreeMap<WorkerId, Drain>,
    look_at: Option<Instant>,
}

/// What is known of one.
#[derive(Debug, Default)]
struct Drain {
    /// Since when nothing was seen.
    quiet_since: Option<Instant>,
    /// Handshakes from before; `None` until the first look.
    half_open: Option<BTreeSet<u64>>,
    /// Its connections, by their cookies.
    known: HashMap<u64, Known>,
    /// Since when only those are in flight that have been answered.
    answered_since: Option<Instant>,
}

/// A connection of a worker that is being drained.
#[derive(Debug)]
struct Known {
    /// What the first look showed.
    first: Connection,
    /// How many bytes had been received when more had been sent since.
    received_by_then: Option<u64>,
}

impl Known {
    fn new(connection: &Connection) -> Self {
        Self { first: connection.clone(), received_by_then: None }
    }

    /// Whether it is in flight now, and if so, whether with a request that came
    /// after an answer.
    fn look(&mut self, now: &Connection, quiet: Option<Duration>) -> Option<bool> {
        let in_flight = match quiet {
            Some(quiet) => now.is_busy_within(quiet),
            None => now.is_in_flight(Some(&self.first)) && !is_old_tie(now),
        };
        if self.received_by_then.is_none() && now.bytes_sent > self.first.bytes_sent {
            self.received_by_then = Some(now.bytes_received);
        }
        let answered = self.received_by_then.is_some_and(|received| now.bytes_received > received);
        // An idle one has had its answer, too.
        if !in_flight {
            self.received_by_then.get_or_insert(now.bytes_received);
        }
        in_flight.then_some(answered)
    }
}

/// Whether all that is known of a connection is that bytes came and went at the
/// same moment, long ago: whichever came first, a request that is still being
/// worked at is not likely.
fn is_old_tie(connection: &Connection) -> bool {
    connection.last_received_ms == connection.last_sent_ms
        && connection.receive_queue == 0
        && connection.send_queue == 0
        && connection.bytes_sent > 0
        && Duration::from_millis(connection.last_sent_ms.into()) >= TIE
}

impl Drain {
    /// Takes a look. Returns whether the worker is drained.
    fn look(&mut self, sight: &Sight, now: Instant) -> bool {
        let there: BTreeSet<u64> = sight.half_open.iter().map(|one| one.cookie).collect();
        let left = self.half_open.get_or_insert_with(|| there.clone());
        left.retain(|cookie| there.contains(cookie));
        let unfinished = !left.is_empty();

        let cookies: BTreeSet<u64> = sight.connections.iter().map(|one| one.cookie).collect();
        self.known.retain(|cookie, _| cookies.contains(cookie));
        let (mut unanswered, mut answered) = (false, false);
        for connection in &sight.connections {
            let known = self.known.entry(connection.cookie).or_insert_with(|| Known::new(connection));
            match known.look(connection, sight.quiet) {
                Some(false) => unanswered = true,
                Some(true) => answered = true,
                None => {}
            }
        }
        let must_wait = sight.queue > 0 || unfinished || unanswered;
        if must_wait || !answered {
            self.answered_since = None;
        } else if now.duration_since(*self.answered_since.get_or_insert(now)) >= IDLE_MOMENT {
            return true;
        }
        if must_wait || answered {
            self.quiet_since = None;
            return false;
        }
        now.duration_since(*self.quiet_since.get_or_insert(now)) >= QUIET
    }

    /// Whether handshakes from before the drain may be left.
    fn awaits_handshakes(&self) -> bool {
        self.half_open.as_ref().is_none_or(|left| !left.is_empty())
    }
}

impl Drains {
    /// Begins to look after a worker.
    pub(crate) fn add(&mut self, worker: WorkerId) {
        self.drains.insert(worker, Drain::default());
        self.look_at = Some(Instant::now());
    }

    /// When [`Self::look`] must be called.
    pub(crate) const fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks at all of them. `see` tells what there is to see of a worker, with
    /// half-open connections or without, and `None` for one that is gone.
    /// Returns those that are drained.
    pub(crate) fn look(&mut self, mut see: impl FnMut(WorkerId, bool) -> Option<Sight>) -> Vec<WorkerId> {
        let begin = Instant::now();
        let mut drained = Vec::new();
        self.drains.retain(|worker, drain| {
            let Some(sight) = see(*worker, drain.awaits_handshakes()) else { return false };
            let done = drain.look(&sight, begin);
            if done {
                drained.push(*worker);
            }
            !done
        });
        let pause = PAUSE.max(begin.elapsed() * SHARE);
        self.look_at = (!self.drains.is_empty()).then(|| Instant::now() + pause);
        drained
    }
}

impl Master {
    /// Looks whether workers that are being drained may be asked to end.
    pub(crate) fn look_after_drains(&mut self) {
        let Self { drains, workers, listeners, observer, .. } = self;
        let mut moment = observer.look();
        let drained = drains.look(|id, half_open| {
            let worker = workers.get(id)?;
            let ports = listeners.ports(worker.seat);
            let queue = listeners.queue(worker.seat).unwrap_or(0);
            Some(moment.of(worker.pid, &ports, half_open, queue, worker.settings.app.drain_quiet))
        });
        for worker in drained {
            self.handle(Event::WorkerDrained(worker));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use supervisor_sys::diag::State;

    use super::*;

    /// A drain, and looks at it every 50 ms.
    struct Bench {
        drain: Drain,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { drain: Drain::default(), now: Instant::now() }
        }

        fn look(&mut self, sight: &Sight) -> bool {
            self.now += Duration::from_millis(50);
            self.drain.look(sight, self.now)
        }

        /// How many looks at the same it takes until it is drained.
        fn looks(&mut self, sight: &Sight) -> Option<u32> {
            (1..=100).find(|_| self.look(sight))
        }
    }

    /// Bytes received and sent, and how long ago in milliseconds.
    fn connection(bytes: (u64, u64), last: (u32, u32)) -> Connection {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Connection {
            local: anywhere,
            peer: anywhere,
            inode: 1,
            cookie: 1,
            state: State::Established,
            receive_queue: 0,
            send_queue: 0,
            bytes_received: bytes.0,
            bytes_sent: bytes.1,
            last_received_ms: last.0,
            last_sent_ms: last.1,
            last_acknowledged_ms: last.1,
        }
    }

    fn with(connection: Connection) -> Sight {
        Sight { connections: vec![connection], ..Sight::default() }
    }

    const UNANSWERED: ((u64, u64), (u32, u32)) = ((10, 0), (5, 5));
    const IDLE: ((u64, u64), (u32, u32)) = ((10, 10), (50, 5));

    #[test]
    fn a_queue_must_stay_empty() {
        let mut bench = Bench::new();
        let waiting = Sight { queue: 1, ..Sight::default() };
        assert_eq!(bench.looks(&waiting), None);
        assert_eq!(bench.looks(&Sight::default()), Some(5));
        let mut bench = Bench::new();
        assert!(!bench.look(&Sight::default()));
        assert!(!bench.look(&waiting));
        assert_eq!(bench.looks(&Sight::default()), Some(5));
    }

    #[test]
    fn what_is_in_flight_is_waited_for() {
        let mut bench = Bench::new();
        assert_eq!(bench.looks(&with(connection(UNANSWERED.0, UNANSWERED.1))), None);
        assert_eq!(bench.looks(&with(connection(IDLE.0, IDLE.1))), Some(5));
    }

    #[test]
    fn an_old_tie_is_idle() {
        let tie = |ago| with(connection((10, 10), (ago, ago)));
        let mut bench = Bench::new();
        assert_eq!(bench.looks(&tie(4999)), None);
        assert_eq!(bench.looks(&tie(5000)), Some(5));
        assert_eq!(bench.looks(&with(connection((10, 0), (9000, 9000)))), None);
    }

    #[test]
    fn handshakes_from_before_are_waited_for() {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let half_open = |cookie| Sight {
            half_open: vec![HalfOpen { local: anywhere, peer: anywhere, cookie }],
            ..Sight::default()
        };
        let mut bench = Bench::new();
        assert_eq!(bench.looks(&half_open(1)), None);
        // Later ones are for others.
        assert_eq!(bench.looks(&half_open(2)), Some(5));
    }

    #[test]
    fn a_client_that_goes_on_asking_does_not_hold_it_up() {
        let mut bench = Bench::new();
        let mut ask = |round: u64| bench.look(&with(connection((10 * round + 10, 10 * round), (1, 9))));
        let rounds = (1..=100).find(|round| ask(*round));
        assert_eq!(rounds, Some(23));
        // An answer that goes on and on is not finished.
        let mut bench = Bench::new();
        let mut send =
            |round: u64| bench.look(&with(Connection { send_queue: 1, ..connection((10, round), (50, 0)) }));
        assert!(!(1..=100).any(&mut send));
        // Nor is a request.
        let mut bench = Bench::new();
        let mut receive = |round: u64| bench.look(&with(connection((round, 0), (0, 50))));
        assert!(!(1..=100).any(&mut receive));
    }

    #[test]
    fn a_pause_may_be_what_counts() {
        let quiet = Some(Duration::from_millis(250));
        let mut bench = Bench::new();
        assert_eq!(bench.looks(&Sight { quiet, ..with(connection(IDLE.0, IDLE.1)) }), None);
        assert_eq!(bench.looks(&Sight { quiet, ..with(connection((10, 10), (500, 500))) }), Some(5));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut drains = Drains::default();
        assert_eq!(drains.next_look(), None);
        drains.add(WorkerId(1));
        assert!(drains.next_look().is_some());
        assert_eq!(drains.look(|_, _| None), []);
        assert_eq!(drains.next_look(), None);
    }
}
