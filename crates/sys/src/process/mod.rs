//! Reading `/proc`: `proc_pid_stat(5)` and its neighbours.

mod descriptors;
mod sample;
mod stat;
mod table;

use std::fs;
use std::io;

use rustix::process::Pid;

pub use descriptors::{Nameless, nameless, open_pipe};
pub use sample::{CpuTimes, StatFile, StatmFile, pss};
pub use stat::{exit_of_zombie, is_stopped, parent, start_time};
pub use table::{ProcessEntry, process_table};

/// How many clock ticks a second has; the unit of [`CpuTimes`] and [`start_time`].
#[must_use]
pub fn clock_ticks() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// The size of a page of memory, bytes.
#[must_use]
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Whether a process has ended, or has given up its memory on the way there; its descriptors go only after
/// that. From then on they are for root to look at, whoever it belonged to.
#[must_use]
pub fn is_ending(pid: Pid) -> bool {
    match fs::read(format!("/proc/{}/statm", pid.as_raw_pid())) {
        Ok(pages) => pages.starts_with(b"0 "),
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    }
}

/// A random id of this boot of the machine: start times are to be compared within one only.
///
/// # Errors
///
/// When `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_an_id() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(boot_id().unwrap(), id);
        assert!(page_size().is_power_of_two());
    }
}
