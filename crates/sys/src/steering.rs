//! Steering of new connections among the sockets of a `SO_REUSEPORT` group.
//!
//! The sockets that listen on one address with `SO_REUSEPORT` are a group. The kernel numbers them in
//! the order of their `listen(2)`; when one stops to listen, the last one takes its number. A program
//! attached to the group picks the number of the socket that gets a new connection
//! (`SO_ATTACH_REUSEPORT_CBPF` in `socket(7)`); a number that nobody has falls back to the kernel's
//! hash over all members. A program takes effect at once, for all members, and needs no privilege.

#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing;
mod probes;
mod program;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{sock_filter, sock_fprog};

#[cfg(any(test, feature = "fuzzing"))]
pub use fuzzing::fuzz;
pub use probes::{MAX_PROBES, Probe};

/// The longest program that the kernel takes, in instructions.
const MAX_PROGRAM: usize = libc::BPF_MAXINSNS as usize;

/// Who gets new connections, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// What decides.
    pub by: By,
    /// How many homes there are. Without any, chance alone decides.
    pub homes: u32,
    /// The members that get connections; all others of the group get none.
    pub shares: Vec<Share>,
}

/// What decides who gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Chance.
    Chance,
    /// The client's address. Its hash, modulo the homes, is the client's home; the members there get
    /// the client, for as long as there is one. Clients of a home without a member go to any
    /// member, and stay there while the shares stay the same.
    Source,
    /// The CPU that takes the connection in: its number, modulo the homes, is the home. Connections
    /// of a home without a member go to any.
    Cpu,
}

/// What a member gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its number in the group.
    pub number: u32,
    /// How much it gets, against others of which one is to be chosen.
    pub weight: u32,
    /// Where it is at home; looked at only where homes decide.
    pub home: u32,
}

/// Lets only these members of a group get new connections; those of `probes` go where these say. Without
/// a pick, all members get the connections of others than the probes.
///
/// `socket` is any member that listens; one that is bound only would keep others from listening.
///
/// # Errors
///
/// `InvalidInput` without a pick or a probe, for a pick without a share that weighs anything, for more than
/// [`MAX_PROBES`], and for a program of more than 4,096 instructions: about 2,000 members, or as many runs
/// of them that are not consecutive; `EINVAL` for a socket without `SO_REUSEPORT`; `EPERM` where a filter
/// forbids it.
pub fn steer(socket: impl AsFd, probes: &[Probe], pick: Option<&Pick>) -> io::Result<()> {
    let mut program = program(probes, pick).ok_or(io::ErrorKind::InvalidInput)?;
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `program` points to `len` instructions that live until the call is over; the kernel
    // copies them. The length given is that of the structure given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            SIZE_OF_PROGRAM,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(clippy::cast_possible_truncation, reason = "it is 16")]
const SIZE_OF_PROGRAM: libc::socklen_t = size_of::<sock_fprog>() as libc::socklen_t;

/// Lets the kernel's hash choose among all members again. It is no error if nothing was attached.
///
/// # Errors
///
/// `EPERM` where a filter forbids it.
pub fn unsteer(socket: impl AsFd) -> io::Result<()> {
    /// `SO_DETACH_REUSEPORT_BPF`, which libc does not name on every platform.
    const DETACH: libc::c_int = 68;
    let unused: libc::c_int = 0;
    // SAFETY: the value is a number that is not even looked at; its length is given.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, DETACH, (&raw const unused).cast(), 4)
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}

/// The whole program; `None` if it would be too long, or without meaning.
fn program(probes: &[Probe], pick: Option<&Pick>) -> Option<Vec<sock_filter>> {
    let policy = match pick {
        Some(pick) => program::of(pick)?,
        // A number that nobody has.
        None if !probes.is_empty() => vec![statement(libc::BPF_RET | libc::BPF_K, u32::MAX)],
        None => return None,
    };
    let program = [probes::prefix(probes), policy].concat();
    (probes.len() <= MAX_PROBES && program.len() <= MAX_PROGRAM).then_some(program)
}

/// The codes of instructions fit into 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "they are below 0x100")]
const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}
