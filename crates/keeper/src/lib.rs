//! The keeper: the stable process of the daemon.
//!
//! It holds what must outlive a master, and decides nothing:
//!
//! - It is the first process of the daemon and keeps its pid. Terminals,
//!   service managers and containers see only this one.
//! - It starts the master, from the binary that it was started from itself
//!   (an open descriptor, so that a package update is no upgrade), and another
//!   one when that dies. A master that had served is replaced at once, however
//!   often; after three in a row that never served there are pauses.
//! - It keeps a table, key → (small record, descriptors), that the master
//!   writes over a `SOCK_SEQPACKET` pair. Stored means sent: a packet in the
//!   keeper's socket survives its sender. The next master gets the whole table
//!   first. The old master's packets are read to the end before that, and
//!   during the hand-over only the new one writes, so both see the same.
//! - It is the child subreaper: workers whose master died, and descendants that
//!   lost their parent, become its children. It reaps them, and tells the
//!   master how they ended.
//! - When no master reads the workers' output for a second, it drains the
//!   pipes: workers must not block.
//!
//! It is one thread in one loop, without an async runtime, and what others can
//! fill is bounded: the table, the statuses, the signals that wait.

mod drain;
mod error;
mod keeper;
mod master;
mod signals;
mod start;
mod table;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use error::Error;
pub use start::run;

/// What a keeper is started with.
#[derive(Debug)]
pub struct Options {
    /// The file whose lock makes the daemon the only one of its home.
    pub lock: PathBuf,
    /// The master's whole argument vector. Its end of the pair is descriptor
    /// [`MASTER_FD`].
    pub master: Vec<OsString>,
    /// Entries that the first master finds: key and descriptor.
    pub initial: Vec<(String, OwnedFd)>,
}

/// The number of the descriptor on which a master finds its keeper.
pub const MASTER_FD: i32 = 3;
