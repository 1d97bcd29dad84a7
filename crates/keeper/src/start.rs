//! From an ordinary process to a keeper.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use supervisor_protocol::keeper::{FdRole, Hello, LOCK_KEY};
use supervisor_sys::limits::{self, Resource};
use supervisor_sys::lock::{Lock, LockError};
use supervisor_sys::own;
use supervisor_sys::signal::{self, Signal};
use supervisor_sys::spawn::Launcher;

use crate::error::system;
use crate::keeper::Keeper;
use crate::master::Cradle;
use crate::news::News;
use crate::notify::ServiceManager;
use crate::signals::Signals;
use crate::table::{Entry, Table};
use crate::{Error, Options, State};

/// Open files that a daemon of root allows itself, as far as `fs.nr_open` lets
/// it.
pub(crate) const NOFILE: u64 = 1 << 20;
/// Descriptors that are not for the table: those of one message under way, the
/// launcher's, the keeper's own.
const RESERVE: usize = 512;
/// The daemon should be the last to go when memory runs out.
const OOM_SCORE_ADJ: i32 = -900;

/// Runs the keeper until the master reports that everything has ended. Returns
/// the exit code.
///
/// The calling process becomes the keeper: its limits, signals and parentage
/// change.
///
/// # Errors
///
/// See [`Error`]; [`Error::Running`] when another daemon has this home.
pub fn run(options: Options) -> Result<u8, Error> {
    let Options { lock, master, keeper, initial, state } = options;
    let restored = state.is_some();
    let (before, mut table, running, news) = match state {
        Some(State { hello, table, master, news }) => (Some(hello), table, master, news),
        None => (None, Table::new(usize::MAX), None, News::default()),
    };
    if table.get(LOCK_KEY).is_none() {
        // Every master gets a duplicate: one that outlives the keeper is still
        // the only daemon of its home.
        let lock = Lock::acquire(&lock).map_err(|error| match error {
            LockError::Held(path) => Error::Running { path },
            error @ LockError::Io { .. } => Error::Lock(error),
        })?;
        table.put(LOCK_KEY, held(lock.into()));
    }
    // A name is a courtesy to people who look at `ps`.
    let _ = own::set_name("sup-keeper");
    own::become_subreaper().map_err(system("prctl PR_SET_CHILD_SUBREAPER"))?;
    signal::ignore(Signal::PIPE).map_err(system("ignoring SIGPIPE"))?;
    let signals = Signals::new().map_err(system("catching signals"))?;
    // Those that have come while this process became the keeper wait for that.
    signal::unblock_all().map_err(system("unblocking signals"))?;
    let nofile = limits::raise_nofile(NOFILE).map_err(system("raising the limit of open files"))?;
    let oom_score_adj = protect();

    let binary = openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| system("opening the own binary")(error.into()))?;
    let cradle = Cradle {
        launcher: Launcher::new().map_err(system("reserving descriptors"))?,
        binary,
        args: master,
        keeper_args: keeper,
        null: File::open("/dev/null").map_err(system("opening /dev/null"))?,
    };
    table.limit(room());
    for (key, fd) in initial {
        if !table.put(&key, held(fd)) {
            return Err(system("holding what it was started with")(Errno::MFILE.into()));
        }
    }
    let service_manager = ServiceManager::from_env();
    let hello = Hello {
        keeper_pid: std::process::id(),
        service_manager: service_manager.is_there(),
        // What another keeper has changed is not how the daemon began.
        ..before.unwrap_or(Hello {
            keeper_pid: 0,
            nofile_soft: nofile.soft,
            nofile_hard: nofile.hard,
            oom_score_adj,
            service_manager: false,
        })
    };
    let keeper = Keeper::new(cradle, signals, table, hello, service_manager, restored)?;
    keeper.with(running, news)?.run()
}

/// A descriptor to hold.
fn held(fd: OwnedFd) -> Entry {
    Entry { record: Box::default(), fds: Box::new([(FdRole::Hold, fd)]) }
}

/// How many descriptors the table may hold under the limit in force.
fn room() -> usize {
    let limit = limits::get(Resource::Nofile).soft.unwrap_or(NOFILE);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE)
}

/// Lowers the out-of-memory score as root. Returns the former value, if it
/// changed.
fn protect() -> Option<i32> {
    const PATH: &str = "/proc/self/oom_score_adj";
    let former = fs::read_to_string(PATH).ok()?.trim().parse().ok()?;
    fs::write(PATH, OOM_SCORE_ADJ.to_string()).ok().map(|()| former)
}
