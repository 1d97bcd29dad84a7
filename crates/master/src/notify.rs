//! What workers say of themselves: the messages of `sd_notify(3)`.

use std::time::Duration;

/// The longest message that is read, bytes; the rest of a longer one is lost.
pub(crate) const MAX_MESSAGE: usize = 4096;
/// The longest `STATUS=` that is kept, characters.
const MAX_STATUS: usize = 256;
/// The most time that one `EXTEND_TIMEOUT_USEC=` gives.
const MAX_EXTENSION: Duration = Duration::from_secs(24 * 60 * 60);

/// One assignment of a message that means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// `READY=1`
    Ready,
    /// `STOPPING=1`
    Stopping,
    /// `STATUS=…`
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=…`
    Extend(Duration),
    /// `WATCHDOG=1`
    Watchdog,
}

/// The words of a message, in order. Assignments that are unknown or malformed
/// are passed over, as the protocol demands.
pub(crate) fn parse(message: &[u8]) -> Vec<Word> {
    let text = String::from_utf8_lossy(message);
    text.lines().filter_map(|line| word(line.split_once('=')?)).collect()
}

fn word((name, value): (&str, &str)) -> Option<Word> {
    match (name, value) {
        ("READY", "1") => Some(Word::Ready),
        ("STOPPING", "1") => Some(Word::Stopping),
        ("WATCHDOG", "1") => Some(Word::Watchdog),
        ("STATUS", text) => {
            let clean = text.chars().filter(|c| !c.is_control()).take(MAX_STATUS).collect();
            Some(Word::Status(clean))
        }
        ("EXTEND_TIMEOUT_USEC", micros) => {
            let time = Duration::from_micros(micros.trim().parse().ok()?);
            Some(Word::Extend(time.min(MAX_EXTENSION)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &[u8], expected: &[Word]) {
        assert_eq!(parse(message), expected);
    }

    #[test]
    fn known_words_are_read() {
        check(b"READY=1", &[Word::Ready]);
        check(b"READY=1\nSTATUS=at work\n", &[Word::Ready, Word::Status("at work".to_owned())]);
        check(b"STOPPING=1\nWATCHDOG=1", &[Word::Stopping, Word::Watchdog]);
        check(b"EXTEND_TIMEOUT_USEC=1500000", &[Word::Extend(Duration::from_millis(1500))]);
    }

    #[test]
    fn the_rest_is_passed_over() {
        check(b"", &[]);
        check(b"READY=0\nREADY\nMAINPID=5\nX=1\n=\n\xff\xfe=1", &[]);
        check(b"EXTEND_TIMEOUT_USEC=soon", &[]);
    }

    #[test]
    fn a_status_is_bounded_and_clean() {
        let message = format!("STATUS=\x1b[31m{}", "x".repeat(1000));
        let Some(Word::Status(status)) = parse(message.as_bytes()).into_iter().next() else {
            panic!("no status");
        };
        assert_eq!(status.chars().count(), MAX_STATUS);
        assert!(status.starts_with("[31m"));
    }

    #[test]
    fn an_extension_is_bounded() {
        check(format!("EXTEND_TIMEOUT_USEC={}", u64::MAX).as_bytes(), &[Word::Extend(MAX_EXTENSION)]);
    }
}
