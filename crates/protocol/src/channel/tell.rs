//! What a worker is told: the member `supervisor` of a line to it.

use serde::Serialize;
use serde_json::value::RawValue;

/// What a worker is told. Only those are that have asked for something.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Tell<'a> {
    /// What somebody published.
    Message {
        /// The topic.
        message: &'a str,
        /// The sender's app.
        app: &'a str,
        /// The sender's slot.
        slot: u32,
        /// As it was published.
        data: &'a RawValue,
    },
    /// Somebody waits for a `reply`.
    Request {
        /// The topic.
        request: &'a str,
        /// For the reply.
        id: u64,
        /// The sender's slot.
        slot: u32,
        /// As it was sent.
        data: &'a RawValue,
    },
    /// The reply to a request.
    Reply {
        /// The request's `id`.
        reply: u64,
        /// The slot that replied.
        slot: u32,
        /// As it was sent.
        data: &'a RawValue,
    },
    /// There is no reply to a request.
    Failed {
        /// The request's `id`.
        reply: u64,
        /// Why.
        error: &'a str,
    },
    /// The workers of the own app.
    Status {
        /// As it was asked.
        status: u64,
        /// The app.
        app: &'a str,
        /// The slot of who asks.
        slot: u32,
        /// All that have a channel.
        workers: Vec<Peer>,
    },
    /// Messages to this worker were dropped.
    Lost {
        /// How many, since it was told last.
        lost: u64,
    },
    /// Its last message could not be understood, or not be delivered.
    Error {
        /// What is wrong.
        error: &'a str,
    },
}

/// A worker, in an answer to `status`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Peer {
    /// The slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u64,
    /// Whether it gets messages.
    pub ready: bool,
}

impl Tell<'_> {
    /// The whole line, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            supervisor: &'a Tell<'a>,
        }
        // Types of ours always have a JSON form. What they quote has no line
        // ends: it was part of a line.
        let mut line = serde_json::to_vec(&Envelope { supervisor: self }).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
