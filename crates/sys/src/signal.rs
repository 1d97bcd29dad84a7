//! Signals by name and number.

use std::fmt;
use std::io;
use std::mem;
use std::ptr;
use std::str::FromStr;

/// A signal of Linux, 1 to 64.
///
/// Read from `SIGTERM`, `TERM`, `15`, `SIGRTMIN+1`, `RTMAX-2`, in any case; shown as `SIGTERM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

/// The highest number that the kernel knows.
const LAST: i32 = 64;

/// The names of `signal(7)`. For reading, several may mean one number; the first is shown.
const NAMES: [(&str, i32); 35] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("UNUSED", libc::SIGSYS),
];

impl Signal {
    /// Abort, with a core dump.
    pub const ABRT: Self = Self(libc::SIGABRT);
    /// A child has ended.
    pub const CHLD: Self = Self(libc::SIGCHLD);
    /// Go on after a stop.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// Read the configuration again, by convention.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Interrupt from a terminal.
    pub const INT: Self = Self(libc::SIGINT);
    /// End at once; cannot be caught.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// Nobody reads what is written.
    pub const PIPE: Self = Self(libc::SIGPIPE);
    /// Quit from a terminal.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// Stop; cannot be caught.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// Please end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// Reopen the logs, by convention.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// Upgrade, by convention.
    pub const USR2: Self = Self(libc::SIGUSR2);

    /// The signal of this number, if there is one.
    #[must_use]
    pub const fn from_raw(number: i32) -> Option<Self> {
        if 1 <= number && number <= LAST { Some(Self(number)) } else { None }
    }

    /// The number, 1 to 64.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        // SAFETY: what must not be sent through it are numbers that the kernel does not know. The two
        // that libc keeps for its threads are only ever sent to other processes, as kill(1) does.
        unsafe { rustix::process::Signal::from_raw_unchecked(signal.0) }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if let Some((name, _)) = NAMES.iter().find(|(_, known)| *known == number) {
            return write!(f, "SIG{name}");
        }
        match number - libc::SIGRTMIN() {
            0 => f.write_str("SIGRTMIN"),
            offset @ 1.. => write!(f, "SIGRTMIN+{offset}"),
            // Below SIGRTMIN are those that libc keeps for itself: without a name.
            _ => write!(f, "{number}"),
        }
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        by_name(name)
            .or_else(|| number(&upper))
            .and_then(Self::from_raw)
            .ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

fn by_name(name: &str) -> Option<i32> {
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let real_time = match name {
        "RTMIN" => first,
        "RTMAX" => last,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(offset), _) => first.checked_add(number(offset)?)?,
            (_, Some(offset)) => last.checked_sub(number(offset)?)?,
            (None, None) => return None,
        },
    };
    (first..=last).contains(&real_time).then_some(real_time)
}

/// Digits only: no sign, no blank.
fn number(text: &str) -> Option<i32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// A text that means no signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSignal(String);

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown signal {:?}: use a name such as SIGTERM, or 1 to {LAST}", self.0)
    }
}

impl std::error::Error for UnknownSignal {}

/// Gives `SIGPIPE` its default effect again, which Rust's start-up code takes away: a command line
/// tool whose output nobody reads ends quietly.
///
/// # Errors
///
/// None that is known.
pub fn reset_sigpipe() -> io::Result<()> {
    set_disposition(Signal::PIPE, libc::SIG_DFL)
}

/// Ignores a signal in the whole process. Children started by [`spawn`](crate::spawn) do not inherit it.
///
/// # Errors
///
/// `EINVAL` for `SIGKILL`, `SIGSTOP` and those that libc keeps for itself.
pub fn ignore(signal: Signal) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Unblocks all signals in the calling thread: whoever started the process may have left some blocked,
/// and a blocked one never reaches its handler. Before other threads are started, as they inherit it.
///
/// # Errors
///
/// None that is known.
pub fn unblock_all() -> io::Result<()> {
    // SAFETY: a set of integers, for which zero is a value; `sigemptyset` fills it in.
    let mut none: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both take a living set; the former mask is not asked for.
    let result = unsafe {
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Blocks all signals in the calling thread. They wait, also over an `exec`, until they are
/// [unblocked](unblock_all): a program that becomes another one misses none.
///
/// # Errors
///
/// None that is known.
pub fn block_all() -> io::Result<()> {
    // SAFETY: a set of integers, for which zero is a value; `sigfillset` fills it in.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both take a living set; the former mask is not asked for.
    let result = unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

fn set_disposition(signal: Signal, disposition: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: installs no code, only one of the kernel's own two dispositions.
    if unsafe { libc::signal(signal.0, disposition) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_signals() {
        let check = |text: &str, number: i32| {
            assert_eq!(text.parse::<Signal>().unwrap().as_raw(), number, "{text}");
        };
        check("SIGTERM", 15);
        check("TERM", 15);
        check("sigterm", 15);
        check("15", 15);
        check(" HUP ", 1);
        check("SIGIOT", libc::SIGABRT);
        check("RTMIN", libc::SIGRTMIN());
        check("SIGRTMIN+1", libc::SIGRTMIN() + 1);
        check("RTMAX", 64);
        check("RTMAX-3", 61);
        check("64", 64);
        let texts = [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "+9",
            "SIG15",
            "TERMINATE",
            "RTMIN+99",
            "RTMAX-99",
            "RTMIN+-1",
            "RTMIN+",
            "RTMIN+99999999999",
            "RTMIN 1",
        ];
        for text in texts {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn shown_names_are_read_back() {
        for number in 1..=LAST {
            let signal = Signal::from_raw(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
        assert_eq!(Signal::from_raw(0), None);
        assert_eq!(Signal::from_raw(65), None);
        assert_eq!(Signal::ABRT.to_string(), "SIGABRT");
        let second = Signal::from_raw(libc::SIGRTMIN() + 1).unwrap();
        assert_eq!(second.to_string(), "SIGRTMIN+1");
    }
}
