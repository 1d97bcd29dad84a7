//! The listeners: one socket for each seat and address, kept here and with the
//! keeper, so that a queue outlives the worker that served it. Some are
//! declared, and bound before there is a worker; others are captured: workers
//! made them, and what is kept is a duplicate (`capture`).
//!
//! Every TCP address of an app is an `SO_REUSEPORT` group with a member for
//! each seat, and a program that picks among the members in rotation. A Unix
//! socket is one for all seats of its app.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::{fs, io};

use supervisor_config::ListenAddress;
use supervisor_core::{AppId, SeatId, Side, SlotId, WorkerId};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::socket::{self, FileAccess, TcpOptions};
use supervisor_sys::{capture, steering};

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
    /// Its number in its group.
    number: Option<u32>,
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
        let number = records::read(record).ok();
        self.inherited.insert(key, Inherited { socket: Rc::new(socket), number });
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

    /// Finds the captured sockets of a seat that an earlier master left.
    fn find_again(&mut self, seat: SeatId, app: &str, link: &Link) {
        let prefix = format!("{CAPTURED}{app}:{}:{:?}:", seat.slot.index, seat.side);
        let keys: Vec<String> =
            self.inherited.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        for key in keys {
            let Some((_, address)) = group_of(&key) else { continue };
            self.meet(app, &address);
            // Its group has it, and it goes with the group.
            self.inherited.remove(&anchor_key(app, &address));
            let Some(left) = self.inherited.remove(&key) else { continue };
            let member = Member { address, socket: left.socket, key, captured: true, holder: None };
            // The backlog comes with the next worker's `listen`.
            if let Err(error) = self.listen(&member, app, BACKLOG, link) {
                tracing::warn!("{app}: {} is lost: {error}", address_text(&member.address));
                continue;
            }
            self.members.entry(seat).or_default().push(member);
        }
    }

    /// Whether a seat's member is this socket, by its cookie.
    pub(crate) fn holds(&self, seat: SeatId, cookie: u64) -> bool {
        self.by_cookie(seat, cookie).is_some()
    }

    /// The address of a seat's member, by the socket's cookie.
    pub(crate) fn address_of(&self, seat: SeatId, cookie: u64) -> Option<ListenAddress> {
        self.by_cookie(seat, cookie).map(|member| member.address.clone())
    }

    fn by_cookie(&self, seat: SeatId, cookie: u64) -> Option<&Member> {
        let mut members = self.members.get(&seat)?.iter();
        members.find(|member| capture::cookie(&*member.socket).is_ok_and(|own| own == cookie))
    }

    /// The socket at an address that a worker of the seat left for this one to
    /// take up, or that is declared and that it has not taken up yet.
    pub(crate) fn parked(
        &self,
        seat: SeatId,
        address: &ListenAddress,
        worker: WorkerId,
    ) -> Option<Rc<OwnedFd>> {
        let mut members = self.members.get(&seat)?.iter();
        let parked = members.find(|member| member.address == *address && member.holder != Some(worker))?;
        (!self.is_shared(address)).then(|| Rc::clone(&parked.socket))
    }

    /// The sockets at an address that a worker has already.
    pub(crate) fn held(&self, seat: SeatId, address: &ListenAddress, worker: WorkerId) -> Vec<Rc<OwnedFd>> {
        let members = self.members.get(&seat).into_iter().flatten();
        let held = members.filter(|member| member.address == *address && member.holder == Some(worker));
        held.map(|member| Rc::clone(&member.socket)).collect()
    }

    /// Notes that a worker has a socket of its seat now.
    pub(crate) fn take_up(&mut self, seat: SeatId, socket: &Rc<OwnedFd>, worker: WorkerId) {
        let members = self.members.get_mut(&seat).into_iter().flatten();
        for member in members.filter(|member| Rc::ptr_eq(&member.socket, socket)) {
            member.holder = Some(worker);
        }
    }

    /// Lets a socket listen that a worker has bound. From then on it is a
    /// member of the worker's seat, if it was none.
    ///
    /// # Errors
    ///
    /// What `listen(2)` says.
    pub(crate) fn capture(
        &mut self,
        seat: SeatId,
        settings: &Settings,
        worker: WorkerId,
        caught: Caught,
        link: &Link,
    ) -> io::Result<()> {
        let app = &settings.app.name;
        let Caught { address, socket, backlog, is_multipath } = caught;
        let cookie = capture::cookie(&socket)?;
        if self.holds(seat, cookie) {
            let members = self.members.remove(&seat).unwrap_or_default();
            let own =
                members.iter().find(|member| capture::cookie(&*member.socket).is_ok_and(|own| own == cookie));
            // It may have been shut down, and joins its group anew then.
            let listening = own.map_or(Ok(()), |member| self.listen(member, app, backlog, link));
            self.members.insert(seat, members);
            listening?;
        } else {
            // The program may have changed its mind since its `bind`.
            rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
            self.meet(app, &address);
            let known = self.members.get(&seat).into_iter().flatten();
            let further = known.filter(|member| member.captured && member.address == address).count();
            let key = key(CAPTURED, app, seat, &address);
            let key = if further == 0 { key } else { format!("{key}#{further}") };
            let member =
                Member { address, socket: Rc::new(socket), key, captured: true, holder: Some(worker) };
            if is_multipath {
                self.anchor(app, &member.address, link)?;
            }
            self.listen(&member, app, backlog, link)?;
            self.members.entry(seat).or_default().push(member);
        }
        self.steer_again(app, link);
        Ok(())
    }

    /// Gives a group whose members are of MPTCP a plain one that a program can be
    /// attached through. Nobody is led there.
    fn anchor(&mut self, app: &str, address: &ListenAddress, link: &Link) -> io::Result<()> {
        let Some(group) = self.group(app, address).filter(|group| group.members().is_empty()) else {
            return Ok(());
        };
        let key = anchor_key(app, address);
        let socket = bind(address, false)?;
        write_down(&key, group.next(), socket.as_fd(), link);
        socket::listen(&socket, 1).inspect_err(|_| link.delete(&key))?;
        if let Some(group) = self.group_mut(app, address) {
            group.join(key, Rc::new(socket));
        }
        Ok(())
    }

    /// Closes what a seat's worker has not taken up of what one before it left.
    /// Returns the addresses.
    pub(crate) fn give_up_parked(
        &mut self,
        seat: SeatId,
        worker: WorkerId,
        link: &Link,
    ) -> Vec<ListenAddress> {
        let is_left = |member: &Member| member.captured && member.holder != Some(worker);
        let members = self.members.get(&seat).into_iter().flatten();
        let left: Vec<_> =
            members.filter(|member| is_left(member)).map(|member| member.address.clone()).collect();
        if !left.is_empty() {
            self.close_except(seat, |member| !is_left(member), link);
        }
        left
    }

    /// The captured addresses of an app, in order.
    pub(crate) fn captured(&self, app: AppId) -> BTreeSet<&ListenAddress> {
        self.of_app(app).filter(|member| member.captured).map(|member| &member.address).collect()
    }

    /// Who has an address that an app's worker wants to bind, as far as it is one
    /// of ours: the same app in the same or in another form, or another app.
    pub(crate) fn rival(&self, app: AppId, address: &ListenAddress) -> Option<Rival> {
        let all = self
            .members
            .iter()
            .flat_map(|(seat, members)| members.iter().map(move |one| (seat.slot.app, one)));
        let mut sibling = None;
        for (other, member) in all.filter(|(_, member)| overlap(&member.address, address)) {
            if other != app {
                return Some(Rival::App(other));
            }
            if member.address != *address {
                return Some(Rival::Form(member.address.clone()));
            }
            sibling = Some(Rival::Sibling);
        }
        sibling
    }

    /// Lets the rotation name those that have joined since.
    fn steer_again(&mut self, app: &str, link: &Link) {
        if let Some(seats) = self.rotations.get(app).cloned() {
            self.rotate(app, &seats, link);
        }
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
        let socket = match self.inherited.remove(&key) {
            Some(left) => left.socket,
            None => {
                let alone = self.group(app, address).is_none_or(|group| group.members().is_empty());
                Rc::new(bind(address, first && alone)?)
            }
        };
        Ok(Member { address: address.clone(), socket, key, captured: false, holder: None })
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
            number: left.number,
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
        write_down(&member.key, group.next(), socket, link);
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
        if let Some(group) = self.group_mut(app, address)
            && let Some((number, moved)) = group.leave(key)
        {
            write_down(&moved.key, number, moved.socket.as_fd(), link);
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

/// The prefix of the keys under which the keeper has members that were declared.
const KEY_PREFIX: &str = "member:";
/// The prefix of those that were captured.
const CAPTURED: &str = "captured:";
/// How many connections may wait until a worker says how many.
const BACKLOG: u32 = 511;

/// Whether a key of the keeper's table is that of a member.
pub(crate) fn is_member(key: &str) -> bool {
    key.starts_with(KEY_PREFIX) || key.starts_with(CAPTURED)
}

/// A socket that a worker is about to let listen.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) address: ListenAddress,
    /// A duplicate of the worker's own.
    pub(crate) socket: OwnedFd,
    pub(crate) backlog: u32,
    /// It is one of MPTCP, which takes no program for its group.
    pub(crate) is_multipath: bool,
}

/// Who has an address already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// The same app: it is shared.
    Sibling,
    /// Another app.
    App(AppId),
    /// The same app, in a form that overlaps with it.
    Form(ListenAddress),
}

/// Writes a member's number down with the keeper.
fn write_down(key: &str, number: u32, socket: BorrowedFd<'_>, link: &Link) {
    link.put(key, &to_json(&number), &[(FdRole::Hold, socket)]);
}

fn key(prefix: &str, app: &str, seat: SeatId, address: &ListenAddress) -> String {
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

/// The key of the member that no worker has, see [`Listeners::anchor`]. An app
/// has one for each address; a Unix socket has none.
fn anchor_key(app: &str, address: &ListenAddress) -> String {
    let ListenAddress::Tcp { address, dual_stack } = address else { return String::new() };
    format!("{CAPTURED}{app}:anchor:A:{}", tcp_key(*address, *dual_stack))
}

fn tcp_key(address: SocketAddr, dual_stack: bool) -> String {
    format!("{}{address}", if dual_stack { "+" } else { "" })
}

/// The app and the address whose group a key's member belongs to; `None` for
/// the key of a shared socket.
fn group_of(key: &str) -> Option<(String, ListenAddress)> {
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
mod tests {
    use super::*;
    use std::net::TcpStream;

    use serde_json::json;
    use supervisor_sys::fdpass;

    use crate::state;

    /// An app with one address, and a keeper that nobody reads.
    struct Bench {
        listeners: Listeners,
        settings: Rc<Settings>,
        address: SocketAddr,
        link: Link,
        _keeper: OwnedFd,
    }

    const fn seat(index: u32, side: Side) -> SeatId {
        SeatId { slot: SlotId { app: AppId(1), index }, side }
    }

    const A: [SeatId; 4] = [seat(0, Side::A), seat(1, Side::A), seat(2, Side::A), seat(3, Side::A)];
    const SUCCESSOR: SeatId = seat(0, Side::B);

    impl Bench {
        fn new(seats: &[SeatId]) -> Self {
            let any = TcpOptions { reuse_port: false, v6only: None };
            let free = socket::bind_tcp(([127, 0, 0, 1], 0).into(), any).unwrap();
            let address = socket::local_address(&free).unwrap();
            drop(free);
            let app = json!({"schema": 1, "apps": [{"generation": 1, "instances": 4,
                "settings": {"name": "web", "command": ["true"], "cwd": "/"}}]});
            let (mut app, _) = state::decode(app.to_string().as_bytes()).unwrap().apps.remove(0);
            app.listen = vec![ListenAddress::Tcp { address, dual_stack: false }];
            let (ours, keeper) = fdpass::seqpacket_pair().unwrap();
            let settings = Settings::new(app, 1);
            let (listeners, link) = (Listeners::default(), Link::new(ours));
            let mut bench = Self { listeners, settings, address, link, _keeper: keeper };
            seats.iter().for_each(|seat| bench.open(*seat));
            bench
        }

        fn open(&mut self, seat: SeatId) {
            self.listeners.open(seat, &self.settings, &self.link).unwrap();
        }

        fn rotate(&mut self, seats: &[SeatId]) {
            self.listeners.rotate("web", seats, &self.link);
        }

        fn policy(&self) -> &'static str {
            self.listeners.policy("web", &self.settings.app.listen[0])
        }

        fn socket(&self, seat: SeatId) -> Rc<OwnedFd> {
            Rc::clone(&self.listeners.members[&seat][0].socket)
        }

        /// What a worker can do to its own socket.
        fn shut_down(&self, seat: SeatId) {
            socket::stop_listening(&*self.socket(seat)).unwrap();
        }

        /// Makes 60 connections. Returns how many of them each seat got.
        fn connect(&self, seats: &[SeatId]) -> Vec<u64> {
            let waiting = || seats.iter().map(|seat| self.listeners.queue(*seat).unwrap_or(0));
            let before: Vec<u64> = waiting().collect();
            for _ in 0..60 {
                // What is closed by its client stays in the queue.
                drop(TcpStream::connect(self.address).unwrap());
            }
            waiting().zip(before).map(|(after, before)| after - before).collect()
        }
    }

    #[test]
    fn nobody_out_of_rotation_is_reached() {
        let mut bench = Bench::new(&A);
        assert_eq!(bench.policy(), "kernel");
        bench.rotate(&[A[0], A[1], A[3]]);
        assert_eq!(bench.policy(), "random");
        let got = bench.connect(&A);
        assert_eq!((got[2], got[0] + got[1] + got[3]), (0, 60), "{got:?}");

        // Nor one that joins, until it is named.
        bench.open(SUCCESSOR);
        assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
        bench.rotate(&[]);
        assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
        bench.rotate(&[SUCCESSOR]);
        assert_eq!(bench.connect(&[SUCCESSOR]), [60]);
    }

    #[test]
    fn one_that_leaves_changes_nothing_for_the_others() {
        let mut bench = Bench::new(&A);
        bench.rotate(&[A[1], A[3]]);
        // The last one moves.
        let held = bench.socket(A[0]);
        bench.listeners.close(A[0], &bench.link);
        assert!(!socket::is_listening(&*held).unwrap(), "whoever else holds it");
        let got = bench.connect(&A[1..]);
        assert_eq!((got[1], got[0] + got[2]), (0, 60), "{got:?}");
    }

    #[test]
    fn a_socket_that_was_shut_down_makes_no_room_in_the_rotation() {
        let mut bench = Bench::new(&A[..3]);
        bench.rotate(&A[..3]);
        bench.shut_down(A[0]);
        bench.open(SUCCESSOR);
        assert_eq!(bench.connect(&[SUCCESSOR]), [0]);
        assert_eq!(bench.policy(), "random");
        // It comes back as the last one, and waits to be named.
        bench.listeners.hand_over(A[0], &bench.settings, &bench.link).unwrap();
        assert_eq!(bench.connect(&[A[0], SUCCESSOR]), [0, 0]);
        bench.rotate(&[A[0]]);
        assert_eq!(bench.connect(&A[..1]), [60]);
    }

    #[test]
    fn an_unknown_order_is_left_to_the_kernel() {
        let mut bench = Bench::new(&A);
        bench.rotate(&A[..2]);
        bench.shut_down(A[0]);
        bench.shut_down(A[2]);
        bench.rotate(&[A[1]]);
        assert_eq!(bench.policy(), "kernel");
        let got = bench.connect(&[A[1], A[3]]);
        assert!(got.iter().all(|got| *got > 0), "{got:?}");
    }

    /// A new master's listeners, with the sockets and numbers of the one before.
    fn next_master(bench: &mut Bench, numbers: [u32; 3]) {
        let mut next = Listeners::default();
        for (seat, number) in A.into_iter().zip(numbers) {
            let socket = bench.socket(seat).try_clone().unwrap();
            let key = key(KEY_PREFIX, "web", seat, &bench.settings.app.listen[0]);
            next.inherit(key, &to_json(&number), socket);
        }
        bench.listeners = next;
        A[..3].iter().for_each(|seat| bench.open(*seat));
        bench.listeners.drop_inherited(&bench.link);
    }

    #[test]
    fn the_next_master_goes_on_steering() {
        let mut bench = Bench::new(&A[..3]);
        bench.rotate(&A[..2]);
        next_master(&mut bench, [0, 1, 2]);
        bench.rotate(&[A[2]]);
        assert_eq!(bench.connect(&A[..3]), [0, 0, 60]);
    }

    #[test]
    fn a_program_of_former_times_does_not_stay() {
        let mut bench = Bench::new(&A[..3]);
        bench.rotate(&[A[1]]);
        next_master(&mut bench, [0, 0, 0]);
        assert_eq!(bench.policy(), "kernel");
        let got = bench.connect(&A[..3]);
        assert!(got.iter().all(|got| *got > 0), "{got:?}");
    }
}
