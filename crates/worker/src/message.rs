//! Lines of the channel, as types.

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What comes on the channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A plain message: a broadcast of another worker, or what an operator sent.
    Plain(Value),
    /// Somebody published, and this worker has subscribed.
    Published {
        /// The topic.
        topic: String,
        /// The sender's app.
        app: String,
        /// The sender's slot.
        slot: u32,
        /// As it was published.
        data: Value,
    },
    /// Somebody asks and waits for a reply with this id.
    Request {
        /// The topic.
        topic: String,
        /// For [`Channel::reply`](crate::Channel::reply).
        id: u64,
        /// The sender's slot.
        slot: u32,
        /// As it was sent.
        data: Value,
    },
    /// So many messages were dropped here: this worker did not read.
    Lost(u64),
    /// What this worker said was refused, for this reason.
    Refused(String),
}

/// The answer to a request: what was replied, or why there is nothing.
pub type Reply = Result<Value, String>;

/// A line, as far as it matters here.
pub(crate) enum Read {
    Message(Message),
    Reply(u64, Reply),
}

#[derive(Deserialize)]
struct Told {
    message: Option<String>,
    request: Option<String>,
    reply: Option<u64>,
    lost: Option<u64>,
    error: Option<String>,
    app: Option<String>,
    slot: Option<u32>,
    id: Option<u64>,
    data: Option<Value>,
}

/// Reads a line.
pub(crate) fn read(line: &[u8]) -> io::Result<Read> {
    let mut value: Value = serde_json::from_slice(line)?;
    let Some(told) = value.get_mut("supervisor").map(Value::take) else {
        return Ok(Read::Message(Message::Plain(value)));
    };
    let Told { message, request, reply, lost, error, app, slot, id, data } = serde_json::from_value(told)?;
    let (slot, data) = (slot.unwrap_or(0), data.unwrap_or_default());
    Ok(match (reply, message, request, lost, error) {
        (Some(id), _, _, _, Some(error)) => Read::Reply(id, Err(error)),
        (Some(id), _, _, _, None) => Read::Reply(id, Ok(data)),
        (None, Some(topic), _, _, _) => {
            Read::Message(Message::Published { topic, app: app.unwrap_or_default(), slot, data })
        }
        (None, None, Some(topic), _, _) => {
            Read::Message(Message::Request { topic, id: id.unwrap_or(0), slot, data })
        }
        (None, None, None, Some(lost), _) => Read::Message(Message::Lost(lost)),
        (None, None, None, None, error) => Read::Message(Message::Refused(error.unwrap_or_default())),
    })
}

/// A line that asks for something.
pub(crate) fn ask(ask: &Value) -> Vec<u8> {
    line(&json!({ "supervisor": ask }))
}

/// A line for all other workers.
pub(crate) fn broadcast(members: &HashMap<&str, Value>) -> Vec<u8> {
    let mut all: serde_json::Map<String, Value> =
        members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    all.insert("broadcast".to_owned(), Value::Bool(true));
    line(&Value::Object(all))
}

pub(crate) fn value(data: &impl Serialize) -> io::Result<Value> {
    Ok(serde_json::to_value(data)?)
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}
