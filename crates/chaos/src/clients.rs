//! Clients that count every refused, reset, empty, short, wrong and late answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::World;
use crate::apps::{App, Asking};
use crate::locked;
use crate::story::{Moment, Trouble, now};

/// An answer that takes longer is late: longer than a hang, the longest pause
/// between two starts, and a start.
const LATE: Duration = Duration::from_secs(30);

/// What became of the requests to an app.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: AtomicU64,
    /// Lost with the worker that had accepted it.
    pub(crate) struck: AtomicU64,
    /// Nobody was to serve.
    pub(crate) nobody: AtomicU64,
    /// It waited in the queue of a worker that was struck while nothing was left to replace it with, or that
    /// stood still while it was drained.
    pub(crate) short: AtomicU64,
    pub(crate) unexplained: Mutex<Vec<String>>,
    /// The slowest answer, in milliseconds.
    pub(crate) slowest: AtomicU64,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no answer: {0}")]
    Io(io::Error),
    #[error("an empty answer")]
    Empty,
    #[error("a short answer: {0} bytes")]
    Short(usize),
    #[error("a wrong answer: {0}")]
    Answer(String),
}

/// An answer.
struct Answer {
    code: String,
    body: Vec<u8>,
    /// The connection is of no further use.
    last: bool,
}

/// Asks until the run is over.
pub(crate) fn ask(world: &World, app: &'static App, address: SocketAddr, seed: u64) {
    let Some((_, asking, longest)) = app.clients else { return };
    let counts = world.counts(app.name);
    let mut rng = Rng::with_seed(seed);
    while !world.is_over() {
        let begin = now();
        let stream = match TcpStream::connect_timeout(&address, LATE) {
            Ok(stream) => stream,
            Err(error) => {
                judge(world, app, counts, None, begin, &Wrong::Connect(error));
                sleep(Duration::from_millis(20));
                continue;
            }
        };
        let client = stream.local_addr().ok();
        let requests = if asking == Asking::KeepAlive { rng.usize(1..50) } else { 1 };
        for request in 1..=requests {
            let sent = Instant::now();
            let keep = request < requests;
            match exchange(&stream, app, &mut rng, longest, keep) {
                Ok(last) => {
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                    counts.slowest.fetch_max(millis(sent.elapsed()), Ordering::Relaxed);
                    if last {
                        break;
                    }
                }
                Err(wrong) => {
                    judge(world, app, counts, client, begin, &wrong);
                    break;
                }
            }
            sleep(Duration::from_micros(rng.u64(0..6_000)));
        }
    }
}

fn millis(time: Duration) -> Moment {
    time.as_millis().try_into().unwrap_or(Moment::MAX)
}

/// A failed request is explained, or ends the run.
fn judge(
    world: &World,
    app: &'static App,
    counts: &Counts,
    client: Option<SocketAddr>,
    begin: Moment,
    wrong: &Wrong,
) {
    let end = now();
    let story = &world.story;
    let was = |trouble| story.was(trouble, Some(app.name), begin, end);
    let is_short = [Trouble::Descriptors, Trouble::Forks]
        .into_iter()
        .any(|lack| story.was_lacking(lack, Trouble::Worker, app.name, begin, end));
    let cause = if matches!(wrong, Wrong::Answer(_)) {
        None
    } else if client.is_some_and(|client| story.was_struck(client, begin, end)) {
        Some(&counts.struck)
    } else if was(Trouble::Nobody) {
        Some(&counts.nobody)
    } else if is_short || was(Trouble::Still) {
        Some(&counts.short)
    } else {
        None
    };
    if let Some(count) = cause {
        count.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let what = format!(
        "UNEXPLAINED: a request to {}, on a connection of {}, failed: {wrong} ({client:?})",
        app.name,
        story.since_begin(begin)
    );
    story.tell(&what);
    locked(&counts.unexplained).push(what);
    world.give_up();
}

/// One request and its answer. Returns whether the connection is of no further use.
fn exchange(
    mut stream: &TcpStream,
    app: &App,
    rng: &mut Rng,
    longest: u64,
    keep: bool,
) -> Result<bool, Wrong> {
    let bytes: usize = match rng.u32(0..50) {
        0 => 300_000,
        1..5 => 20_000,
        _ => 64,
    };
    let delay = if rng.u32(0..10) == 0 { rng.u64(0..=longest) } else { 0 };
    let connection = if keep { "keep-alive" } else { "close" };
    stream.set_read_timeout(Some(LATE)).map_err(Wrong::Io)?;
    write!(stream, "GET /{bytes}?{delay} HTTP/1.1\r\nHost: chaos\r\nConnection: {connection}\r\n\r\n")
        .map_err(Wrong::Io)?;
    let answer = receive(stream, keep)?;
    let first = answer.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first).into_owned();
    let is_right = answer.code == "200"
        && answer.body.len() == bytes
        && first.split(' ').next() == Some(app.name)
        && first.split(' ').next_back().is_some_and(|release| !release.ends_with("bad"));
    if is_right {
        Ok(answer.last || !keep)
    } else {
        Err(Wrong::Answer(format!("{} with {} of {bytes} bytes: {first}", answer.code, answer.body.len())))
    }
}

/// Reads an answer: to the connection's end, unless it is to be kept.
fn receive(mut stream: &TcpStream, keep: bool) -> Result<Answer, Wrong> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        if let Some(answer) = parse(&bytes)
            && (keep && !answer.last)
        {
            return Ok(answer);
        }
        let got = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            // What is complete is an answer, however the connection ends.
            Err(error) => return parse(&bytes).ok_or(Wrong::Io(error)),
        };
        bytes.extend(buffer.iter().take(got));
    }
    if bytes.is_empty() {
        return Err(Wrong::Empty);
    }
    parse(&bytes).ok_or(Wrong::Short(bytes.len()))
}

/// An answer that is complete.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = bytes.split_at_checked(end + 4)?;
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
    let length: usize = field("content-length:")?.parse().ok()?;
    let body = body.get(..length)?.to_vec();
    let last = field("connection:") == Some("close") || head.starts_with("http/1.0");
    Some(Answer { code: head.split(' ').nth(1)?.to_owned(), body, last })
}
