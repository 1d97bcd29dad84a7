//! Output in pieces: nothing is lost or moved, and lines stay whole.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use supervisor_config::{LogOptions, LogPeriod};

use crate::output::{Author, Buffer, Form, MAX_LINE};

/// As much as makes lines that are cut, several times.
const ENOUGH: usize = 4 * MAX_LINE;

/// A stream of output. The first byte says how it is written, the second how long
/// pieces are, and that of each piece whether the worker pauses after it.
pub fn lines(data: &[u8]) {
    let [form, length, bytes @ ..] = data else { return };
    let form = Form::new(&options(*form), TimeZone::UTC, &AUTHOR);
    // Of one byte, of some, or long enough to make lines that are cut.
    let (taken, filled) = [(1, 0), (16, 0), (16, 1024), (16, 40_000)][usize::from(length % 4)];
    let (mut buffer, mut unfinished) = (Buffer::new(), Vec::new());
    let (mut given, mut whole) = (Vec::new(), Vec::new());
    let mut file = File { form, lines: Vec::new(), written: Vec::new() };
    for bytes in bytes.chunks(taken) {
        if given.len() >= ENOUGH {
            break;
        }
        let piece = filled_up(bytes, filled);
        buffer.room()[..piece.len()].copy_from_slice(&piece);
        assert_eq!(buffer.piece(piece.len()), piece);
        given.extend_from_slice(&piece);
        let lines = buffer.lines(&mut unfinished, piece.len()).to_vec();
        assert!(unfinished.len() < MAX_LINE, "{} bytes wait", unfinished.len());
        let is_cut = lines.len() >= MAX_LINE && unfinished.is_empty();
        assert!(lines.is_empty() || lines.ends_with(b"\n") || is_cut, "half a line is written");
        assert!(!unfinished.contains(&b'\n'), "a whole line waits");
        whole.extend_from_slice(&lines);
        file.write(&lines);
        if piece.first().is_some_and(|first| first % 16 == 0) {
            // Its end is long in coming.
            let line = std::mem::take(&mut unfinished);
            whole.extend_from_slice(&line);
            file.write(&line);
        }
    }
    whole.extend_from_slice(&unfinished);
    file.write(&unfinished);
    assert!(whole == given, "bytes are lost or moved");
    file.check(&given);
}

/// These bytes with so many more in their middle. There are no ends of lines among
/// those: each would make a line to be looked at, thousands for a byte of input.
fn filled_up(bytes: &[u8], filled: usize) -> Vec<u8> {
    let (first, last) = bytes.split_at(bytes.len() / 2);
    let more = bytes.iter().filter(|byte| **byte != b'\n').cycle().take(filled);
    first.iter().chain(more).chain(last).copied().collect()
}

/// What a file gets of it.
struct File {
    form: Form,
    /// The lines, or parts of long ones, that it was given, without their ends.
    lines: Vec<Vec<u8>>,
    written: Vec<u8>,
}

impl File {
    fn write(&mut self, mut lines: &[u8]) {
        let line = |line: &[u8]| line.strip_suffix(b"\n").unwrap_or(line).to_vec();
        self.lines.extend(lines.split_inclusive(|byte| *byte == b'\n').map(line));
        let mut part = Vec::new();
        while !lines.is_empty() {
            let before = lines.len();
            self.form.render(&mut lines, Timestamp::UNIX_EPOCH, &mut part);
            assert!(lines.len() < before, "nothing is rendered");
            self.written.extend_from_slice(&part);
        }
    }

    /// What is read from it is what was given.
    fn check(&self, given: &[u8]) {
        if matches!(self.form, Form::Raw) {
            assert!(self.written == given, "raw lines are changed");
            return;
        }
        let mut written = self.written.split_inclusive(|byte| *byte == b'\n');
        for expected in &self.lines {
            let line = written.next().expect("a line is lost");
            let line = line.strip_suffix(b"\n").expect("a line has no end");
            match self.form {
                Form::Raw => {}
                Form::Dated(_) => {
                    assert_eq!(line.strip_prefix(b"1970: "), Some(&expected[..]), "a line is changed");
                }
                Form::Json { .. } => check_object(line, expected),
            }
        }
        assert_eq!(written.next(), None, "a line is made up");
    }
}

/// An object has the line as a text, and who wrote it.
fn check_object(object: &[u8], line: &[u8]) {
    let object: serde_json::Value = serde_json::from_slice(object).expect("a line is an object");
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    let Author { app, slot, pid, generation, stream } = AUTHOR;
    let expected = serde_json::json!({
        "timestamp": "1970-01-01T00:00:00.000Z",
        "app": app,
        "instance": slot,
        "pid": pid,
        "generation": generation,
        "stream": stream,
        "message": text,
    });
    assert_eq!(object, expected);
}

const AUTHOR: Author<'_> = Author { app: "we\"b", slot: 2, pid: 77, generation: 3, stream: "out" };

fn options(form: u8) -> LogOptions {
    LogOptions {
        combined_file: None,
        merge: false,
        json: form % 3 == 2,
        date_format: (form % 3 == 1).then(|| "YYYY".to_owned()),
        max_size: 0,
        rotate: LogPeriod::Never,
        rotate_cron: None,
        keep: 0,
        compress: false,
    }
}
