//! The command line.

use std::time::Duration;

use crate::drill::{Act, Drill};

pub(crate) const USAGE: &str =
    "usage: scripts/chaos [--release] [--seed N] [--keep] [--seconds N | --kills N | --upgrades N]

Runs the real program under load for so many seconds (60) and has things go
wrong at random, as the seed says (a fresh one unless given). Or, under 32
clients, kills its master so often, or upgrades it so often, at random moments,
while workers are killed and orders given, and has nothing else go wrong.
Exits with 1 when anything is not explained, and keeps the folder then, or with
--keep always. --release: the program and this one are built as released.";

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    /// Instead of the time.
    pub(crate) drill: Option<Drill>,
    pub(crate) keep: bool,
}

impl Options {
    /// Reads the command line.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seed: fastrand::u64(0..1_000_000),
            time: Duration::from_secs(60),
            drill: None,
            keep: false,
        };
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                value.parse().map_err(|_| format!("{value} is not a number that fits"))
            };
            match word.as_str() {
                "--seed" => options.seed = number()?,
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--kills" => options.drill = Some(Drill { act: Act::KillMaster, times: number()? }),
                "--upgrades" => options.drill = Some(Drill { act: Act::Upgrade, times: number()? }),
                "--keep" => options.keep = true,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(options)
    }

    /// The command that does as much of the same kind.
    pub(crate) fn again(&self) -> String {
        let much = match self.drill {
            None => format!("--seconds {}", self.time.as_secs()),
            Some(Drill { act: Act::KillMaster, times }) => format!("--kills {times}"),
            Some(Drill { act: Act::Upgrade, times }) => format!("--upgrades {times}"),
        };
        format!("scripts/chaos --seed {} {much}", self.seed)
    }
}
