//! The listeners: one socket for each seat and address, kept here and with the
//! keeper, so that a queue outlives the worker that served it. Some are
//! declared, and bound before there is a worker; others are captured: workers
//! made them, and what is kept is a duplicate (`capture`).
//!
//! Every TCP address of an app is an `SO_REUSEPORT` group with a member for
//! each seat, and a program that picks among the members in rotation. A Unix
//! socket is one for all seats of its app.

mod captured;
mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use supervisor_config::ListenAddress;
use supervisor_core::{AppId, SeatId, Side, SlotId, WorkerId};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::socket::{self, FileAccess, TcpOptions};
use supervisor_sys::steering;

pub(crate) use captured::{Caught, Rival};
pub(crate) use keys::is_member;
use keys::{KEY_PREFIX, anchor_key, group_of, key};

use crate::control::to_json;
use crate::group::{Found, Group};
use crate::link::Link;
use crate::passed::Passed;
use crate::records;
use crate::registry::overlap;
use crate::settings::{Settings, address_text};
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
    /// The last worker whose own it became: by listening, or by taking it up
    /// in place of a socket that it made.
    holder: Option<WorkerId>,
}

/// All sockets that listen for workers.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    members: BTreeMap<SeatId, Vec<Member>>,
    /// The seats in rotation, by the name of their app.
    rotations: BTreeMap<String, Vec<SeatId>>,
    /// The groups of each app, by its name.
    groups: BTreeMap<String, Vec<Group<Rc<OwnedFd>>>>,
    /// What an earlier master left, by key.
    inherited: BTreeMap<String, Inherited>,
    /// What the service manager opened.
    passed: Vec<Passed>,
}

/// A socket of an earlier master.
#[derive(Debug)]
struct Inherited {
    socket: Rc<OwnedFd>,
    record: MemberRecord,
}

/// What the keeper knows of a member of a group.
#[derive(Debug, Default, Serialize, Deserialize)]
struct MemberRecord {
    /// Its number in its group.
    #[serde(default)]
    number: Option<u32>,
    /// See [`Member::holder`].
    #[serde(default)]
    holder: Option<u64>,
}

impl MemberRecord {
    fn holder(&self) -> Option<WorkerId> {
        self.holder.map(WorkerId)
    }
}

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listen {address}: {}", words::errno(source))]
pub(crate) struct ListenError {
    address: String,
    source: io::Error,
}

impl Listeners {
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

    /// How new connections find their worker, for the status.
    pub(crate) fn policy(&self, app: &str, address: &ListenAddress) -> &'static str {
        let steered =
            || self.group(app, address).is_some_and(|group| !group.unsteered && !group.picked.is_empty());
        if self.is_shared(address) {
            "shared"
        } else if steered() {
            "random"
        } else {
            "kernel"
        }
    }

    /// Closes what an earlier master left and no seat has asked for.
    pub(crate) fn drop_inherited(&mut self, link: &Link) {
        while let Some((key, _)) = self.inherited.pop_first() {
            if let Some((app, address)) = group_of(&key) {
                self.leave(&app, &address, &key, link);
            }
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
        let stays = |member: &Member| match member.captured {
            true => settings.wants_capture(),
            false => app.listen.contains(&member.address),
        };
        self.close_except(seat, stays, link);
        self.find_again(seat, &app.name, link);
        for address in &app.listen {
            if self.member(seat, address).is_some() {
                continue;
            }
            let error = |source| ListenError { address: address_text(address), source };
            let member = match self.shared(seat.slot.app, address) {
                Some((socket, key)) => {
                    Member { address: address.clone(), socket, key, captured: false, holder: None }
                }
                None => self.make(seat, &app.name, address).map_err(error)?,
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
        let members = self.members.remove(&seat).unwrap_or_default();
        let ready = members.iter().try_for_each(|member| {
            // The flag sits in the open file. A shared socket's is that of
            // siblings that are at work, so it is left alone.
            // That of a captured one is set when a worker takes it up.
            let own = !member.captured && !self.is_shared(&member.address);
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

    /// Lets the members of these seats get new connections, and no others. An
    /// address that none of them serves stays as it is.
    pub(crate) fn rotate(&mut self, app: &str, seats: &[SeatId], link: &Link) {
        if seats.is_empty() {
            self.rotations.remove(app);
        } else {
            self.rotations.insert(app.to_owned(), seats.to_vec());
        }
        let in_rotation = seats.iter().filter_map(|seat| self.members.get(seat)).flatten();
        let keys: BTreeSet<String> = in_rotation.map(|member| member.key.clone()).collect();
        let addresses: Vec<_> =
            self.groups.get(app).into_iter().flatten().map(|group| group.address.clone()).collect();
        for address in addresses {
            self.look_for_leavers(app, &address, link);
            let Some(group) = self.group(app, &address) else { continue };
            let numbers = group.numbers(|key| keys.contains(key));
            self.steer(app, &address, numbers);
        }
    }

    /// Connections that wait in the seat's own accept queues; `None` when it
    /// has no queue of its own.
    pub(crate) fn queue(&self, seat: SeatId) -> Option<u64> {
        let members = self.members.get(&seat)?;
        let own = members.iter().filter(|member| !self.is_shared(&member.address));
        own.filter_map(|member| socket::queue_length(member.socket.as_fd()).ok())
            .map(|queue| u64::from(queue.length))
            .reduce(u64::saturating_add)
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
    fn make(&mut self, seat: SeatId, app: &str, address: &ListenAddress) -> io::Result<Member> {
        let key = key(KEY_PREFIX, app, seat, address);
        let first = !self.of_app(seat.slot.app).any(|member| overlap(&member.address, address));
        self.meet(app, address);
        let (socket, holder) = match self.inherited.remove(&key) {
            Some(left) => (left.socket, left.record.holder()),
            None => {
                let alone = self.group(app, address).is_none_or(|group| group.members().is_empty());
                (Rc::new(bind(address, first && alone)?), None)
            }
        };
        Ok(Member { address: address.clone(), socket, key, captured: false, holder })
    }

    /// Makes the group of an address, with what an earlier master left of it.
    fn meet(&mut self, app: &str, address: &ListenAddress) {
        if self.is_shared(address) || self.group(app, address).is_some() {
            return;
        }
        let group = self.recover(app, address);
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
            socket::listen(socket, backlog)?;
            link.put(&member.key, &[], &[(FdRole::Hold, socket)]);
            return Ok(());
        }
        // Nobody but us has had the sockets of a group that was never steered.
        if self.group(app, &member.address).is_some_and(|group| !group.picked.is_empty()) {
            self.look_for_leavers(app, &member.address, link);
        }
        let groups = self.groups.entry(app.to_owned()).or_default();
        let place = groups.iter().position(|group| group.address == member.address);
        let place = place.unwrap_or_else(|| {
            groups.push(Group::new(member.address.clone()));
            groups.len() - 1
        });
        let group = &mut groups[place];
        if group.contains(&member.key) {
            return socket::listen(socket, backlog);
        }
        write_down(&member.key, group.next(), member.holder, socket, link);
        socket::listen(socket, backlog).inspect_err(|_| link.delete(&member.key))?;
        group.join(member.key.clone(), Rc::clone(&member.socket));
        Ok(())
    }

    /// Takes a member out of its group, so that what waits in its queue is
    /// reset and nobody is led there any more.
    fn leave(&mut self, app: &str, address: &ListenAddress, key: &str, link: &Link) {
        let Some(group) = self.group(app, address) else { return };
        let Some(leaver) = group.members().iter().find(|member| member.key == key) else { return };
        let socket = Rc::clone(&leaver.socket);
        // The last member gets the number of the one that leaves. Until the
        // program knows, it must pick neither: a number that nobody has would
        // lead a connection anywhere.
        let last = group.members().last().map(|last| last.key.clone()).unwrap_or_default();
        let picked: BTreeSet<String> = group.picked().map(str::to_owned).collect();
        if picked.contains(&last) || picked.contains(key) {
            let others = group.numbers(|known| picked.contains(known) && known != key && known != last);
            self.steer(app, address, others);
        }
        // The only failure is that it did not listen any more.
        let _ = socket::stop_listening(&*socket);
        self.note_leave(app, address, key, link);
        let anchor = anchor_key(app, address);
        let Some(group) = self.group(app, address) else { return };
        if group.members().iter().all(|member| member.key == anchor) {
            for member in group.members() {
                let _ = socket::stop_listening(&*member.socket);
                link.delete(&member.key);
            }
            if let Some(groups) = self.groups.get_mut(app) {
                groups.retain(|group| group.address != *address);
            }
            return;
        }
        let numbers = group.numbers(|known| picked.contains(known));
        self.steer(app, address, numbers);
    }

    /// Notes that a member has left its group, here and with the keeper.
    fn note_leave(&mut self, app: &str, address: &ListenAddress, key: &str, link: &Link) {
        let Self { groups, members, .. } = self;
        let groups = groups.get_mut(app).into_iter().flatten();
        if let Some(group) = { groups }.find(|group| group.address == *address)
            && let Some((number, moved)) = group.leave(key)
        {
            let known = members.values().flatten().find(|member| member.key == moved.key);
            let holder = known.and_then(|member| member.holder);
            write_down(&moved.key, number, holder, moved.socket.as_fd(), link);
        }
    }

    /// A worker may have shut its socket down: it has left the group then, and
    /// another one has its number.
    fn look_for_leavers(&mut self, app: &str, address: &ListenAddress, link: &Link) {
        let Some(group) = self.group(app, address).filter(|group| !group.unsteered) else { return };
        let listens = |socket: &OwnedFd| socket::is_listening(socket).unwrap_or(true);
        let left = group.members().iter().filter(|member| !listens(&member.socket));
        let left: Vec<String> = left.map(|member| member.key.clone()).collect();
        let picked: BTreeSet<String> = group.picked().map(str::to_owned).collect();
        for key in &left {
            self.note_leave(app, address, key, link);
        }
        if left.len() > 1 {
            self.give_up_steering(app, address, "several of its sockets were shut down at once");
        } else if let [_] = *left
            && let Some(group) = self.group(app, address)
        {
            // The program may still name the number that was the last one's,
            // which the next to join gets.
            let numbers = group.numbers(|known| picked.contains(known));
            self.steer(app, address, numbers);
        }
    }

    /// Lets a program pick among these numbers.
    fn steer(&mut self, app: &str, address: &ListenAddress, numbers: Vec<u32>) {
        let Some(group) = self.group(app, address).filter(|group| !group.unsteered) else { return };
        if numbers.is_empty() || numbers == group.picked {
            return;
        }
        let anchor = anchor_key(app, address);
        let members = group.members();
        let Some(any) = members.iter().find(|member| member.key == anchor).or(members.first()) else {
            return;
        };
        match steering::steer(&*any.socket, &numbers) {
            Ok(()) => {
                if let Some(group) = self.group_mut(app, address) {
                    group.picked = numbers;
                }
            }
            Err(error) => self.give_up_steering(app, address, &words::errno(&error)),
        }
    }

    /// Leaves the choice to the kernel for as long as the group lives.
    fn give_up_steering(&mut self, app: &str, address: &ListenAddress, why: &str) {
        tracing::warn!("{app}: connections to {} cannot be steered: {why}", address_text(address));
        let Some(group) = self.group_mut(app, address) else { return };
        if let Some(any) = group.members().first() {
            // What it could fail of is what it is given up for.
            let _ = steering::unsteer(&*any.socket);
        }
        group.unsteered = true;
        group.picked.clear();
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
            if !shared && let Some((app, address)) = group_of(&member.key) {
                self.leave(&app, &address, &member.key, link);
            }
            link.delete(&member.key);
            if let ListenAddress::Unix(path) = &member.address {
                unlink(path);
            }
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
        let seat = |index, side| SeatId { slot: SlotId { app, index }, side };
        self.members.range(seat(0, Side::A)..=seat(u32::MAX, Side::B)).flat_map(|(_, members)| members)
    }
}

/// Writes a member's number and its holder down with the keeper.
fn write_down(key: &str, number: u32, holder: Option<WorkerId>, socket: BorrowedFd<'_>, link: &Link) {
    let record = MemberRecord { number: Some(number), holder: holder.map(|worker| worker.0) };
    link.put(key, &to_json(&record), &[(FdRole::Hold, socket)]);
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
