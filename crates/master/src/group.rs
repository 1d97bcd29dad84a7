//! The members of an `SO_REUSEPORT` group, numbered as the kernel numbers them.
//!
//! The kernel does not tell the numbers, so they are kept here, and with the
//! keeper for the next master: each member's record has its number, written
//! *before* it joins. That is enough to find the order again after a death at
//! any instruction: a member that does not listen has not joined, or has left;
//! and a hole in the numbers means that the last one was moved there.

use supervisor_config::ListenAddress;

/// One app's address: its members in the kernel's order, each with its socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group<S> {
    pub(crate) address: ListenAddress,
    members: Vec<Member<S>>,
    /// The numbers that the attached program picks from.
    pub(crate) picked: Vec<u32>,
    /// The order is not known, or the kernel takes no program: its hash chooses.
    pub(crate) unsteered: bool,
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
        Self { address, members: Vec::new(), picked: Vec::new(), unsteered: false }
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
        Self { address, members, picked: Vec::new(), unsteered }
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
        self.members.iter().any(|member| member.key == key)
    }

    /// A member's number.
    pub(crate) fn number_of(&self, key: &str) -> Option<u32> {
        u32::try_from(self.members.iter().position(|member| member.key == key)?).ok()
    }

    /// Notes that a socket began to listen.
    pub(crate) fn join(&mut self, key: String, socket: S) {
        self.members.push(Member { key, socket });
    }

    /// Notes that a member listens no more. Returns the one that has its number
    /// now, and the number.
    pub(crate) fn leave(&mut self, key: &str) -> Option<(u32, &Member<S>)> {
        let place = self.members.iter().position(|member| member.key == key)?;
        self.members.swap_remove(place);
        // What is known of the numbers is of no use now.
        self.picked.clear();
        Some((u32::try_from(place).ok()?, self.members.get(place)?))
    }

    /// The keys that the program picks.
    pub(crate) fn picked(&self) -> impl Iterator<Item = &str> {
        self.picked
            .iter()
            .filter_map(|number| self.members.get(*number as usize))
            .map(|member| member.key.as_str())
    }

    /// The numbers of the members that a program may pick, ascending.
    pub(crate) fn numbers(&self, may: impl Fn(&str) -> bool) -> Vec<u32> {
        (0..).zip(&self.members).filter(|(_, member)| may(&member.key)).map(|(number, _)| number).collect()
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
        assert_eq!(members.numbers(|key| key != "b"), [0, 2, 3]);
        let moved = members.leave("b").map(|(number, member)| (number, member.key.clone()));
        assert_eq!(moved, Some((1, "d".to_owned())));
        assert_eq!(members.numbers(|key| key == "d"), [1]);
        assert_eq!(members.leave("c"), None);
        assert_eq!(members.leave("c"), None);
        assert_eq!(members, group(&["a", "d"]));
    }

    #[test]
    fn the_order_is_found_again() {
        assert_eq!(found(&[("b", 1, true), ("a", 0, true)]), group(&["a", "b"]));
        // It was written down and had not joined yet.
        assert_eq!(found(&[("a", 0, true), ("b", 1, false)]), group(&["a"]));
        // It had left, and the last one's new number was not written down yet.
        let left = [("a", 0, true), ("b", 1, false), ("c", 2, true), ("d", 3, true)];
        assert_eq!(found(&left), group(&["a", "d", "c"]));
        // It was, but the record of the one that left was not deleted yet.
        let left = [("a", 0, true), ("b", 1, false), ("c", 2, true), ("d", 1, true)];
        assert_eq!(found(&left), group(&["a", "d", "c"]));
        assert_eq!(found(&[]), group(&[]));
    }

    #[test]
    fn an_order_that_makes_no_sense_is_not_believed() {
        assert!(!found(&[("a", 0, true), ("b", 1, true)]).unsteered);
        assert!(found(&[("a", 0, true), ("b", 0, true)]).unsteered);
        assert!(found(&[("a", 1, true), ("b", 3, true), ("c", 5, true)]).unsteered);
    }
}
