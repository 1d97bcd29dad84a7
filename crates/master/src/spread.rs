//! How an app's new connections are spread: from settings, rotation and the
//! members' numbers to what the kernel is told.

use supervisor_config::{Balance, CpuAffinity};
use supervisor_sys::cpus::allowed_cpus;
use supervisor_sys::steering::{By, Pick, Share};

use crate::registry::Entry;

/// What is known of an app for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) balance: Balance,
    /// By slot, with [`Balance::Weighted`].
    weights: Vec<u32>,
    /// How many slots there are.
    slots: u32,
    /// The CPUs that slots are pinned to, in turn; empty if they are not.
    cpus: Vec<u32>,
}

/// A member that is to get connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) key: String,
    pub(crate) slot: u32,
    /// What the rotation gives it.
    pub(crate) share: u32,
    /// What its queue gives it, with [`Balance::LeastQueue`].
    pub(crate) ease: u32,
    /// What it weighs in the program.
    pub(crate) weight: u32,
}

impl Spread {
    /// For an app that nothing is known of yet.
    pub(crate) const EVEN: Self =
        Self { balance: Balance::Random, weights: Vec::new(), slots: 1, cpus: Vec::new() };

    pub(crate) fn new(entry: &Entry) -> Self {
        let app = &entry.settings.app;
        let pinned = app.balance == Balance::Cpu && app.cpu_affinity == Some(CpuAffinity::Auto);
        Self {
            balance: app.balance,
            weights: app.weights.clone(),
            slots: entry.instances,
            // Where the CPUs cannot be told, no worker starts either.
            cpus: if pinned { allowed_cpus().unwrap_or_default() } else { Vec::new() },
        }
    }

    #[cfg(test)]
    pub(crate) fn of(balance: Balance, weights: &[u32], slots: u32) -> Self {
        Self { balance, weights: weights.to_vec(), slots, cpus: Vec::new() }
    }

    /// Works out what each of these weighs.
    pub(crate) fn weigh(&self, chosen: &mut [Chosen]) {
        let own = |one: &Chosen| {
            let factor = match self.balance {
                Balance::Weighted => self.weights.get(one.slot as usize).copied().unwrap_or(1),
                Balance::LeastQueue => one.ease,
                Balance::Random | Balance::SourceIp | Balance::Cpu | Balance::Kernel | Balance::Shared => 1,
            };
            u64::from(one.share) * u64::from(factor)
        };
        let sum = chosen.iter().map(own).fold(0, u64::saturating_add);
        // The program counts in 32 bits.
        let divisor = sum / u64::from(u32::MAX / 2) + 1;
        for one in chosen {
            one.weight = match own(one) {
                // Nobody is to get any, and somebody must.
                _ if sum == 0 => 1,
                0 => 0,
                weight => u32::try_from(weight / divisor).unwrap_or(u32::MAX).max(1),
            };
        }
    }

    /// What the kernel is told; the members with their numbers, which have been
    /// weighed. `simple` leaves it to chance.
    pub(crate) fn pick(&self, members: &[(u32, &Chosen)], simple: bool) -> Pick {
        if simple || members.iter().all(|(_, chosen)| chosen.weight == 0) {
            let share = |(number, _): &(u32, &Chosen)| Share { number: *number, weight: 1, home: 0 };
            return Pick { by: By::Chance, homes: 0, shares: members.iter().map(share).collect() };
        }
        let mut members = members.to_vec();
        members.sort_by_key(|(_, chosen)| chosen.slot);
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let (by, homes) = match self.balance {
            Balance::SourceIp => (By::Source, self.slots.max(1)),
            Balance::Cpu => (By::Cpu, self.cpus.iter().max().map_or(count, |highest| highest + 1)),
            Balance::Random | Balance::Weighted | Balance::LeastQueue | Balance::Kernel | Balance::Shared => {
                (By::Chance, 0)
            }
        };
        let home = |place: u32, slot: u32| match by {
            By::Chance => 0,
            By::Source => slot,
            By::Cpu => {
                let pinned = (slot as usize).checked_rem(self.cpus.len());
                pinned.and_then(|turn| self.cpus.get(turn)).copied().unwrap_or(place)
            }
        };
        let share = |(place, (number, chosen)): (u32, &(u32, &Chosen))| Share {
            number: *number,
            weight: chosen.weight,
            home: home(place, chosen.slot),
        };
        Pick { by, homes, shares: (0..).zip(&members).map(share).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(slot: u32, share: u32) -> Chosen {
        Chosen { key: slot.to_string(), slot, share, ease: 1, weight: 1 }
    }

    fn spread(balance: Balance) -> Spread {
        Spread { balance, slots: 4, ..Spread::EVEN }
    }

    fn weights(spread: &Spread, chosen: &mut [Chosen]) -> Vec<u32> {
        spread.weigh(chosen);
        chosen.iter().map(|one| one.weight).collect()
    }

    #[test]
    fn slots_have_weights() {
        let weighted = Spread { weights: vec![0, 3], ..spread(Balance::Weighted) };
        let mut all = [0, 1, 2].map(|slot| chosen(slot, 1));
        assert_eq!(weights(&weighted, &mut all), [0, 3, 1]);
        assert_eq!(weights(&weighted, &mut all[..1]), [1], "somebody must serve");
        assert_eq!(weights(&spread(Balance::Random), &mut all), [1, 1, 1]);
        let mut some = [chosen(1, 95), chosen(1, 5)];
        assert_eq!(weights(&weighted, &mut some), [285, 15]);
        let mut many = [chosen(1, u32::MAX), chosen(1, u32::MAX), chosen(2, 1)];
        let sum: u64 = weights(&weighted, &mut many).into_iter().map(u64::from).sum();
        assert!(many[2].weight > 0 && sum <= u64::from(u32::MAX), "{many:?}");
    }

    #[test]
    fn members_have_homes() {
        let homes = |spread: &Spread| {
            let (one, other) = (chosen(3, 1), chosen(1, 1));
            let pick = spread.pick(&[(0, &one), (1, &other)], false);
            let homes: Vec<_> = pick.shares.iter().map(|share| (share.number, share.home)).collect();
            (pick.by, pick.homes, homes)
        };
        assert_eq!(homes(&spread(Balance::SourceIp)), (By::Source, 4, vec![(1, 1), (0, 3)]));
        assert_eq!(homes(&spread(Balance::Cpu)), (By::Cpu, 2, vec![(1, 0), (0, 1)]));
        let pinned = Spread { cpus: vec![2, 5], ..spread(Balance::Cpu) };
        assert_eq!(homes(&pinned), (By::Cpu, 6, vec![(1, 5), (0, 5)]));
        assert_eq!(homes(&spread(Balance::Random)), (By::Chance, 0, vec![(1, 0), (0, 0)]));
    }
}
