//! The last that a stream wrote, to tell people why a start failed. It is kept
//! in memory: files may be rotated, shared, full or none at all.

/// The most that is kept, bytes.
const KEPT: usize = 4 * 1024;
/// The most lines of it that are told.
const LINES: usize = 20;

/// The end of a stream's output.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    /// Something before `bytes` was left out.
    is_cut: bool,
}

impl Tail {
    /// Notes what was written.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(KEPT)..];
        // Twice as much is held, so that little pieces do not move it each time.
        if self.bytes.len() + kept.len() > 2 * KEPT {
            let surplus = (self.bytes.len() + kept.len() - KEPT).min(self.bytes.len());
            self.bytes.drain(..surplus);
            self.is_cut |= surplus > 0;
        }
        self.is_cut |= kept.len() < bytes.len();
        self.bytes.extend_from_slice(kept);
    }

    /// The last lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let start = self.bytes.len().saturating_sub(KEPT);
        let text = String::from_utf8_lossy(&self.bytes[start..]);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // The first line was cut when something before it is missing.
        if (self.is_cut || start > 0) && lines.len() > 1 {
            lines.remove(0);
        }
        let surplus = lines.len().saturating_sub(LINES);
        lines.drain(..surplus);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        let mut tail = Tail::default();
        assert_eq!(tail.lines(), [""; 0]);
        tail.push(b"a\nb");
        tail.push(b"c\n");
        assert_eq!(tail.lines(), ["a", "bc"]);
        for number in 0..10_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        assert!(tail.bytes.len() <= 2 * KEPT);
        let lines = tail.lines();
        assert_eq!((lines.len(), &*lines[0], &*lines[19]), (LINES, "line 9980", "line 9999"));
    }

    #[test]
    fn a_flood_without_lines() {
        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 100_000]);
        assert_eq!(tail.lines(), ["x".repeat(KEPT)]);
        tail.push(b"\nend\n");
        assert_eq!(tail.lines(), ["end"]);
    }
}
