//! How a command ends: one documented list, and the error that carries a code.

use std::fmt::Write as _;

/// What a command tells its caller by its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// It was done.
    Done = 0,
    /// It was tried and did not work.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was tried.
    Usage = 2,
    /// Nothing has that name.
    NoSuchApp = 3,
    /// No daemon answers.
    NoDaemon = 4,
    /// The caller may not, or something else is under way.
    Refused = 5,
    /// The new version failed and the old one serves on.
    RolledBack = 6,
}

impl ExitCode {
    const ALL: [(ExitCode, &str); 7] = [
        (ExitCode::Done, "done"),
        (ExitCode::Failed, "failed"),
        (ExitCode::Usage, "wrong usage or configuration"),
        (ExitCode::NoSuchApp, "no such app"),
        (ExitCode::NoDaemon, "no daemon is running"),
        (ExitCode::Refused, "refused: no permission, or busy"),
        (ExitCode::RolledBack, "rolled back: a new version failed, the old one serves"),
    ];

    /// The code that the daemon's number means. One that this version does not
    /// know is a failure.
    pub(crate) fn from_number(number: u8) -> ExitCode {
        let known = Self::ALL.into_iter().find(|(code, _)| code.number() == number);
        known.map_or(ExitCode::Failed, |(code, _)| code)
    }

    /// The exit status.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// The list for `--help`.
    pub(crate) fn help() -> String {
        let mut text = String::from("Exit codes:");
        for (code, meaning) in Self::ALL {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {}  {meaning}", code.number());
        }
        text
    }
}

/// Why a command ended early: what went wrong and the code to end with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: ExitCode,
    /// A chain of lower-case fragments, which `main` prints once.
    pub(crate) cause: anyhow::Error,
}

impl Failure {
    /// A failure with a message of its own.
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Failure {
        Failure { code, cause: anyhow::Error::msg(message.into()) }
    }
}

/// What nobody gave a code to is [`ExitCode::Failed`].
impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Failure {
        Failure { code: ExitCode::Failed, cause }
    }
}

/// Gives an error its exit code.
pub(crate) trait OrExit<T> {
    /// Turns the error into a [`Failure`] with this code.
    fn or_exit(self, code: ExitCode) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: ExitCode) -> Result<T, Failure> {
        self.map_err(|error| Failure { code, cause: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        for (index, (code, _)) in ExitCode::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), index);
            assert_eq!(ExitCode::from_number(code.number()), code);
        }
        assert_eq!(ExitCode::from_number(99), ExitCode::Failed);
    }
}
