//! The reserved range of descriptor numbers in which the parent lays out a child's descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

use super::plan::{MAX_FDS, Plan, Program};

/// Low, because the child's private table copies every descriptor below the end of what it needs. It
/// may be lower than the numbers that the child's descriptors go to: see [`Layout::first`].
const LOWEST: RawFd = 16;

/// Standard descriptors, the plan's, the introduction and the binary.
const SLOTS: usize = 3 + MAX_FDS + 2;

/// Where a child finds its descriptors.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    /// Descriptors `first..first + count` go to `0..count`. Moved in ascending order, none is
    /// overwritten before its turn: since `first > 0`, number `i` belongs to one already moved.
    pub(super) first: RawFd,
    /// How many of them there are.
    pub(super) count: RawFd,
    /// Where to introduce itself. This and `binary` lie above every target, so they stay whole.
    pub(super) introduce: Option<RawFd>,
    /// The program, if it is given by descriptor.
    pub(super) binary: Option<RawFd>,
    /// The number behind the last one in use.
    pub(super) end: RawFd,
}

/// Consecutive descriptors that all stand for the same idle eventfd while no spawn is under way.
#[derive(Debug)]
pub(super) struct Staging {
    idle: OwnedFd,
    slots: Vec<OwnedFd>,
    first: RawFd,
}

impl Staging {
    pub(super) fn new() -> io::Result<Self> {
        let idle = eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut slots: Vec<OwnedFd> = Vec::with_capacity(SLOTS);
        let mut first = LOWEST;
        let mut next = first;
        while slots.len() < SLOTS {
            let slot = fcntl_dupfd_cloexec(&idle, next)?;
            if slot.as_raw_fd() != next {
                // That number belongs to somebody: begin again behind it.
                slots.clear();
                first = slot.as_raw_fd();
            }
            next = slot.as_raw_fd() + 1;
            slots.push(slot);
        }
        Ok(Self { idle, slots, first })
    }

    /// Duplicates the descriptors of `plan` into the range, until the result is dropped.
    pub(super) fn stage(&mut self, plan: &Plan<'_>) -> io::Result<Staged<'_>> {
        let mut staged = Staged {
            layout: Layout { first: self.first, end: self.first, ..Layout::default() },
            staging: self,
            used: 0,
        };
        for fd in [plan.stdin, plan.stdout, plan.stderr].iter().chain(&plan.fds) {
            staged.add(*fd)?;
            staged.layout.count += 1;
        }
        if let Some(socket) = plan.introduce {
            staged.layout.introduce = Some(staged.add(socket)?);
        }
        if let Program::Binary(binary) = plan.program {
            staged.layout.binary = Some(staged.add(binary)?);
        }
        Ok(staged)
    }
}

/// A range in use. Dropping it makes the slots idle again, so that nothing of a child stays open here.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    staging: &'a mut Staging,
    used: usize,
    layout: Layout,
}

impl Staged<'_> {
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    fn add(&mut self, fd: BorrowedFd<'_>) -> io::Result<RawFd> {
        let slot = self.staging.slots.get_mut(self.used).ok_or(io::ErrorKind::ArgumentListTooLong)?;
        dup3(fd, slot, DupFlags::CLOEXEC)?;
        self.used += 1;
        self.layout.end = slot.as_raw_fd() + 1;
        Ok(slot.as_raw_fd())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        let Staging { idle, slots, .. } = &mut *self.staging;
        for slot in slots.iter_mut().take(self.used) {
            // Both are open and the number is ours, so this cannot fail; if it did, the slot would
            // still be open and keep its place in the range.
            let _ = dup3(&*idle, slot, DupFlags::CLOEXEC);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_avoids_numbers_in_use() {
        let first = Staging::new().unwrap();
        let second = Staging::new().unwrap();
        for staging in [&first, &second] {
            let numbers: Vec<RawFd> = staging.slots.iter().map(AsRawFd::as_raw_fd).collect();
            let wanted: Vec<RawFd> = (staging.first..).take(SLOTS).collect();
            assert_eq!(numbers, wanted);
            assert!(staging.first >= LOWEST);
        }
    }
}
