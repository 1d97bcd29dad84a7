//! A connection, and whether the worker takes it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use supervisor_sys::socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::Dial;
use crate::listeners::Endpoint;
use crate::words;

/// How often is looked whether a connection was taken.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A connection of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dial {
    pub(super) async fn connect(self) -> io::Result<Box<dyn Stream>> {
        Ok(match (self.to, self.socket) {
            (Endpoint::Tcp(to), Some(socket)) => Box::new(socket.connect(to).await?),
            (Endpoint::Tcp(to), None) => Box::new(TcpStream::connect(to).await?),
            (Endpoint::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// Connects, and waits until the queue of the worker's `own` socket is empty:
/// connections wait there before anybody listens to them.
pub(super) async fn connect(dial: Dial, own: Option<OwnedFd>, limit: Duration) -> Result<(), String> {
    let what = format!("connect {}", dial.to);
    let attempt = async {
        // It stays open until it was taken.
        let _connection = dial.connect().await?;
        while let Some(own) = &own
            && socket::queue_length(own)?.length > 0
        {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result.map_err(|error: io::Error| format!("{what}: {}", words::errno(&error))),
        Err(_) => Err(format!("{what}: not accepted within {}", words::duration(limit))),
    }
}
