//! The command line.

use std::time::Duration;

pub(crate) const USAGE: &str = "usage: scripts/chaos [--seed N] [--seconds N] [--keep]

Runs the real program under load for so many seconds (60) and has things go
wrong at random, as the seed says (a fresh one unless given). Exits with 1 when
anything is not explained, and keeps the folder then, or with --keep always.";

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) keep: bool,
}

impl Options {
    /// Reads the command line.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { seed: fastrand::u64(0..1_000_000), time: Duration::from_secs(60), keep: false };
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                value.parse().map_err(|_| format!("{value} is not a number that fits"))
            };
            match word.as_str() {
                "--seed" => options.seed = number()?,
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--keep" => options.keep = true,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(options)
    }
}
