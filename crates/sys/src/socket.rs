//! Sockets: listeners of TCP and Unix, and the datagram socket for `sd_notify(3)`.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials as SoPeerCredentials};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, ipproto,
    socket_with, sockopt,
};
use rustix::process::Pid;

/// How a TCP socket is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Let other sockets of the same user bind the address too (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// For IPv6: whether to leave IPv4 out (`IPV6_V6ONLY`); the system's default when `None`.
    pub v6only: Option<bool>,
}

/// A TCP socket bound to this address, which does not listen yet. With `SO_REUSEADDR`, so that
/// connections of former times do not stand in the way. Blocking and close-on-exec.
///
/// # Errors
///
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` for a port under 1024, `EAFNOSUPPORT` without IPv6.
pub fn bind_tcp(address: SocketAddr, options: TcpOptions) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if options.reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if let (SocketAddr::V6(_), Some(v6only)) = (address, options.v6only) {
        sockopt::set_ipv6_v6only(&socket, v6only)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// Who may connect to a Unix socket: those who may write the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileAccess {
    /// Mode bits; what the umask leaves when `None`.
    pub mode: Option<u32>,
    /// User id of the owner; the caller's when `None`.
    pub uid: Option<u32>,
    /// Group id of the owner; the caller's (or the folder's) when `None`.
    pub gid: Option<u32>,
}

/// A Unix stream socket bound to this path, which does not listen yet, so nobody can connect before
/// the file has its owner and mode. Blocking and close-on-exec.
///
/// A socket that is there already is replaced if nobody listens on it. That check and the replacement
/// are two steps: whoever may bind a path must be one at a time (one daemon per home).
///
/// # Errors
///
/// See [`BindError`].
pub fn bind_unix(path: &Path, access: FileAccess) -> Result<OwnedFd, BindError> {
    remove_stale(path)?;
    let socket = unix_socket(SocketType::STREAM, SocketFlags::CLOEXEC).map_err(fail(path))?;
    let address = SocketAddrUnix::new(path).map_err(fail(path))?;
    bind(&socket, &address).map_err(fail(path))?;
    // The owner first: changing it may clear mode bits.
    if access.uid.is_some() || access.gid.is_some() {
        chown(path, access.uid, access.gid).map_err(fail(path))?;
    }
    if let Some(mode) = access.mode {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, mode).map_err(fail(path))?;
    }
    Ok(socket)
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(path)(error)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = unix_socket(SocketType::STREAM, flags).map_err(fail(path))?;
    let address = SocketAddrUnix::new(path).map_err(fail(path))?;
    match connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(fail(path)),
        // A full queue, and a socket of another type, belong to somebody as well.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(fail(path)(error)),
    }
}

fn fail<E: Into<io::Error>>(path: &Path) -> impl Fn(E) -> BindError {
    move |error| BindError::Io { path: path.to_owned(), source: error.into() }
}

/// Why a path was not bound.
#[derive(Debug)]
pub enum BindError {
    /// Somebody uses the socket at this path.
    InUse(PathBuf),
    /// There is something else at this path, which is left alone.
    NotASocket(PathBuf),
    /// The system refused, for example a missing folder, or a path of more than 107 bytes
    /// (`ENAMETOOLONG`).
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse(path) => {
                write!(f, "cannot bind {}: somebody listens there", path.display())
            }
            BindError::NotASocket(path) => {
                write!(f, "cannot bind {}: a file that is no socket", path.display())
            }
            BindError::Io { path, source } => {
                write!(f, "cannot bind {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {}

/// Lets a bound socket take connections, or changes the length of its queue. `listen(2)`
///
/// # Errors
///
/// `EADDRINUSE` if another socket listens on the address without sharing it.
pub fn listen(socket: impl AsFd, backlog: i32) -> io::Result<()> {
    Ok(rustix::net::listen(socket, backlog)?)
}

/// Whether a socket takes connections (`SO_ACCEPTCONN` in `socket(7)`).
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn is_listening(socket: impl AsFd) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(socket)?)
}

/// Lets a TCP socket take no more connections, whoever else holds it. Those that wait in its queue are
/// reset, new ones refused unless another socket listens on the address, and its `accept(2)` fails with
/// `EINVAL`. It stays bound, and may [`listen`] again.
///
/// # Errors
///
/// `ENOTCONN` if it did not listen.
pub fn stop_listening(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, Shutdown::Read)?)
}

/// Sets or clears `O_NONBLOCK`, for all duplicates of the descriptor.
///
/// # Errors
///
/// None that is known.
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(&fd)?;
    flags.set(OFlags::NONBLOCK, nonblocking);
    Ok(fcntl_setfl(&fd, flags)?)
}

/// Whether `O_NONBLOCK` is set.
///
/// # Errors
///
/// None that is known.
pub fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    Ok(fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// The address that a TCP or UDP socket is bound to, with the port that the kernel chose for port 0.
///
/// # Errors
///
/// `ENOTSOCK`, `EAFNOSUPPORT` for another family.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    Ok(getsockname(socket)?.try_into()?)
}

/// Where a stream socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address of TCP.
    Tcp {
        /// Where.
        address: SocketAddr,
        /// For IPv6: whether IPv4 is left out (`IPV6_V6ONLY`).
        v6only: bool,
    },
    /// A path.
    Unix(PathBuf),
}

/// Where a socket that somebody else made listens; `None` if it does not, or somewhere that has neither
/// an IP address nor a path.
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn listening_at(socket: impl AsFd) -> io::Result<Option<Endpoint>> {
    if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
        return Ok(None);
    }
    let name = getsockname(&socket)?;
    if let Ok(address) = SocketAddr::try_from(name.clone()) {
        let v6only = address.is_ipv6() && sockopt::ipv6_v6only(&socket)?;
        return Ok(Some(Endpoint::Tcp { address, v6only }));
    }
    let Ok(name) = SocketAddrUnix::try_from(name) else { return Ok(None) };
    Ok(name.path_bytes().map(|path| Endpoint::Unix(OsStr::from_bytes(path).into())))
}

/// Whether a Unix socket is bound to a path.
pub fn has_path(socket: impl AsFd) -> bool {
    let name = getsockname(socket).ok().and_then(|name| SocketAddrUnix::try_from(name).ok());
    name.is_some_and(|name| name.path_bytes().is_some())
}

/// A datagram socket on an abstract name that the kernel chooses, for `NOTIFY_SOCKET=@name`; and that
/// name. Nobody can take it first, as it is not known before. The socket passes on its senders'
/// credentials, see [`receive_from`](crate::fdpass::receive_from). Non-blocking and close-on-exec.
///
/// # Errors
///
/// `ENOSPC` when all of the kernel's million names are taken.
pub fn abstract_datagram() -> io::Result<(OwnedFd, String)> {
    let socket = datagram_at(&SocketAddrUnix::new_unnamed())?;
    // The kernel's names are five hexadecimal digits.
    let name = abstract_name(&socket).ok_or(io::ErrorKind::InvalidData)?;
    Ok((socket, name))
}

/// The same with a name that an earlier one had.
///
/// # Errors
///
/// `EADDRINUSE` while somebody has it, `EMFILE`.
pub fn abstract_datagram_named(name: &str) -> io::Result<OwnedFd> {
    datagram_at(&SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// The abstract name of a Unix socket, if it has one that is text. One without a name has an empty one.
#[must_use]
pub fn abstract_name(socket: impl AsFd) -> Option<String> {
    let address = SocketAddrUnix::try_from(getsockname(&socket).ok()?).ok()?;
    let name = str::from_utf8(address.abstract_name()?).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn datagram_at(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = unix_socket(SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // Before it has a name, so that no datagram comes without.
    sockopt::set_socket_passcred(&socket, true)?;
    bind(&socket, address)?;
    Ok(socket)
}

fn unix_socket(kind: SocketType, flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// The connections that wait to be accepted on a TCP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many there are.
    pub length: u32,
    /// How many there can be: the backlog of `listen(2)`, cut to the sysctl `net.core.somaxconn`. One
    /// more than this fits.
    pub backlog: u32,
}

/// The accept queue of a listening TCP socket. `TCP_INFO`
///
/// # Errors
///
/// `InvalidInput` for a socket that does not listen, `ENOTSOCK`, `ENOPROTOOPT`.
pub fn queue_length(listener: impl AsFd) -> io::Result<Queue> {
    /// `TCP_LISTEN` of the kernel.
    const LISTEN: u8 = 10;
    /// The beginning of `struct tcp_info`, which is all that is asked for.
    #[repr(C)]
    #[derive(Default)]
    struct TcpInfo {
        state: u8,
        other: [u8; 7],
        timeouts_and_sizes: [u32; 4],
        /// For a listener: the queue.
        unacked: u32,
        /// For a listener: the backlog.
        sacked: u32,
    }

    let mut info = TcpInfo::default();
    const LEN: libc::socklen_t = 32;
    const { assert!(size_of::<TcpInfo>() == LEN as usize) };
    let mut len = LEN;
    // SAFETY: the kernel writes at most `len` bytes, to a living structure of integers.
    let result = unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    if info.state != LISTEN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Queue { length: info.unacked, backlog: info.sacked })
}

/// A process at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    /// Its pid at the time; `None` if our pid namespace has none for it.
    pub pid: Option<Pid>,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

impl From<libc::ucred> for PeerCredentials {
    fn from(raw: libc::ucred) -> Self {
        Self { pid: Pid::from_raw(raw.pid), uid: raw.uid, gid: raw.gid }
    }
}

/// Who connected to us, or whom we connected to, on a Unix stream or seqpacket socket: as of
/// `connect(2)` or `listen(2)`, even if the socket has changed hands. `SO_PEERCRED`
///
/// # Errors
///
/// `ENOTSOCK`, `ENOPROTOOPT`.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let raw = getsockopt(&socket, SoPeerCredentials)?;
    Ok(libc::ucred::from(raw).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn a_queue_can_be_counted() {
        let listener = bind_tcp(any_port(), TcpOptions::default()).unwrap();
        assert!(queue_length(&listener).is_err());
        listen(&listener, 7).unwrap();
        let address = local_address(&listener).unwrap();
        assert_ne!(address.port(), 0);
        let empty = Queue { length: 0, backlog: 7 };
        assert_eq!(queue_length(&listener).unwrap(), empty);
        let _clients = [address, address].map(|address| TcpStream::connect(address).unwrap());
        assert_eq!(queue_length(&listener).unwrap().length, 2);
        listen(&listener, 9).unwrap();
        assert_eq!(queue_length(&listener).unwrap().backlog, 9);
    }

    #[test]
    fn ports_are_shared_on_request_only() {
        let shared = TcpOptions { reuse_port: true, ..TcpOptions::default() };
        let first = bind_tcp(any_port(), shared).unwrap();
        listen(&first, 1).unwrap();
        let address = local_address(&first).unwrap();
        assert!(bind_tcp(address, shared).is_ok());
        let error = bind_tcp(address, TcpOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn ipv6_leaves_ipv4_out_on_request() {
        let check = |v6only: bool| {
            let options = TcpOptions { v6only: Some(v6only), ..TcpOptions::default() };
            let any = SocketAddr::from(([0_u16; 8], 0));
            let listener = match bind_tcp(any, options) {
                // A machine without IPv6 has nothing to show.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return,
                listener => listener.unwrap(),
            };
            listen(&listener, 1).unwrap();
            let port = local_address(&listener).unwrap().port();
            let reached = TcpStream::connect(("127.0.0.1", port)).is_ok();
            assert_eq!(reached, !v6only);
        };
        check(true);
        check(false);
    }

    #[test]
    fn nonblocking_is_set_and_cleared() {
        let listener = bind_tcp(any_port(), TcpOptions::default()).unwrap();
        for nonblocking in [true, true, false] {
            set_nonblocking(&listener, nonblocking).unwrap();
            let flags = fcntl_getfl(&listener).unwrap();
            assert_eq!(flags.contains(OFlags::NONBLOCK), nonblocking);
        }
    }

    #[test]
    fn only_a_stale_unix_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let access = FileAccess { mode: Some(0o640), ..FileAccess::default() };
        drop(UnixListener::bind(&path).unwrap());
        let socket = bind_unix(&path, access).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(UnixStream::connect(&path).is_err(), "not before it listens");
        listen(&socket, 0).unwrap();

        let error = bind_unix(&path, access).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        // That attempt is still in the queue, which is full now.
        let error = bind_unix(&path, access).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        let error = bind_unix(&path, access).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        drop(socket);
        assert!(bind_unix(&path, access).is_ok());
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        let error = bind_unix(&path, FileAccess::default()).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        let datagram = folder.path().join("datagram");
        let _socket = std::os::unix::net::UnixDatagram::bind(&datagram).unwrap();
        let error = bind_unix(&datagram, FileAccess::default()).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");

        let long = folder.path().join("x".repeat(108));
        let error = bind_unix(&long, FileAccess::default()).unwrap_err();
        let expected = format!("cannot bind {}: ", long.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        let BindError::Io { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn a_peer_has_credentials() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&one).unwrap();
        assert_eq!(peer.pid, Some(rustix::process::getpid()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let error = peer_credentials(fs::File::open("/dev/null").unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn abstract_names_differ() {
        let (one, two) = (abstract_datagram().unwrap(), abstract_datagram().unwrap());
        assert!(!one.1.is_empty());
        assert_ne!(one.1, two.1);
        // A name can be taken again when nobody has it.
        assert!(abstract_datagram_named(&one.1).is_err());
        drop(one.0);
        let again = abstract_datagram_named(&one.1).unwrap();
        assert_eq!(abstract_name(again), Some(one.1));
        assert_eq!(abstract_name(fs::File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn a_listener_says_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = bind_unix(&path, FileAccess::default()).unwrap();
        assert_eq!(listening_at(&unix).unwrap(), None, "it does not listen yet");
        listen(&unix, 1).unwrap();
        assert_eq!(listening_at(&unix).unwrap(), Some(Endpoint::Unix(path)));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(listening_at(&tcp).unwrap(), Some(Endpoint::Tcp { address, v6only: false }));
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(listening_at(&client).unwrap(), None);
        assert!(listening_at(std::fs::File::open("/dev/null").unwrap()).is_err());
        let abstract_name = std::os::unix::net::SocketAddr::from_abstract_name(b"sys-listening-at").unwrap();
        let abstract_listener = std::os::unix::net::UnixListener::bind_addr(&abstract_name).unwrap();
        assert_eq!(listening_at(&abstract_listener).unwrap(), None);
    }
}
