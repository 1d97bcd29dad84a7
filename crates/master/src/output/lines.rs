//! Whole lines from pieces that end anywhere.

/// The most that is taken at a time, bytes.
const PIECE: usize = 256 * 1024;
/// A line whose end has not come after this many bytes is cut.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// Room for the beginning of a line, which an earlier piece had, and a piece.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self(vec![0; MAX_LINE + PIECE].into_boxed_slice())
    }

    /// Where a piece is read to.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.0[MAX_LINE..]
    }

    /// The piece that was read last.
    pub(crate) fn piece(&self, length: usize) -> &[u8] {
        &self.0[MAX_LINE..MAX_LINE + length]
    }

    /// What is whole of it, behind what it goes on with. `unfinished` is the
    /// beginning of a line whose end has not come, before and after; it is shorter
    /// than [`MAX_LINE`].
    pub(crate) fn lines(&mut self, unfinished: &mut Vec<u8>, length: usize) -> &[u8] {
        let piece = self.piece(length);
        // Lines up to the last end are whole; what follows waits for its own,
        // unless that is long in coming.
        let end = memchr::memrchr(b'\n', piece).map_or(0, |end| end + 1);
        let begun = if end == 0 { unfinished.len() } else { 0 };
        let written = if begun + length - end >= MAX_LINE { length } else { end };
        if written == 0 {
            unfinished.extend_from_slice(piece);
            return &[];
        }
        let rest = piece[written..].to_vec();
        let begun = std::mem::replace(unfinished, rest);
        let start = MAX_LINE - begun.len();
        self.0[start..MAX_LINE].copy_from_slice(&begun);
        &self.0[start..MAX_LINE + written]
    }
}
