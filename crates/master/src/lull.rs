//! What a storm leaves behind in memory, given back when it is over: free pieces
//! of the heap, and the code that it took to begin, half of the program.

use supervisor_sys::own;

/// So many starts of workers are a storm.
const MANY: u32 = 64;
/// Beats without a start after which it is over: giving back takes milliseconds,
/// and what was code of use comes back from the page cache.
const QUIET: u32 = 5;

/// Waits for the end of a storm.
#[derive(Debug)]
pub(crate) struct Lull {
    /// Starts of workers since memory was given back.
    starts: u32,
    /// Beats since the last one.
    quiet: u32,
}

impl Default for Lull {
    fn default() -> Self {
        // The beginning of a master is a storm of its own.
        Self { starts: MANY, quiet: 0 }
    }
}

impl Lull {
    /// Notes that a worker is started.
    pub(crate) const fn note_start(&mut self) {
        self.starts = self.starts.saturating_add(1);
        self.quiet = 0;
    }

    /// Gives back what a storm has left, if it is over. To be called once a
    /// second.
    pub(crate) fn beat(&mut self) {
        self.quiet = self.quiet.saturating_add(1);
        if self.is_over() {
            self.starts = 0;
            own::drop_code();
            own::trim_heap();
        }
    }

    const fn is_over(&self) -> bool {
        self.starts >= MANY && self.quiet >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_over_when_nothing_starts_any_more() {
        let mut lull = Lull::default();
        for _ in 1..QUIET {
            lull.beat();
        }
        assert_eq!(lull.starts, MANY);
        lull.beat();
        assert_eq!(lull.starts, 0, "the beginning is over");
        for _ in 1..MANY {
            lull.note_start();
        }
        lull.quiet = QUIET;
        assert!(!lull.is_over(), "they are few");
        lull.note_start();
        assert!(!lull.is_over(), "one has just started");
        lull.quiet = QUIET;
        assert!(lull.is_over());
    }
}
