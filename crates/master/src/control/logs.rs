//! `GET /v1/logs`: the last lines of the files, then what is written from now
//! on.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use http_body_util::channel::Sender;
use supervisor_core::{Slots, WorkerId};
use supervisor_protocol::control::{LogLine, Stream};
use tokio::sync::broadcast::{self, error::RecvError};

use super::routes::send_line;
use crate::output::Piece;

/// The most lines of history that are read from a file.
const MAX_LINES: usize = 10_000;
/// How far back in a file they may begin, bytes.
const MAX_HISTORY: u64 = 4 * 1024 * 1024;
/// The longest line that is told whole, bytes; a longer one is cut.
const MAX_LINE: usize = 64 * 1024;

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct LogQuery {
    /// Everything when there is none.
    pub(crate) selectors: Vec<String>,
    /// Of each file, from its end.
    pub(crate) lines: usize,
    /// Go on with what is written from now on.
    pub(crate) follow: bool,
    /// Both when absent.
    pub(crate) stream: Option<Stream>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) files: Vec<LogFile>,
    pub(crate) lines: usize,
    pub(crate) stream: Option<Stream>,
    /// Which apps and slots are followed.
    pub(crate) selected: BTreeMap<String, Slots>,
    /// What is written from now on.
    pub(crate) follow: Option<broadcast::Receiver<Piece>>,
}

/// A file with output.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) app: String,
    pub(crate) slot: u32,
    pub(crate) stream: Stream,
    pub(crate) path: PathBuf,
}

/// Writes the lines. It ends with the history, or when the client leaves.
pub(super) async fn tell(logs: Logs, mut to: Sender<Bytes>) {
    let lines = logs.lines.min(MAX_LINES);
    for file in logs.files {
        let LogFile { app, slot, stream, path } = file;
        // A file that is not there yet has no lines.
        let read = tokio::task::spawn_blocking(move || last_lines(&path, lines)).await;
        for line in read.ok().and_then(Result::ok).unwrap_or_default() {
            let line = LogLine::Line { app: app.clone(), slot, stream, line };
            if send_line(&mut to, &line).await.is_err() {
                return;
            }
        }
    }
    if let Some(pieces) = logs.follow {
        // The reader has gone.
        let _ = follow(pieces, &logs.selected, logs.stream, &mut to).await;
    }
}

async fn follow(
    mut pieces: broadcast::Receiver<Piece>,
    selected: &BTreeMap<String, Slots>,
    stream: Option<Stream>,
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
            && selected.get(&*piece.app).is_some_and(|slots| slots.contains(piece.slot));
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
                let app = piece.app.to_string();
                send_line(to, &LogLine::Line { app, slot: piece.slot, stream: piece.stream, line }).await?;
            }
        }
        if buffer.is_empty() {
            partial.remove(&(piece.worker, piece.stream));
        }
    }
}

/// A line's text without its end.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

/// The last lines of a file.
fn last_lines(path: &Path, count: usize) -> io::Result<Vec<String>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    // Most lines are short: begin near the end, go back further if need be.
    let mut back = (count as u64).saturating_mul(256).clamp(4096, MAX_HISTORY);
    loop {
        let start = end.saturating_sub(back);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.by_ref().take(end - start).read_to_end(&mut bytes)?;
        let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        if start > 0 && !lines.is_empty() {
            // It may begin in the middle of a line.
            lines.remove(0);
        }
        if lines.len() >= count || start == 0 || back >= MAX_HISTORY {
            let surplus = lines.len().saturating_sub(count);
            return Ok(lines[surplus..].iter().map(|line| text(&line[..line.len().min(MAX_LINE)])).collect());
        }
        back = back.saturating_mul(8).min(MAX_HISTORY);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[track_caller]
    fn check(content: &str, count: usize, expected: &[&str]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        assert_eq!(last_lines(file.path(), count).unwrap(), expected);
    }

    #[test]
    fn the_last_lines_are_found() {
        check("", 3, &[]);
        check("a\nb\nc\n", 2, &["b", "c"]);
        check("a\nb", 5, &["a", "b"]);
        check("a\r\nb\n", 0, &[]);
    }

    #[test]
    fn long_files_are_read_from_their_end() {
        let content: String = (0..10_000).map(|n| format!("line {n} {}\n", "x".repeat(300))).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let lines = last_lines(file.path(), 100).unwrap();
        assert_eq!(lines.len(), 100);
        assert!(lines[0].starts_with("line 9900 "));
    }
}
