//! How new connections are spread over an app's workers: `balance: weighted`, `weights: [3, 1]`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{expected, integer, one_of};

/// The most that a slot can weigh.
const MAX_WEIGHT: u32 = 1000;
/// As many as an app may have slots.
const MAX_WEIGHTS: usize = 10_000;

/// What decides which worker gets a new connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Chance.
    #[default]
    Random,
    /// Chance, by the slots' weights.
    Weighted,
    /// The client's address: the same client, the same slot.
    SourceIp,
    /// The CPU that takes the connection in.
    Cpu,
    /// Chance, by how little waits for each worker.
    LeastQueue,
    /// The kernel's hash, where no worker is to be left out.
    Kernel,
    /// Whoever is quickest: all workers have one socket.
    Shared,
}

impl Balance {
    /// All, by their names in files.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("random", Self::Random),
        ("weighted", Self::Weighted),
        ("source-ip", Self::SourceIp),
        ("cpu", Self::Cpu),
        ("least-queue", Self::LeastQueue),
        ("kernel", Self::Kernel),
        ("shared", Self::Shared),
    ];

    /// Its name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::SourceIp => "source-ip",
            Self::Cpu => "cpu",
            Self::LeastQueue => "least-queue",
            Self::Kernel => "kernel",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads both keys. `shares` tells whether the workers share addresses at all.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>, shares: bool) -> (Balance, Vec<u32>) {
    let balance = fields.value("balance", one_of(Balance::NAMES));
    if let Some(entry) = fields.given("balance") {
        let place = entry.value.span.or(entry.key_span);
        if !shares {
            let problem = Problem::new("`balance` has no effect: the workers share no address");
            fields.report.warning(place, problem.help("use `exec_mode: cluster` or `listen`"));
        } else if balance == Balance::Shared {
            let problem = Problem::new("with `balance: shared` no worker can be taken out of rotation");
            let help = "one that starts, drains or hangs may take connections until it closes its socket; \
                        all other values avoid that";
            fields.report.warning(place, problem.help(help));
        }
    }
    (balance, weights(fields, balance))
}

fn weights(fields: &mut Fields<'_, '_, '_>, balance: Balance) -> Vec<u32> {
    let Some(entry) = fields.given("weights") else { return Vec::new() };
    let list = match &entry.value.value {
        Value::List(list) => list,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_) => {
            let problem = expected("a list of numbers, one for each slot", &entry.value);
            fields.wrong(entry, &entry.value, problem);
            return Vec::new();
        }
    };
    if balance != Balance::Weighted {
        let problem = Problem::new("is for `balance: weighted` only");
        fields.wrong(entry, &entry.value, problem.help("add that, or remove the weights"));
    } else if list.len() > MAX_WEIGHTS {
        let problem = Problem::new(format!("must have at most {MAX_WEIGHTS} numbers, not {}", list.len()));
        fields.wrong(entry, &entry.value, problem);
        return Vec::new();
    }
    fields.list("weights", |node: &Node| integer(0..=MAX_WEIGHT)(node))
}
