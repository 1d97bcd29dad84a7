//! Whether a connection waits for something, seen from outside of the program that serves it.

use std::time::Duration;

use super::connections::Connection;

/// How long a connection without any byte is taken for one whose request is on its way, milliseconds.
const YOUNG: u32 = 1000;

impl Connection {
    /// Whether ending the program would cut something off: a request that it has not read or answered,
    /// or an answer that the peer does not have. For protocols of requests and answers; where the program
    /// speaks in its own time, [`Self::is_busy_within`] is the question.
    ///
    /// A request and an answer within one tick of the kernel look the same whichever came first: it may be
    /// an answer and the next request. Such a tie counts as in flight, unless bytes have been sent since
    /// `before`, what an earlier look showed of the connection, or the peer has acknowledged something
    /// later: a request brings the acknowledgement of what was sent before it, so that was the answer's.
    #[must_use]
    pub fn is_in_flight(&self, before: Option<&Self>) -> bool {
        if self.receive_queue > 0 || self.send_queue > 0 {
            return true;
        }
        // The program has said that it answers no more.
        if self.state.we_have_ended() {
            return false;
        }
        match (self.bytes_received, self.bytes_sent) {
            (0, 0) => !self.state.peer_has_ended() && self.last_received_ms.min(self.last_sent_ms) < YOUNG,
            (_, 0) => true,
            _ if self.last_received_ms == self.last_sent_ms => {
                let sent_since =
                    |before: &Self| before.cookie == self.cookie && before.bytes_sent < self.bytes_sent;
                !before.is_some_and(sent_since) && self.last_acknowledged_ms >= self.last_received_ms
            }
            _ => self.last_received_ms < self.last_sent_ms,
        }
    }

    /// Whether bytes wait in a queue, or one came or went within this time: the rule for programs that
    /// pause while they answer. A connection is idle when it was quiet for so long.
    #[must_use]
    pub fn is_busy_within(&self, quiet: Duration) -> bool {
        let last = self.last_received_ms.min(self.last_sent_ms);
        self.receive_queue > 0 || self.send_queue > 0 || Duration::from_millis(last.into()) < quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::State;
    use std::net::{Ipv4Addr, SocketAddr};

    /// A connection: state, bytes received and sent, milliseconds since either.
    fn connection(state: State, bytes: (u64, u64), last: (u32, u32)) -> Connection {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Connection {
            local: anywhere,
            peer: anywhere,
            inode: 1,
            cookie: 1,
            state,
            receive_queue: 0,
            send_queue: 0,
            bytes_received: bytes.0,
            bytes_sent: bytes.1,
            last_received_ms: last.0,
            last_sent_ms: last.1,
            // With the bytes that came last.
            last_acknowledged_ms: last.0,
        }
    }

    #[test]
    fn without_an_earlier_look() {
        use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
        let table = [
            // Nothing yet: a request may be on its way, for a second.
            (Established, (0, 0), (999, 999), true),
            (Established, (0, 0), (1000, 1000), false),
            (CloseWait, (0, 0), (0, 0), false),
            // A request without any answer, however long.
            (Established, (1, 0), (0, 0), true),
            (Established, (1, 0), (u32::MAX, u32::MAX), true),
            (CloseWait, (1, 0), (5, 5), true),
            // The program spoke first.
            (Established, (0, 9), (100, 50), false),
            // What came last?
            (Established, (9, 9), (10, 20), true),
            (Established, (9, 9), (20, 10), false),
            (CloseWait, (9, 9), (10, 20), true),
            (CloseWait, (9, 9), (20, 10), false),
            // Both in one tick.
            (Established, (9, 9), (10, 10), true),
            // The program said that this was all.
            (FinWait1, (9, 0), (10, 20), false),
            (FinWait2, (9, 9), (10, 10), false),
            (LastAck, (0, 0), (0, 0), false),
            (Closing, (9, 9), (10, 20), false),
        ];
        for (state, bytes, last, expected) in table {
            let found = connection(state, bytes, last);
            assert_eq!(found.is_in_flight(None), expected, "{found:?}");
            // Bytes that wait are in flight in any case.
            assert!(Connection { receive_queue: 1, ..found.clone() }.is_in_flight(None), "{found:?}");
            assert!(Connection { send_queue: 1, ..found.clone() }.is_in_flight(None), "{found:?}");
        }
    }

    #[test]
    fn what_decides_a_tie() {
        let tie = connection(State::Established, (20, 20), (10, 10));
        let check = |before: Connection, expected| {
            assert_eq!(tie.is_in_flight(Some(&before)), expected, "{before:?}")
        };
        let before = connection(State::Established, (10, 10), (50, 50));
        check(before.clone(), false);
        check(Connection { bytes_sent: 20, ..before.clone() }, true);
        check(tie.clone(), true);
        check(Connection { cookie: 2, ..before.clone() }, true);
        // An acknowledgement that came after the request does as well.
        assert!(!Connection { last_acknowledged_ms: 9, ..tie.clone() }.is_in_flight(None));
        assert!(Connection { last_acknowledged_ms: 11, ..tie.clone() }.is_in_flight(None));
        // Neither changes anything where there is no tie.
        let unanswered = connection(State::Established, (20, 20), (5, 10));
        assert!(Connection { last_acknowledged_ms: 1, ..unanswered }.is_in_flight(Some(&before)));
    }

    #[test]
    fn quiet_for_so_long() {
        let quiet = Duration::from_millis(250);
        let check = |last, expected| {
            let found = connection(State::Established, (9, 9), last);
            assert_eq!(found.is_busy_within(quiet), expected, "{last:?}");
            assert!(Connection { receive_queue: 1, ..found.clone() }.is_busy_within(quiet));
            assert!(Connection { send_queue: 1, ..found }.is_busy_within(quiet));
        };
        check((249, 9000), true);
        check((9000, 249), true);
        check((250, 250), false);
    }
}
