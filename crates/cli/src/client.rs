//! The control API's client side: HTTP/1.1 over the Unix socket of a home.

mod answer;

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use supervisor_protocol::control::{ErrorBody, ErrorCode, ORDER_KEY};
use supervisor_protocol::release::{self, RELEASE};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

pub(crate) use answer::Answer;

use crate::exit_code::{ExitCode, Failure};
use crate::home::Home;
use crate::render::text::one_line;

/// The largest answer that is read whole: far more than a status of as many
/// workers as a machine can have.
const BODY_MAX: usize = 64 << 20;

/// The largest line of a streamed answer.
const LINE_MAX: usize = 4 << 20;

/// How long the daemon may think about a question, over the deaths of masters. It
/// answers from snapshots.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a daemon that lives may go without a master. Its keeper starts the
/// next one within a second.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A daemon that answers. Every request has a connection of its own, and is sent
/// again when that breaks: a master that is replaced goes unnoticed. Who asks
/// often keeps a [`Connection`].
#[derive(Debug, Clone)]
pub(crate) struct Client {
    home: Home,
}

/// Why a home's daemon cannot be talked to.
#[derive(Debug)]
enum ConnectError {
    /// Nobody listens there.
    NoDaemon,
    /// Its keeper lives, but there has been no master for [`REPLACE_TIMEOUT`].
    Replaced,
    /// The socket or its folder belongs to somebody else.
    Denied,
    /// Anything else.
    Other(io::Error),
}

/// What a search for a daemon found.
#[derive(Debug)]
pub(crate) enum Search {
    /// The first home whose daemon accepts this caller.
    Found(Client),
    /// None runs, as far as the caller can see; perhaps one that is not for it.
    Nothing {
        /// A home that the caller may not look into.
        denied: Option<Home>,
    },
}

/// Looks for a daemon in these homes, in order.
///
/// # Errors
/// When a socket is there and cannot be used for an unusual reason.
pub(crate) async fn search(homes: &[Home]) -> Result<Search, Failure> {
    let mut denied = None;
    for home in homes {
        match reach(home).await {
            Ok(_) => return Ok(Search::Found(Client { home: home.clone() })),
            Err(ConnectError::NoDaemon) => {}
            Err(ConnectError::Denied) => denied = denied.or_else(|| Some(home.clone())),
            Err(error @ (ConnectError::Replaced | ConnectError::Other(_))) => {
                return Err(failure(home, error));
            }
        }
    }
    Ok(Search::Nothing { denied })
}

/// The daemon of the first of these homes that has one.
///
/// # Errors
/// [`ExitCode::NoDaemon`] when none has, [`ExitCode::Refused`] when the caller
/// may not look into the first one.
pub(crate) async fn find(homes: &[Home]) -> Result<Client, Failure> {
    match search(homes).await? {
        Search::Found(client) => Ok(client),
        Search::Nothing { denied: Some(home) } => Err(match homes.first() {
            Some(own) if *own != home => not_ours(own, &home),
            Some(_) | None => denied(&home),
        }),
        Search::Nothing { denied: None } => {
            let places = homes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            Err(no_daemon(&places))
        }
    }
}

/// The daemon of this home if it accepts this caller at this moment.
pub(crate) async fn present(home: &Home) -> Option<Client> {
    connect(home).await.ok().map(|_| Client { home: home.clone() })
}

/// Connects to a home's daemon. While somebody holds its lock and nobody
/// listens, a master is on its way, which is waited for.
async fn reach(home: &Home) -> Result<UnixStream, ConnectError> {
    let deadline = Instant::now() + REPLACE_TIMEOUT;
    loop {
        match connect(home).await {
            // A lock that cannot be looked at is not this caller's.
            Err(ConnectError::NoDaemon) if home.is_locked().unwrap_or(false) => {}
            result => return result,
        }
        if Instant::now() >= deadline {
            return Err(ConnectError::Replaced);
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn connect(home: &Home) -> Result<UnixStream, ConnectError> {
    UnixStream::connect(home.control_socket()).await.map_err(|error| {
        let kind = error.kind();
        let nobody =
            [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::NotADirectory];
        // More wait for a master than find room: that is waited for, too.
        if nobody.contains(&kind) || kind == io::ErrorKind::WouldBlock {
            ConnectError::NoDaemon
        } else if kind == io::ErrorKind::PermissionDenied {
            ConnectError::Denied
        } else {
            ConnectError::Other(error)
        }
    })
}

fn no_daemon(places: &str) -> Failure {
    Failure::new(
        ExitCode::NoDaemon,
        format!("no daemon is running in {places}; start one with `supervisor start FILE`"),
    )
}

/// The caller has no daemon, and may not look for the other one.
fn not_ours(own: &impl fmt::Display, other: &impl fmt::Display) -> Failure {
    Failure::new(
        ExitCode::NoDaemon,
        format!(
            "no daemon of yours is running in {own}; start one with `supervisor start FILE`. \
             The system's, in {other}, belongs to root: try sudo"
        ),
    )
}

fn denied(home: &Home) -> Failure {
    Failure::new(
        ExitCode::Refused,
        format!(
            "cannot connect to the daemon in {home}: permission denied; \
             it belongs to another user: try sudo, or set SUPERVISOR_HOME"
        ),
    )
}

fn failure(home: &Home, error: ConnectError) -> Failure {
    match error {
        ConnectError::NoDaemon => no_daemon(&home.to_string()),
        ConnectError::Replaced => {
            let seconds = REPLACE_TIMEOUT.as_secs();
            let message = format!(
                "the daemon in {home} is being replaced and has not answered for {seconds}s; \
                 try again, or see {}",
                home.daemon_log().display()
            );
            Failure::new(ExitCode::NoDaemon, message)
        }
        ConnectError::Denied => denied(home),
        ConnectError::Other(error) => {
            let place = home.control_socket();
            anyhow!(error).context(format!("cannot connect to {}", place.display())).into()
        }
    }
}

impl Client {
    /// Where the daemon lives.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Asks for one JSON object, as the daemon wrote it.
    ///
    /// # Errors
    /// The daemon's refusal with its code, or what went wrong on the way.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        self.ask(Method::GET, path, Bytes::new(), None).await
    }

    /// Sends an order that is answered with one JSON object.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, Failure> {
        self.ask(Method::POST, path, encode(body)?, Some(&answer::new_key())).await
    }

    /// Asks for a stream of JSON objects, one a line.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn get_lines(&self, path: &str) -> Result<Lines, Failure> {
        self.lines(Method::GET, path, Bytes::new(), None).await
    }

    /// Gives an order that is answered with its progress.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn order(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        Answer::new(self, path, encode(body)?).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        key: Option<&str>,
    ) -> Result<Bytes, Failure> {
        over_masters(|| async {
            read_whole(self.connect().await?.send(&method, path, body.clone(), key).await?).await
        })
        .await
    }

    async fn lines(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        key: Option<&str>,
    ) -> Result<Lines, Failure> {
        over_masters(|| async {
            let response = self.connect().await?.send(&method, path, body.clone(), key).await?;
            Ok(Lines::new(response.into_body()))
        })
        .await
    }

    /// A connection for one question after another.
    ///
    /// # Errors
    /// When nobody can be reached.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let stream = reach(&self.home).await.map_err(|error| failure(&self.home, error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("cannot talk to the daemon")?;
        // Moves the bytes until the last body has been read; its errors reach
        // the reader of the body too.
        tokio::spawn(connection);
        Ok(Connection { sender })
    }
}

/// Tries again what a master did not answer because it died. One that dies of the
/// question itself is not asked for ever: its keeper puts up with few deaths.
async fn over_masters<T, F: Future<Output = Result<T, Failure>>>(ask: impl Fn() -> F) -> Result<T, Failure> {
    within(async {
        loop {
            match ask().await {
                Err(failure) if failure.cause.is::<BrokenOff>() => sleep(LOOK_EVERY).await,
                answer => return answer,
            }
        }
    })
    .await
}

/// A connection to one master. It breaks when that master ends.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Asks for one JSON object, as the daemon wrote it. After an error other
    /// than a refusal the connection is of no more use.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        within(async { read_whole(self.send(&Method::GET, path, Bytes::new(), None).await?).await }).await
    }

    /// Sends a request and waits for the head of an answer that is no refusal.
    async fn send(
        &mut self,
        method: &Method,
        path: &str,
        body: Bytes,
        key: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = key.iter().fold(Request::builder(), |request, key| request.header(ORDER_KEY, *key));
        let request = request
            .method(method)
            .uri(path)
            .header(header::HOST, "supervisor")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, release::product())
            .body(Full::new(body))
            .with_context(|| format!("cannot ask for {path}"))?;
        self.sender.ready().await.context(BrokenOff)?;
        let response = self.sender.send_request(request).await.context(BrokenOff)?;
        let version = response.headers().get(header::SERVER).and_then(|server| server.to_str().ok());
        if let Some(version) = version.and_then(release::of_product)
            && !release::is_compatible(version)
        {
            return Err(Failure::new(
                ExitCode::Failed,
                format!(
                    "the daemon is of version {}, and this command of {RELEASE}: \
                     use the command that belongs to it",
                    one_line(version)
                ),
            ));
        }
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || {
        let seconds = ANSWER_TIMEOUT.as_secs();
        Failure::new(ExitCode::Failed, format!("the daemon did not answer within {seconds}s"))
    };
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(late()))
}

async fn read_whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    match Limited::new(response.into_body(), BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(anyhow!("the daemon's answer has more than {BODY_MAX} bytes").into())
        }
        Err(error) => Err(anyhow!(error).context(BrokenOff).into()),
    }
}

/// What a 4xx or 5xx means.
async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let version = response.headers().get(header::SERVER).and_then(|server| server.to_str().ok());
    let version = version.and_then(release::of_product).filter(|version| *version != RELEASE);
    let version = version.map(str::to_owned);
    let body = match read_whole(response).await {
        Ok(body) => body,
        Err(failure) => return failure,
    };
    match serde_json::from_slice::<ErrorBody>(&body) {
        // Most likely it has been added since.
        Ok(ErrorBody { error })
            if status == StatusCode::NOT_FOUND && error.code == ErrorCode::Usage && version.is_some() =>
        {
            let message = format!(
                "{error}: the daemon is of version {}, and this command of {RELEASE}",
                one_line(&version.unwrap_or_default())
            );
            Failure::new(ExitCode::from_number(error.code.exit_code()), message)
        }
        Ok(ErrorBody { error }) => {
            Failure { code: ExitCode::from_number(error.code.exit_code()), cause: error.into() }
        }
        Err(_) => Failure::new(ExitCode::Failed, format!("the daemon answered with HTTP status {status}")),
    }
}

fn encode(body: &impl Serialize) -> anyhow::Result<Bytes> {
    #[cfg(feature = "next-version")]
    let body = &supervisor_master::next::request(body);
    Ok(serde_json::to_vec(body).context("cannot write the request")?.into())
}

/// Reads the daemon's JSON.
///
/// # Errors
/// When it is not what this version knows.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(json).context("the daemon's answer is not one that this version knows")
}

/// A streamed line as the daemon wrote it.
pub(crate) fn as_it_is(mut line: Vec<u8>) -> Vec<u8> {
    line.push(b'\n');
    line
}

/// A path with its query, each value escaped.
pub(crate) fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = path.to_owned();
    for (index, (name, value)) in pairs.into_iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte))
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

/// The daemon went away within an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection to the daemon broke")
    }
}

/// A streamed answer, line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    /// What has arrived.
    buffer: Vec<u8>,
    /// Where the part of `buffer` begins that was not yet handed out.
    start: usize,
    /// Up to where `buffer` holds no line's end after `start`.
    searched: usize,
}

impl Lines {
    fn new(body: Incoming) -> Lines {
        Lines { body, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// The next line without its end; `None` after the last one. Cancelling
    /// the future loses nothing.
    ///
    /// # Errors
    /// When the connection breaks, or a line is longer than [`LINE_MAX`].
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(offset) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + offset;
                let line = self.buffer[self.start..end].to_vec();
                self.start = end + 1;
                self.searched = self.start;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.searched = self.buffer.len();
            if self.searched > LINE_MAX {
                bail!("the daemon sent a line of more than {LINE_MAX} bytes");
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(anyhow!("the answer ends within a line").context(BrokenOff)),
                Some(frame) => {
                    let frame = frame.context(BrokenOff)?;
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_daemon_is_not_the_callers() {
        let failure = not_ours(&"/run/user/7/s", &"/run/s");
        assert_eq!(failure.code, ExitCode::NoDaemon);
        let text = failure.cause.to_string();
        assert!(text.contains("no daemon of yours is running in /run/user/7/s"), "{text}");
        assert!(text.contains("/run/s, belongs to root: try sudo"), "{text}");
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(with_query("/v1/status", []), "/v1/status");
        assert_eq!(
            with_query("/v1/logs", [("selector", "/^a b&c$/"), ("lines", "5")]),
            "/v1/logs?selector=%2F%5Ea%20b%26c%24%2F&lines=5"
        );
        assert_eq!(with_query("/", [("selector", "ü:1")]), "/?selector=%C3%BC%3A1");
    }
}
