//! The declared listeners: one socket for each slot and address, kept here and
//! with the keeper, so that a queue outlives the worker that served it.
//!
//! Every TCP address is an `SO_REUSEPORT` group with a member for each slot.
//! A Unix socket is one for all slots of its app.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::{fs, io};

use supervisor_config::ListenAddress;
use supervisor_core::{AppId, SeatId, Side, SlotId};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::socket::{self, FileAccess, TcpOptions};

use crate::link::Link;
use crate::passed::Passed;
use crate::registry::overlap;
use crate::settings::{Settings, address_text};
use crate::words;

/// One worker's socket in a listener's group.
#[derive(Debug)]
struct Member {
    address: ListenAddress,
    /// Shared among the slots of an app when it is a Unix socket.
    socket: Rc<OwnedFd>,
    /// Where the keeper has it.
    key: String,
}

/// All sockets that listen for workers.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    members: BTreeMap<SeatId, Vec<Member>>,
    /// What an earlier master left, by key.
    inherited: BTreeMap<String, OwnedFd>,
    /// What the service manager opened.
    passed: Vec<Passed>,
}

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listen {address}: {}", words::errno(source))]
pub(crate) struct ListenError {
    address: String,
    source: io::Error,
}

impl Listeners {
    /// Keeps a socket of an earlier master for the slot that asks for it.
    pub(crate) fn inherit(&mut self, key: String, socket: OwnedFd) {
        self.inherited.insert(key, socket);
    }

    /// Uses a socket of the service manager for its address.
    pub(crate) fn pass(&mut self, key: String, socket: OwnedFd) {
        self.passed.extend(Passed::new(key, socket));
    }

    /// Whether an address has one socket for all slots.
    pub(crate) fn is_shared(&self, address: &ListenAddress) -> bool {
        matches!(address, ListenAddress::Unix(_)) || self.passed(address).is_some()
    }

    /// Closes what an earlier master left and no slot has asked for.
    pub(crate) fn drop_inherited(&mut self, link: &Link) {
        for key in std::mem::take(&mut self.inherited).into_keys() {
            link.delete(&key);
        }
    }

    /// Lets a slot's sockets listen: the ones that its settings name are
    /// opened, all others of the slot are closed.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound; the ones before it stay open.
    pub(crate) fn open(&mut self, slot: SeatId, settings: &Settings, link: &Link) -> Result<(), ListenError> {
        let app = &settings.app;
        self.close_except(slot, &app.listen, link);
        for address in &app.listen {
            if self.members.get(&slot).is_some_and(|members| members.iter().any(|m| m.address == *address)) {
                continue;
            }
            let error = |source| ListenError { address: address_text(address), source };
            let key = key(&app.name, slot.slot.index, slot.side, address);
            let (socket, key) = match self.shared(slot.slot.app, address) {
                Some(shared) => shared,
                None => match self.inherited.remove(&key) {
                    Some(socket) => (Rc::new(socket), key),
                    None => {
                        let first =
                            !self.of_app(slot.slot.app).any(|member| overlap(&member.address, address));
                        (Rc::new(bind(address, first).map_err(error)?), key)
                    }
                },
            };
            socket::listen(&*socket, backlog(app.backlog)).map_err(error)?;
            link.put(&key, &[], &[(FdRole::Hold, socket.as_fd())]);
            self.members.entry(slot).or_default().push(Member { address: address.clone(), socket, key });
        }
        Ok(())
    }

    /// Closes a slot's sockets: nobody is expected to serve them.
    pub(crate) fn close(&mut self, slot: SeatId, link: &Link) {
        self.close_except(slot, &[], link);
    }

    /// The sockets that a new worker of the slot gets, in the order of its
    /// settings, ready to be handed over: blocking and listening.
    ///
    /// # Errors
    ///
    /// The address whose socket could not be made ready.
    pub(crate) fn hand_over(
        &self,
        slot: SeatId,
        settings: &Settings,
    ) -> Result<Vec<BorrowedFd<'_>>, ListenError> {
        let members = self.members.get(&slot).map_or(&[][..], Vec::as_slice);
        settings
            .app
            .listen
            .iter()
            .filter_map(|address| members.iter().find(|member| member.address == *address))
            .map(|member| {
                let socket = member.socket.as_fd();
                // The flag sits in the open file. A shared socket's is that of
                // siblings that are at work, so it is left alone.
                let own = !self.is_shared(&member.address);
                let cleared = if own { socket::set_nonblocking(socket, false) } else { Ok(()) };
                cleared
                    .and_then(|()| socket::listen(socket, backlog(settings.app.backlog)))
                    .map_err(|source| ListenError { address: address_text(&member.address), source })?;
                Ok(socket)
            })
            .collect()
    }

    /// Connections that wait in the slot's own accept queues; `None` when it
    /// has no queue of its own.
    pub(crate) fn queue(&self, slot: SeatId) -> Option<u64> {
        let members = self.members.get(&slot)?;
        let own = members.iter().filter(|member| !self.is_shared(&member.address));
        own.filter_map(|member| socket::queue_length(member.socket.as_fd()).ok())
            .map(|queue| u64::from(queue.length))
            .reduce(u64::saturating_add)
    }

    pub(crate) fn rotate(&self, _app: AppId, _seats: &[SeatId], _link: &Link) {}

    /// Whether nothing waits.
    pub(crate) fn is_drained(&self, seat: SeatId) -> bool {
        self.queue(seat).unwrap_or(0) == 0
    }

    /// Whether the slot listens anywhere.
    pub(crate) fn is_open(&self, slot: SeatId) -> bool {
        self.members.contains_key(&slot)
    }

    fn close_except(&mut self, slot: SeatId, kept: &[ListenAddress], link: &Link) {
        let Some(members) = self.members.get_mut(&slot) else { return };
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(members).into_iter().partition(|member| kept.contains(&member.address));
        if stay.is_empty() {
            self.members.remove(&slot);
        } else {
            *members = stay;
        }
        for member in go {
            // A Unix socket goes with the last slot that has it, one of the
            // service manager never.
            if Rc::strong_count(&member.socket) == 1 {
                link.delete(&member.key);
                if let ListenAddress::Unix(path) = &member.address {
                    unlink(path);
                }
            }
        }
    }

    fn passed(&self, address: &ListenAddress) -> Option<&Passed> {
        self.passed.iter().find(|passed| passed.address == *address)
    }

    /// The socket that is there for all slots: the service manager's, or a Unix
    /// socket that another slot of the app has already.
    fn shared(&self, app: AppId, address: &ListenAddress) -> Option<(Rc<OwnedFd>, String)> {
        if let Some(passed) = self.passed(address) {
            return Some((Rc::clone(&passed.socket), passed.key.clone()));
        }
        if matches!(address, ListenAddress::Tcp { .. }) {
            return None;
        }
        let member = self.of_app(app).find(|member| member.address == *address)?;
        Some((Rc::clone(&member.socket), member.key.clone()))
    }

    fn of_app(&self, app: AppId) -> impl Iterator<Item = &Member> {
        let seat = |index, side| SeatId { slot: SlotId { app, index }, side };
        self.members.range(seat(0, Side::A)..=seat(u32::MAX, Side::B)).flat_map(|(_, members)| members)
    }
}

/// The prefix of the keys under which the keeper has members.
pub(crate) const KEY_PREFIX: &str = "member:";

fn key(app: &str, slot: u32, side: Side, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { address, .. } => format!("{KEY_PREFIX}{app}:{slot}:{side:?}:{address}"),
        // A path may be longer than a key.
        ListenAddress::Unix(path) => {
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            format!("{KEY_PREFIX}{app}:unix:{:016x}", hasher.finish())
        }
    }
}

/// Binds a member. The `first` of a group is tried without `SO_REUSEPORT`
/// before, because with it another program of the same user would be joined
/// silently.
fn bind(address: &ListenAddress, first: bool) -> io::Result<OwnedFd> {
    match address {
        ListenAddress::Tcp { address, dual_stack } => {
            let v6only = address.is_ipv6().then_some(!dual_stack);
            if first {
                drop(socket::bind_tcp(*address, TcpOptions { reuse_port: false, v6only })?);
            }
            socket::bind_tcp(*address, TcpOptions { reuse_port: true, v6only })
        }
        ListenAddress::Unix(path) => {
            // As systemd does it: whoever reaches the folder may connect.
            let everybody = FileAccess { mode: Some(0o666), uid: None, gid: None };
            socket::bind_unix(path, everybody).map_err(io::Error::other)
        }
    }
}

/// The kernel cuts it to `net.core.somaxconn` anyway.
fn backlog(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

fn unlink(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}
