//! An HTTP request, and the status of its answer.

use std::error::Error;
use std::io;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;

use super::Dial;
use crate::listeners::Endpoint;
use crate::words;

/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// As much of the answer's body is read, for so long, before the connection is
/// closed: otherwise the worker would see it break off.
const MAX_BODY: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_millis(100);

type Failure = Box<dyn Error + Send + Sync>;

/// Asks for a path, and wants one of these statuses.
pub(super) async fn ask(
    dial: Dial,
    path: String,
    wanted: Vec<RangeInclusive<u16>>,
    limit: Duration,
) -> Result<(), String> {
    let what = super::target(&dial.to, &path);
    match tokio::time::timeout(limit, status_of(dial, &path)).await {
        Ok(Ok(status)) if wanted.iter().any(|range| range.contains(&status.as_u16())) => Ok(()),
        Ok(Ok(status)) => Err(format!("{what} answered {}, wanted {}", named(status), ranges(&wanted))),
        Ok(Err(failure)) => Err(format!("{what}: {}", why(failure.as_ref()))),
        Err(_) => Err(format!("{what}: no answer within {}", words::duration(limit))),
    }
}

async fn status_of(dial: Dial, path: &str) -> Result<StatusCode, Failure> {
    let host = match &dial.to {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(_) => "localhost".to_owned(),
    };
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, "supervisor")
        .body(Empty::<Bytes>::new())?;
    let stream = dial.connect().await?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect();
        let _ = tokio::time::timeout(BODY_TIME, body).await;
        Ok::<_, hyper::Error>(status)
    };
    let mut exchange = pin!(exchange);
    let status = tokio::select! {
        biased;
        status = &mut exchange => status?,
        // What it has read is still to be had.
        _ = connection => exchange.await?,
    };
    Ok(status)
}

/// `500 Internal Server Error`.
fn named(status: StatusCode) -> String {
    let reason = status.canonical_reason().map_or_else(String::new, |reason| format!(" {reason}"));
    format!("{}{reason}", status.as_u16())
}

/// `200-399`, `200, 404`.
fn ranges(wanted: &[RangeInclusive<u16>]) -> String {
    let one = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    wanted.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What the system says, or else the library.
fn why(failure: &(dyn Error + 'static)) -> String {
    let mut cause = Some(failure);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return words::errno(error);
        }
        cause = error.source();
    }
    failure.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn statuses_in_words() {
        assert_eq!(named(StatusCode::INTERNAL_SERVER_ERROR), "500 Internal Server Error");
        assert_eq!(named(StatusCode::from_u16(599).unwrap()), "599");
        assert_eq!(ranges(&[200..=399, 404..=404]), "200-399, 404");
    }

    /// What a check says of a server that answers so, and keeps the connection
    /// open if it is to.
    async fn says(answer: Vec<u8>, stays: bool, limit: Duration) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = client.read(&mut request).unwrap();
            let _ = client.write_all(&answer);
            while stays && client.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let dial = Dial { to: Endpoint::Tcp(address), socket: None };
        let said = ask(dial, "/health".to_owned(), vec![200..=399], limit).await;
        let request = server.join().unwrap().to_ascii_lowercase();
        let head = format!(
            "get /health http/1.1\r\nhost: {address}\r\nconnection: close\r\nuser-agent: supervisor\r\n"
        );
        assert!(request.starts_with(&head), "{request}");
        let what = format!("GET http://{address}/health");
        said.map_err(|said| said.strip_prefix(&what).unwrap().to_owned())
    }

    #[tokio::test]
    async fn answers_of_all_kinds() {
        const LONG: Duration = Duration::from_secs(30);
        const SHORT: Duration = Duration::from_secs(1);
        let ok = |answer: &str, stays| says(answer.as_bytes().to_vec(), stays, LONG);
        ok("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await.unwrap();
        ok("HTTP/1.0 302 Found\r\n\r\n", false).await.unwrap();
        // Not to its end, nor to more than what was announced.
        ok("HTTP/1.1 204 No Content\r\n\r\nmore", true).await.unwrap();
        ok("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\nand so on", true).await.unwrap();
        ok("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true)
            .await
            .unwrap();

        for (answer, stays, limit, expected) in [
            ("HTTP/1.1 503 No\r\n\r\n", false, LONG, " answered 503 Service Unavailable, wanted 200-399"),
            ("", false, LONG, ": connection closed before message completed"),
            ("HTTP/1.1 200 O", false, LONG, ": connection closed before message completed"),
            ("220 mail.example ESMTP\r\n", false, LONG, ": invalid HTTP version parsed"),
            ("", true, SHORT, ": no answer within 1s"),
            ("HTTP/1.1 200 OK\r\n", true, SHORT, ": no answer within 1s"),
        ] {
            assert_eq!(says(answer.into(), stays, limit).await, Err(expected.to_owned()), "{answer:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nlong: {}", "x".repeat(1 << 20));
        says(endless.into_bytes(), true, LONG).await.unwrap_err();
    }
}
