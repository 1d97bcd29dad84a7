//! Resource limits: `setrlimit(2)`.

use std::ffi::c_int;
use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use rustix::process::{Resource as Raw, Rlimit, getrlimit, setrlimit};

/// What is limited. Read and shown in lower case without `RLIMIT_`: `nofile`, `core`, `as`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Size of the address space, bytes.
    As,
    /// Size of a core dump, bytes.
    Core,
    /// CPU time, seconds.
    Cpu,
    /// Size of the data segment, bytes.
    Data,
    /// Size of a file, bytes.
    Fsize,
    /// Number of file locks (without effect on Linux).
    Locks,
    /// Memory locked into RAM, bytes.
    Memlock,
    /// POSIX message queues of the user, bytes.
    Msgqueue,
    /// Ceiling of the nice value: 20 − nice.
    Nice,
    /// Number of open files.
    Nofile,
    /// Number of processes and threads of the user.
    Nproc,
    /// Resident set, bytes (without effect on Linux).
    Rss,
    /// Real-time priority.
    Rtprio,
    /// CPU time of a real-time process without a blocking call, microseconds.
    Rttime,
    /// Number of pending signals of the user.
    Sigpending,
    /// Size of the stack, bytes.
    Stack,
}

impl Resource {
    /// Every resource, in alphabetical order.
    pub const ALL: [Resource; 16] = [
        Resource::As,
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Locks,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rss,
        Resource::Rtprio,
        Resource::Rttime,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// The name, in lower case and without `RLIMIT_`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The number of the kernel.
    pub(crate) fn as_raw(self) -> c_int {
        self.row().1 as c_int
    }

    fn row(self) -> (&'static str, Raw) {
        match self {
            Resource::As => ("as", Raw::As),
            Resource::Core => ("core", Raw::Core),
            Resource::Cpu => ("cpu", Raw::Cpu),
            Resource::Data => ("data", Raw::Data),
            Resource::Fsize => ("fsize", Raw::Fsize),
            Resource::Locks => ("locks", Raw::Locks),
            Resource::Memlock => ("memlock", Raw::Memlock),
            Resource::Msgqueue => ("msgqueue", Raw::Msgqueue),
            Resource::Nice => ("nice", Raw::Nice),
            Resource::Nofile => ("nofile", Raw::Nofile),
            Resource::Nproc => ("nproc", Raw::Nproc),
            Resource::Rss => ("rss", Raw::Rss),
            Resource::Rtprio => ("rtprio", Raw::Rtprio),
            Resource::Rttime => ("rttime", Raw::Rttime),
            Resource::Sigpending => ("sigpending", Raw::Sigpending),
            Resource::Stack => ("stack", Raw::Stack),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Resource {
    type Err = UnknownResource;

    fn from_str(name: &str) -> Result<Self, UnknownResource> {
        Resource::ALL
            .into_iter()
            .find(|resource| resource.as_str() == name)
            .ok_or_else(|| UnknownResource(name.to_owned()))
    }
}

/// A name that is no resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownResource(String);

impl fmt::Display for UnknownResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown resource {:?}", self.0)
    }
}

impl std::error::Error for UnknownResource {}

/// The two limits of a resource; `None` means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The one in force.
    pub soft: Option<u64>,
    /// How far `soft` may be raised without privilege.
    pub hard: Option<u64>,
}

impl Limit {
    /// The same soft and hard limit.
    #[must_use]
    pub const fn both(value: Option<u64>) -> Self {
        Self { soft: value, hard: value }
    }

    /// A `struct rlimit64`.
    pub(crate) fn as_raw(self) -> [u64; 2] {
        [self.soft, self.hard].map(|value| value.unwrap_or(u64::MAX))
    }
}

/// The limits of the calling process.
#[must_use]
pub fn get(resource: Resource) -> Limit {
    let Rlimit { current, maximum } = getrlimit(resource.row().1);
    Limit { soft: current, hard: maximum }
}

/// Sets the limits of the calling process.
///
/// # Errors
///
/// `EPERM` to raise a hard limit without privilege, or `nofile` beyond the sysctl `fs.nr_open`;
/// `EINVAL` for a soft limit above the hard one.
pub fn set(resource: Resource, limit: Limit) -> io::Result<()> {
    let Limit { soft, hard } = limit;
    let limit = Rlimit { current: soft, maximum: hard };
    Ok(setrlimit(resource.row().1, limit)?)
}

/// Lets the calling process have many files open: the hard limit becomes `wanted` (at most
/// `fs.nr_open`) where that is more and allowed, and the soft limit becomes the hard one. Gives the
/// former limits, which are what children should get.
///
/// # Errors
///
/// None that is known: a soft limit can always go up to the hard one.
pub fn raise_nofile(wanted: u64) -> io::Result<Limit> {
    let former = get(Resource::Nofile);
    let ceiling = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(wanted);
    let wanted = wanted.min(ceiling);
    let is_more = former.hard.is_some_and(|hard| hard < wanted);
    if !is_more || set(Resource::Nofile, Limit::both(Some(wanted))).is_err() {
        set(Resource::Nofile, Limit::both(former.hard))?;
    }
    Ok(former)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for resource in Resource::ALL {
            assert_eq!(resource.to_string().parse(), Ok(resource));
        }
        let error = "RLIMIT_CORE".parse::<Resource>().unwrap_err();
        assert_eq!(error.to_string(), "unknown resource \"RLIMIT_CORE\"");
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(Resource::Cpu.as_raw(), 0);
        assert_eq!(Resource::Nofile.as_raw(), 7);
        assert_eq!(Resource::Rttime.as_raw(), 15);
        let limit = Limit { soft: Some(1), hard: None };
        assert_eq!(limit.as_raw(), [1, u64::MAX]);
    }

    #[test]
    fn limits_of_this_process_are_set() {
        // A resource that nothing else in the tests depends on.
        let former = get(Resource::Msgqueue);
        let lower = Limit { soft: Some(0), ..former };
        set(Resource::Msgqueue, lower).unwrap();
        assert_eq!(get(Resource::Msgqueue), lower);
        set(Resource::Msgqueue, former).unwrap();
    }

    #[test]
    fn open_files_are_raised() {
        let former = raise_nofile(0).unwrap();
        let now = get(Resource::Nofile);
        assert_eq!(now, Limit::both(former.hard));
        assert_eq!(raise_nofile(0).unwrap(), now);
    }
}
