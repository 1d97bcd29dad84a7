//! Accepting connections: who may speak, and how many at a time.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io};

use axum::body::Body;
use axum::http::{Request as HttpRequest, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use supervisor_protocol::control::{ErrorCode, ErrorDetail};
use supervisor_protocol::keeper::FdRole;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::{Request, routes, to_json};
use crate::link::Link;
use crate::records;

/// Connections served at a time; further ones wait.
const CONNECTIONS: usize = 128;
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers may take to leave when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The control socket of an earlier master: which file it was bound to, and the
/// socket.
pub(crate) type Held = (FileId, OwnedFd);

/// A file, by its device and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// The control socket, 0600. That of an earlier master serves on, so that nobody
/// is refused between two of them, unless its path leads elsewhere by now; then,
/// and for the first master, it is bound anew. That no other daemon uses it is
/// certain: the keeper holds the lock.
pub(crate) fn bind(path: &Path, held: Option<Held>, link: &Link) -> io::Result<UnixListener> {
    if let Some((file, socket)) = held
        && file_at(path).is_ok_and(|there| there == file)
    {
        return UnixListener::from_std(socket.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    link.put(records::CONTROL, &to_json(&file_at(path)?), &[(FdRole::Hold, listener.as_fd())]);
    Ok(listener)
}

fn file_at(path: &Path) -> io::Result<FileId> {
    let file = fs::symlink_metadata(path)?;
    Ok(FileId { device: file.dev(), inode: file.ino() })
}

/// The running server.
#[derive(Debug)]
pub(crate) struct Server {
    accepting: JoinHandle<()>,
    permits: Arc<Semaphore>,
}

impl Server {
    /// Serves connections until the runtime ends. Requests go to `requests`.
    /// While it is `open`, everybody is heard who can connect at all.
    pub(crate) fn start(
        listener: UnixListener,
        requests: mpsc::Sender<Request>,
        open: Arc<AtomicBool>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = tokio::spawn(accept(listener, requests, open, Arc::clone(&permits)));
        Self { accepting, permits }
    }

    /// Takes no more connections, and waits until the answers under way have
    /// left, for a moment at most.
    pub(crate) async fn finish(&self) {
        // It has a permit itself, for the next connection.
        self.accepting.abort();
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(FAREWELL, self.permits.acquire_many(all)).await;
    }
}

async fn accept(
    listener: UnixListener,
    requests: mpsc::Sender<Request>,
    open: Arc<AtomicBool>,
    permits: Arc<Semaphore>,
) {
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                let allowed = open.load(Ordering::Relaxed) || is_allowed(&stream);
                tokio::spawn(async move {
                    serve(stream, allowed, requests).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("control socket: cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection. A client that breaks off is nobody's problem.
async fn serve(stream: UnixStream, allowed: bool, requests: mpsc::Sender<Request>) {
    let io = TokioIo::new(stream);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let result = if allowed {
        http.serve_connection(io, TowerToHyperService::new(routes::router(requests))).await
    } else {
        http.serve_connection(io, service_fn(deny)).await
    };
    if let Err(error) = result {
        tracing::debug!("control connection: {error}");
    }
}

/// The daemon's own user and root may speak. Of a group the kernel lets in only
/// those who are in it.
fn is_allowed(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::getuid().as_raw())
}

async fn deny(_: HttpRequest<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(routes::refusal(ErrorDetail {
        code: ErrorCode::Denied,
        message: "this daemon belongs to another user".to_owned(),
    }))
}
