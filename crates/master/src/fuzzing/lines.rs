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
    let mut form = Form::new(&options(*form), TimeZone::UTC, &AUTHOR);
    // Of one byte, of some, or long enough to make lines that are cut.
    let (taken, filled) = [(1, 0), (16, 0), (16, 1024), (16, 40_000)][usize::from(length % 4)];
    let (mut buffer, mut unfinished) = (Buffer::new(), Vec::new());
    let (mut given, mut whole, mut written) = (Vec::new(), Vec::new(), Vec::new());
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
        written.extend(rendered(&mut form, &lines));
        if piece.first().is_some_and(|first| first % 16 == 0) {
            // Its end is long in coming.
            let line = std::mem::take(&mut unfinished);
            whole.extend_from_slice(&line);
            written.extend(rendered(&mut form, &line));
        }
    }
    whole.extend_from_slice(&unfinished);
    written.extend(rendered(&mut form, &unfinished));
    assert!(whole == given, "bytes are lost or moved");
    check_form(&form, &given, &written);
}

/// These bytes with so many more in their middle. There are no ends of lines among
/// those: each would make a line to be looked at, thousands for a byte of input.
fn filled_up(bytes: &[u8], filled: usize) -> Vec<u8> {
    let (first, last) = bytes.split_at(bytes.len() / 2);
    let more = bytes.iter().filter(|byte| **byte != b'\n').cycle().take(filled);
    first.iter().chain(more).chain(last).copied().collect()
}

/// What files get of it.
fn rendered(form: &mut Form, mut lines: &[u8]) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), Vec::new());
    while !lines.is_empty() {
        let before = lines.len();
        form.render(&mut lines, Timestamp::UNIX_EPOCH, &mut part);
        assert!(lines.len() < before, "nothing is rendered");
        all.extend_from_slice(&part);
    }
    all
}

fn check_form(form: &Form, given: &[u8], written: &[u8]) {
    match form {
        Form::Raw => assert!(written == given, "raw lines are changed"),
        Form::Dated(_) => {
            for line in written.split_inclusive(|byte| *byte == b'\n') {
                assert!(line.starts_with(b"1970: ") && line.ends_with(b"\n"), "{line:?}");
            }
        }
        Form::Json { .. } => {
            for line in written.split_inclusive(|byte| *byte == b'\n') {
                let object: serde_json::Value = serde_json::from_slice(line).expect("a line is an object");
                assert!(object["message"].is_string() && object["app"] == AUTHOR.app, "{object}");
            }
        }
    }
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
