//! `GET /v1/logs`: the last lines of the files, then what is written from now
//! on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use http_body_util::channel::Sender;
use jiff::Timestamp;
use regex_lite::Regex;
use supervisor_core::WorkerId;
use supervisor_protocol::control::{LogLine, LogPosition, Stream};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Selection;
use super::history::{self, MAX_LINE, Past, text};
use super::routes::send_line;
use crate::output::{Access, InFile, Piece};

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
    /// Say where lines are.
    pub(crate) positions: bool,
    /// Instead of the last lines those that come after these places, by the
    /// numbers of their files. Of files that are not here all are new.
    pub(crate) after: Option<HashMap<u64, u64>>,
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
    let Logs { files, selection, follow, query } = logs;
    let query = Arc::new(query);
    let mut told = Told { ends: HashMap::new(), at: Instant::now() };
    for file in files {
        let query = Arc::clone(&query);
        // A file that is not there yet has no lines.
        let read = tokio::task::spawn_blocking(move || history::read(&file, &query)).await;
        let Some(Past { lines, end }) = read.ok().and_then(Result::ok) else { continue };
        for line in lines {
            if send_line(&mut to, &line).await.is_err() {
                return;
            }
        }
        told.ends.extend(end.map(|end| (end.file, end.end)));
    }
    let Some(pieces) = follow else { return };
    told.at = Instant::now();
    if query.positions {
        let files = told.ends.iter().map(|(file, end)| LogPosition { file: *file, end: *end }).collect();
        if send_line(&mut to, &LogLine::Files { files }).await.is_err() {
            return;
        }
    }
    // The reader has gone.
    let _ = tell_pieces(pieces, &selection, &query, &told, &mut to).await;
}

/// How far files have been told.
struct Told {
    /// By their numbers.
    ends: HashMap<u64, u64>,
    /// What is written later is new, wherever that is: a file may be emptied.
    at: Instant,
}

impl Told {
    fn has(&self, end: Option<LogPosition>, at: Instant) -> bool {
        let before = |end: LogPosition| self.ends.get(&end.file).is_some_and(|told| end.end <= *told);
        at <= self.at && end.is_some_and(before)
    }
}

async fn tell_pieces(
    mut pieces: broadcast::Receiver<Piece>,
    selection: &Selection,
    query: &LogQuery,
    told: &Told,
    to: &mut Sender<Bytes>,
) -> Result<(), ()> {
    let LogQuery { stream, grep, positions, .. } = query;
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
        let parts = piece.bytes.split_inclusive(|byte| *byte == b'\n');
        for (part, end) in parts.zip(ends(&piece)) {
            if told.has(end, piece.at) {
                continue;
            }
            let room = MAX_LINE.saturating_sub(buffer.len());
            buffer.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") || buffer.len() >= MAX_LINE {
                let line = text(buffer);
                buffer.clear();
                if grep.as_ref().is_none_or(|grep| grep.is_match(&line)) {
                    let (app, slot) = (piece.app.to_string(), Some(piece.slot));
                    let position = end.filter(|_| *positions);
                    send_line(to, &LogLine::Line { app, slot, stream: piece.stream, line, position }).await?;
                }
            }
        }
        if buffer.is_empty() {
            partial.remove(&(piece.worker, piece.stream));
        }
    }
}

/// Where each line of a piece ends in its file.
fn ends(piece: &Piece) -> Vec<Option<LogPosition>> {
    let said = piece.bytes.split_inclusive(|byte| *byte == b'\n');
    let Some(InFile { end, lines }) = &piece.place else { return said.map(|_| None).collect() };
    let lengths: Vec<u64> = match lines {
        Some(lines) => lines.to_vec(),
        None => said.map(|line| line.len() as u64).collect(),
    };
    // A part of it may be in a file before.
    let mut after: u64 = lengths.iter().sum();
    let positions = lengths.into_iter().map(|length| {
        after -= length;
        Some(LogPosition { end: end.end.checked_sub(after)?, ..*end })
    });
    positions.collect()
}
