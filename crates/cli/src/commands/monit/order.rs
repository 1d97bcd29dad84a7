//! What a key orders, and of whom.

use supervisor_protocol::control;

use crate::client::{Answer, Client};
use crate::exit_code::Failure;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Start what was stopped.
    Start,
    /// Stop.
    Stop,
    /// Restart slot by slot.
    Restart,
    /// Replace the workers without losing a connection.
    Reload,
    /// One worker more.
    More,
    /// One worker less.
    Fewer,
}

/// An order for an app or one of its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// What is to be done.
    pub(super) verb: Verb,
    /// `web`, or `web:0`.
    pub(super) selector: String,
}

impl Order {
    /// `restart web`
    pub(super) fn title(&self) -> String {
        let selector = &self.selector;
        match self.verb {
            Verb::Start => format!("start {selector}"),
            Verb::Stop => format!("stop {selector}"),
            Verb::Restart => format!("restart {selector}"),
            Verb::Reload => format!("reload {selector}"),
            Verb::More => format!("scale {selector} +1"),
            Verb::Fewer => format!("scale {selector} -1"),
        }
    }

    /// Gives the order; the answer tells how it goes on.
    pub(super) async fn send(&self, client: &Client) -> Result<Answer, Failure> {
        match self.verb {
            Verb::Start => self.select(client, "/v1/start").await,
            Verb::Stop => self.select(client, "/v1/stop").await,
            Verb::Restart => self.select(client, "/v1/restart").await,
            Verb::Reload => self.select(client, "/v1/reload").await,
            Verb::More => self.scale(client, "+1").await,
            Verb::Fewer => self.scale(client, "-1").await,
        }
    }

    async fn select(&self, client: &Client, path: &str) -> Result<Answer, Failure> {
        let body = control::Select { selectors: vec![self.selector.clone()], now: false };
        client.order(path, &body).await
    }

    async fn scale(&self, client: &Client, instances: &str) -> Result<Answer, Failure> {
        let body = control::Scale { app: self.selector.clone(), instances: instances.to_owned() };
        client.order("/v1/scale", &body).await
    }
}
