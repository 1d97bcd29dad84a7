//! Measuring a process again and again, through files that stay open.
//!
//! A kept file means the process that it was opened for: once that is reaped, reading fails with
//! `ESRCH`, whoever has its pid now.

use std::fs::{self, File};
use std::io;
use std::str;

use rustix::io::{pread, retry_on_intr};
use rustix::process::Pid;

use super::{page_size, stat};

/// CPU time that a process has used, in [clock ticks](super::clock_ticks), its reaped children not
/// among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// In its own code.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

impl CpuTimes {
    /// Both together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.user.saturating_add(self.system)
    }
}

/// An open `/proc/PID/stat`.
#[derive(Debug)]
pub struct StatFile {
    file: File,
}

impl StatFile {
    /// Opens it; close-on-exec.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such process, `EMFILE`.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let file = File::open(format!("/proc/{}/stat", pid.as_raw_pid()))?;
        Ok(Self { file })
    }

    /// The CPU time used so far.
    ///
    /// # Errors
    ///
    /// `ESRCH` once the process is reaped.
    pub fn read(&self) -> io::Result<CpuTimes> {
        Ok(stat::read(&self.file)?.cpu)
    }
}

/// An open `/proc/PID/statm`.
#[derive(Debug)]
pub struct StatmFile {
    file: File,
}

impl StatmFile {
    /// Opens it; close-on-exec.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such process, `EMFILE`.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let file = File::open(format!("/proc/{}/statm", pid.as_raw_pid()))?;
        Ok(Self { file })
    }

    /// The resident memory in bytes, pages shared with others among it. 0 for a zombie.
    ///
    /// # Errors
    ///
    /// `ESRCH` once the process is reaped.
    pub fn read(&self) -> io::Result<u64> {
        // Seven numbers of at most 20 digits.
        let mut buffer = [0; 160];
        let len = retry_on_intr(|| pread(&self.file, &mut buffer, 0))?;
        let pages = buffer.get(..len).and_then(resident_pages).ok_or(io::ErrorKind::InvalidData)?;
        Ok(pages.saturating_mul(page_size()))
    }
}

fn resident_pages(line: &[u8]) -> Option<u64> {
    let line = str::from_utf8(line).ok()?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The resident memory of a process in bytes, with shared pages divided among those who share them.
/// Dear: the kernel walks all its memory, about 1 ms for 70 MB.
///
/// # Errors
///
/// `NotFound` or `ESRCH` without such a process or for a zombie, `EACCES` for one of another user.
pub fn pss(pid: Pid) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_pid()))?;
    parse_pss(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_pss(text: &str) -> Option<u64> {
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = kibibytes.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::clock_ticks;

    #[test]
    fn a_sample_of_ourselves_is_plausible() {
        let own = rustix::process::getpid();
        let stat = StatFile::open(own).unwrap();
        let before = stat.read().unwrap();
        // Uses CPU until the kernel has counted some.
        while stat.read().unwrap().total() < before.total() + 2 {}
        assert!(clock_ticks() >= 24);

        let resident = StatmFile::open(own).unwrap().read().unwrap();
        assert!(resident > 100 * 1024, "{resident}");
        let pss = pss(own).unwrap();
        assert!(pss > 10 * 1024, "{pss}");
    }

    #[test]
    fn texts_are_understood() {
        assert_eq!(resident_pages(b"5840 1023 770 190 0 500 0\n"), Some(1023));
        assert_eq!(resident_pages(b"5840"), None);
        assert_eq!(resident_pages(b"\xff \xff"), None);
        let rollup = "55d0-7ffe ---p 0 00:00 0 [rollup]\nRss:  10 kB\nPss:     7 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(parse_pss(rollup), Some(7 * 1024));
        assert_eq!(parse_pss("Rss: 10 kB"), None);
        assert_eq!(parse_pss(""), None);
    }
}
