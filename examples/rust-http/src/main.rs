//! An HTTP worker in plain Rust, without a dependency. It serves the socket
//! that it is given, says when it is ready, and answers with its slot and pid.

#![expect(unsafe_code, reason = "Rust's library has no safe way to take over an inherited descriptor")]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, process, thread};

fn main() -> io::Result<()> {
    let listener = inherited_listener()?;
    let slot = env::var("SUPERVISOR_INSTANCE").unwrap_or_default();
    let answer = format!("hello from slot {slot}, pid {}\n", process::id());
    notify("READY=1")?;
    for client in listener.incoming() {
        let (client, answer) = (client?, answer.clone());
        // A client that breaks off is nobody's problem.
        thread::spawn(move || serve(client, &answer));
    }
    Ok(())
}

/// The first of the sockets that were passed from descriptor 3 on
/// (`sd_listen_fds(3)`).
fn inherited_listener() -> io::Result<TcpListener> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    // A variable that was meant for another process is none of ours.
    if number("LISTEN_PID") != Some(process::id()) || number("LISTEN_FDS").is_none_or(|count| count < 1) {
        return Err(io::Error::other("no socket was passed: set `listen` in the ecosystem file"));
    }
    // SAFETY: by the contract above descriptor 3 is an open socket, and this is the only place that
    // takes it.
    Ok(unsafe { TcpListener::from_raw_fd(3) })
}

/// Answers one request.
fn serve(mut client: TcpStream, answer: &str) -> io::Result<()> {
    for line in BufReader::new(&client).lines() {
        if line?.is_empty() {
            let length = answer.len();
            return write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
            );
        }
    }
    Ok(())
}

/// Tells the supervisor something (`sd_notify(3)`).
fn notify(message: &str) -> io::Result<()> {
    let Ok(name) = env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(|_| ())
}
