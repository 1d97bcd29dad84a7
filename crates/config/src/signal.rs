//! Signals by name. The numbers are those of Linux on x86-64 and arm64
//! (`signal(7)`).

use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{expected, whole};

const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    (STOP_NAME, STOP),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const STOP_NAME: &str = "STOP";
const STOP: i32 = 19;
/// The first real-time signal that the C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads a signal that may ask a worker to end.
pub(crate) fn kill_signal(node: &Node) -> Result<i32, Problem> {
    let signal = match &node.value {
        Value::Number(number) => {
            whole(number).filter(|number| (1..=31).contains(number) || (RTMIN..=RTMAX).contains(number))
        }
        Value::Text(text) => number(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    };
    match signal {
        Some(STOP) => Err(Problem::new("must not be SIGSTOP: a worker cannot answer it by ending")),
        Some(signal) => Ok(signal),
        None => Err(expected("a signal such as `SIGTERM`, `TERM` or `15`", node)),
    }
}

/// The number of `SIGTERM`, `TERM`, `term` or `SIGRTMIN+3`.
fn number(name: &str) -> Option<i32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = match offset.strip_prefix('+') {
            Some(offset) => whole(offset)?,
            None if offset.is_empty() => 0,
            None => return None,
        };
        return RTMIN.checked_add(offset).filter(|signal| (RTMIN..=RTMAX).contains(signal));
    }
    NAMES.iter().find(|(listed, _)| *listed == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::plain_scalar;

    fn read(text: &str) -> Option<i32> {
        kill_signal(&Node::new(plain_scalar(text.to_owned()))).ok()
    }

    #[test]
    fn reads_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigint", 2),
            ("15", 15),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMIN+30", 64),
        ] {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in [
            "", "0", "-1", "32", "33", "65", "SIGFOO", "SIG", "SIGSTOP", "19", "RTMIN+31", "RTMIN-1",
            "RTMIN+", "1.5", "true",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
