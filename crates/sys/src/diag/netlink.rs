//! A question to the kernel and its answer: messages as in `netlink(7)`.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::message::{Family, Fields, Message};

/// How long a question may take. The kernel answers at once; only a flaw of it, or a machine that has
/// nothing to spare, takes longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a question is asked when the kernel says that its answer is not whole.
const ATTEMPTS: u32 = 4;
/// The longest datagram of an answer: as much as the kernel ever puts into one.
const DATAGRAM: usize = 32 * 1024;
/// How much of an answer the kernel holds ready, bytes. It goes on when that is read.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// How many sockets an answer may have.
const MOST: usize = 1 << 18;

const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY`, which libc does not name.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `INET_DIAG_REQ_BYTECODE`, an attribute.
const BYTECODE: u16 = 1;
/// `INET_DIAG_BC_S_EQ`, an instruction.
const SOURCE_PORT_IS: u8 = 11;

/// A socket for questions about TCP sockets. Close-on-exec.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    /// The number of the last question; answers to older ones are passed over.
    sequence: u32,
    buffer: Vec<u8>,
}

/// Which sockets are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// A bit for each state of the kernel, `1 << state`.
    pub(super) states: u32,
    /// The local port; any when `None`. The kernel leaves out all others.
    pub(super) port: Option<u16>,
    /// Extensions, `1 << (INET_DIAG_… - 1)`.
    pub(super) extensions: u8,
}

impl Diag {
    /// Opens a socket, for the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `EMFILE`; `EPROTONOSUPPORT` or `EPERM` where a kernel or a filter has no such sockets.
    pub fn new() -> Result<Self, DiagError> {
        Ok(Self { socket: open()?, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Asks for sockets of IPv4 and IPv6, in the order of their cookies. `make` takes what it needs of each,
    /// and returns `None` for what does not belong into the answer. Waits for a second at most.
    pub(super) fn ask<T>(
        &mut self,
        question: Question,
        make: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, DiagError> {
        self.ask_until(Instant::now() + PATIENCE, question, make)
    }

    fn ask_until<T>(
        &mut self,
        deadline: Instant,
        question: Question,
        make: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, DiagError> {
        let mut attempts = 1;
        loop {
            let error = match self.attempt(deadline, question, &make) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if !matches!(error, DiagError::Incomplete) {
                // The rest of the answer may be on its way, and the kernel takes no other question before
                // all of it was read (`EBUSY`). A new socket has none of it.
                self.socket = open()?;
            }
            if attempts == ATTEMPTS || !error.may_pass() {
                return Err(error);
            }
            attempts += 1;
        }
    }

    fn attempt<T>(
        &mut self,
        deadline: Instant,
        question: Question,
        make: &impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, DiagError> {
        let mut found = Vec::new();
        let mut take = |message: &Message<'_>| {
            if let Some(made) = make(message) {
                if found.len() == MOST {
                    return Err(DiagError::TooMany);
                }
                found.push((message.cookie, made));
            }
            Ok(())
        };
        self.dump(deadline, Family::V4, question, &mut take)?;
        match self.dump(deadline, Family::V6, question, &mut take) {
            // A kernel without IPv6 has none of its sockets.
            Err(DiagError::Io(error)) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
        // A socket is met twice when its neighbours in the kernel's table change meanwhile.
        found.sort_unstable_by_key(|(cookie, _)| *cookie);
        found.dedup_by_key(|(cookie, _)| *cookie);
        Ok(found.into_iter().map(|(_, made)| made).collect())
    }

    fn dump(
        &mut self,
        deadline: Instant,
        family: Family,
        question: Question,
        take: &mut dyn FnMut(&Message<'_>) -> Result<(), DiagError>,
    ) -> Result<(), DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, &request(family, question, self.sequence), SendFlags::empty())?;
        let mut whole = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DiagError::Timeout);
            }
            // Less than a microsecond would mean to wait for ever.
            let left = left.max(Duration::from_micros(1));
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            let length = match recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(DiagError::Timeout),
                Err(error) => return Err(error.into()),
            };
            let mut datagram = self.buffer.get(..length).ok_or(DiagError::Malformed)?;
            while !datagram.is_empty() {
                let (header, body, rest) = split(datagram).ok_or(DiagError::Malformed)?;
                datagram = rest;
                if header.sequence != self.sequence {
                    continue;
                }
                whole &= !header.interrupted;
                match header.kind {
                    Kind::Socket => take(&Message::parse(body).ok_or(DiagError::Malformed)?)?,
                    Kind::Error => return Err(failure(body)),
                    // What went wrong while the kernel went through its table comes with the end.
                    Kind::Done => match body.i32_at(0) {
                        Some(code) if code < 0 => return Err(failure(body)),
                        _ if whole => return Ok(()),
                        _ => return Err(DiagError::Incomplete),
                    },
                    Kind::Other => {}
                }
            }
        }
    }
}

fn open() -> Result<OwnedFd, DiagError> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    // To the kernel: from then on nobody else can send anything to the socket.
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2`, and a program for the kernel that looks at the port.
fn request(family: Family, question: Question, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(84);
    bytes.extend([0; 4]); // The length, below.
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // Our number: the kernel knows.
    bytes.extend([family.number(), TCP, question.extensions, 0]);
    bytes.extend(question.states.to_ne_bytes());
    bytes.extend([0; 48]); // The id of one socket: any.
    if let Some(port) = question.port {
        // Two instructions of 4 bytes: code, how far to go on if so, how far if not. The second is the
        // number to compare with. Going to the end accepts, going beyond it refuses.
        bytes.extend(12_u16.to_ne_bytes());
        bytes.extend(BYTECODE.to_ne_bytes());
        bytes.extend([SOURCE_PORT_IS, 8]);
        bytes.extend(12_u16.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(port.to_ne_bytes());
    }
    let length = if question.port.is_some() { 84_u32 } else { 72 };
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "they are the lowest ten bits")]
const FLAGS: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
#[expect(clippy::cast_possible_truncation, reason = "it is 6")]
const TCP: u8 = libc::IPPROTO_TCP as u8;

struct Header {
    kind: Kind,
    sequence: u32,
    /// The table changed while the kernel went through it (`NLM_F_DUMP_INTR`).
    interrupted: bool,
}

enum Kind {
    Socket,
    Error,
    Done,
    Other,
}

/// The first message of a datagram: its header, what it carries, and the messages after it.
fn split(datagram: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(datagram.u32_at(0)?).ok()?;
    let body = datagram.get(HEADER..length)?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    let kind = match datagram.u16_at(4)? {
        SOCK_DIAG_BY_FAMILY => Kind::Socket,
        2 => Kind::Error,
        3 => Kind::Done,
        _ => Kind::Other,
    };
    let interrupted = datagram.u16_at(6)? & 0x10 != 0;
    Some((Header { kind, sequence: datagram.u32_at(8)?, interrupted }, body, rest))
}

fn failure(body: &[u8]) -> DiagError {
    match body.i32_at(0) {
        Some(code @ ..0) => DiagError::Io(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => DiagError::Malformed,
    }
}

/// Why a question about sockets has no answer.
#[derive(Debug)]
pub enum DiagError {
    /// The system refused. `ENOENT`: the kernel lacks its module `tcp_diag`.
    Io(io::Error),
    /// There was no answer within a second.
    Timeout,
    /// The sockets changed during each of several attempts.
    Incomplete,
    /// There are more than 262,144.
    TooMany,
    /// The kernel's answer has another form than that of Linux 5.14 and later.
    Malformed,
}

impl DiagError {
    /// Whether the next attempt may succeed: the table changed, or memory was short for a moment.
    fn may_pass(&self) -> bool {
        match self {
            Self::Incomplete => true,
            Self::Io(error) => error.raw_os_error() == Some(libc::ENOBUFS),
            Self::Timeout | Self::TooMany | Self::Malformed => false,
        }
    }
}

impl From<Errno> for DiagError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl fmt::Display for DiagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot list TCP sockets: ")?;
        match self {
            Self::Io(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                write!(f, "the kernel lacks tcp_diag, try `modprobe tcp_diag`")
            }
            Self::Io(error) => error.fmt(f),
            Self::Timeout => write!(f, "the kernel did not answer within a second"),
            Self::Incomplete => write!(f, "they changed during each of {ATTEMPTS} attempts"),
            Self::TooMany => write!(f, "there are more than {MOST}"),
            Self::Malformed => write!(f, "the kernel's answer has an unknown form"),
        }
    }
}

impl std::error::Error for DiagError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    /// `TCP_ESTABLISHED`, `TCP_CLOSE_WAIT` and `TCP_LISTEN`.
    const STATES: u32 = 1 << 1 | 1 << 8 | 1 << 10;

    #[test]
    fn the_kernel_leaves_out_other_ports() {
        let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ports = [&busy, &other].map(|listener| listener.local_addr().unwrap().port());
        // More than one datagram of answers. What its client has closed waits without a descriptor.
        rustix::net::listen(&busy, 1000).unwrap();
        for _ in 0..1000 {
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).unwrap());
        }
        let mut diag = Diag::new().unwrap();
        let mut count = |port| {
            let told = Cell::new(0);
            let question = Question { states: STATES, port: Some(port), extensions: 2 };
            let found = diag.ask(question, |message| {
                told.set(told.get() + 1);
                Some(message.local.port())
            });
            assert_eq!(found.unwrap(), vec![port; told.get()]);
            told.get()
        };
        assert_eq!(count(ports[1]), 1);
        assert_eq!(count(ports[0]), 1001);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let question = Question { states: STATES, port: None, extensions: 0 };
        let mut diag = Diag::new().unwrap();
        let past = diag.ask_until(Instant::now(), question, |_| Some(()));
        assert!(matches!(past, Err(DiagError::Timeout)), "{past:?}");
        // The rest of that answer is no answer to the next question.
        let port = 1;
        let found = diag.ask(Question { port: Some(port), ..question }, |message| Some(message.local.port()));
        assert!(found.unwrap().iter().all(|found| *found == port));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error = failure(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(
            error.to_string(),
            "cannot list TCP sockets: the kernel lacks tcp_diag, try `modprobe tcp_diag`"
        );
    }

    #[test]
    fn no_bytes_are_a_surprise() {
        let mut message = request(Family::V4, Question { states: 0, port: Some(80), extensions: 0 }, 7);
        let (header, body, rest) = split(&message).unwrap();
        assert!(matches!(header.kind, Kind::Socket));
        assert_eq!((header.sequence, body.len(), rest.len(), header.interrupted), (7, 68, 0, false));
        for length in 0..message.len() {
            assert!(split(&message[..length]).is_none(), "{length}");
        }
        for length in [0, 15, 85, u32::MAX] {
            message[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(split(&message).is_none(), "{length}");
        }
        assert!(matches!(failure(&[]), DiagError::Malformed));
        assert!(matches!(failure(&1_i32.to_ne_bytes()), DiagError::Malformed));
        assert!(matches!(failure(&i32::MIN.to_ne_bytes()), DiagError::Io(_)));
    }
}
