//! An order as the keeper has it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use supervisor_core::Timestamp;
use supervisor_protocol::control::{Change, LastOrder, Progress};
use supervisor_protocol::keeper::{FdRole, MAX_RECORD};

use super::Conclusion;
use crate::control::to_json;
use crate::link::Link;
use crate::records;

/// The keys of orders begin so.
pub(crate) const ORDER: &str = "order:";

/// What another master must know of an order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    /// What its client calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// What it means for its apps, and what has failed.
    #[serde(default)]
    pub(super) lines: Vec<Progress>,
    #[serde(default)]
    pub(super) exit_code: u8,
    /// What it waits for, by the numbers of its operations.
    #[serde(default)]
    pub(super) pending: BTreeMap<u64, Part>,
    /// How the others have ended, each with its app.
    #[serde(default)]
    pub(super) outcomes: Vec<(String, LastOrder)>,
    /// It waits for everything to end.
    #[serde(default)]
    pub(super) ends_all: bool,
    /// Nobody can know how it ended.
    #[serde(default)]
    pub(super) is_blind: bool,
}

/// What an order means for one app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(super) app: String,
    pub(super) change: Change,
    /// The generation that the app has, or is to have.
    pub(super) generation: u64,
    /// Since the boot.
    at: Duration,
}

impl Part {
    pub(super) fn new(app: &str, change: Change, generation: u64, at: Timestamp) -> Self {
        Self { app: app.to_owned(), change, generation, at: at.since(Timestamp::default()) }
    }

    /// When it was begun.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::new(self.at)
    }
}

impl OrderRecord {
    /// Notes how an operation has ended.
    pub(super) fn conclude(&mut self, operation: u64, conclusion: &Conclusion, last: LastOrder) {
        self.exit_code = self.exit_code.max(conclusion.exit_code);
        self.lines.extend(conclusion.failure.clone().map(Progress::Failed));
        self.outcomes.extend(self.pending.remove(&operation).map(|part| (part.app, last)));
    }

    /// How its operations have ended, each with its app.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&str, &LastOrder)> {
        self.outcomes.iter().map(|(app, last)| (app.as_str(), last))
    }

    /// Lets the keeper have it.
    pub(super) fn store(&self, number: u64, link: &Link) {
        let (key, record) = (key(number), to_json(self));
        if record.len() <= MAX_RECORD {
            return link.put(&key, &record, &[]);
        }
        match records::store_json(self) {
            Ok(fd) => link.put(&key, &[], &[(FdRole::Hold, fd.as_fd())]),
            Err(error) => tracing::error!("an order cannot be kept for another master: {error}"),
        }
    }
}

/// Where an order is with the keeper.
pub(super) fn key(number: u64) -> String {
    format!("{ORDER}{number}")
}
