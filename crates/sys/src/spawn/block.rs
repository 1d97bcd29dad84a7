//! NUL-terminated strings in one piece of memory, as `execve(2)` wants them.

use std::ffi::c_char;

/// Strings being collected. Pointers to them are taken once all are there, by [`Block::finish`].
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
}

/// Where a string begins in its [`Block`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Offset(usize);

impl Block {
    /// Appends the parts as one string.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a NUL byte inside.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<Offset, i32> {
        let offset = Offset(self.bytes.len());
        for part in parts {
            if part.contains(&0) {
                return Err(libc::EINVAL);
            }
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        Ok(offset)
    }

    /// Appends a string with `room` bytes behind it that can be overwritten later. Gives the start of
    /// the string and of the room.
    pub(super) fn push_with_room(&mut self, prefix: &[u8], room: usize) -> Result<(Offset, Offset), i32> {
        let start = self.push(&[prefix])?;
        let end = Offset(self.bytes.len() - 1);
        self.bytes.resize(self.bytes.len() + room, 0);
        Ok((start, end))
    }

    pub(super) fn finish(mut self) -> Strings {
        Strings { start: self.bytes.as_mut_ptr(), _bytes: self.bytes }
    }
}

/// The finished block; it does not move or change size any more.
#[derive(Debug)]
pub(super) struct Strings {
    start: *mut u8,
    _bytes: Vec<u8>,
}

impl Strings {
    pub(super) fn pointer(&self, offset: Offset) -> *const c_char {
        self.start.wrapping_add(offset.0).cast()
    }

    pub(super) fn pointer_mut(&self, offset: Offset) -> *mut u8 {
        self.start.wrapping_add(offset.0)
    }

    /// The array that `execve(2)` takes: pointers and a null at the end.
    pub(super) fn pointers(&self, offsets: &[Offset]) -> Vec<*const c_char> {
        offsets.iter().map(|offset| self.pointer(*offset)).chain([std::ptr::null()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn strings_end_where_they_should() {
        let mut block = Block::default();
        let first = block.push(&[b"NAME", b"=", b"value"]).unwrap();
        let empty = block.push(&[]).unwrap();
        let (roomy, room) = block.push_with_room(b"PID=", 3).unwrap();
        let last = block.push(&[b"last"]).unwrap();
        assert_eq!(block.push(&[b"a\0b"]).unwrap_err(), libc::EINVAL);

        let strings = block.finish();
        for (offset, byte) in b"123".iter().enumerate() {
            // SAFETY: the room has three bytes, and the block lives.
            unsafe { strings.pointer_mut(room).add(offset).write(*byte) };
        }
        let pointers = strings.pointers(&[first, empty, roomy, last]);
        assert!(pointers.last().unwrap().is_null());
        let read: Vec<&[u8]> = pointers[..4]
            .iter()
            // SAFETY: each pointer is to a terminated string of the living block.
            .map(|pointer| unsafe { CStr::from_ptr(*pointer) }.to_bytes())
            .collect();
        assert_eq!(read, [&b"NAME=value"[..], b"", b"PID=123", b"last"]);
    }
}
