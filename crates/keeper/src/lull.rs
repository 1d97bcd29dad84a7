//! When a storm is over, so that what it has left behind in memory is given back:
//! free pieces of the heap, and the code that it took, half of the program.

/// Beats with few changes after which it is over: giving back takes milliseconds,
/// and what was code of use comes back from the page cache.
const QUIET: u32 = 5;

/// Waits for the end of a storm.
#[derive(Debug)]
pub struct Lull {
    /// So many changes are a storm.
    many: u32,
    /// So few from one beat to the next are none: somewhere something always
    /// changes.
    few: u32,
    /// Changes since the last storm was over.
    changes: u32,
    /// Those since the last beat.
    recent: u32,
    /// Beats since there were more than a few.
    quiet: u32,
}

impl Lull {
    /// Waits for the end of the storm that the beginning of a process is.
    #[must_use]
    pub const fn new(many: u32, few: u32) -> Self {
        Self { many, few, changes: many, recent: 0, quiet: 0 }
    }

    /// Notes what takes memory for the moment, as the start of a worker does.
    pub const fn note(&mut self) {
        self.note_many(1);
    }

    /// Notes what takes as much as so many of them.
    pub const fn note_many(&mut self, changes: u32) {
        self.changes = self.changes.saturating_add(changes);
        self.recent = self.recent.saturating_add(changes);
    }

    /// Whether a storm is over: once for each. To be called once a second.
    pub const fn beat(&mut self) -> bool {
        self.quiet = if self.recent > self.few { 0 } else { self.quiet.saturating_add(1) };
        self.recent = 0;
        if self.quiet < QUIET {
            return false;
        }
        // What is few and far between does not add up to one.
        let was_storm = self.changes >= self.many;
        self.changes = 0;
        was_storm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u32 = 64;
    const FEW: u32 = 4;

    #[test]
    fn a_storm_is_over_when_nothing_changes_any_more() {
        let mut lull = Lull::new(MANY, FEW);
        let beats = |lull: &mut Lull, count| (0..count).filter(|_| lull.beat()).count();
        assert_eq!(beats(&mut lull, QUIET - 1), 0);
        assert_eq!(beats(&mut lull, 1), 1, "the beginning is over");
        assert_eq!(beats(&mut lull, 2 * QUIET), 0);
        (1..MANY).for_each(|_| lull.note());
        assert_eq!(beats(&mut lull, 2 * QUIET), 0, "it was none");
        lull.note_many(MANY);
        assert_eq!(beats(&mut lull, QUIET), 0, "it has just come");
        lull.note();
        assert_eq!(beats(&mut lull, 1), 1, "another one makes no difference");
    }

    #[test]
    fn a_trickle_is_none() {
        let mut lull = Lull::new(MANY, FEW);
        while !lull.beat() {}
        for _ in 0..MANY {
            (0..FEW).for_each(|_| lull.note());
            assert!(!lull.beat());
        }
    }
}
