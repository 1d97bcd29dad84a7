//! Why a keeper cannot begin or go on.

use std::io;
use std::path::PathBuf;

use supervisor_sys::lock::LockError;
use supervisor_sys::spawn::SpawnError;

/// Why a keeper cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon has this home.
    #[error("another daemon runs in this home: its keeper holds {}", path.display())]
    Running {
        /// The lock.
        path: PathBuf,
    },
    /// The lock cannot be had for another reason.
    #[error(transparent)]
    Lock(LockError),
    /// The master cannot be started.
    #[error("cannot start the master: {0}")]
    Spawn(#[from] SpawnError),
    /// A call that the keeper cannot do without.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Names what was tried.
pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}
