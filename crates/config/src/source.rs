//! A configuration file's text.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most that a file may hold, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.yaml` and `.yml`: YAML 1.2.
    Yaml,
    /// `.json` and `.json5`: JSON5, so comments and trailing commas are fine.
    Json,
    /// `.toml`
    Toml,
}

impl Format {
    /// The format that a path's extension names; `None` if the path is not that
    /// of a configuration file.
    #[must_use]
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Format::Yaml),
            "json" | "json5" => Some(Format::Json),
            "toml" => Some(Format::Toml),
            _ => None,
        }
    }
}

/// A file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file, as messages name it.
    pub path: PathBuf,
    /// All of its text.
    pub text: String,
    /// How it is written.
    pub format: Format,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The extension names no format.
    #[error("cannot read {}: a configuration file ends in .yaml, .yml, .json, .json5 or .toml", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("cannot read {}: there is no such file", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a device or the like.
    #[error("cannot read {}: it is not a regular file", .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is too large.
    #[error("cannot read {}: it is larger than {} KiB", .path.display(), .limit >> 10)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that it may hold, in bytes: 8 MiB, or 1 MiB for an
        /// `env_file`.
        limit: u64,
    },
    /// It is not UTF-8 text.
    #[error("cannot read {}: it is not UTF-8 text: byte {offset} is wrong", .path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first wrong byte, from 0.
        offset: usize,
    },
    /// The system refused, for example for lack of permission.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Source {
    /// Reads a file, whose extension says the format.
    ///
    /// # Errors
    /// When it is missing, not a regular file, larger than 8 MiB, not UTF-8 or
    /// unreadable, and when its extension names no format.
    pub fn read(path: &Path) -> Result<Source, ReadError> {
        let format = Format::of(path).ok_or_else(|| ReadError::UnknownFormat { path: path.to_owned() })?;
        Source::read_as(path, format)
    }

    /// Reads a file in this format, whatever its extension.
    ///
    /// # Errors
    /// When it is missing, not a regular file, larger than 8 MiB, not UTF-8 or
    /// unreadable.
    pub fn read_as(path: &Path, format: Format) -> Result<Source, ReadError> {
        Source::new(path, format, read_bounded(path, MAX_BYTES)?)
    }

    /// Reads from a stream, such as standard input: JSON when its first
    /// character is a bracket, otherwise YAML. Messages call it `name`.
    ///
    /// # Errors
    /// When it is larger than 8 MiB, not UTF-8 or unreadable.
    pub fn read_from(name: &Path, stream: impl Read) -> Result<Source, ReadError> {
        let bytes = read_limited(name, stream, MAX_BYTES)?;
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let format = if matches!(first, Some(b'{' | b'[')) { Format::Json } else { Format::Yaml };
        Source::new(name, format, bytes)
    }

    fn new(path: &Path, format: Format, bytes: Vec<u8>) -> Result<Source, ReadError> {
        let mut text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                return Err(ReadError::NotUtf8 { path: path.to_owned(), offset });
            }
        };
        // Some editors put a byte order mark first; it is not part of the text.
        if text.starts_with('\u{FEFF}') {
            text.remove(0);
        }
        Ok(Source { path: path.to_owned(), text, format })
    }
}

/// Reads a regular file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let io_error = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            ReadError::Missing { path: path.to_owned() }
        } else {
            ReadError::Io { path: path.to_owned(), source }
        }
    };
    // Looked at before it is opened, because opening a FIFO would wait.
    if !path.metadata().map_err(io_error)?.is_file() {
        return Err(ReadError::NotAFile { path: path.to_owned() });
    }
    read_limited(path, File::open(path).map_err(io_error)?, limit)
}

/// Reads a stream of at most `limit` bytes to its end.
fn read_limited(path: &Path, stream: impl Read, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let read = stream.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        Ok(bytes)
    } else {
        Err(ReadError::TooLarge { path: path.to_owned(), limit })
    }
}
