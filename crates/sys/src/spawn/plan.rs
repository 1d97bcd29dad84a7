//! What a child is to be: plain data, filled in by the caller.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::limits::{Limit, Resource};

/// The most descriptors that [`Plan::fds`] may list: 64 listeners and room for a few others.
pub const MAX_FDS: usize = 72;

/// More CPUs than any kernel knows.
pub const MAX_CPUS: u32 = 8192;

/// What to execute.
#[derive(Debug, Clone)]
pub enum Program<'fd> {
    /// A path, taken as it stands and without a search: see [`resolve_program`](super::resolve_program).
    /// A relative one is relative to the child's working directory.
    Path(PathBuf),
    /// An open binary (not a script), whatever has become of its path: `execveat(2)` with
    /// `AT_EMPTY_PATH`. The child does not keep the descriptor.
    Binary(BorrowedFd<'fd>),
}

/// Where the child stands among sessions and process groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessGroup {
    /// Stay in the parent's group.
    #[default]
    Inherit,
    /// Lead a new group in the parent's session: `setpgid(2)`.
    NewGroup,
    /// Lead a new group in a new session without a terminal: `setsid(2)`.
    NewSession,
}

/// The user that the child becomes: real, effective and saved ids alike.
///
/// Setting them needs privilege, even when they are the caller's own (`setgroups(2)` does): leave
/// [`Plan::credentials`] empty then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// All supplementary groups; the parent's are dropped.
    pub groups: Vec<u32>,
}

/// All that decides how a child starts. What is not named here is the same for each child: signals at
/// their default and unblocked, no descriptor but those listed.
#[derive(Debug, Clone)]
pub struct Plan<'fd> {
    /// What to execute.
    pub program: Program<'fd>,
    /// The whole argument vector: the first is the name that the program sees as its own. At least one.
    pub args: Vec<OsString>,
    /// The whole environment; nothing is inherited. A name may hold neither `=` nor be empty.
    pub env: Vec<(OsString, OsString)>,
    /// Add `LISTEN_PID=<pid of the child>` to the environment (`sd_listen_fds(3)`), in place of any
    /// such entry in `env`.
    pub listen_pid: bool,
    /// Working directory; the parent's when `None`.
    pub cwd: Option<PathBuf>,
    /// Descriptor 0 of the child.
    pub stdin: BorrowedFd<'fd>,
    /// Descriptor 1 of the child.
    pub stdout: BorrowedFd<'fd>,
    /// Descriptor 2 of the child.
    pub stderr: BorrowedFd<'fd>,
    /// Descriptors 3, 4, 5, … of the child, in this order; at most [`MAX_FDS`].
    pub fds: Vec<BorrowedFd<'fd>>,
    /// A connected datagram or seqpacket socket on which the child sends its pid (4 bytes, native
    /// order) before anything else can go wrong in it. Never waits: a full socket fails the spawn.
    /// The program does not inherit it.
    pub introduce: Option<BorrowedFd<'fd>>,
    /// Have the program's `bind` and `listen` reported: the notify descriptor comes with the
    /// introduction, without which there is none. See [`capture`](crate::capture).
    pub capture: bool,
    /// The folder of the cgroup (of version 2) that the child is born in; the parent's when `None`.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Session and process group.
    pub process_group: ProcessGroup,
    /// The user to become; the parent's when `None`.
    pub credentials: Option<Credentials>,
    /// File mode creation mask; the parent's when `None`.
    pub umask: Option<u32>,
    /// Nice value, −20 to 19, absolute; the parent's when `None`.
    pub nice: Option<i32>,
    /// The CPUs that the child may run on, numbered from 0, each below [`MAX_CPUS`]; the parent's when
    /// empty. Those that the parent's cgroup does not allow are passed over.
    pub cpus: Vec<u32>,
    /// Resource limits, set while the child still has the parent's privileges. A limit of open files
    /// below the number of descriptors given fails at [`Stage::Fds`](super::Stage::Fds).
    pub limits: Vec<(Resource, Limit)>,
    /// `/proc/self/oom_score_adj`, −1000 to 1000; the parent's when `None`.
    pub oom_score_adj: Option<i32>,
}

impl<'fd> Plan<'fd> {
    /// A child that runs `program` as `args[0]…` with these standard descriptors, an empty environment
    /// and everything else as in the parent.
    #[must_use]
    pub fn new(program: Program<'fd>, args: Vec<OsString>, stdio: [BorrowedFd<'fd>; 3]) -> Self {
        let [stdin, stdout, stderr] = stdio;
        Self {
            program,
            args,
            env: Vec::new(),
            listen_pid: false,
            cwd: None,
            stdin,
            stdout,
            stderr,
            fds: Vec::new(),
            introduce: None,
            capture: false,
            cgroup: None,
            process_group: ProcessGroup::default(),
            credentials: None,
            umask: None,
            nice: None,
            cpus: Vec::new(),
            limits: Vec::new(),
            oom_score_adj: None,
        }
    }
}
