//! Who gets new connections: the groups' programs, as rotation, settings and
//! members change.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use supervisor_config::{Balance, ListenAddress};
use supervisor_core::SeatId;
use supervisor_sys::{socket, steering};

use super::keys::anchor_key;
use super::{Listeners, rewrite};
use crate::group::{Attached, Group};
use crate::link::Link;
use crate::settings::address_text;
use crate::spread::{Chosen, Spread};
use crate::words;

impl Listeners {
    /// How new connections find their worker, for the status.
    pub(crate) fn policy(&self, app: &str, address: &ListenAddress) -> &'static str {
        let balance = self.spread(app).balance;
        if self.is_shared(address) || balance == Balance::Shared {
            return Balance::Shared.name();
        }
        match self.group(app, address) {
            Some(group) if matches!(group.attached, Attached::Pick(_)) => {
                if group.simple {
                    Balance::Random.name()
                } else {
                    balance.name()
                }
            }
            Some(_) | None => Balance::Kernel.name(),
        }
    }

    /// What a seat's member weighs against the others; `None` where nobody is
    /// steered.
    pub(crate) fn weight(&self, app: &str, seat: SeatId) -> Option<u32> {
        let steered = |address| !["shared", "kernel"].contains(&self.policy(app, address));
        let member = self.members.get(&seat)?.iter().find(|member| steered(&member.address))?;
        let chosen = self.group(app, &member.address)?.chosen(&member.key);
        Some(chosen.map_or(0, |chosen| chosen.weight))
    }

    /// Spreads an app's connections so from now on.
    pub(crate) fn spread_out(&mut self, app: &str, spread: Spread, link: &Link) {
        if *self.spread(app) == spread {
            return;
        }
        self.spreads.insert(app.to_owned(), spread);
        self.other_queues = true;
        for group in self.groups.get_mut(app).into_iter().flatten() {
            group.simple = false;
            group.chosen.iter_mut().for_each(|chosen| chosen.ease = 1);
        }
        self.steer_again(app, link);
    }

    /// Forgets how an app's connections are spread.
    pub(crate) fn forget(&mut self, app: &str) {
        self.spreads.remove(app);
        self.other_queues = true;
    }

    /// Lets the members of these seats get new connections, by their shares, and
    /// no others. An address that none of them serves stays as it is.
    pub(crate) fn rotate(&mut self, app: &str, seats: &[(SeatId, u32)], link: &Link) {
        if seats.is_empty() {
            self.rotations.remove(app);
        } else {
            self.rotations.insert(app.to_owned(), seats.to_vec());
        }
        self.other_queues |= self.spread(app).balance == Balance::LeastQueue;
        let addresses: Vec<_> =
            self.groups.get(app).into_iter().flatten().map(|group| group.address.clone()).collect();
        for address in addresses {
            self.look_for_leavers(app, &address, link);
            let chosen = self.chosen(seats, &address);
            if let Some(group) = self.group_mut(app, &address) {
                group.choose(chosen);
            }
            self.steer(app, &address, &[]);
            self.changed.insert((app.to_owned(), address));
        }
    }

    /// Lets the rotation name those that have joined since.
    pub(super) fn steer_again(&mut self, app: &str, link: &Link) {
        if let Some(seats) = self.rotations.get(app).cloned() {
            self.rotate(app, &seats, link);
        }
    }

    fn chosen(&self, seats: &[(SeatId, u32)], address: &ListenAddress) -> Vec<Chosen> {
        let chosen = |(seat, share): &(SeatId, u32)| {
            let members = self.members.get(seat).into_iter().flatten();
            let members = members.filter(|member| member.address == *address);
            let (slot, share) = (seat.slot.index, *share);
            members.map(move |member| Chosen { key: member.key.clone(), slot, share, ease: 1, weight: 0 })
        };
        seats.iter().flat_map(chosen).collect()
    }

    /// To be called before a socket joins a group: it must get no connection yet.
    pub(super) fn make_way(&mut self, app: &str, address: &ListenAddress, key: &str, link: &Link) {
        // Nobody but us has had the sockets of a group that was never steered.
        if self.group(app, address).is_none_or(|group| group.chosen.is_empty() || group.contains(key)) {
            return;
        }
        self.look_for_leavers(app, address, link);
        // As the last one's number the program does not have it; without a
        // program it would be found.
        if self.group(app, address).is_some_and(|group| group.attached == Attached::Nothing) {
            self.steer(app, address, &[key]);
        }
    }

    /// Takes a member out of its group, so that what waits in its queue is
    /// reset and nobody is led there any more.
    pub(super) fn leave(&mut self, app: &str, address: &ListenAddress, key: &str, link: &Link) {
        let Some(group) = self.group(app, address) else { return };
        let Some(socket) = group.socket(key).cloned() else { return };
        // The last member gets the number of the one that leaves. Until the
        // program knows, it must pick neither: a number that nobody has would
        // lead a connection anywhere.
        let last = group.members().last().map(|last| last.key.clone()).unwrap_or_default();
        let was_chosen = group.chosen(&last).or_else(|| group.chosen(key)).is_some();
        let was_led_to = self.drop_leads(app, address, &[key, &last]);
        if was_chosen {
            self.steer(app, address, &[key, &last]);
        } else if was_led_to && let Err(error) = self.attach_again(app, address) {
            tracing::debug!("{app}: a check's connections are led on: {error}");
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
        self.steer(app, address, &[]);
    }

    /// Notes that a member has left its group, here and with the keeper.
    fn note_leave(&mut self, app: &str, address: &ListenAddress, key: &str, link: &Link) {
        self.changed.insert((app.to_owned(), address.clone()));
        if let Some(socket) = self.group(app, address).and_then(|group| group.socket(key).cloned()) {
            self.hangups.remove(&socket, key);
        }
        let Self { groups, members, .. } = self;
        let groups = groups.get_mut(app).into_iter().flatten();
        if let Some(group) = { groups }.find(|group| group.address == *address)
            && let Some((number, moved)) = group.leave(key)
        {
            let known = members.values().flatten().find(|member| member.key == moved.key);
            let holder = known.and_then(|member| member.holder);
            rewrite(&moved.key, number, holder, moved.socket.as_fd(), link);
        }
    }

    /// A worker may have shut its socket down: it has left the group then, and
    /// another one has its number.
    pub(super) fn look_for_leavers(&mut self, app: &str, address: &ListenAddress, link: &Link) {
        let Some(group) = self.group(app, address).filter(|group| !group.unsteered) else { return };
        let listens = |socket: &OwnedFd| socket::is_listening(socket).unwrap_or(true);
        let left = group.members().iter().filter(|member| !listens(&member.socket));
        let left: Vec<String> = left.map(|member| member.key.clone()).collect();
        if !left.is_empty()
            && let Some(group) = self.group_mut(app, address)
        {
            // They may have led somewhere else since.
            group.leads.clear();
        }
        for key in &left {
            self.note_leave(app, address, key, link);
        }
        if left.len() > 1 {
            self.give_up_steering(app, address, "several of its sockets were shut down at once");
        } else if left.len() == 1 {
            // The program may still name the number that was the last one's,
            // which the next to join gets.
            self.steer(app, address, &[]);
        }
    }

    /// Lets the kernel know who gets connections to an address, except for
    /// those that are about to come or go.
    pub(super) fn steer(&mut self, app: &str, address: &ListenAddress, without: &[&str]) {
        let spread = self.spread(app).clone();
        let Some(group) = self.group_mut(app, address) else { return };
        if group.unsteered || group.joined {
            return;
        }
        let Some(pick) = group.pick(&spread, without) else { return };
        let is_whole = pick.shares.len() == group.members().len() && without.is_empty();
        let wanted = match spread.balance {
            Balance::Kernel if is_whole => Attached::Nothing,
            Balance::Kernel
            | Balance::Random
            | Balance::Weighted
            | Balance::SourceIp
            | Balance::Cpu
            | Balance::LeastQueue
            | Balance::Shared => Attached::Pick(pick),
        };
        if wanted == group.attached && !group.leads_anybody() {
            return;
        }
        match attach(app, group, &wanted) {
            Ok(()) => group.attached = wanted,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !group.simple => {
                let at = address_text(address);
                let policy = spread.balance;
                tracing::warn!(
                    "{app}: {at} has too many workers for `balance: {policy}`: chance decides instead"
                );
                group.simple = true;
                self.steer(app, address, without);
            }
            Err(error) => self.give_up_steering(app, address, &words::errno(&error)),
        }
    }

    /// Gives the kernel the program that it has once more, with the clients that
    /// are led somewhere now.
    pub(super) fn attach_again(&mut self, app: &str, address: &ListenAddress) -> io::Result<()> {
        let Some(group) = self.group_mut(app, address) else { return Ok(()) };
        if group.unsteered || group.joined {
            return Ok(());
        }
        let attached = mem::take(&mut group.attached);
        let result = attach(app, group, &attached);
        group.attached = attached;
        result
    }

    /// The sockets whose queues are to be looked at, if they are others than
    /// before.
    pub(crate) fn renewed_queues(&mut self) -> Option<Vec<Rc<OwnedFd>>> {
        if !mem::take(&mut self.other_queues) {
            return None;
        }
        let groups = self.groups.iter().filter(|(app, _)| self.spread(app).balance == Balance::LeastQueue);
        let members = groups
            .flat_map(|(_, groups)| groups)
            .flat_map(|group| group.members().iter().filter(|member| group.chosen(&member.key).is_some()));
        Some(members.map(|member| Rc::clone(&member.socket)).collect())
    }

    /// Gives those with short queues more of the new connections, where that is
    /// wanted. Returns whether anybody waits in any.
    pub(crate) fn look_at_queues(&mut self) -> bool {
        let (mut waits, mut changed) = (false, Vec::new());
        let spreads = &self.spreads;
        let least = |app: &str| spreads.get(app).is_some_and(|one| one.balance == Balance::LeastQueue);
        for (app, groups) in self.groups.iter_mut().filter(|(app, _)| least(app)) {
            for group in groups {
                let (longest, eased) =
                    group.ease(|socket| socket::queue_length(&**socket).map_or(0, |queue| queue.length));
                waits |= longest > 0;
                if eased {
                    changed.push((app.clone(), group.address.clone()));
                }
            }
        }
        for (app, address) in changed {
            self.steer(&app, &address, &[]);
        }
        waits
    }

    /// Leaves the choice to the kernel for as long as the group lives.
    pub(super) fn give_up_steering(&mut self, app: &str, address: &ListenAddress, why: &str) {
        tracing::warn!("{app}: connections to {} cannot be steered: {why}", address_text(address));
        let Some(group) = self.group_mut(app, address) else { return };
        group.unsteered = true;
        let_go(group);
    }

    pub(super) fn spread(&self, app: &str) -> &Spread {
        const EVEN: &Spread = &Spread::EVEN;
        self.spreads.get(app).unwrap_or(EVEN)
    }
}

/// Gives the kernel a group's program, with the clients that it leads to certain
/// members.
fn attach(app: &str, group: &mut Group<Rc<OwnedFd>>, wanted: &Attached) -> io::Result<()> {
    let anchor = anchor_key(app, &group.address);
    let members = group.members();
    let any = members.iter().find(|member| member.key == anchor).or(members.first());
    let Some(any) = any.map(|member| Rc::clone(&member.socket)) else { return Ok(()) };
    let probes = group.probes();
    match wanted {
        Attached::Pick(pick) => steering::steer(&*any, &probes, Some(pick))?,
        Attached::Nothing | Attached::Unknown if probes.is_empty() => steering::unsteer(&*any)?,
        Attached::Nothing | Attached::Unknown => steering::steer(&*any, &probes, None)?,
    }
    group.led = !probes.is_empty();
    Ok(())
}

/// Leaves the choice to the kernel.
pub(super) fn let_go(group: &mut Group<Rc<OwnedFd>>) {
    if let Some(any) = group.members().first() {
        // What it could fail of is what it is given up for.
        let _ = steering::unsteer(&*any.socket);
    }
    group.attached = Attached::Nothing;
    group.leads.clear();
    group.led = false;
}
