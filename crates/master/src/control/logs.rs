//! `GET /v1/logs`: the last lines of the files, then what is written from now
//! on.

use std::collections::HashMap;
use std::path::PathBuf;

use axum::body::Bytes;
use http_body_util::channel::Sender;
use jiff::Timestamp;
use regex_lite::Regex;
use supervisor_core::WorkerId;
use supervisor_protocol::control::{LogLine, Stream};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Selection;
use super::history::{self, MAX_LINE, text};
use super::routes::send_line;
use crate::elsewhere::elsewhere;
use crate::output::{Access, Piece};

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct LogQuery {
    /// Everything when there is none.
    pub(crate) selectors: Vec<String>,
    /// Of each file and those that were rotated from it, from the end.
    pub(crate) lines: usize,
    /// Go on with what is written from now on.
    pub(crate) follow: bool,
    /// Both when absent.
    pub(crate) stream: Option<Stream>,
    /// Only lines that it matches.
    pub(crate) grep: Option<Regex>,
    /// Only lines written since then, as far as files tell.
    pub(crate) since: Option<Timestamp>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) files: Vec<LogFile>,
    /// Which apps and slots are followed.
    pub(crate) selection: Selection,
    /// What is written from now on.
    pub(crate) follow: Option<broadcast::Receiver<Piece>>,
    pub(crate) query: LogQuery,
}

/// A file with output.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    pub(crate) app: String,
    /// `None` when several slots write to it.
    pub(crate) slot: Option<u32>,
    pub(crate) stream: Stream,
    pub(crate) path: PathBuf,
    /// Whose rights to it count.
    pub(crate) access: Access,
    /// Its lines are JSON objects.
    pub(crate) json: bool,
}

/// Writes the lines. It ends with the history, or when the client leaves.
pub(super) async fn tell(logs: Logs, mut to: Sender<Bytes>) {
    let LogQuery { lines, stream, grep, since, .. } = logs.query;
    for file in logs.files {
        let wanted = history::Wanted { lines, grep: grep.clone(), since };
        // A file that is not there yet has no lines.
        let read = elsewhere(move || history::read(&file, &wanted)).await;
        for line in read.ok().and_then(Result::ok).unwrap_or_default() {
            if send_line(&mut to, &line).await.is_err() {
                return;
            }
        }
    }
    if let Some(pieces) = logs.follow {
        // The reader has gone.
        let _ = follow(pieces, &logs.selection, stream, grep.as_ref(), &mut to).await;
    }
}

async fn follow(
    mut pieces: broadcast::Receiver<Piece>,
    selection: &Selection,
    stream: Option<Stream>,
    grep: Option<&Regex>,
    to: &mut Sender<Bytes>,
) -> Result<(), ()> {
    let mut partial: HashMap<(WorkerId, Stream), Vec<u8>> = HashMap::new();
    loop {
        let piece = match pieces.recv().await {
            Ok(piece) => piece,
            Err(RecvError::Lagged(chunks)) => {
                partial.clear();
                send_line(to, &LogLine::Missed { chunks }).await?;
                continue;
            }
            Err(RecvError::Closed) => return Ok(()),
        };
        let wanted = stream.is_none_or(|stream| stream == piece.stream)
            && selection.contains(&piece.app, Some(piece.slot));
        if !wanted {
            continue;
        }
        let buffer = partial.entry((piece.worker, piece.stream)).or_default();
        for part in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(buffer.len());
            buffer.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") || buffer.len() >= MAX_LINE {
                let line = text(buffer);
                buffer.clear();
                if grep.is_none_or(|grep| grep.is_match(&line)) {
                    let (app, slot) = (piece.app.to_string(), Some(piece.slot));
                    send_line(to, &LogLine::Line { app, slot, stream: piece.stream, line }).await?;
                }
            }
        }
        if buffer.is_empty() {
            partial.remove(&(piece.worker, piece.stream));
        }
    }
}
