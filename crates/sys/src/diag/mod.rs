//! The TCP sockets of this network namespace, whoever owns them: `sock_diag(7)` over netlink.
//!
//! What `ss` shows: who listens where ([`Diag::listeners`], [`overlaps`]), which handshakes are not over
//! ([`Diag::half_open`]), and what happens on the connections of a port ([`Diag::connections`],
//! [`Connection::is_in_flight`]). Sockets are known by their cookie, which the kernel never uses twice;
//! [`inodes_of`] tells whose they are. No privilege is needed, except for looking into processes of
//! other users.
//!
//! An answer is no snapshot of one instant: a socket that comes or goes meanwhile may be in it or not.

mod connections;
mod half_open;
mod in_flight;
mod inodes;
mod listeners;
mod message;
mod netlink;

pub use connections::{Connection, State};
pub use half_open::HalfOpen;
pub use inodes::inodes_of;
pub use listeners::{Listening, overlaps};
pub use netlink::{Diag, DiagError};
