//! Settings of the daemon itself, which can change while it runs.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Gid, chown};
use supervisor_config::DaemonSettings;
use supervisor_protocol::control::{ErrorCode, ErrorDetail};
use supervisor_sys::user::lookup_group;

use crate::CONTROL_SOCKET;
use crate::log::Level;
use crate::master::Master;
use crate::records::DAEMON;
use crate::registry::refuse;
use crate::words;

/// The daemon's settings, and what they are about.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) settings: DaemonSettings,
    /// What its log has.
    pub(crate) level: Level,
    /// Where the control socket is.
    pub(crate) runtime_dir: PathBuf,
    /// Whether others than root and the daemon's user may be among those whom
    /// the control socket lets in.
    pub(crate) open: Arc<AtomicBool>,
}

impl Own {
    /// Makes the settings take effect.
    ///
    /// # Errors
    ///
    /// The group is unknown, or cannot be given the socket.
    fn take(&mut self, settings: DaemonSettings) -> Result<(), ErrorDetail> {
        let bad = |error: &dyn std::fmt::Display| refuse(ErrorCode::Usage, format!("control_group: {error}"));
        let group =
            settings.control_group.as_deref().map(lookup_group).transpose().map_err(|error| bad(&error))?;
        let denied = |(path, error): (PathBuf, io::Error)| {
            let to = settings.control_group.as_deref().unwrap_or_default();
            let cause = words::errno(&error);
            refuse(
                ErrorCode::Denied,
                format!("control_group {to}: cannot let it use {}: {cause}", path.display()),
            )
        };
        if let Some(gid) = group {
            self.let_in(gid, 0o750, 0o660).map_err(denied)?;
        } else if self.settings.control_group.is_some() {
            self.open.store(false, Ordering::Relaxed);
            let gid = rustix::process::getegid().as_raw();
            self.let_in(gid, 0o700, 0o600).map_err(denied)?;
        }
        self.open.store(group.is_some(), Ordering::Relaxed);
        self.level.set(settings.log_level);
        self.settings = settings;
        Ok(())
    }

    /// Gives the folder and the control socket to a group.
    fn let_in(&self, gid: u32, folder: u32, socket: u32) -> Result<(), (PathBuf, io::Error)> {
        let give = |path: &Path, mode| -> io::Result<()> {
            // First the group: for a moment it has less than it is to have.
            chown(path, None, Some(Gid::from_raw(gid)))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        };
        let path = self.runtime_dir.join(CONTROL_SOCKET);
        give(&path, socket).map_err(|error| (path, error))?;
        give(&self.runtime_dir, folder).map_err(|error| (self.runtime_dir.clone(), error))
    }
}

impl Master {
    /// Takes settings of the daemon that a person has given.
    ///
    /// # Errors
    ///
    /// They cannot take effect; those before do.
    pub(crate) fn set_own(&mut self, settings: DaemonSettings) -> Result<(), ErrorDetail> {
        if settings != self.own.settings {
            self.own.take(settings)?;
            let group = self.own.settings.control_group.as_deref().unwrap_or("none");
            tracing::info!("log level {:?}, control group {group}", self.own.settings.log_level);
        }
        self.link.put(DAEMON, &crate::control::to_json(&self.own.settings), &[]);
        Ok(())
    }

    /// Takes the settings that an earlier master or daemon had.
    pub(crate) fn restore_own(&mut self, settings: DaemonSettings) {
        if let Err(error) = self.set_own(settings) {
            tracing::error!("the daemon's settings do not take effect: {}", error.message);
        }
    }
}
