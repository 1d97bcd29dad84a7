//! Unix sockets that workers bind for themselves: the first one's is shared by
//! all workers of the app.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use supervisor_config::ListenAddress;
use supervisor_core::WorkerId;
use supervisor_sys::capture::{self, Request};
use supervisor_sys::socket;

use super::{Subject, Verdict};
use crate::listeners::AtPath;
use crate::master::Master;

impl Master {
    /// Puts the app's socket in place of the one that a worker wants to bind to
    /// a path. If there is none yet, the worker binds its own, with its own
    /// rights.
    pub(super) fn bind_path(&mut self, id: WorkerId, request: &Request, path: &Path) -> io::Result<Verdict> {
        // A program that sees other files is alone with its paths.
        let Ok(path) = request.path(path) else { return Ok(Verdict::LetGo) };
        let Some(Subject { socket: own, traits, seat, known, .. }) = self.subject(id, request)? else {
            return Ok(Verdict::LetGo);
        };
        if !traits.is_unix {
            return Ok(Verdict::LetGo);
        }
        let at = ListenAddress::Unix(path.clone());
        if known.as_ref() == Some(&at) && socket::has_path(&own) {
            // A signal has broken the call off after it was done.
            return Ok(Verdict::Done);
        }
        self.look_for_rival(id, seat, &at)?;
        let shared = match self.listeners.at_path(seat.slot.app, &path) {
            AtPath::Socket(shared) => shared,
            AtPath::Soon => return Ok(Verdict::Later),
            AtPath::Nothing => {
                let app = self.registry.name(seat.slot.app).to_owned();
                self.listeners.hold_path(seat, &app, path, own, id, &self.link);
                return Ok(Verdict::LetGo);
            }
        };
        let standing = capture::standing(request)?;
        if standing.in_epoll {
            tracing::error!(
                "{}: {} is watched before it is bound, so its workers cannot share it",
                self.place(seat.slot),
                path.display()
            );
            return Err(Errno::ADDRINUSE.into());
        }
        self.put_in_place(id, request, &standing, &shared)?;
        self.listeners.share(seat, &path, id);
        // It may have removed what looked like a leftover.
        self.listeners.restore_paths();
        Ok(Verdict::Done)
    }
}
