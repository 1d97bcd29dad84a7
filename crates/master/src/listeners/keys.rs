//! Under which keys the keeper has members.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use supervisor_config::ListenAddress;
use supervisor_core::SeatId;

/// The prefix of the keys under which the keeper has members that were declared.
pub(super) const KEY_PREFIX: &str = "member:";

/// The prefix of those that were captured.
pub(super) const CAPTURED: &str = "captured:";

/// Whether a key of the keeper's table is that of a member.
pub(crate) fn is_member(key: &str) -> bool {
    key.starts_with(KEY_PREFIX) || key.starts_with(CAPTURED)
}

/// Whether a key is that of a member of this app.
pub(crate) fn is_member_of(key: &str, app: &str) -> bool {
    let place = key.strip_prefix(KEY_PREFIX).or_else(|| key.strip_prefix(CAPTURED));
    place.and_then(|place| place.strip_prefix(app)).is_some_and(|rest| rest.starts_with(':'))
}

/// The address of the socket that a worker of this app made; `None` for any
/// other key, and for a socket at a path.
pub(crate) fn captured_address(key: &str, app: &str) -> Option<ListenAddress> {
    let (owner, address) = group_of(key).filter(|_| key.starts_with(CAPTURED))?;
    (owner == app).then_some(address)
}

pub(super) fn key(prefix: &str, app: &str, seat: SeatId, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { address, dual_stack } => {
            let SeatId { slot, side } = seat;
            format!("{prefix}{app}:{}:{side:?}:{}", slot.index, tcp_key(*address, *dual_stack))
        }
        // A path may be longer than a key.
        ListenAddress::Unix(path) => {
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            format!("{prefix}{app}:unix:{:016x}", hasher.finish())
        }
    }
}

/// The key of the member that no worker has, see `Listeners::anchor`. An app
/// has one for each address; a Unix socket has none.
pub(super) fn anchor_key(app: &str, address: &ListenAddress) -> String {
    let ListenAddress::Tcp { address, dual_stack } = address else { return String::new() };
    format!("{CAPTURED}{app}:anchor:A:{}", tcp_key(*address, *dual_stack))
}

/// The key of a member that is one for all seats of its app, by its settings.
pub(super) fn common_key(app: &str, address: &ListenAddress) -> String {
    let ListenAddress::Tcp { address, dual_stack } = address else { return String::new() };
    format!("{KEY_PREFIX}{app}:all:A:{}", tcp_key(*address, *dual_stack))
}

fn tcp_key(address: SocketAddr, dual_stack: bool) -> String {
    format!("{}{address}", if dual_stack { "+" } else { "" })
}

/// The app and the address whose group a key's member belongs to; `None` for
/// the key of a shared socket.
pub(super) fn group_of(key: &str) -> Option<(String, ListenAddress)> {
    let place = key.strip_prefix(KEY_PREFIX).or_else(|| key.strip_prefix(CAPTURED))?;
    // Further sockets of one worker at one address are numbered.
    let mut parts = place.split('#').next()?.splitn(4, ':');
    let (app, _slot, _side, address) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (dual_stack, address) = match address.strip_prefix('+') {
        Some(address) => (true, address),
        None => (false, address),
    };
    Some((app.to_owned(), ListenAddress::Tcp { address: address.parse().ok()?, dual_stack }))
}
