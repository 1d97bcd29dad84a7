//! Which program this is, and which version of it.

use serde::{Deserialize, Serialize};

/// The version of this program, such as `0.1.0`. The feature `next-version`
/// makes a second one of the same source, for tests of what two versions are to
/// each other.
pub const RELEASE: &str =
    if cfg!(feature = "next-version") { "0.2.0-next" } else { env!("CARGO_PKG_VERSION") };

/// The name by which the program knows its own kind. Debian's `supervisor` is
/// another one.
const PROGRAM: &str = "supervisor-cluster";

/// This program in the headers `Server` and `User-Agent`.
#[must_use]
pub fn product() -> String {
    format!("{PROGRAM}/{RELEASE}")
}

/// The version in such a header; `None` for that of another program.
#[must_use]
pub fn of_product(header: &str) -> Option<&str> {
    header.strip_prefix(PROGRAM)?.strip_prefix('/')
}

/// Whether two versions understand each other: their first numbers are the same.
#[must_use]
pub fn is_compatible(version: &str) -> bool {
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    major(version) == major(RELEASE)
}

/// What a binary says of itself when another version asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Always the same.
    pub program: String,
    /// Its [`RELEASE`].
    pub version: String,
}

impl Identity {
    /// That of this binary.
    #[must_use]
    pub fn own() -> Self {
        Self { program: PROGRAM.to_owned(), version: RELEASE.to_owned() }
    }

    /// Whether it is a version of this program.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.program == PROGRAM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_the_version() {
        assert_eq!(of_product(&product()), Some(RELEASE));
        assert_eq!(of_product("curl/8.5.0"), None);
        assert_eq!(of_product("supervisor-cluster"), None);
    }

    #[test]
    fn the_first_number_decides() {
        assert!(is_compatible(RELEASE));
        assert!(is_compatible("0.99.1"));
        assert!(!is_compatible("1.0.0"));
        assert!(!is_compatible(""));
    }
}
