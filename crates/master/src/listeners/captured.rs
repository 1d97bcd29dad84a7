//! Sockets that workers made: held as members of their seat, from `listen` on
//! and over the end of their worker.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use supervisor_config::ListenAddress;
use supervisor_core::{AppId, SeatId, WorkerId};
use supervisor_sys::{capture, socket};

use super::keys::{CAPTURED, anchor_key, group_of, key};
use super::{Listeners, Member, bind, write_down};
use crate::link::Link;
use crate::registry::overlap;
use crate::settings::{Settings, address_text};

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

/// How many connections may wait until a worker says how many.
const BACKLOG: u32 = 511;

impl Listeners {
    /// Finds the captured sockets of a seat that an earlier master left.
    pub(super) fn find_again(&mut self, seat: SeatId, app: &str, link: &Link) {
        let prefix = format!("{CAPTURED}{app}:{}:{:?}:", seat.slot.index, seat.side);
        let keys: Vec<String> =
            self.inherited.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        for key in keys {
            let Some((_, address)) = group_of(&key) else { continue };
            self.meet(app, &address);
            // Its group has it, and it goes with the group.
            self.inherited.remove(&anchor_key(app, &address));
            let Some(left) = self.inherited.remove(&key) else { continue };
            let holder = left.record.holder();
            let member = Member { address, socket: left.socket, key, captured: true, holder };
            let is_in = self.group(app, &member.address).is_some_and(|group| group.contains(&member.key));
            // The backlog comes with the next worker's `listen`. One that has a
            // worker has that worker's.
            if !is_in && let Err(error) = self.listen(&member, app, BACKLOG, link) {
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
    pub(crate) fn take_up(&mut self, seat: SeatId, cookie: u64, worker: WorkerId, link: &Link) {
        let Self { members, groups, .. } = self;
        let is_it = |member: &&mut Member| capture::cookie(&*member.socket).is_ok_and(|own| own == cookie);
        let Some(member) = members.get_mut(&seat).and_then(|members| members.iter_mut().find(is_it)) else {
            return;
        };
        if member.holder.replace(worker) == Some(worker) {
            return;
        }
        let group = groups.values().flatten().find(|group| group.contains(&member.key));
        if let Some(number) = group.and_then(|group| group.number_of(&member.key)) {
            write_down(&member.key, number, member.holder, member.socket.as_fd(), link);
        }
    }

    /// Whether a worker has a captured socket that listens.
    pub(crate) fn has_captured(&self, seat: SeatId, worker: WorkerId) -> bool {
        let mut members = self.members.get(&seat).into_iter().flatten();
        members.any(|member| member.captured && member.holder == Some(worker))
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
        write_down(&key, group.next(), None, socket.as_fd(), link);
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
}
