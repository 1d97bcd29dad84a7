//! What happens while masters come and go, to be told to whichever is there.

use std::collections::VecDeque;

use supervisor_protocol::keeper::{FromKeeper, Orphan, Upgrade};
use supervisor_sys::signal::Signal;

/// Ends of orphans that are remembered; the oldest is forgotten first.
const ORPHANS: usize = 4096;

/// Signals that no master has got yet, and the ends of orphans.
///
/// A signal goes to one master. The end of an orphan goes to each: the one that
/// got it may have died of something else before it could act.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Each at most once, as in the kernel.
    signals: VecDeque<Signal>,
    orphans: VecDeque<Orphan>,
    /// How many orphans have been forgotten: the number of the first one here.
    forgotten: u64,
    /// How far the last upgrade has come.
    upgrade: Option<Upgrade>,
    /// How often that has changed.
    changes: u64,
}

impl News {
    /// Notes a signal, unless the same one waits already.
    pub(crate) fn add_signal(&mut self, signal: Signal) {
        if !self.signals.contains(&signal) {
            self.signals.push_back(signal);
        }
    }

    /// The signal that has waited longest.
    pub(crate) fn signal(&self) -> Option<Signal> {
        self.signals.front().copied()
    }

    /// Notes that a master has got that signal.
    pub(crate) fn signal_sent(&mut self) {
        self.signals.pop_front();
    }

    /// Notes the end of an orphan.
    pub(crate) fn add_orphan(&mut self, orphan: Orphan) {
        if self.orphans.len() == ORPHANS {
            self.orphans.pop_front();
            self.forgotten += 1;
        }
        self.orphans.push_back(orphan);
    }

    /// The first remembered orphan whose number is at least this, and its
    /// number. They are numbered from 0 in the order in which they ended.
    pub(crate) fn orphan(&self, number: u64) -> Option<(u64, Orphan)> {
        let number = number.max(self.forgotten);
        let index = usize::try_from(number - self.forgotten).ok()?;
        self.orphans.get(index).map(|orphan| (number, *orphan))
    }

    /// All of it, as masters are told, in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = FromKeeper> {
        let signals = self.signals.iter().map(|signal| FromKeeper::Signal { number: signal.as_raw() });
        let orphans = self.orphans.iter().copied().map(FromKeeper::Orphan);
        signals.chain(orphans).chain(self.upgrade.clone().map(FromKeeper::Upgrade))
    }

    /// Takes one of these.
    pub(crate) fn take_message(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Signal { number } => {
                if let Some(signal) = Signal::from_raw(number) {
                    self.add_signal(signal);
                }
            }
            FromKeeper::Orphan(orphan) => self.add_orphan(orphan),
            FromKeeper::Upgrade(upgrade) => self.set_upgrade(upgrade),
            FromKeeper::Hello(_) | FromKeeper::Entry { .. } | FromKeeper::TableEnd => {}
        }
    }

    /// Notes how far an upgrade has come.
    pub(crate) fn set_upgrade(&mut self, upgrade: Upgrade) {
        self.upgrade = Some(upgrade);
        self.changes += 1;
    }

    /// How far the last upgrade has come, with the number of that news, unless
    /// it is this one.
    pub(crate) fn upgrade(&self, known: u64) -> Option<(u64, &Upgrade)> {
        self.upgrade.as_ref().filter(|_| self.changes > known).map(|upgrade| (self.changes, upgrade))
    }
}

#[cfg(test)]
mod tests {
    use supervisor_protocol::keeper::OrphanExit;

    use super::*;

    #[test]
    fn a_signal_waits_once_and_goes_to_one_master() {
        let mut news = News::default();
        for signal in [Signal::HUP, Signal::TERM, Signal::HUP] {
            news.add_signal(signal);
        }
        assert_eq!(news.signal(), Some(Signal::HUP));
        news.signal_sent();
        assert_eq!(news.signal(), Some(Signal::TERM));
        news.signal_sent();
        assert_eq!(news.signal(), None);
    }

    #[test]
    fn orphans_are_numbered_for_good() {
        let mut news = News::default();
        let orphan = |pid| Orphan { pid, start_time: 0, exit: OrphanExit::Code(0) };
        assert_eq!(news.orphan(0), None);
        for pid in 0..5000 {
            news.add_orphan(orphan(pid));
        }
        assert_eq!(news.orphans.len(), ORPHANS);
        assert_eq!(news.orphan(0), Some((904, orphan(904))));
        assert_eq!(news.orphan(4999), Some((4999, orphan(4999))));
        assert_eq!(news.orphan(5000), None);
    }
}
