//! Words for the service manager: `sd_notify(3)`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens, for the keeper only: it is the process
/// that the manager knows, and others' words would not count.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Whoever started the daemon as a service.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    /// `None` when nobody did.
    address: Option<SocketAddr>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(crate) fn from_env() -> Self {
        Self { address: std::env::var_os(VARIABLE).as_deref().and_then(address) }
    }

    /// Whether there is one.
    pub(crate) const fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// Passes the text on, if there is somebody who wants it. Never waits.
    ///
    /// # Errors
    ///
    /// See `unix(7)`.
    pub(crate) fn tell(&self, text: &str) -> io::Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), address)?;
        Ok(())
    }
}

/// A path, or a name in the abstract namespace after an `@`.
fn address(text: &OsStr) -> Option<SocketAddr> {
    match text.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_at_a_path_and_at_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@keeper-notify-{}", std::process::id());
        for text in [path.as_os_str(), OsStr::new(&name)] {
            let address = address(text).unwrap();
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            ServiceManager { address: Some(address) }.tell("READY=1").unwrap();
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
    }

    #[test]
    fn nobody_and_nonsense_are_no_address() {
        for text in ["", "relative", "vsock:2:1"] {
            assert!(address(OsStr::new(text)).is_none(), "{text}");
        }
        assert!(ServiceManager { address: None }.tell("READY=1").is_ok());
    }
}
