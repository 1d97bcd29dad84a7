//! When a storm is over, so that what it has left behind in memory is given back:
//! free pieces of the heap, and the code that it took, half of the program.

/// So many changes are a storm.
const MANY: u32 = 64;
/// So few from one beat to the next are none: somewhere something always changes.
const FEW: u32 = 4;
/// Beats with few changes after which it is over: giving back takes milliseconds,
/// and what was code of use comes back from the page cache.
const QUIET: u32 = 5;

/// Waits for the end of a storm.
#[derive(Debug)]
pub struct Lull {
    /// Changes since the last storm was over.
    changes: u32,
    /// Those since the last beat.
    recent: u32,
    /// Beats since there were more than a few.
    quiet: u32,
}

impl Default for Lull {
    fn default() -> Self {
        // The beginning of a process is a storm of its own.
        Self { changes: MANY, recent: 0, quiet: 0 }
    }
}

impl Lull {
    /// Notes what takes memory for the moment, as the start of a worker does.
    pub const fn note(&mut self) {
        self.changes = self.changes.saturating_add(1);
        self.recent = self.recent.saturating_add(1);
    }

    /// Whether a storm is over: once for each. To be called once a second.
    pub const fn beat(&mut self) -> bool {
        self.quiet = if self.recent > FEW { 0 } else { self.quiet.saturating_add(1) };
        self.recent = 0;
        let is_over = self.changes >= MANY && self.quiet >= QUIET;
        if is_over {
            self.changes = 0;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_over_when_nothing_changes_any_more() {
        let mut lull = Lull::default();
        let beats = |lull: &mut Lull, count| (0..count).filter(|_| lull.beat()).count();
        assert_eq!(beats(&mut lull, QUIET - 1), 0);
        assert_eq!(beats(&mut lull, 1), 1, "the beginning is over");
        assert_eq!(beats(&mut lull, 2 * QUIET), 0);
        (1..MANY).for_each(|_| lull.note());
        assert_eq!(beats(&mut lull, 2 * QUIET), 0, "it was none");
        (0..=FEW).for_each(|_| lull.note());
        assert_eq!(beats(&mut lull, QUIET), 0, "some have just come");
        lull.note();
        assert_eq!(beats(&mut lull, 1), 1, "another one makes no difference");
    }
}
