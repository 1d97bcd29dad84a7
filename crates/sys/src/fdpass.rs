//! Messages with descriptors over Unix sockets: `unix(7)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::socket::PeerCredentials;

/// The most descriptors in one message: the kernel's own limit (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Room for the largest control message of descriptors.
const SPACE: usize = cmsg_space!(ScmRights(MAX_FDS));

/// A connected pair of sockets that keep the bounds of messages and tell when the other side has gone.
/// Blocking and close-on-exec.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A connected pair of stream sockets. Blocking and close-on-exec.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message on a seqpacket or datagram socket, whole or not at all, with duplicates of these descriptors. Without `SIGPIPE`.
///
/// An empty message looks like the end to [`receive`]: send at least one byte.
///
/// # Errors
///
/// `WouldBlock` on a full non-blocking socket, `BrokenPipe` or `ECONNRESET` once the peer has gone,
/// `EMSGSIZE` for more bytes than the socket's buffer takes, `InvalidInput` for more than [`MAX_FDS`]
/// descriptors, `ETOOMANYREFS` when too many of this user's are under way.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        // The space is for as many as there can be.
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let bytes = [IoSlice::new(bytes)];
    retry_on_intr(|| sendmsg(&socket, &bytes, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// A received message.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the buffer it filled; 0: the peer has gone.
    pub len: usize,
    /// Its descriptors, in the sender's order; close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Bytes did not fit into the buffer, or descriptors not into our table (`EMFILE`), and are lost:
    /// what is here is the beginning.
    pub truncated: bool,
}

/// Receives one message.
///
/// # Errors
///
/// `WouldBlock` without one on a non-blocking socket, `ECONNRESET` when the peer has gone without
/// having read everything.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    take(socket, buffer, RecvFlags::CMSG_CLOEXEC)
}

/// Receives a copy of the next message, with duplicates of its descriptors: it stays for whoever reads
/// the socket next. Does not wait.
///
/// # Errors
///
/// As [`receive`].
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    take(socket, buffer, RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK | RecvFlags::DONTWAIT)
}

fn take(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(buffer)];
    let message = retry_on_intr(|| recvmsg(&socket, &mut buffer, &mut control, flags))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Received {
        len: message.bytes,
        fds,
        truncated: message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
    })
}

/// A datagram and who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes of the buffer it filled; may be 0.
    pub len: usize,
    /// Its sender; `None` unless the socket has `SO_PASSCRED`.
    pub sender: Option<PeerCredentials>,
    /// It did not fit into the buffer; the rest is lost.
    pub truncated: bool,
}

/// Receives one datagram with the credentials of its sender, which the kernel vouches for: they are the
/// sender's own, unless it is privileged. Descriptors that somebody attached are closed by the kernel,
/// before they could take room in our table.
///
/// # Errors
///
/// `WouldBlock` without one on a non-blocking socket.
pub fn receive_from(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    take_from(socket, buffer, 0)
}

/// Receives a copy of the next datagram, as [`receive_from`] would: it stays for whoever reads the
/// socket next.
///
/// # Errors
///
/// As [`receive_from`].
pub fn peek_from(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    take_from(socket, buffer, libc::MSG_PEEK)
}

fn take_from(socket: impl AsFd, buffer: &mut [u8], flags: i32) -> io::Result<Datagram> {
    let mut control = Control::empty();
    let mut bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: integers and pointers, for which zero is a value; musl's has padding besides.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = Control::LEN.into();

    let socket = socket.as_fd().as_raw_fd();
    let len = loop {
        // SAFETY: the message describes living buffers of the stated lengths.
        let len = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC | flags) };
        if let Ok(len) = usize::try_from(len) {
            break len;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    Ok(Datagram { len, sender: control.sender(), truncated: message.msg_flags & libc::MSG_TRUNC != 0 })
}

/// Room for exactly one control message, of credentials. They come first: for descriptors, which come
/// behind, there is none, and the kernel closes them.
///
/// Not rustix's, because a sender in a foreign pid namespace has the pid 0, which its type cannot hold.
#[repr(C, align(8))]
struct Control {
    header: libc::cmsghdr,
    sender: libc::ucred,
}

impl Control {
    const LEN: u8 = 32;

    fn empty() -> Self {
        const { assert!(size_of::<Self>() == Self::LEN as usize) };
        // SAFETY: integers, for which zero is a value.
        unsafe { mem::zeroed() }
    }

    fn sender(&self) -> Option<PeerCredentials> {
        let kind = (self.header.cmsg_level, self.header.cmsg_type);
        // The kernel writes messages of this type whole.
        (kind == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)).then(|| self.sender.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{abstract_datagram, set_nonblocking};
    use rustix::io::fcntl_getfd;
    use rustix::net::{SendFlags, SocketAddrUnix, connect, sendto, socket_with};
    use std::fs::File;
    use std::io::Read;

    fn eventfds(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()).collect()
    }

    fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
        fds.iter().map(AsFd::as_fd).collect()
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (one, other) = seqpacket_pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send(&one, b"first", &[reader.as_fd()]).unwrap();
        send(&one, b"second", &[]).unwrap();
        drop(reader);

        let mut buffer = [0; 16];
        let first = receive(&other, &mut buffer).unwrap();
        assert_eq!((&buffer[..first.len], first.truncated), (&b"first"[..], false));
        let [fd] = <[OwnedFd; 1]>::try_from(first.fds).unwrap();
        assert!(fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        std::io::Write::write_all(&mut &writer, b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");

        let second = receive(&other, &mut buffer).unwrap();
        assert_eq!((second.len, second.fds.len()), (6, 0));
        drop(one);
        assert_eq!(receive(&other, &mut buffer).unwrap().len, 0);
        let error = send(&other, b"late", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_look_takes_nothing_away() {
        let (one, other) = seqpacket_pair().unwrap();
        assert_eq!(peek(&other, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&one, b"x", &borrow(&eventfds(1))).unwrap();
        for _ in 0..2 {
            let seen = peek(&other, &mut [0; 4]).unwrap();
            assert_eq!((seen.len, seen.fds.len(), seen.truncated), (1, 1, false));
        }
        assert_eq!(receive(&other, &mut [0; 4]).unwrap().fds.len(), 1);
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_takes() {
        let (one, other) = seqpacket_pair().unwrap();
        let fds = eventfds(MAX_FDS + 1);
        send(&one, b"x", &borrow(&fds[..MAX_FDS])).unwrap();
        let received = receive(&other, &mut [0; 4]).unwrap();
        assert_eq!((received.fds.len(), received.truncated), (MAX_FDS, false));
        let error = send(&one, b"x", &borrow(&fds)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_long_message_is_cut_and_says_so() {
        let (one, other) = seqpacket_pair().unwrap();
        let fds = eventfds(2);
        send(&one, b"too long", &borrow(&fds)).unwrap();
        send(&one, b"next", &[]).unwrap();
        let received = receive(&other, &mut [0; 3]).unwrap();
        assert_eq!((received.len, received.fds.len(), received.truncated), (3, 2, true));
        let received = receive(&other, &mut [0; 8]).unwrap();
        assert_eq!((received.len, received.truncated), (4, false));
    }

    #[test]
    fn a_full_or_empty_socket_would_block() {
        let (one, other) = seqpacket_pair().unwrap();
        set_nonblocking(&one, true).unwrap();
        set_nonblocking(&other, true).unwrap();
        let error = receive(&other, &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let error = loop {
            if let Err(error) = send(&one, &[1; 1024], &[]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn datagrams_name_their_sender() {
        let (socket, name) = abstract_datagram().unwrap();
        let error = receive_from(&socket, &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        let sender = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        sendto(&sender, b"READY=1", SendFlags::empty(), &address).unwrap();
        let mut buffer = [0; 16];
        let datagram = receive_from(&socket, &mut buffer).unwrap();
        assert_eq!(&buffer[..datagram.len], b"READY=1");
        assert!(!datagram.truncated);
        let own = PeerCredentials {
            pid: Some(rustix::process::getpid()),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        assert_eq!(datagram.sender, Some(own));

        // With descriptors that nobody asked for: the reading end of the pipe ends up closed.
        connect(&sender, &address).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send(&sender, b"FDSTORE=1 and more", &[reader.as_fd()]).unwrap();
        drop(reader);
        let datagram = receive_from(&socket, &mut buffer).unwrap();
        assert_eq!((datagram.len, datagram.truncated), (16, true));
        assert_eq!(datagram.sender, Some(own));
        let error = std::io::Write::write(&mut &writer, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn without_passcred_nobody_is_named() {
        let (one, other) = seqpacket_pair().unwrap();
        send(&one, b"x", &[]).unwrap();
        let datagram = receive_from(&other, &mut [0; 4]).unwrap();
        assert_eq!((datagram.len, datagram.sender), (1, None));
    }
}
