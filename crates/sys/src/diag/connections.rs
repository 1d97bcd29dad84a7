//! Connections, and what happened on them last.

use std::net::SocketAddr;

use super::message::{Fields, Message};
use super::netlink::{Diag, DiagError, Question};

/// `INET_DIAG_INFO`, an attribute and an extension: `struct tcp_info`.
const INFO: u16 = 2;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Both sides may send.
    Established,
    /// We have ended our side, which the peer does not know yet.
    FinWait1,
    /// We have ended our side, which the peer knows.
    FinWait2,
    /// The peer has ended its side.
    CloseWait,
    /// The peer has ended its side, then we ours, which the peer does not know yet.
    LastAck,
    /// Both have ended their sides at the same time.
    Closing,
}

impl State {
    /// All of them, with the kernel's numbers.
    const ALL: [(Self, u8); 6] = [
        (Self::Established, 1),
        (Self::FinWait1, 4),
        (Self::FinWait2, 5),
        (Self::CloseWait, 8),
        (Self::LastAck, 9),
        (Self::Closing, 11),
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, own)| *own == number).map(|(state, _)| state)
    }

    /// Whether the peer has said that it sends no more, and we have got that.
    pub(super) const fn peer_has_ended(self) -> bool {
        match self {
            Self::CloseWait | Self::LastAck | Self::Closing => true,
            Self::Established | Self::FinWait1 | Self::FinWait2 => false,
        }
    }

    /// Whether we have said that we send no more.
    pub(super) const fn we_have_ended(self) -> bool {
        match self {
            Self::FinWait1 | Self::FinWait2 | Self::LastAck | Self::Closing => true,
            Self::Established | Self::CloseWait => false,
        }
    }
}

/// A TCP connection, seen from the side that was asked for.
///
/// The kernel counts an end of stream (FIN) as a byte; here it is none. Times have the resolution of the
/// kernel's tick, 1 to 10 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// The inode that `/proc/PID/fd` shows, see [`inodes_of`](super::inodes_of). 0 while it waits to be
    /// accepted, and when every process has closed it.
    pub inode: u64,
    /// What the kernel calls the socket, and no other one ever (`SO_COOKIE` in `socket(7)`).
    pub cookie: u64,
    /// How far it has come.
    pub state: State,
    /// Bytes that were received and not read.
    pub receive_queue: u32,
    /// Bytes that were written and not acknowledged by the peer.
    pub send_queue: u32,
    /// Bytes that were received.
    pub bytes_received: u64,
    /// Bytes that were sent; those that were sent again count again.
    pub bytes_sent: u64,
    /// Milliseconds since bytes were received; since the connection was made, if there were none.
    pub last_received_ms: u32,
    /// Milliseconds since bytes were sent; since the connection was made, if there were none.
    pub last_sent_ms: u32,
    /// Milliseconds since the peer acknowledged something, with bytes of its own or without.
    pub last_acknowledged_ms: u32,
}

impl Diag {
    /// The connections to this local port, also those that nobody has accepted yet, in no special order.
    /// Waits for a second at most.
    ///
    /// The kernel goes through all TCP sockets there are, whatever their port, and a table of them that
    /// grows with the machine's memory: 9 ms beside 20,000 others in a table of 262,144. So it is better
    /// to ask once for a port than once for each of its workers.
    ///
    /// # Errors
    ///
    /// See [`DiagError`].
    pub fn connections(&mut self, port: u16) -> Result<Vec<Connection>, DiagError> {
        let states = State::ALL.iter().fold(0, |bits, (_, number)| bits | 1 << number);
        self.ask(Question { states, port: Some(port), extensions: 1 << (INFO - 1) }, connection)
    }
}

/// `None` for what remains of a connection that the kernel has ended (`TIME_WAIT`, which goes by the name
/// of `FIN_WAIT2` at first): nothing more can happen on it, and it has no such information.
fn connection(message: &Message<'_>) -> Option<Connection> {
    let state = State::from_number(message.state)?;
    let info = message.attribute(INFO)?;
    let end_received = u8::from(state.peer_has_ended());
    // Once the peer knows of our end, it is in no queue.
    let end_queued = u8::from(state.we_have_ended() && state != State::FinWait2);
    Some(Connection {
        local: message.local,
        peer: message.peer,
        inode: message.inode.into(),
        cookie: message.cookie,
        state,
        receive_queue: message.receive_queue.saturating_sub(end_received.into()),
        send_queue: message.send_queue.saturating_sub(end_queued.into()),
        bytes_received: info.u64_at(128)?.saturating_sub(end_received.into()),
        bytes_sent: info.u64_at(200)?,
        last_received_ms: info.u32_at(52)?,
        last_sent_ms: info.u32_at(44)?,
        last_acknowledged_ms: info.u32_at(56)?,
    })
}
