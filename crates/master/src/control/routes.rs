//! The paths under `/v1`, and how answers are written.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request as HttpRequest;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request};
use axum::routing::{get, post};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use supervisor_protocol::control::{
    Environments, ErrorBody, ErrorCode, ErrorDetail, Flushed, MAX_ORDER_KEY, MessageSent, ORDER_KEY,
    Progress, Stream,
};
use supervisor_protocol::release::{self, RELEASE};
use tokio::sync::{mpsc, oneshot};

use super::{Ask, LogQuery, Reply, Request, channel, environment, events, logs};
use crate::operations::{Answer, Line};
use crate::registry::refuse;

/// The largest request body, bytes.
const BODY: usize = 16 * 1024 * 1024;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a stream that wait for the client.
const LINES_AHEAD: usize = 16;

type Requests = mpsc::Sender<Request>;

/// All paths. Requests go to `requests`.
pub(super) fn router(requests: Requests) -> Router {
    Router::new()
        .route("/v1/ping", get(|State(to): State<Requests>| ask(to, Ok(Ask::Ping))))
        .route(
            "/v1/status",
            get(|State(to), query| async move {
                ask(to, selectors(query).map(|selectors| Ask::Status { selectors })).await
            }),
        )
        .route(
            "/v1/describe",
            get(|State(to), query| async move {
                let revealing = revealing(query);
                ask(to, revealing.map(|(selectors, reveal)| Ask::Describe { selectors, reveal })).await
            }),
        )
        .route(
            "/v1/env",
            get(|State(to), query| async move {
                ask(to, revealing(query).map(|(selectors, reveal)| Ask::Env { selectors, reveal })).await
            }),
        )
        .route(
            "/v1/logs",
            get(|State(to), query| async move { ask(to, log_query(query).map(Ask::Logs)).await }),
        )
        .route("/v1/events", get(|State(to), query| async move { ask(to, events_query(query)).await }))
        .route("/v1/apply", post(|State(to), headers, request| order(to, headers, request, Ask::Apply)))
        .route("/v1/start", post(|State(to), headers, request| order(to, headers, request, Ask::Start)))
        .route("/v1/stop", post(|State(to), headers, request| order(to, headers, request, Ask::Stop)))
        .route("/v1/restart", post(|State(to), headers, request| order(to, headers, request, Ask::Restart)))
        .route("/v1/reload", post(|State(to), headers, request| order(to, headers, request, Ask::Reload)))
        .route("/v1/abort", post(|State(to), headers, request| order(to, headers, request, Ask::Abort)))
        .route("/v1/delete", post(|State(to), headers, request| order(to, headers, request, Ask::Delete)))
        .route("/v1/scale", post(|State(to), headers, request| order(to, headers, request, Ask::Scale)))
        .route("/v1/signal", post(|State(to), headers, request| order(to, headers, request, Ask::Signal)))
        .route("/v1/send", post(|State(to), headers, request| order(to, headers, request, Ask::Send)))
        .route(
            "/v1/channel",
            get(|State(to), query| async move {
                ask(to, selectors(query).map(|selectors| Ask::Channel { selectors })).await
            }),
        )
        .route("/v1/reset", post(|State(to), headers, request| order(to, headers, request, Ask::Reset)))
        .route("/v1/flush", post(|State(to), headers, request| order(to, headers, request, Ask::Flush)))
        .route("/v1/reopen", post(|State(to), headers, request| order(to, headers, request, Ask::Reopen)))
        .route(
            "/v1/upgrade",
            get(|State(to): State<Requests>| ask(to, Ok(Ask::Upgrades)))
                .post(|State(to), body| async move { ask(to, read(body).await.map(Ask::Upgrade)).await }),
        )
        .route("/v1/kill", post(|State(to), headers, request| order(to, headers, request, Ask::Kill)))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(requests)
}

async fn unknown_path(uri: Uri) -> Response<Body> {
    let message = format!("there is nothing at {}", uri.path());
    let body = ErrorBody { error: refuse(ErrorCode::Usage, message) };
    json(StatusCode::NOT_FOUND, to_json(&body))
}

async fn wrong_method(method: Method, uri: Uri) -> Response<Body> {
    let message = format!("{method} does not go with {}", uri.path());
    let body = ErrorBody { error: refuse(ErrorCode::Usage, message) };
    json(StatusCode::METHOD_NOT_ALLOWED, to_json(&body))
}

/// Hands an order to the master and writes its answer.
async fn order<T: DeserializeOwned>(
    requests: Requests,
    headers: HeaderMap,
    request: HttpRequest,
    to_ask: impl FnOnce(T) -> Ask,
) -> Response<Body> {
    match (key(&headers), read(request).await) {
        (Ok(key), Ok(body)) => put(requests, to_ask(body), key).await,
        (Err(error), _) | (_, Err(error)) => refusal(error),
    }
}

/// What the client calls its order.
fn key(headers: &HeaderMap) -> Result<Option<String>, ErrorDetail> {
    let Some(key) = headers.get(ORDER_KEY) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=MAX_ORDER_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => {
            let message = format!("{ORDER_KEY}: 1 to {MAX_ORDER_KEY} printable characters are expected");
            Err(refuse(ErrorCode::Usage, message))
        }
    }
}

/// Hands a question to the master and writes its answer.
async fn ask(requests: Requests, ask: Result<Ask, ErrorDetail>) -> Response<Body> {
    match ask {
        Ok(ask) => put(requests, ask, None).await,
        Err(error) => refusal(error),
    }
}

async fn put(requests: Requests, ask: Ask, key: Option<String>) -> Response<Body> {
    let (reply, answer) = oneshot::channel();
    let ending = || refusal(refuse(ErrorCode::Busy, "the daemon is ending".to_owned()));
    if requests.send(Request { ask, key, reply }).await.is_err() {
        return ending();
    }
    match answer.await {
        Ok(Ok(Reply::Json(body))) => json(StatusCode::OK, body),
        Ok(Ok(Reply::Order(answer))) => stream(|to| tell_order(answer, to)),
        Ok(Ok(Reply::Env(subjects, reveal))) => {
            match tokio::task::spawn_blocking(move || environment::read(subjects, reveal)).await {
                Ok(workers) => json(StatusCode::OK, to_json(&Environments { workers })),
                Err(_) => ending(),
            }
        }
        Ok(Ok(Reply::Logs(found))) => stream(|to| logs::tell(found, to)),
        Ok(Ok(Reply::Events(following))) => stream(|to| events::tell(following, to)),
        Ok(Ok(Reply::Channel(listening))) => stream(|to| channel::tell(listening, to)),
        Ok(Ok(Reply::Sent(parts))) => {
            let mut workers = 0;
            for part in parts {
                workers += part.await.unwrap_or(0);
            }
            json(StatusCode::OK, to_json(&MessageSent { workers }))
        }
        Ok(Ok(Reply::Flush(files, result))) => match result.await {
            Ok(Ok(())) => json(StatusCode::OK, to_json(&Flushed { files })),
            Ok(Err(error)) => refusal(refuse(ErrorCode::Failed, error.to_string())),
            Err(_) => ending(),
        },
        Ok(Err(error)) => refusal(error),
        Err(_) => ending(),
    }
}

/// Reads a request's body. What it has that is not documented is a mistake, but
/// not where a command of another version asks.
async fn read<T: DeserializeOwned>(request: HttpRequest) -> Result<T, ErrorDetail> {
    let (head, body) = request.into_parts();
    let usage = |message| refuse(ErrorCode::Usage, message);
    let too_large = || usage(format!("the request's body is larger than {BODY} bytes"));
    if body.size_hint().lower() > BODY as u64 {
        return Err(too_large());
    }
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY).collect()).await;
    let bytes = match whole {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => return Err(usage(format!("the request's body broke off: {error}"))),
        Err(_) => return Err(usage(format!("the request's body has not come within {BODY_TIMEOUT:?}"))),
    };
    let wrong = |error| usage(format!("the request's body is not as documented: {error}"));
    let mut unknown = None;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_ignored::deserialize(&mut json, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let value =
        value.and_then(|value| json.end().map(|()| value)).map_err(|error| wrong(error.to_string()))?;
    match unknown {
        None => {}
        // The second version that tests build knows less than it sends.
        Some(field) if is_of_another_version(&head) || cfg!(feature = "next-version") => {
            tracing::warn!(
                "{}: a command of another version has sent {field}, which is passed over",
                head.uri
            );
        }
        Some(field) => return Err(wrong(format!("unknown field `{field}`"))),
    }
    Ok(value)
}

/// Whether a command asks that is of another version than this daemon.
fn is_of_another_version(head: &request::Parts) -> bool {
    let agent = head.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.and_then(release::of_product).is_some_and(|version| version != RELEASE)
}

/// The pairs of a query string, `+` and `%XX` decoded.
fn pairs(RawQuery(query): RawQuery) -> Result<Vec<(String, String)>, ErrorDetail> {
    serde_urlencoded::from_str(query.as_deref().unwrap_or(""))
        .map_err(|error| refuse(ErrorCode::Usage, format!("the query is malformed: {error}")))
}

fn selectors(query: RawQuery) -> Result<Vec<String>, ErrorDetail> {
    pairs(query)?
        .into_iter()
        .map(|(name, value)| if name == "selector" { Ok(value) } else { Err(unknown(&name)) })
        .collect()
}

/// Selectors, and whether secrets are wanted, too.
fn revealing(query: RawQuery) -> Result<(Vec<String>, bool), ErrorDetail> {
    let (mut selectors, mut reveal) = (Vec::new(), false);
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "selector" => selectors.push(value),
            "reveal" => {
                let bad = |_| refuse(ErrorCode::Usage, format!("{name}={value}: true or false is expected"));
                reveal = value.parse().map_err(bad)?;
            }
            _ => return Err(unknown(&name)),
        }
    }
    Ok((selectors, reveal))
}

fn events_query(query: RawQuery) -> Result<Ask, ErrorDetail> {
    let (mut selectors, mut since) = (Vec::new(), None);
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "selector" => selectors.push(value),
            "since" => since = Some(time(&name, &value)?),
            _ => return Err(unknown(&name)),
        }
    }
    Ok(Ask::Events { selectors, since })
}

fn time(name: &str, value: &str) -> Result<Timestamp, ErrorDetail> {
    let message = || format!("{name}={value}: a time such as 2026-03-01T12:00:00Z is expected");
    value.parse().map_err(|_| refuse(ErrorCode::Usage, message()))
}

fn log_query(query: RawQuery) -> Result<LogQuery, ErrorDetail> {
    let mut result = LogQuery::default();
    for (name, value) in pairs(query)? {
        let bad = |wanted: &str| refuse(ErrorCode::Usage, format!("{name}={value}: {wanted} is expected"));
        match name.as_str() {
            "selector" => result.selectors.push(value),
            "lines" => result.lines = value.parse().map_err(|_| bad("a number of lines"))?,
            "follow" => result.follow = value.parse().map_err(|_| bad("true or false"))?,
            "stream" => {
                result.stream = Some(match value.as_str() {
                    "out" => Stream::Out,
                    "error" => Stream::Error,
                    _ => return Err(bad("out or error")),
                });
            }
            "grep" => {
                let grep = regex_lite::Regex::new(&value);
                result.grep = Some(grep.map_err(|error| bad(&format!("a regular expression ({error})")))?);
            }
            "since" => result.since = Some(time(&name, &value)?),
            "positions" => result.positions = value.parse().map_err(|_| bad("true or false"))?,
            "after" => {
                let place = value
                    .split_once('.')
                    .and_then(|(file, end)| Some((file.parse().ok()?, end.parse().ok()?)));
                let (file, end): (u64, u64) =
                    place.ok_or_else(|| bad("a file's number, a dot and a place in it"))?;
                result.after.get_or_insert_default().insert(file, end);
            }
            _ => return Err(unknown(&name)),
        }
    }
    Ok(result)
}

fn unknown(parameter: &str) -> ErrorDetail {
    refuse(ErrorCode::Usage, format!("there is no query parameter `{parameter}` here"))
}

/// A refused request's answer.
pub(super) fn refusal(error: ErrorDetail) -> Response<Body> {
    let status = match error.code {
        ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Usage => StatusCode::BAD_REQUEST,
        ErrorCode::NoSuchApp => StatusCode::NOT_FOUND,
        ErrorCode::Denied => StatusCode::FORBIDDEN,
        ErrorCode::Busy => StatusCode::CONFLICT,
    };
    json(status, to_json(&ErrorBody { error }))
}

/// Types of ours always have a JSON form.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn json(status: StatusCode, mut body: Vec<u8>) -> Response<Body> {
    body.push(b'\n');
    answer(status, "application/json", Body::from(body))
}

/// An answer of JSON lines that `tell` writes as they come.
fn stream<F: Future<Output = ()> + Send + 'static>(tell: impl FnOnce(Sender<Bytes>) -> F) -> Response<Body> {
    let (sender, body) = Channel::new(LINES_AHEAD);
    tokio::spawn(tell(sender));
    answer(StatusCode::OK, "application/x-ndjson", Body::new(body))
}

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(product) = HeaderValue::from_str(&release::product()) {
        response.headers_mut().insert(header::SERVER, product);
    }
    response
}

/// Sends one line; the error is that the client has gone.
pub(super) async fn send_line(to: &mut Sender<Bytes>, line: &impl Serialize) -> Result<(), ()> {
    let mut bytes = to_json(line);
    bytes.push(b'\n');
    to.send_data(Bytes::from(bytes)).await.map_err(|_| ())
}

/// Writes an order's steps, what is left at its end, and its exit code. The
/// order goes on when the client leaves.
async fn tell_order(mut answer: Answer, mut to: Sender<Bytes>) {
    while let Some(line) = answer.lines.recv().await {
        if send_line(&mut to, &finished(line).await).await.is_err() {
            return;
        }
    }
    let Ok(end) = answer.end.await else { return };
    for line in end.late {
        if send_line(&mut to, &finished(line).await).await.is_err() {
            return;
        }
    }
    let _ = send_line(&mut to, &Progress::Done { exit_code: end.exit_code }).await;
}

async fn finished(line: Line) -> Progress {
    match line {
        Line::Progress(progress) => progress,
        Line::Failed(mut failure, last_lines) => {
            failure.last_lines = last_lines.await.unwrap_or_default();
            Progress::Failed(failure)
        }
    }
}
