//! Unix sockets that workers bind for themselves: the first one's is shared by
//! all workers of the app.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use supervisor_config::ListenAddress;
use supervisor_core::{SeatId, WorkerId};
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
        let Some(Subject { socket: own, traits, seat, cookie, known }) = self.subject(id, request)? else {
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
                if self.listeners.hold_path(seat, &app, path, own, id, &self.link) {
                    self.note_bound(id, cookie, at);
                }
                return Ok(Verdict::LetGo);
            }
        };
        self.share_path(id, request, seat, &path, &shared)?;
        self.note_bound(id, capture::cookie(&*shared)?, at);
        Ok(Verdict::Done)
    }

    /// Lets a socket listen that a worker has bound to a path.
    ///
    /// Workers that start in one moment may each remove the path before they bind
    /// it, and one of them a sibling's that does not listen yet and so has no
    /// second name. Who does so binds it anew, and whoever has the lost socket
    /// gets that one instead.
    pub(super) fn listen_at_path(
        &mut self,
        id: WorkerId,
        request: &Request,
        subject: Subject,
        path: &Path,
        backlog: i32,
    ) -> io::Result<Verdict> {
        let Subject { socket: own, seat, cookie, .. } = subject;
        if !socket::has_path(&own) {
            // Where its bind has failed, so does this.
            return socket::listen(&own, backlog).map(|()| Verdict::Done);
        }
        let shared = match self.listeners.at_path(seat.slot.app, path) {
            AtPath::Socket(shared) => Some(shared),
            AtPath::Soon => return Ok(Verdict::Later),
            AtPath::Nothing => None,
        };
        let app = seat.slot.app;
        let name = self.registry.name(app).to_owned();
        // Before it listens, so that nobody is ready at a path that is lost.
        if shared.is_none() || !self.listeners.keep_path(app, &name, path) {
            if self.listeners.was_bound_lately(path) && self.is_sibling_to_bind(id, seat, path) {
                return Ok(Verdict::Later);
            }
            self.listeners.lose_path(app, &name, path);
        }
        match shared {
            Some(shared) if capture::cookie(&*shared)? != cookie => {
                self.share_path(id, request, seat, path, &shared)?;
                socket::listen(&*shared, backlog)?;
            }
            _ => socket::listen(&own, backlog)?,
        }
        Ok(Verdict::Done)
    }

    /// Whether a sibling has not bound a path yet that it may be about to bind.
    fn is_sibling_to_bind(&self, id: WorkerId, seat: SeatId, path: &Path) -> bool {
        let siblings = self.workers.by_seat().into_iter().filter(|(at, _)| at.slot.app == seat.slot.app);
        let mut siblings = siblings.filter(|(_, other)| *other != id);
        siblings.any(|(_, other)| {
            let sibling = self.workers.get(other).and_then(|worker| worker.captured.as_ref());
            sibling.is_some_and(|captured| captured.is_to_bind(path))
        })
    }

    /// Puts the app's socket at a path in place of a worker's own.
    fn share_path(
        &mut self,
        id: WorkerId,
        request: &Request,
        seat: SeatId,
        path: &Path,
        shared: &OwnedFd,
    ) -> io::Result<()> {
        let standing = capture::standing(request)?;
        if standing.in_epoll {
            tracing::error!(
                "{}: {} is watched before it is bound, so its workers cannot share it",
                self.place(seat.slot),
                path.display()
            );
            return Err(Errno::ADDRINUSE.into());
        }
        self.put_in_place(id, request, &standing, shared)?;
        self.listeners.share(seat, path, id);
        Ok(())
    }
}
