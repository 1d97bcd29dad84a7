//! Sockets that workers made: held as members of their seat, from `listen` on
//! and over the end of their worker.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::fstat;
use supervisor_config::{Balance, ListenAddress};
use supervisor_core::{AppId, SeatId, WorkerId};
use supervisor_sys::{capture, socket};

use super::keys::{CAPTURED, anchor_key, group_of, key};
use super::{BACKLOG, Listeners, Member, bind, rewrite, write_down};
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

impl Listeners {
    /// Finds the captured sockets of a seat that an earlier master left.
    pub(super) fn find_again(&mut self, seat: SeatId, settings: &Settings, link: &Link) {
        let app = &settings.app.name;
        self.find_paths_again(seat, app);
        // One for all seats has the key of the first that had it, who may be gone.
        let common = settings.app.balance == Balance::Shared;
        let prefix = match common {
            true => format!("{CAPTURED}{app}:"),
            false => format!("{CAPTURED}{app}:{}:{:?}:", seat.slot.index, seat.side),
        };
        let is_its = |key: &&String| key.starts_with(&prefix);
        let keys: Vec<String> = self.inherited.keys().filter(is_its).cloned().collect();
        for key in keys {
            let Some((_, address)) = group_of(&key) else { continue };
            self.meet(app, &address, link);
            // Its group has it, and it goes with the group.
            self.inherited.remove(&anchor_key(app, &address));
            let Some(left) = self.inherited.remove(&key) else { continue };
            let holder = left.record.holder().filter(|_| !common);
            let member = Member { address, socket: left.socket, key, captured: true, common, holder };
            // The backlog comes with the next worker's `listen`. One that has a
            // worker has that worker's.
            if self.group(app, &member.address).is_some_and(|group| group.contains(&member.key)) {
                self.watch(&member, app);
            } else if let Err(error) = self.listen(&member, app, BACKLOG, link) {
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

    /// The socket that a worker in another seat of the app made at an address.
    pub(crate) fn first(&self, seat: SeatId, address: &ListenAddress) -> Option<Rc<OwnedFd>> {
        let mut members = self.of_app(seat.slot.app);
        let first = members.find(|member| member.captured && member.address == *address)?;
        Some(Rc::clone(&first.socket))
    }

    /// Notes that a worker has a socket of its seat now, or of another one's.
    pub(crate) fn take_up(&mut self, seat: SeatId, cookie: u64, worker: WorkerId, link: &Link) {
        let is_it = |member: &&mut Member| capture::cookie(&*member.socket).is_ok_and(|own| own == cookie);
        let own = self.members.get_mut(&seat).into_iter().flatten().find(is_it);
        let (key, socket) = if let Some(own) = own {
            if own.holder.replace(worker) == Some(worker) {
                return;
            }
            (own.key.clone(), Rc::clone(&own.socket))
        } else {
            let mut all = self.members.range_mut(Self::seats(seat.slot.app)).flat_map(|(_, members)| members);
            let Some(other) = all.find(is_it) else { return };
            other.common = true;
            let (address, key, socket) = (other.address.clone(), other.key.clone(), Rc::clone(&other.socket));
            let known = (key.clone(), Rc::clone(&socket));
            let own = Member { address, socket, key, captured: true, common: true, holder: Some(worker) };
            self.members.entry(seat).or_default().push(own);
            known
        };
        let group = self.groups.values().flatten().find(|group| group.contains(&key));
        if let Some(number) = group.and_then(|group| group.number_of(&key)) {
            rewrite(&key, number, Some(worker), socket.as_fd(), link);
        }
    }

    /// Finds out which of the captured sockets that are one for all workers of an
    /// app an adopted one has: nobody has written that down. `inodes` are those of
    /// all that it has.
    pub(crate) fn meet_holder(
        &mut self,
        seat: SeatId,
        worker: WorkerId,
        inodes: impl FnOnce() -> HashSet<u64>,
        link: &Link,
    ) {
        let mut found = BTreeMap::new();
        for member in self.of_app(seat.slot.app).filter(|member| self.is_of_several(member)) {
            found.entry(member.key.clone()).or_insert((member.address.clone(), Rc::clone(&member.socket)));
        }
        if found.is_empty() {
            return;
        }
        let inodes = inodes();
        let has = |socket: &OwnedFd| fstat(socket).is_ok_and(|stat| inodes.contains(&stat.st_ino));
        for (address, socket) in found.into_values().filter(|(_, socket)| has(socket)) {
            match (address, capture::cookie(&*socket)) {
                (ListenAddress::Unix(path), _) => self.share(seat, &path, worker),
                (ListenAddress::Tcp { .. }, Ok(cookie)) => self.take_up(seat, cookie, worker, link),
                (ListenAddress::Tcp { .. }, Err(_)) => {}
            }
        }
    }

    /// Takes such sockets from seats whose worker does not have them, if others
    /// have.
    pub(crate) fn settle_holders(&mut self, app: AppId) {
        let of_several = self.of_app(app).filter(|member| self.is_of_several(member));
        let held: BTreeSet<String> =
            of_several.filter(|member| member.holder.is_some()).map(|member| member.key.clone()).collect();
        for (_, members) in self.members.range_mut(Self::seats(app)) {
            members.retain(|member| member.holder.is_some() || !held.contains(&member.key));
        }
        self.members.retain(|_, members| !members.is_empty());
    }

    fn is_of_several(&self, member: &Member) -> bool {
        member.captured && (member.common || self.is_shared(&member.address))
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
            self.meet(app, &address, link);
            let known = self.members.get(&seat).into_iter().flatten();
            let further = known.filter(|member| member.captured && member.address == address).count();
            let key = key(CAPTURED, app, seat, &address);
            let key = if further == 0 { key } else { format!("{key}#{further}") };
            let (socket, holder) = (Rc::new(socket), Some(worker));
            let member = Member { address, socket, key, captured: true, common: false, holder };
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
        write_down(&key, group.next(), None, socket.as_fd(), link)?;
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

    /// The sockets that a worker made and somebody waits at.
    pub(crate) fn waited_at(&self, seat: SeatId, worker: WorkerId) -> Vec<(ListenAddress, Rc<OwnedFd>)> {
        let members = self.members.get(&seat).into_iter().flatten();
        let own = members.filter(|member| member.captured && member.holder == Some(worker));
        own.filter(|member| socket::queue_length(&*member.socket).is_ok_and(|queue| queue.length > 0))
            .map(|member| (member.address.clone(), Rc::clone(&member.socket)))
            .collect()
    }

    /// Closes one socket of a seat.
    pub(crate) fn give_up(&mut self, seat: SeatId, socket: &Rc<OwnedFd>, link: &Link) {
        self.close_except(seat, |member| !Rc::ptr_eq(&member.socket, socket), link);
    }

    /// The captured addresses of an app, in order.
    pub(crate) fn captured(&self, app: AppId) -> BTreeSet<&ListenAddress> {
        let is_listening = |member: &&Member| match &member.address {
            ListenAddress::Unix(path) => self.paths.contains_key(path),
            ListenAddress::Tcp { .. } => true,
        };
        self.of_app(app)
            .filter(|member| member.captured)
            .filter(is_listening)
            .map(|member| &member.address)
            .collect()
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
}
