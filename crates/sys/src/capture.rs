//! Capture of the sockets that a program binds for itself: its `bind(2)` and `listen(2)` come to
//! whoever started it, who performs them on a duplicate of the program's own socket.
//!
//! A child that is spawned with [`Plan::capture`](crate::spawn::Plan::capture) installs a seccomp
//! filter before its program runs (`seccomp_unotify(2)`). The filter stays with all its descendants,
//! static binaries and plain users included. Each of the two calls then waits for an answer on the
//! *notify descriptor*, which the child sends with its introduction. While that descriptor is open
//! somewhere the calls wait; when the last one is closed they fail with `ENOSYS`. It reports a hangup
//! when no process of the tree is left.
//!
//! # How to handle a call
//!
//! [`receive`] it, look at its [`Call`], and either [`let_go`] (the kernel performs it as if nobody had
//! looked) or take the program's socket with [`Request::socket`], act on it, and [`answer`]. What is read
//! of the program (its memory, its descriptors) is that of the caller only while the call waits, so
//! [`is_waiting`] must be true *after* all has been read. It is no security boundary: a program can
//! bind by other means, such as `io_uring`.

mod filter;
mod place;
mod rights;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

pub(crate) use filter::install;
pub use place::{Standing, has_socket, is_calling, place, standing};

/// A call that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What answers refer to. Another call has another one.
    pub id: u64,
    /// The calling thread, whose number is not that of its process unless it is the first one.
    pub thread: Pid,
    /// The number of the socket in its process.
    pub fd: RawFd,
    /// What it asks for.
    pub call: Call,
}

/// What a program asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `bind(2)` to this address; `None` for one of another kind.
    Bind(Option<Address>),
    /// `listen(2)` with this backlog, as the program gave it.
    Listen(i32),
    /// Another call, which no filter of ours reports.
    Other,
}

/// Where a program wants to bind a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A path as the program gave it, which may be relative.
    Unix(PathBuf),
}

/// What is said about a socket by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// A stream of TCP, or of several paths of it (`MPTCP`).
    pub is_tcp: bool,
    /// A stream of Unix sockets.
    pub is_unix: bool,
    /// Several paths of TCP: no steering program can be attached through it.
    pub is_multipath: bool,
    /// An IPv6 socket does not take IPv4 connections; `false` for IPv4.
    pub v6only: bool,
    /// The program lets others share its address (`SO_REUSEPORT`).
    pub reuse_port: bool,
}

/// The longest address that is read of a program; `sockaddr_storage` has this size.
const MAX_ADDRESS: usize = 128;

/// Takes the next call, without waiting; `None` when there is none. Only one thread may read a notify
/// descriptor.
///
/// # Errors
///
/// `UnexpectedEof` when no process is left whose calls are reported here.
pub fn receive(notify: impl AsFd) -> io::Result<Option<Request>> {
    let mut look = [PollFd::new(&notify, PollFlags::IN)];
    poll(&mut look, Some(&Timespec::default()))?;
    let seen = look[0].revents();
    if !seen.contains(PollFlags::IN) {
        return if seen.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
    let mut notification = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the kernel wants zeros, and fills the structure of the size that the request names.
    let result =
        unsafe { libc::ioctl(raw(&notify), libc::SECCOMP_IOCTL_NOTIF_RECV, notification.as_mut_ptr()) };
    if result == -1 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) };
    }
    // SAFETY: integers, of which all bits are values; the kernel has filled them.
    let notification = unsafe { notification.assume_init() };
    let [fd, second, third, ..] = notification.data.args;
    let Some(thread) = i32::try_from(notification.pid).ok().and_then(Pid::from_raw) else {
        // A process of another namespace, of which nothing can be read.
        let_go(notify, notification.id)?;
        return Ok(None);
    };
    let call = match i64::from(notification.data.nr) {
        libc::SYS_bind => {
            let length = usize::try_from(low(third)).unwrap_or(0).min(MAX_ADDRESS);
            let bytes = rights::look(thread, || read_memory(thread, second, length)).ok();
            Call::Bind(bytes.and_then(|bytes| address(&bytes)))
        }
        libc::SYS_listen => Call::Listen(low(second)),
        _ => Call::Other,
    };
    Ok(Some(Request { id: notification.id, thread, fd: low(fd), call }))
}

/// Whether a call still waits: what was read of its process was its own.
pub fn is_waiting(notify: impl AsFd, id: u64) -> bool {
    // SAFETY: the kernel reads one number.
    unsafe { libc::ioctl(raw(&notify), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Ends a call: it returns 0 to the program, or −1 and this errno. It is no error if nobody waits for
/// it any more.
///
/// # Errors
///
/// `EBADF`.
pub fn answer(notify: impl AsFd, id: u64, result: Result<(), i32>) -> io::Result<()> {
    respond(notify, libc::seccomp_notif_resp { id, val: 0, error: -result.err().unwrap_or(0), flags: 0 })
}

/// Lets the kernel perform a call.
///
/// # Errors
///
/// As [`answer`].
pub fn let_go(notify: impl AsFd, id: u64) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 1")]
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    respond(notify, libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
}

fn respond(notify: impl AsFd, mut response: libc::seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: a whole structure of the size that the request names.
    let result = unsafe { libc::ioctl(raw(&notify), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Its thread is gone, or has its answer and has not gone on yet.
        error if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINPROGRESS)) => Ok(()),
        error => Err(error),
    }
}

impl Request {
    /// A duplicate of the socket that the call is about, close-on-exec. The open file is the program's
    /// own: its flags (`O_NONBLOCK`) are, too.
    ///
    /// # Errors
    ///
    /// `EPERM` where the program may not be traced (another user's, without `CAP_SYS_PTRACE` or
    /// `CAP_SETUID`; a binary that cannot be read), `EBADF` for a number that it does not have, `ESRCH`.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        // No number of a descriptor, which rustix would not take.
        if self.fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let thread = open_thread(self.thread)?;
        rights::look(self.thread, || copy_descriptor(&thread, self.fd))
    }

    /// A path of the program as everybody here sees it: absolute, its folder without links.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a program that sees other files than this process (`chroot(2)`,
    /// `mount_namespaces(7)`), `NotFound` without the folder, `EACCES` where it may not be traced.
    pub fn path(&self, path: &Path) -> io::Result<PathBuf> {
        let of = |who: &str, what: &str| {
            rights::look(self.thread, || fs::read_link(format!("/proc/{who}/{what}")))
        };
        let thread = self.thread.as_raw_pid().to_string();
        if of(&thread, "root")? != of("self", "root")? || of(&thread, "ns/mnt")? != of("self", "ns/mnt")? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let path = of(&thread, "cwd")?.join(path);
        let (folder, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(fs::canonicalize(folder)?.join(name))
    }
}

/// A duplicate of a descriptor that another process has, close-on-exec (`pidfd_getfd(2)`).
///
/// # Errors
///
/// `EPERM` where the process may not be traced, `EBADF` for a number that it does not have, `ESRCH`.
pub fn copy_descriptor(pidfd: impl AsFd, fd: RawFd) -> io::Result<OwnedFd> {
    Ok(pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty())?)
}

/// A descriptor of a thread's process that shares the *thread's* table of descriptors. Kernels before
/// 6.9 know those of processes only.
fn open_thread(thread: Pid) -> io::Result<OwnedFd> {
    /// `PIDFD_THREAD`
    const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
    match pidfd_open(thread, THREAD) {
        Err(rustix::io::Errno::INVAL) => Ok(pidfd_open(process_of(thread)?, PidfdFlags::empty())?),
        result => Ok(result?),
    }
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> io::Result<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", thread.as_raw_pid()))?;
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let pid = group.and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a socket is.
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn traits(socket: impl AsFd) -> io::Result<Traits> {
    let socket = socket.as_fd();
    let domain = sockopt::socket_domain(socket)?;
    let inet = domain == AddressFamily::INET || domain == AddressFamily::INET6;
    let protocol = sockopt::socket_protocol(socket)?;
    let is_multipath = protocol == Some(ipproto::MPTCP);
    let is_stream = sockopt::socket_type(socket)? == SocketType::STREAM;
    Ok(Traits {
        is_unix: domain == AddressFamily::UNIX && is_stream,
        is_tcp: inet && is_stream && (is_multipath || protocol == Some(ipproto::TCP)),
        is_multipath,
        v6only: domain == AddressFamily::INET6 && sockopt::ipv6_v6only(socket)?,
        reuse_port: inet && sockopt::socket_reuseport(socket)?,
    })
}

/// A number that no other socket has had since the boot, the same for all duplicates (`SO_COOKIE`).
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// Binds a program's socket as a member of a group that only the calling user may join: with
/// `SO_REUSEPORT`, and owned by that user. With `SO_REUSEADDR` it is not in the way of the next one
/// while connections that it has accepted are still there, which belong to the program's user.
///
/// # Errors
///
/// What `bind(2)` says; `EPERM` when the owner cannot be changed.
pub fn bind(socket: impl AsFd, address: SocketAddr) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_socket_reuseport(socket, true)?;
    sockopt::set_socket_reuseaddr(socket, true)?;
    rustix::fs::fchown(socket, Some(rustix::process::geteuid()), None)?;
    Ok(rustix::net::bind(socket, &address)?)
}

/// Whether this kernel reports calls as we understand them.
///
/// # Errors
///
/// `ENOSYS`, `EINVAL` or `EOPNOTSUPP` when it does not; `EPERM` where a filter forbids to ask.
pub fn available() -> io::Result<()> {
    let action = libc::SECCOMP_RET_USER_NOTIF;
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the first reads one number, the second fills the structure.
    let failed = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == -1
            || libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) == -1
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    // A larger structure would be written beyond ours.
    let fits = usize::from(sizes.seccomp_notif) <= size_of::<libc::seccomp_notif>()
        && usize::from(sizes.seccomp_notif_resp) <= size_of::<libc::seccomp_notif_resp>();
    if fits { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// Reads a program's memory.
fn read_memory(thread: Pid, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let base = usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput)?;
    let remote = libc::iovec { iov_base: base as *mut libc::c_void, iov_len: length };
    // SAFETY: the kernel writes at most `length` bytes to our buffer; the other address is in the
    // other process, and checked there.
    let read =
        unsafe { libc::process_vm_readv(thread.as_raw_pid(), &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(read) {
        Ok(read) if read == length => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// An address from the bytes of a `sockaddr`.
fn address(bytes: &[u8]) -> Option<Address> {
    let part = |from: usize, to: usize| bytes.get(from..to);
    let family = u16::from_ne_bytes(part(0, 2)?.try_into().ok()?);
    let port = || Some(u16::from_be_bytes(part(2, 4)?.try_into().ok()?));
    match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = part(4, 8)?.try_into().ok()?;
            Some(Address::Inet(SocketAddrV4::new(Ipv4Addr::from(ip), port()?).into()))
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(part(4, 8)?.try_into().ok()?);
            let ip: [u8; 16] = part(8, 24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(part(24, 28)?.try_into().ok()?);
            Some(Address::Inet(SocketAddrV6::new(Ipv6Addr::from(ip), port()?, flow, scope).into()))
        }
        // Without a path the kernel chooses a name; with a zero first it is an abstract one.
        libc::AF_UNIX => {
            let path = bytes.get(2..)?.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())?;
            Some(Address::Unix(OsStr::from_bytes(path).into()))
        }
        _ => None,
    }
}

/// An argument that is an `int`.
#[expect(clippy::cast_possible_truncation, reason = "the upper half of the register means nothing")]
const fn low(argument: u64) -> i32 {
    argument as u32 as i32
}

fn raw(fd: &impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

const _: () = assert!(mem::size_of::<libc::seccomp_notif>() == 80);

#[cfg(test)]
mod tests;
