//! A table on its way to the next keeper of the same daemon.
//!
//! A service manager starts the next keeper itself, once the one before has
//! died. Until then the master holds everything; then it hands it over through
//! a socket in the runtime folder, and leaves.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
    sockopt,
};
use supervisor_protocol::keeper::{FromKeeper, Hello, MAX_PACKET, ToKeeper};
use supervisor_sys::{fdpass, limits, socket};

use crate::news::News;
use crate::start::NOFILE;
use crate::state::State;
use crate::table::{Entry, Table};

/// How long one side waits for the other's next step.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for the next keeper at this path, whatever is there. Non-blocking.
///
/// # Errors
///
/// See `bind(2)`.
pub fn wait_at(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// Hands everything to the keeper that has come to this socket. It returns when
/// that one has it all: then this process must leave.
///
/// # Errors
///
/// `WouldBlock` when nobody has come, `PermissionDenied` for another user than
/// ours and root; when they break off, or are too slow.
pub fn hand_over(waiting: &OwnedFd, hello: &Hello, table: &Table) -> io::Result<()> {
    let heir = accept_with(waiting, SocketFlags::CLOEXEC)?;
    set_patience(&heir)?;
    let peer = socket::peer_credentials(&heir)?.uid;
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let send = |message: &FromKeeper, fds: &[_]| fdpass::send(&heir, &message.encode(), fds);
    send(&FromKeeper::Hello(*hello), &[])?;
    let mut last = None;
    while let Some((key, entry)) = table.after(last) {
        let (roles, fds) = entry.fds.iter().map(|(role, fd)| (*role, fd.as_fd())).unzip::<_, _, _, Vec<_>>();
        let record = entry.record.to_vec();
        send(&FromKeeper::Entry { key: key.to_owned(), record, roles }, &fds)?;
        last = Some(key);
    }
    send(&FromKeeper::TableEnd, &[])?;
    let mut buffer = [0; 16];
    let length = fdpass::receive(&heir, &mut buffer)?.len;
    match ToKeeper::decode(buffer.get(..length).unwrap_or_default()) {
        Ok(ToKeeper::Adopted) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Takes everything over from the master that waits at this path, and waits
/// until it has left.
///
/// # Errors
///
/// `NotFound` or `ConnectionRefused` when nobody waits there; when the master
/// breaks off, or is too slow.
pub fn take_over(path: &Path) -> io::Result<State> {
    let master = seqpacket(SocketFlags::CLOEXEC)?;
    connect(&master, &SocketAddrUnix::new(path)?)?;
    set_patience(&master)?;
    limits::raise_nofile(NOFILE)?;
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut buffer = vec![0; MAX_PACKET];
    let mut receive = || {
        let received = fdpass::receive(&master, &mut buffer)?;
        match received.len {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if received.truncated => Err(broken()),
            length => {
                let packet = buffer.get(..length).unwrap_or_default();
                Ok((FromKeeper::decode(packet).map_err(|_| broken())?, received.fds))
            }
        }
    };
    let (FromKeeper::Hello(hello), _) = receive()? else { return Err(broken()) };
    let mut table = Table::new(usize::MAX);
    loop {
        match receive()? {
            (FromKeeper::Entry { key, record, roles }, fds) if roles.len() == fds.len() => {
                let fds = roles.into_iter().zip(fds).collect();
                table.put(&key, Entry { record: record.into(), fds });
            }
            (FromKeeper::TableEnd, _) => break,
            _ => return Err(broken()),
        }
    }
    fdpass::send(&master, &ToKeeper::Adopted.encode(), &[])?;
    // The socket is closed when all of its threads have ended.
    let mut rest = [0; 1];
    match fdpass::receive(&master, &mut rest) {
        Ok(received) if received.len > 0 => Err(broken()),
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        Ok(_) | Err(_) => Ok(State { hello, table, master: None, news: News::default() }),
    }
}

fn seqpacket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn set_patience(socket: &OwnedFd) -> rustix::io::Result<()> {
    for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(socket, timeout, Some(PATIENCE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use supervisor_protocol::keeper::FdRole;

    use super::*;

    const HELLO: Hello = Hello {
        keeper_pid: 7,
        nofile_soft: None,
        nofile_hard: None,
        oom_score_adj: None,
        service_manager: true,
    };

    #[test]
    fn a_table_is_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover");
        assert_eq!(take_over(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let waiting = wait_at(&path).unwrap();
        let mut table = Table::new(usize::MAX);
        let null = || (FdRole::Drain, File::open("/dev/null").unwrap().into());
        for number in 0..2000 {
            let record = vec![1; 100].into();
            table.put(&number.to_string(), Entry { record, fds: Box::new([null()]) });
        }
        assert_eq!(hand_over(&waiting, &HELLO, &table).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let heir = {
            let path = path.clone();
            std::thread::spawn(move || take_over(&path).unwrap())
        };
        while let Err(error) = hand_over(&waiting, &HELLO, &table) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            std::thread::yield_now();
        }
        let state = heir.join().unwrap();
        assert_eq!((state.hello, state.table.size()), (HELLO, (2000, 2000)));
        // A second one waits at the same path.
        drop(wait_at(&path).unwrap());
    }

    #[test]
    fn an_heir_that_breaks_off_gets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover");
        let waiting = wait_at(&path).unwrap();
        let heir = seqpacket(SocketFlags::CLOEXEC).unwrap();
        connect(&heir, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        drop(heir);
        assert!(hand_over(&waiting, &HELLO, &Table::new(0)).is_err());
    }
}
