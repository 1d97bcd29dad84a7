//! One line of `/proc/PID/stat`.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::str;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{pread, retry_on_intr};
use rustix::process::Pid;

use super::sample::CpuTimes;
use crate::pidfd::Exit;

/// Enough for what is read of the line: its first 22 fields, numbers of at most 20 digits but for the
/// name, which has at most 64 bytes.
const LEN: usize = 512;

/// What we want to know of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) zombie: bool,
    pub(super) stopped: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) cpu: CpuTimes,
    pub(super) start_time: u64,
}

/// When a process started, in clock ticks since boot. With the pid it names one process of this boot.
///
/// # Errors
///
/// `NotFound` or `ESRCH` if there is no such process; a zombie still has its time.
pub fn start_time(pid: Pid) -> io::Result<u64> {
    Ok(of(pid)?.start_time)
}

/// The parent of a process; `None` for one of another namespace.
///
/// # Errors
///
/// As [`start_time`].
pub fn parent(pid: Pid) -> io::Result<Option<Pid>> {
    Ok(Pid::from_raw(of(pid)?.parent))
}

/// Whether a process is stopped by a signal.
///
/// # Errors
///
/// As [`start_time`].
pub fn is_stopped(pid: Pid) -> io::Result<bool> {
    Ok(of(pid)?.stopped)
}

/// How a process ended that nobody has reaped yet, whosever child it is. `None` for one whose first thread
/// runs, that is gone, or is another than the one that started then; and for one that left with 0 when we
/// may not know that, as 0 is what the kernel shows then.
///
/// The first thread may have ended before the others: ask when the pidfd says that all have. Where
/// [`exit_of_stranger`](crate::pidfd::exit_of_stranger) does not work, the kernel shows 0 when the first
/// thread has ended before one that failed.
#[must_use]
pub fn exit_of_zombie(pid: Pid, start_time: u64) -> Option<Exit> {
    let file = |name: &str| format!("/proc/{}/{name}", pid.as_raw_pid());
    let line = fs::read(file("stat")).ok()?;
    parse(&line).filter(|stat| stat.zombie && stat.start_time == start_time)?;
    // The 52nd field; the state is the third.
    let end = line.iter().rposition(|byte| *byte == b')')?;
    let status = str::from_utf8(line.get(end + 1..)?).ok()?.split_ascii_whitespace().nth(52 - 3)?;
    let status = status.parse().ok()?;
    // What it has read and written is told under the same condition (PTRACE_MODE_READ_FSCREDS).
    if status == 0 && fs::read(file("io")).is_err() {
        return None;
    }
    Some(Exit::from_status(status))
}

fn of(pid: Pid) -> io::Result<Stat> {
    let path = format!("/proc/{}/stat", pid.as_raw_pid());
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read(file)
}

/// Reads the line from the beginning of an open file.
///
/// # Errors
///
/// `ESRCH` once the process is reaped.
pub(super) fn read(file: impl AsFd) -> io::Result<Stat> {
    let mut buffer = [0; LEN];
    let len = retry_on_intr(|| pread(&file, &mut buffer, 0))?;
    let stat = buffer.get(..len).and_then(parse);
    stat.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The line may be cut behind what is wanted.
fn parse(line: &[u8]) -> Option<Stat> {
    // The name is in parentheses and may hold any byte, parentheses too: what follows has none.
    let end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(line.get(end + 1..)?).ok()?;
    // The state, field 3, comes first.
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let (zombie, stopped) = (matches!(state, "Z" | "X"), state == "T");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let user = fields.nth(14 - 7)?.parse().ok()?;
    let system = fields.next()?.parse().ok()?;
    let start_time = fields.nth(22 - 16)?.parse().ok()?;
    Some(Stat { zombie, stopped, parent, group, session, cpu: CpuTimes { user, system }, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, getppid};

    #[test]
    fn names_can_be_anything() {
        let check = |name: &str| {
            let line = format!("17 ({name}) S 4 16 15 0 -1 4194560 9 8 7 6 150 30 2 1 20 0 1 0 98765 4096 0");
            let cpu = CpuTimes { user: 150, system: 30 };
            let stat = Stat {
                zombie: false,
                stopped: false,
                parent: 4,
                group: 16,
                session: 15,
                cpu,
                start_time: 98765,
            };
            assert_eq!(parse(line.as_bytes()), Some(stat), "{line}");
        };
        check("sh");
        check("a b");
        check(") S 1 1 1 (");
        check("((");
        check(")");
        check("");
        check("\n");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let lines = ["", "17", "17 (sh", "17 (sh)", "17 (sh) S 4", "17 (sh) S x y z"];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(b"17 (sh) \xff"), None);
    }

    #[test]
    fn our_own_line_is_read() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let stat = read(&file).unwrap();
        assert_eq!(Pid::from_raw(stat.parent), getppid());
        assert_eq!(start_time(getpid()).unwrap(), stat.start_time);
        assert!(stat.start_time > 0);
    }
}
