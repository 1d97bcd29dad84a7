//! The listeners: one socket for each seat and address, kept here and with the
//! keeper, so that a queue outlives the worker that served it. Some are
//! declared, and bound before there is a worker; others are captured: workers
//! made them, and what is kept is a duplicate (`capture`).
//!
//! Every TCP address of an app is an `SO_REUSEPORT` group with a member for
//! each seat, and a program that picks among the members in rotation. A Unix
//! socket is one for all seats of its app.

mod captured;
mod checked;
mod hangups;
mod keys;
mod paths;
mod probes;
mod steered;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use supervisor_config::{Balance, ListenAddress};
use supervisor_core::{AppId, SeatId, Side, SlotId, WorkerId};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::socket::{self, FileAccess, TcpOptions};

pub(crate) use captured::{Caught, Rival};
use hangups::{Hangups, Watched};
use keys::{KEY_PREFIX, common_key, group_of, key};
pub(crate) use keys::{captured_address, is_member, is_member_of};
pub(crate) use paths::AtPath;
pub(crate) use probes::{Endpoint, Reach};

use crate::control::to_json;
use crate::group::{Found, Group};
use crate::link::Link;
use crate::passed::Passed;
use crate::records;
use crate::registry::overlap;
use crate::second_name::SecondName;
use crate::settings::{Settings, address_text};
use crate::spread::Spread;
use crate::words;

/// One worker's socket in a listener's group.
#[derive(Debug)]
struct Member {
    address: ListenAddress,
    /// Shared among the seats of an app when it is a Unix socket.
    socket: Rc<OwnedFd>,
    /// Where the keeper has it.
    key: String,
    /// A worker made it.
    captured: bool,
    /// It is one for several seats, in a group all the same.
    common: bool,
    /// The last worker whose own it became: by listening, or by taking it up
    /// in place of a socket that it made.
    holder: Option<WorkerId>,
}

impl Member {
    fn declared(address: &ListenAddress, socket: Rc<OwnedFd>, key: String) -> Self {
        Self { address: address.clone(), socket, key, captured: false, common: false, holder: None }
    }
}

/// All sockets that listen for workers.
#[derive(Debug)]
pub(crate) struct Listeners {
    members: BTreeMap<SeatId, Vec<Member>>,
    /// The seats in rotation with their shares, by the name of their app.
    rotations: BTreeMap<String, Vec<(SeatId, u32)>>,
    /// How their connections are spread, by the name of the app.
    spreads: BTreeMap<String, Spread>,
    /// The groups that have changed since they were looked at.
    changed: BTreeSet<(String, ListenAddress)>,
    /// The sockets whose queues count have changed.
    other_queues: bool,
    /// The groups of each app, by its name.
    groups: BTreeMap<String, Vec<Group<Rc<OwnedFd>>>>,
    /// What an earlier master left, by key.
    inherited: BTreeMap<String, Inherited>,
    /// What the service manager opened.
    passed: Vec<Passed>,
    /// Tells of members that their program shuts down.
    hangups: Hangups,
    /// The paths that workers made, and let listen.
    paths: BTreeMap<PathBuf, Option<SecondName>>,
    /// Since when a worker is about to bind a path.
    binding: BTreeMap<PathBuf, Instant>,
}

/// A socket of an earlier master.
#[derive(Debug)]
struct Inherited {
    socket: Rc<OwnedFd>,
    record: MemberRecord,
}

/// What the keeper knows of a member.
#[derive(Debug, Default, Serialize, Deserialize)]
struct MemberRecord {
    /// Its number in its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    /// See [`Member::holder`]. Where there are several it is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<u64>,
    /// Its path, if a worker made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

impl MemberRecord {
    fn holder(&self) -> Option<WorkerId> {
        self.holder.map(WorkerId)
    }
}

/// How many connections may wait at a socket until a worker says how many.
const BACKLOG: u32 = 511;

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listen {address}: {}", words::errno(source))]
pub(crate) struct ListenError {
    address: String,
    source: io::Error,
}

impl Listeners {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            members: BTreeMap::new(),
            rotations: BTreeMap::new(),
            spreads: BTreeMap::new(),
            changed: BTreeSet::new(),
            other_queues: false,
            groups: BTreeMap::new(),
            inherited: BTreeMap::new(),
            passed: Vec::new(),
            hangups: Hangups::new()?,
            paths: BTreeMap::new(),
            binding: BTreeMap::new(),
        })
    }

    /// Can be read when [`Self::look_after_hangups`] must be called.
    pub(crate) fn hangups(&self) -> BorrowedFd<'_> {
        self.hangups.as_fd()
    }

    /// Keeps a socket of an earlier master for the seat that asks for it.
    pub(crate) fn inherit(&mut self, key: String, record: &[u8], socket: OwnedFd) {
        let record = records::read(record).unwrap_or_default();
        self.inherited.insert(key, Inherited { socket: Rc::new(socket), record });
    }

    /// Uses a socket of the service manager for its address.
    pub(crate) fn pass(&mut self, key: String, socket: OwnedFd) {
        self.passed.extend(Passed::new(key, socket));
    }

    /// Whether an address has one socket for all seats.
    fn is_shared(&self, address: &ListenAddress) -> bool {
        matches!(address, ListenAddress::Unix(_)) || self.passed(address).is_some()
    }

    /// Closes what an earlier master left and no seat has asked for.
    pub(crate) fn drop_inherited(&mut self, link: &Link) {
        while let Some((key, left)) = self.inherited.pop_first() {
            if let Some((app, address)) = group_of(&key) {
                self.leave(&app, &address, &key, link);
            }
            left.record.path.iter().for_each(|path| SecondName::remove_at(path));
            link.delete(&key);
        }
    }

    /// Lets a seat's sockets listen: the ones that its settings name are
    /// opened, all others of the seat are closed.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound; the ones before it stay open.
    pub(crate) fn open(&mut self, seat: SeatId, settings: &Settings, link: &Link) -> Result<(), ListenError> {
        let app = &settings.app;
        let one_for_all = app.balance == Balance::Shared;
        let grouped: Vec<_> = app.listen.iter().filter(|address| !self.is_shared(address)).collect();
        let stays = |member: &Member| match member.captured {
            true => settings.wants_capture(),
            false if grouped.contains(&&member.address) => member.common == one_for_all,
            false => app.listen.contains(&member.address),
        };
        self.close_except(seat, stays, link);
        self.find_again(seat, settings, link);
        for address in &app.listen {
            if self.member(seat, address).is_some() {
                continue;
            }
            let error = |source| ListenError { address: address_text(address), source };
            let member = match self.shared(seat.slot.app, address) {
                Some((socket, key)) => Member::declared(address, socket, key),
                None => self.make(seat, &app.name, address, one_for_all, link).map_err(error)?,
            };
            self.listen(&member, &app.name, app.backlog, link).map_err(error)?;
            self.members.entry(seat).or_default().push(member);
        }
        Ok(())
    }

    /// Closes a seat's sockets: nobody is in it or expected.
    pub(crate) fn close(&mut self, seat: SeatId, link: &Link) {
        self.close_except(seat, |_| false, link);
    }

    /// The sockets that a new worker in the seat gets, in the order of its
    /// settings, ready to be handed over: blocking and listening.
    ///
    /// # Errors
    ///
    /// The address whose socket could not be made ready.
    pub(crate) fn hand_over(
        &mut self,
        seat: SeatId,
        settings: &Settings,
        link: &Link,
    ) -> Result<Vec<BorrowedFd<'_>>, ListenError> {
        let app = &settings.app;
        self.forget_unbound(seat, link);
        let members = self.members.remove(&seat).unwrap_or_default();
        let ready = members.iter().try_for_each(|member| {
            // The flag sits in the open file. A shared socket's is that of
            // siblings that are at work, so it is left alone.
            // That of a captured one is set when a worker takes it up.
            let own = !member.captured && !member.common && !self.is_shared(&member.address);
            let cleared = if own { socket::set_nonblocking(&*member.socket, false) } else { Ok(()) };
            cleared
                .and_then(|()| self.listen(member, &app.name, app.backlog, link))
                .map_err(|source| ListenError { address: address_text(&member.address), source })
        });
        let members = self.members.entry(seat).or_insert(members);
        ready?;
        let member = |address: &ListenAddress| members.iter().find(|member| member.address == *address);
        Ok(app.listen.iter().filter_map(member).map(|member| member.socket.as_fd()).collect())
    }

    /// Connections that wait in the seat's own accept queues; `None` when it
    /// has no queue of its own.
    pub(crate) fn queue(&self, seat: SeatId) -> Option<u64> {
        let members = self.members.get(&seat)?;
        let own = members.iter().filter(|member| !member.common && !self.is_shared(&member.address));
        own.filter_map(|member| socket::queue_length(member.socket.as_fd()).ok())
            .map(|queue| u64::from(queue.length))
            .reduce(u64::saturating_add)
    }

    /// All seats in rotation.
    pub(crate) fn in_rotation(&self) -> impl Iterator<Item = SeatId> {
        self.rotations.values().flatten().map(|(seat, _)| *seat)
    }

    /// The TCP ports that a seat serves, each once.
    pub(crate) fn ports(&self, seat: SeatId) -> Vec<u16> {
        let members = self.members.get(&seat).into_iter().flatten();
        let ports = members.filter_map(|member| match &member.address {
            ListenAddress::Tcp { address, .. } => Some(address.port()),
            ListenAddress::Unix(_) => None,
        });
        ports.collect::<BTreeSet<u16>>().into_iter().collect()
    }

    fn member(&self, seat: SeatId, address: &ListenAddress) -> Option<&Member> {
        self.members.get(&seat)?.iter().find(|member| member.address == *address)
    }

    fn group(&self, app: &str, address: &ListenAddress) -> Option<&Group<Rc<OwnedFd>>> {
        self.groups.get(app)?.iter().find(|group| group.address == *address)
    }

    fn group_mut(&mut self, app: &str, address: &ListenAddress) -> Option<&mut Group<Rc<OwnedFd>>> {
        self.groups.get_mut(app)?.iter_mut().find(|group| group.address == *address)
    }

    /// A socket of the seat's own, which does not listen yet unless an earlier
    /// master had it.
    fn make(
        &mut self,
        seat: SeatId,
        app: &str,
        address: &ListenAddress,
        one_for_all: bool,
        link: &Link,
    ) -> io::Result<Member> {
        let key = if one_for_all { common_key(app, address) } else { key(KEY_PREFIX, app, seat, address) };
        let first = !self.of_app(seat.slot.app).any(|member| overlap(&member.address, address));
        self.meet(app, address, link);
        let left = self.inherited.remove(&key);
        // One for all seats has many holders.
        let holder = left.as_ref().filter(|_| !one_for_all).and_then(|left| left.record.holder());
        let left = left.map(|left| left.socket);
        let group = self.group(app, address);
        let members = group.into_iter().flat_map(Group::members);
        let known = || members.filter(|member| member.key == key).map(|one| Rc::clone(&one.socket)).next();
        let socket = match left.or_else(known) {
            Some(socket) => socket,
            None => {
                let alone = group.is_none_or(|group| group.members().is_empty());
                Rc::new(bind(address, first && alone)?)
            }
        };
        Ok(Member { common: one_for_all, holder, ..Member::declared(address, socket, key) })
    }

    /// Makes the group of an address, with what an earlier master left of it.
    fn meet(&mut self, app: &str, address: &ListenAddress, link: &Link) {
        if self.is_shared(address) || self.group(app, address).is_some() {
            return;
        }
        let group = self.recover(app, address);
        // A master that died before it could say who has the number of one that
        // left may be followed by one that dies as soon.
        for (number, member) in (0..).zip(group.members()).filter(|_| !group.unsteered) {
            let record = self.inherited.get(&member.key).map(|left| &left.record);
            if let Some(record) = record.filter(|record| record.number != Some(number)) {
                rewrite(&member.key, number, record.holder(), member.socket.as_fd(), link);
            }
        }
        let unsteered = group.unsteered;
        self.groups.entry(app.to_owned()).or_default().push(group);
        if unsteered {
            // The earlier master's program is still there.
            self.give_up_steering(app, address, "their sockets' order is not known");
        }
    }

    /// The group of an address as an earlier master left it.
    fn recover(&self, app: &str, address: &ListenAddress) -> Group<Rc<OwnedFd>> {
        let is_its = |key: &str| group_of(key).is_some_and(|(of, at)| of == app && at == *address);
        let found = self.inherited.iter().filter(|(key, _)| is_its(key)).map(|(key, left)| Found {
            key: key.clone(),
            socket: Rc::clone(&left.socket),
            number: left.record.number,
            listens: socket::is_listening(&left.socket).unwrap_or(false),
        });
        Group::recover(address.clone(), found.collect())
    }

    /// Lets a member listen. It joins its group as the last one; until a
    /// program names its number, it gets no connections if there is a program.
    fn listen(&mut self, member: &Member, app: &str, backlog: u32, link: &Link) -> io::Result<()> {
        // The kernel cuts it to `net.core.somaxconn` anyway.
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let socket = member.socket.as_fd();
        if self.is_shared(&member.address) {
            link.put_or_fail(&member.key, &[], &[(FdRole::Hold, socket)])?;
            return socket::listen(socket, backlog).inspect_err(|_| link.delete(&member.key));
        }
        self.make_way(app, &member.address, &member.key, link);
        let groups = self.groups.entry(app.to_owned()).or_default();
        let place = groups.iter().position(|group| group.address == member.address);
        let place = place.unwrap_or_else(|| {
            groups.push(Group::new(member.address.clone()));
            groups.len() - 1
        });
        let group = &mut groups[place];
        if group.contains(&member.key) {
            socket::listen(socket, backlog)?;
            self.watch(member, app);
            return Ok(());
        }
        write_down(&member.key, group.next(), member.holder, socket, link)?;
        socket::listen(socket, backlog).inspect_err(|_| link.delete(&member.key))?;
        group.join(member.key.clone(), Rc::clone(&member.socket));
        self.watch(member, app);
        self.changed.insert((app.to_owned(), member.address.clone()));
        Ok(())
    }

    /// Looks from now on whether a member of a group is shut down.
    fn watch(&mut self, member: &Member, app: &str) {
        let Member { address, key, socket, .. } = member;
        let watched = Watched { app: app.to_owned(), address: address.clone(), key: key.clone() };
        self.hangups.add(socket, watched);
    }

    /// Looks at the members that were shut down. One that new connections are led
    /// to listens again at once: its worker is about to be followed by another.
    pub(crate) fn look_after_hangups(&mut self, link: &Link) {
        for Watched { app, address, key } in self.hangups.take() {
            self.look_for_leavers(&app, &address, link);
            let socket = self.group(&app, &address).and_then(|group| group.socket(&key).cloned());
            // Nobody knows its group's order any more.
            if let Some(socket) = socket {
                self.hangups.remove(&socket, &key);
            }
            self.revive(&app, &key, link);
        }
    }

    fn revive(&mut self, app: &str, key: &str, link: &Link) {
        let Some(seats) = self.rotations.get(app).cloned() else { return };
        for (seat, _) in &seats {
            let Some(members) = self.members.remove(seat) else { continue };
            if let Some(member) = members.iter().find(|member| member.key == key)
                && let Err(error) = self.listen(member, app, BACKLOG, link)
            {
                tracing::warn!("{app}: {} was shut down: {error}", address_text(&member.address));
            }
            self.members.insert(*seat, members);
        }
        self.rotate(app, &seats, link);
    }

    fn close_except(&mut self, seat: SeatId, stays: impl Fn(&Member) -> bool, link: &Link) {
        let Some(members) = self.members.get_mut(&seat) else { return };
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(members).into_iter().partition(stays);
        if stay.is_empty() {
            self.members.remove(&seat);
        } else {
            *members = stay;
        }
        for member in go {
            // A Unix socket goes with the last seat that has it, one of the
            // service manager never.
            let shared = self.is_shared(&member.address);
            if shared && Rc::strong_count(&member.socket) > 1 {
                continue;
            }
            if member.common && self.of_app(seat.slot.app).any(|other| other.key == member.key) {
                continue;
            }
            if !shared && let Some((app, address)) = group_of(&member.key) {
                self.leave(&app, &address, &member.key, link);
            }
            // As long as the keeper has it, a next master knows of the path.
            match &member.address {
                ListenAddress::Unix(path) if member.captured => self.drop_path(path),
                ListenAddress::Unix(path) => unlink(path),
                ListenAddress::Tcp { .. } => {}
            }
            link.delete(&member.key);
        }
    }

    fn passed(&self, address: &ListenAddress) -> Option<&Passed> {
        self.passed.iter().find(|passed| passed.address == *address)
    }

    /// The socket that is there for all seats: the service manager's, or a Unix
    /// socket that another seat of the app has already.
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
        self.members.range(Self::seats(app)).flat_map(|(_, members)| members)
    }

    fn seats(app: AppId) -> RangeInclusive<SeatId> {
        let seat = |index, side| SeatId { slot: SlotId { app, index }, side };
        seat(0, Side::A)..=seat(u32::MAX, Side::B)
    }
}

/// Removes the path of a captured socket, as its record names it.
pub(crate) fn remove_path(record: &[u8]) {
    let record: MemberRecord = records::read(record).unwrap_or_default();
    record.path.iter().for_each(|path| SecondName::remove_at(path));
}

/// Writes a member's number and its holder down with the keeper.
///
/// # Errors
///
/// When there is no descriptor to spare for one that is not written down yet.
fn write_down(
    key: &str,
    number: u32,
    holder: Option<WorkerId>,
    socket: BorrowedFd<'_>,
    link: &Link,
) -> io::Result<()> {
    link.put_or_fail(key, &member_record(number, holder), &[(FdRole::Hold, socket)])
}

/// Writes another number or another holder down for a member.
fn rewrite(key: &str, number: u32, holder: Option<WorkerId>, socket: BorrowedFd<'_>, link: &Link) {
    link.put(key, &member_record(number, holder), &[(FdRole::Hold, socket)]);
}

fn member_record(number: u32, holder: Option<WorkerId>) -> Vec<u8> {
    to_json(&MemberRecord { number: Some(number), holder: holder.map(|worker| worker.0), path: None })
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

fn unlink(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests;
