//! The members of an `SO_REUSEPORT` group, numbered as the kernel numbers them.
//!
//! The kernel does not tell the numbers, so they are kept here, and with the
//! keeper for the next master: each member's record has its number, written
//! *before* it joins. That is enough to find the order again after a death at
//! any instruction: a member that does not listen has not joined, or has left;
//! and a hole in the numbers means that the last one was moved there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use supervisor_config::ListenAddress;
use supervisor_sys::steering::{Pick, Probe};

use crate::spread::{Chosen, Spread};

/// One app's address: its members in the kernel's order, each with its socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group<S> {
    pub(crate) address: ListenAddress,
    members: Vec<Member<S>>,
    /// Who is to get new connections, in order of their keys.
    pub(crate) chosen: Vec<Chosen>,
    pub(crate) attached: Attached,
    /// The clients whose connections go to a certain member.
    pub(crate) leads: Vec<Lead>,
    /// The program that is attached leads clients somewhere.
    pub(crate) led: bool,
    /// The order is not known, or the kernel takes no program: its hash chooses.
    pub(crate) unsteered: bool,
    /// Somebody else listens there, too: the order may not be ours.
    pub(crate) joined: bool,
    /// The program of its policy would be too long: chance decides.
    pub(crate) simple: bool,
    /// A socket has joined since the group was seen to be ours alone.
    pub(crate) grown: bool,
}

/// What the kernel was told about a group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Attached {
    /// Nothing: its hash chooses.
    #[default]
    Nothing,
    /// Something that is not true any more, or that nobody remembers.
    Unknown,
    /// This.
    Pick(Pick),
}

/// A client whose connections go to a certain member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    /// The address and port that it has bound.
    pub(crate) client: SocketAddr,
    /// The key of the member.
    pub(crate) key: String,
}

/// A socket that listens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member<S> {
    pub(crate) key: String,
    pub(crate) socket: S,
}

/// A socket of an earlier master, as it was found.
#[derive(Debug)]
pub(crate) struct Found<S> {
    pub(crate) key: String,
    pub(crate) socket: S,
    /// What its record says.
    pub(crate) number: Option<u32>,
    pub(crate) listens: bool,
}

impl<S> Group<S> {
    pub(crate) const fn new(address: ListenAddress) -> Self {
        Self {
            address,
            members: Vec::new(),
            chosen: Vec::new(),
            attached: Attached::Nothing,
            leads: Vec::new(),
            led: false,
            unsteered: false,
            joined: false,
            simple: false,
            grown: false,
        }
    }

    /// The group as an earlier master left it.
    pub(crate) fn recover(address: ListenAddress, mut found: Vec<Found<S>>) -> Self {
        found.retain(|member| member.listens);
        found.sort_by_key(|member| member.number);
        let hole = (0..).zip(&found).position(|(number, member)| member.number != Some(number));
        if let Some(hole) = hole
            && let Some(mut last) =
                found.pop_if(|last| last.number.is_some_and(|number| number as usize > hole))
        {
            last.number = u32::try_from(hole).ok();
            found.insert(hole, last);
        }
        let unsteered = (0..).zip(&found).any(|(number, member)| member.number != Some(number));
        let members = found.into_iter().map(|Found { key, socket, .. }| Member { key, socket }).collect();
        Self { members, unsteered, attached: Attached::Unknown, grown: true, ..Self::new(address) }
    }

    /// The members by their numbers.
    pub(crate) fn members(&self) -> &[Member<S>] {
        &self.members
    }

    /// The number that the next member gets.
    pub(crate) fn next(&self) -> u32 {
        // Members are descriptors, of which there are fewer than 2³¹.
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.socket(key).is_some()
    }

    /// A member's socket.
    pub(crate) fn socket(&self, key: &str) -> Option<&S> {
        self.members.iter().find(|member| member.key == key).map(|member| &member.socket)
    }

    /// A member's number.
    pub(crate) fn number_of(&self, key: &str) -> Option<u32> {
        u32::try_from(self.members.iter().position(|member| member.key == key)?).ok()
    }

    /// Notes that a socket began to listen.
    pub(crate) fn join(&mut self, key: String, socket: S) {
        self.members.push(Member { key, socket });
        self.grown = true;
    }

    /// Notes that a member listens no more. Returns the one that has its number
    /// now, and the number.
    pub(crate) fn leave(&mut self, key: &str) -> Option<(u32, &Member<S>)> {
        let place = self.members.iter().position(|member| member.key == key)?;
        self.members.swap_remove(place);
        self.chosen.retain(|chosen| chosen.key != key);
        if self.attached != Attached::Nothing {
            self.attached = Attached::Unknown;
        }
        Some((u32::try_from(place).ok()?, self.members.get(place)?))
    }

    /// Whether clients are led somewhere, or were by the program that is attached.
    pub(crate) const fn leads_anybody(&self) -> bool {
        self.led || !self.leads.is_empty()
    }

    /// The clients that are led somewhere, with the numbers of the members.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        // There are few of them, and many members.
        let mut leads: BTreeMap<&str, Vec<SocketAddr>> = BTreeMap::new();
        for lead in &self.leads {
            leads.entry(&lead.key).or_default().push(lead.client);
        }
        let clients = |key: &str| leads.get(key).into_iter().flatten().copied();
        (0..)
            .zip(&self.members)
            .flat_map(|(index, member)| clients(&member.key).map(move |client| Probe { client, index }))
            .collect()
    }

    /// Notes who is to get new connections; not that nobody is.
    pub(crate) fn choose(&mut self, mut chosen: Vec<Chosen>) {
        if chosen.is_empty() {
            return;
        }
        chosen.sort_by(|a, b| a.key.cmp(&b.key));
        chosen.dedup_by(|other, kept| {
            let same = other.key == kept.key;
            if same {
                // One socket of several seats has the shares of all.
                kept.share = kept.share.saturating_add(other.share);
            }
            same
        });
        for one in &mut chosen {
            one.ease = self.chosen(&one.key).map_or(1, |before| before.ease);
        }
        self.chosen = chosen;
    }

    pub(crate) fn chosen(&self, key: &str) -> Option<&Chosen> {
        let place = self.chosen.binary_search_by(|chosen| chosen.key.as_str().cmp(key)).ok()?;
        self.chosen.get(place)
    }

    /// Prefers those of the chosen whose queues are short. Returns the longest
    /// queue, and whether that changes anything.
    pub(crate) fn ease(&mut self, queue: impl Fn(&S) -> u32) -> (u32, bool) {
        /// The weight of a member with the shortest queue; one that has a
        /// connection more has half of it, one that has two more a third.
        const MOST: u32 = 60;
        let own = self.members.iter().filter(|member| self.chosen(&member.key).is_some());
        let queues: BTreeMap<String, u32> =
            own.map(|member| (member.key.clone(), queue(&member.socket))).collect();
        let shortest = queues.values().min().copied().unwrap_or(0);
        let mut changed = false;
        for chosen in &mut self.chosen {
            let more = queues.get(&chosen.key).map_or(0, |queue| queue - shortest);
            let ease = (MOST / more.saturating_add(1)).max(1);
            changed |= ease != chosen.ease;
            chosen.ease = ease;
        }
        (queues.into_values().max().unwrap_or(0), changed)
    }

    /// What the kernel should be told, while `without` are to get nothing; `None`
    /// if nobody would get anything.
    pub(crate) fn pick(&mut self, spread: &Spread, without: &[&str]) -> Option<Pick> {
        spread.weigh(&mut self.chosen);
        let numbers: BTreeMap<&str, u32> =
            self.members.iter().map(|member| member.key.as_str()).zip(0..).collect();
        let may = self.chosen.iter().filter(|chosen| !without.contains(&chosen.key.as_str()));
        let members: Vec<(u32, &Chosen)> =
            may.filter_map(|chosen| Some((*numbers.get(chosen.key.as_str())?, chosen))).collect();
        (!members.is_empty()).then(|| spread.pick(&members, self.simple))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(keys: &[&str]) -> Group<()> {
        let mut group = Group::new(ListenAddress::Unix("/unused".into()));
        keys.iter().for_each(|key| group.join((*key).to_owned(), ()));
        group
    }

    fn found(members: &[(&str, u32, bool)]) -> Group<()> {
        let found = |(key, number, listens): &(&str, u32, bool)| Found {
            key: (*key).to_owned(),
            socket: (),
            number: Some(*number),
            listens: *listens,
        };
        Group::recover(ListenAddress::Unix("/unused".into()), members.iter().map(found).collect())
    }

    #[test]
    fn the_last_one_takes_the_place() {
        let mut members = group(&["a", "b", "c", "d"]);
        let moved = members.leave("b").map(|(number, member)| (number, member.key.clone()));
        assert_eq!(moved, Some((1, "d".to_owned())));
        assert_eq!(members.leave("c"), None);
        assert_eq!(members.leave("c"), None);
        assert_eq!(members.members, group(&["a", "d"]).members);
    }

    #[test]
    fn only_the_chosen_are_picked() {
        let mut group = group(&["a", "b", "c", "d"]);
        let chosen = |key: &str, share| Chosen { key: key.to_owned(), slot: 0, share, ease: 1, weight: 0 };
        let spread = Spread::EVEN;
        let picked = |group: &mut Group<()>, without: &[&str]| {
            let pick = group.pick(&spread, without)?;
            Some(pick.shares.iter().map(|share| (share.number, share.weight)).collect::<Vec<_>>())
        };
        assert_eq!(picked(&mut group, &[]), None);
        group.choose(vec![chosen("d", 1), chosen("b", 1), chosen("d", 2), chosen("gone", 1)]);
        assert_eq!(picked(&mut group, &[]), Some(vec![(1, 1), (3, 3)]));
        assert_eq!(picked(&mut group, &["b"]), Some(vec![(3, 3)]));
        assert_eq!(picked(&mut group, &["b", "d"]), None);
        group.leave("b");
        assert_eq!(picked(&mut group, &[]), Some(vec![(1, 3)]));
        group.choose(vec![]);
        assert_eq!(picked(&mut group, &[]), Some(vec![(1, 3)]), "it stays as it is");
    }

    #[test]
    fn short_queues_are_preferred() {
        let mut group = Group::new(ListenAddress::Unix("/unused".into()));
        for (key, queue) in [("a", 3), ("b", 2), ("c", 500), ("parked", 0)] {
            group.join(key.to_owned(), queue);
        }
        let chosen = |key: &str| Chosen { key: key.to_owned(), slot: 0, share: 1, ease: 1, weight: 0 };
        group.choose(["a", "b", "c"].map(chosen).to_vec());
        assert_eq!(group.ease(|queue| *queue), (500, true));
        assert_eq!(group.chosen.iter().map(|one| one.ease).collect::<Vec<_>>(), [30, 60, 1]);
        assert_eq!(group.ease(|queue| *queue), (500, false));
        assert_eq!(group.ease(|_| 0), (0, true));
        assert!(group.chosen.iter().all(|one| one.ease == 60));
    }

    #[test]
    fn the_order_is_found_again() {
        assert_eq!(found(&[("b", 1, true), ("a", 0, true)]).members, group(&["a", "b"]).members);
        // It was written down and had not joined yet.
        assert_eq!(found(&[("a", 0, true), ("b", 1, false)]).members, group(&["a"]).members);
        // It had left, and the last one's new number was not written down yet.
        let left = [("a", 0, true), ("b", 1, false), ("c", 2, true), ("d", 3, true)];
        assert_eq!(found(&left).members, group(&["a", "d", "c"]).members);
        // It was, but the record of the one that left was not deleted yet.
        let left = [("a", 0, true), ("b", 1, false), ("c", 2, true), ("d", 1, true)];
        assert_eq!(found(&left).members, group(&["a", "d", "c"]).members);
        assert_eq!(found(&[]).members, group(&[]).members);
    }

    #[test]
    fn an_order_that_makes_no_sense_is_not_believed() {
        assert!(!found(&[("a", 0, true), ("b", 1, true)]).unsteered);
        assert!(found(&[("a", 0, true), ("b", 0, true)]).unsteered);
        assert!(found(&[("a", 1, true), ("b", 3, true), ("c", 5, true)]).unsteered);
    }
}
