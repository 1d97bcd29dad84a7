//! A client for a single request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::wait::DEADLINE;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

/// The body that a worker answers a GET with, trimmed.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    receive(send(address, path)?)
}

/// Connects and sends a GET; the answer is for [`receive`].
pub(crate) fn send(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(head("GET", path, 0).as_bytes())?;
    Ok(stream)
}

/// The body of a good answer, trimmed.
pub(crate) fn receive(mut stream: impl Read) -> io::Result<String> {
    let answer = read(&mut stream)?;
    if answer.code != 200 {
        return Err(io::Error::other(format!("{answer:?}")));
    }
    Ok(answer.body.trim().to_owned())
}

/// Asks over a Unix socket.
pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(head(method, path, body.len()).as_bytes())?;
    stream.write_all(body.as_bytes())?;
    read(&mut stream)
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Reads an answer up to the connection's end.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let broken = || io::Error::other(format!("no answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| body.len() < length) {
        return Err(broken());
    }
    Ok(Answer { code, body: unchunked(head, body) })
}

/// The body without the marks of the chunked coding.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some((chunk, after)) = after.split_at_checked(size) else { break };
        text.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap_or_default();
    }
    text
}
