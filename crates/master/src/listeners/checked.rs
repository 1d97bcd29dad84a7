//! Whether groups are ours alone. A program of the same user can join one: then
//! it gets connections of ours, and the numbers may not be those that we know.

use std::collections::HashSet;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use supervisor_config::ListenAddress;
use supervisor_sys::diag::Listening;

use super::Listeners;
use super::keys::anchor_key;
use super::steered::let_go;
use crate::group::Group;
use crate::link::Link;
use crate::settings::address_text;
use crate::sight;

impl Listeners {
    /// Looks at the groups that have changed since, and at those that somebody
    /// has joined. `ask` tells who listens on a port.
    pub(crate) fn check(&mut self, mut ask: impl FnMut(u16) -> Option<Vec<Listening>>, link: &Link) {
        let joined = self.groups.iter().flat_map(|(app, groups)| {
            let joined = groups.iter().filter(|group| group.joined);
            joined.map(move |group| (app.clone(), group.address.clone()))
        });
        let joined: Vec<_> = joined.collect();
        let mut changed = mem::take(&mut self.changed);
        changed.extend(joined);
        for (app, address) in changed {
            self.check_one(&app, &address, &mut ask, link);
        }
    }

    fn check_one(
        &mut self,
        app: &str,
        address: &ListenAddress,
        ask: &mut impl FnMut(u16) -> Option<Vec<Listening>>,
        link: &Link,
    ) {
        let anchor = anchor_key(app, address);
        // The kernel shows sockets of MPTCP as others than those that we hold.
        let Some(group) = self.group(app, address).filter(|group| !group.contains(&anchor)) else { return };
        let ListenAddress::Tcp { address: at, dual_stack } = address else { return };
        let Some(mut seen) = ask(at.port()) else { return };
        seen.retain(|one| {
            one.local == *at && (at.is_ipv4() || one.v6only.is_none_or(|v6only| v6only != *dual_stack))
        });
        let own = inodes(group);
        let strangers: Vec<&Listening> = seen.iter().filter(|one| !own.contains(&one.inode)).collect();
        // Of a group that is not steered it does not matter.
        let missing = !group.unsteered && seen.len() - strangers.len() < own.len();
        let text = address_text(address);
        match (strangers.first(), group.joined) {
            (Some(stranger), false) => {
                let who = sight::owner(stranger);
                tracing::warn!(
                    "{app}: {who} listens on {text}, too, and gets connections: the kernel spreads them"
                );
                if let Some(group) = self.group_mut(app, address) {
                    group.joined = true;
                    let_go(group);
                }
            }
            (None, true) => self.regain(app, address),
            (None, false) => {
                if let Some(group) = self.group_mut(app, address) {
                    group.grown = false;
                }
            }
            (Some(_), true) => {}
        }
        if missing {
            // It was shut down.
            self.steer_again(app, link);
        }
    }

    /// Steers a group that is ours alone again, if its order is known for sure:
    /// who had joined had the last number, and took it along.
    fn regain(&mut self, app: &str, address: &ListenAddress) {
        let Some(group) = self.group_mut(app, address) else { return };
        group.joined = false;
        if mem::take(&mut group.grown) {
            self.give_up_steering(app, address, "somebody had joined them, so their order is not known");
        } else {
            tracing::info!("{app}: nobody else listens on {} any more", address_text(address));
            self.steer(app, address, &[]);
        }
    }
}

fn inodes(group: &Group<Rc<OwnedFd>>) -> HashSet<u64> {
    let sockets = group.members().iter();
    sockets.filter_map(|member| Some(rustix::fs::fstat(&*member.socket).ok()?.st_ino)).collect()
}
