//! Unix sockets that workers made: one for all workers of an app.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use supervisor_config::ListenAddress;
use supervisor_core::{AppId, SeatId, WorkerId};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::socket;

use super::keys::{CAPTURED, key};
use super::{Listeners, Member, MemberRecord};
use crate::control::to_json;
use crate::link::Link;
use crate::second_name::SecondName;

/// How long a bind may take that was left to the kernel.
const BIND: Duration = Duration::from_secs(2);

/// Sockets that a seat may have.
const PATHS: usize = 256;

/// What an app has at a path.
#[derive(Debug)]
pub(crate) enum AtPath {
    /// A socket for all of its workers.
    Socket(Rc<OwnedFd>),
    /// A worker is about to bind one.
    Soon,
    /// None, or one whose path a sibling has removed before it could be restored.
    Nothing,
}

impl Listeners {
    /// What an app has at a path.
    pub(crate) fn at_path(&self, app: AppId, path: &Path) -> AtPath {
        let Some(member) = self.member_at(app, path) else { return AtPath::Nothing };
        let there = || {
            if let Some(Some(second)) = self.paths.get(path) {
                restore(path, second);
            }
            path.symlink_metadata().is_ok()
        };
        let found = || AtPath::Socket(Rc::clone(&member.socket));
        if !member.captured {
            found()
        } else if socket::has_path(&*member.socket) {
            if there() { found() } else { AtPath::Nothing }
        } else if self.was_bound_lately(path) {
            // It was left to the kernel, when the worker's turn comes.
            AtPath::Soon
        } else {
            AtPath::Nothing
        }
    }

    fn member_at(&self, app: AppId, path: &Path) -> Option<&Member> {
        let is_it = |member: &&Member| matches!(&member.address, ListenAddress::Unix(at) if at == path);
        self.of_app(app).find(is_it)
    }

    /// Whether it is not long since a worker was to bind a path that no socket
    /// listens at yet.
    pub(crate) fn was_bound_lately(&self, path: &Path) -> bool {
        self.binding.get(path).is_some_and(|since| since.elapsed() < BIND)
    }

    /// Notes that a worker has the socket at a path, which is its seat's from
    /// then on, too.
    pub(crate) fn share(&mut self, seat: SeatId, path: &Path, worker: WorkerId) {
        let address = ListenAddress::Unix(path.to_owned());
        let own = self.members.get_mut(&seat).into_iter().flatten().find(|member| member.address == address);
        if let Some(member) = own {
            member.holder = Some(worker);
            return;
        }
        let shared = self.of_app(seat.slot.app).find(|member| member.address == address);
        let Some((socket, key)) = shared.map(|member| (Rc::clone(&member.socket), member.key.clone())) else {
            return;
        };
        let member = Member { address, socket, key, captured: true, common: false, holder: Some(worker) };
        self.members.entry(seat).or_default().push(member);
    }

    /// Holds a socket that a worker is about to bind to a path: a sibling may ask
    /// for the same before it listens. It takes the place of whatever the app had
    /// there. Returns `false` when its seat has too many, or when there is no
    /// descriptor for it: then it is the worker's alone.
    pub(crate) fn hold_path(
        &mut self,
        seat: SeatId,
        app: &str,
        path: PathBuf,
        socket: OwnedFd,
        worker: WorkerId,
        link: &Link,
    ) -> bool {
        if self.members.get(&seat).is_some_and(|members| members.len() >= PATHS) {
            return false;
        }
        let address = ListenAddress::Unix(path.clone());
        let key = key(CAPTURED, app, seat, &address);
        // The next master must know it when it listens.
        if let Err(error) = write_down_path(&key, path.clone(), worker, &socket, link) {
            tracing::error!("{app}: {} is one worker's alone: {error}", path.display());
            return false;
        }
        self.binding.insert(path.clone(), Instant::now());
        for (_, members) in self.members.range_mut(Self::seats(seat.slot.app)) {
            members.retain(|member| member.address != address);
        }
        self.paths.remove(&path);
        let member = Member {
            address,
            socket: Rc::new(socket),
            key,
            captured: true,
            common: false,
            holder: Some(worker),
        };
        self.members.entry(seat).or_default().push(member);
        true
    }

    /// Forgets sockets that the worker before was about to bind to a path, and did
    /// not: the next one binds its own.
    pub(super) fn forget_unbound(&mut self, seat: SeatId, link: &Link) {
        let Some(members) = self.members.get_mut(&seat) else { return };
        let is_unbound = |member: &mut Member| {
            let is_path = matches!(member.address, ListenAddress::Unix(_));
            member.captured && is_path && !socket::has_path(&*member.socket)
        };
        members.extract_if(.., is_unbound).for_each(|member| link.delete(&member.key));
    }

    /// Sees to it that a path comes back when a worker removes it: for a socket
    /// that is about to listen there. Returns whether the path was there.
    pub(crate) fn keep_path(&mut self, app: AppId, name: &str, path: &Path) -> bool {
        if self.paths.contains_key(path) || self.member_at(app, path).is_none_or(|member| !member.captured) {
            return true;
        }
        match SecondName::new(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            named => {
                self.note_path(name, path, named);
                true
            }
        }
    }

    /// Notes that a socket is about to listen whose path somebody has removed.
    pub(crate) fn lose_path(&mut self, app: AppId, name: &str, path: &Path) {
        tracing::warn!("{name}: {} was removed before a worker listened there", path.display());
        if self.member_at(app, path).is_some() {
            self.binding.remove(path);
            self.paths.insert(path.to_owned(), None);
        }
    }

    /// Finds the sockets at paths that an earlier master left. Who has them is
    /// not known yet.
    pub(super) fn find_paths_again(&mut self, seat: SeatId, app: &str) {
        let prefix = format!("{CAPTURED}{app}:unix:");
        let found: Vec<_> = self
            .inherited
            .extract_if(.., |key, left| left.record.path.is_some() && key.starts_with(&prefix))
            .collect();
        for (key, left) in found {
            let Some(path) = left.record.path else { continue };
            if socket::is_listening(&left.socket).unwrap_or(false) {
                self.note_path(app, &path, SecondName::again(&path));
            } else {
                self.binding.insert(path.clone(), Instant::now());
            }
            let member = Member {
                address: ListenAddress::Unix(path),
                socket: left.socket,
                key,
                captured: true,
                common: false,
                holder: None,
            };
            self.members.entry(seat).or_default().push(member);
        }
    }

    /// Notes that a socket at a path listens, or is about to.
    fn note_path(&mut self, app: &str, path: &Path, second: io::Result<SecondName>) {
        self.binding.remove(path);
        let second = second.inspect_err(|error| {
            let path = path.display();
            tracing::warn!("{app}: {path} cannot be restored when a worker removes it: {error}");
        });
        self.paths.insert(path.to_owned(), second.ok());
    }

    /// Restores the paths that workers have removed.
    pub(crate) fn restore_paths(&self) {
        let named = self.paths.iter().filter_map(|(path, second)| Some((path, second.as_ref()?)));
        named.for_each(|(path, second)| restore(path, second));
    }

    /// Forgets a path that nobody listens at any more, and removes it if it is
    /// still the worker's.
    pub(super) fn drop_path(&mut self, path: &Path) {
        self.binding.remove(path);
        if let Some(Some(second)) = self.paths.remove(path) {
            second.remove();
        }
    }
}

fn restore(path: &Path, second: &SecondName) {
    match second.restore() {
        Ok(true) => tracing::debug!("{} was removed by a worker and is restored", path.display()),
        Ok(false) => {}
        Err(error) => tracing::debug!("{} cannot be restored: {error}", path.display()),
    }
}

/// Writes down with the keeper that a worker is to bind a path.
fn write_down_path(
    key: &str,
    path: PathBuf,
    worker: WorkerId,
    socket: &OwnedFd,
    link: &Link,
) -> io::Result<()> {
    let record = MemberRecord { number: None, holder: Some(worker.0), path: Some(path) };
    link.put_or_fail(key, &to_json(&record), &[(FdRole::Hold, socket.as_fd())])
}
