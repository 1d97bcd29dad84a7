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
    /// `before` is what an earlier look showed of the connection, if it was there. Request and answer
    /// within one tick of the kernel look the same as an answer and the next request: that counts as in
    /// flight unless bytes have been sent since that look.
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
            (0, 0) => self.last_received_ms.min(self.last_sent_ms) < YOUNG,
            (_, 0) => true,
            (_, sent) if self.last_received_ms == self.last_sent_ms => {
                let sent_since =
                    before.is_some_and(|before| before.cookie == self.cookie && before.bytes_sent < sent);
                !sent_since
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
