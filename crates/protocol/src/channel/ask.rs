//! What a worker asks for: the member `supervisor` of its line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest name of a topic or a metric, bytes.
pub const MAX_TOPIC: usize = 128;
/// The longest time that a request may wait for its reply.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// How long it waits unless it says so.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Topics that one message may name.
const MAX_TOPICS: usize = 64;
/// The most messages of one topic that can be retained.
pub const MAX_RETAIN: usize = 10_000;

/// What a worker asks for.
#[derive(Debug)]
pub enum Ask<'a> {
    /// `{"publish": TOPIC, "data": …, "to": …, "retain": COUNT}`
    Publish {
        /// What it is about.
        topic: String,
        /// Whom it is for, among those who have subscribed to the topic.
        to: To,
        /// How many of the topic's last messages are retained from now on.
        retain: Option<usize>,
        /// Any JSON value.
        data: &'a RawValue,
    },
    /// `{"subscribe": [TOPIC, …], "replay": COUNT}`
    Subscribe {
        /// Topics; one that ends in `*` stands for all that begin so.
        topics: Vec<String>,
        /// Send so many of the last messages of each, as far as they are
        /// retained; all of them with `true`.
        replay: Option<usize>,
    },
    /// `{"unsubscribe": [TOPIC, …]}`
    Unsubscribe {
        /// As they were subscribed to.
        topics: Vec<String>,
    },
    /// `{"request": TOPIC, "id": ID, "data": …, "to": SLOT, "timeout": MILLISECONDS}`
    Request {
        /// What it is about.
        topic: String,
        /// What the reply will have.
        id: u64,
        /// The slot to ask; any worker that has subscribed to the topic without.
        to: Option<u32>,
        /// How long to wait for the reply.
        timeout: Duration,
        /// Any JSON value.
        data: &'a RawValue,
    },
    /// `{"reply": ID, "data": …}`
    Reply {
        /// The request's.
        id: u64,
        /// Any JSON value.
        data: &'a RawValue,
    },
    /// `{"status": ID}`
    Status {
        /// What the answer will have.
        id: u64,
    },
    /// `{"ready": true}`
    Ready,
    /// `{"metric": {NAME: NUMBER, NAME: {"add": NUMBER}}}`
    Metric {
        /// By name.
        changes: BTreeMap<String, Change>,
    },
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum To {
    /// The other workers of the app.
    #[default]
    Others,
    /// These and the sender.
    All,
    /// The workers in a slot of the app.
    Slot(u32),
    /// The workers of another app.
    App(String),
}

/// What becomes of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Change {
    /// It has this value: a gauge.
    Set(f64),
    /// It grows: a counter.
    Add {
        /// By how much.
        add: f64,
    },
}

/// Why an ask is none.
#[derive(Debug, thiserror::Error)]
pub enum BadAsk {
    /// Something is not as documented.
    #[error("`supervisor` is not as documented: {0}")]
    Form(#[from] serde_json::Error),
    /// It asks for nothing, or for several things.
    #[error(
        "`supervisor` must have one of `publish`, `subscribe`, `unsubscribe`, `request`, `reply`, `status`, `ready`, `metric`"
    )]
    NotOne,
    /// A member is missing.
    #[error("`{of}` needs `{member}`")]
    Missing {
        /// What was asked for.
        of: &'static str,
        /// What is missing.
        member: &'static str,
    },
    /// A member does not belong there.
    #[error("`{member}` does not go with `{of}`")]
    Stray {
        /// What was asked for.
        of: &'static str,
        /// What is too much.
        member: &'static str,
    },
    /// A name that no topic or metric can have.
    #[error(
        "the name `{0}` must have 1 to {MAX_TOPIC} bytes, and a `*` only at the end of what is subscribed to"
    )]
    Name(String),
    /// Too many of them.
    #[error("at most {MAX_TOPICS} names can be in one message")]
    TooMany,
    /// `to` of a request is no slot.
    #[error("`to` of a request must be a slot")]
    NotASlot,
    /// More messages than can be retained.
    #[error("`retain` can be at most {MAX_RETAIN}")]
    TooMuch,
}

/// All members that there are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    publish: Option<String>,
    subscribe: Option<OneOrMany>,
    unsubscribe: Option<OneOrMany>,
    request: Option<String>,
    reply: Option<u64>,
    status: Option<u64>,
    ready: Option<bool>,
    metric: Option<BTreeMap<String, Change>>,
    id: Option<u64>,
    to: Option<RawTo>,
    timeout: Option<u64>,
    retain: Option<usize>,
    replay: Option<RawReplay>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawReplay {
    All(bool),
    Last(usize),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTo {
    Slot(u32),
    Who(Who),
    App { app: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Who {
    Others,
    All,
}

impl<'a> Ask<'a> {
    /// Reads the member `supervisor`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for who wrote the program.
    pub fn read(ask: &'a RawValue) -> Result<Self, BadAsk> {
        let mut raw: Raw<'a> = serde_json::from_str(ask.get())?;
        let ask = raw.take()?;
        raw.is_empty_but(ask.verb())?;
        Ok(ask)
    }

    const fn verb(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "publish",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Request { .. } => "request",
            Self::Reply { .. } => "reply",
            Self::Status { .. } => "status",
            Self::Ready => "ready",
            Self::Metric { .. } => "metric",
        }
    }
}

impl<'a> Raw<'a> {
    /// Takes what is asked for with all that belongs to it.
    fn take(&mut self) -> Result<Ask<'a>, BadAsk> {
        let null = || RawValue::NULL;
        if let Some(topic) = self.publish.take() {
            let to = match self.to.take() {
                None | Some(RawTo::Who(Who::Others)) => To::Others,
                Some(RawTo::Who(Who::All)) => To::All,
                Some(RawTo::Slot(slot)) => To::Slot(slot),
                Some(RawTo::App { app }) => To::App(app),
            };
            let retain = self.retain.take();
            if retain.is_some_and(|count| count > MAX_RETAIN) {
                return Err(BadAsk::TooMuch);
            }
            return Ok(Ask::Publish {
                topic: name(topic, false)?,
                to,
                retain,
                data: self.data.take().unwrap_or_else(null),
            });
        }
        if let Some(topics) = self.subscribe.take() {
            let replay = match self.replay.take() {
                None | Some(RawReplay::All(false) | RawReplay::Last(0)) => None,
                Some(RawReplay::All(true)) => Some(MAX_RETAIN),
                Some(RawReplay::Last(count)) => Some(count),
            };
            return Ok(Ask::Subscribe { topics: names(topics)?, replay });
        }
        if let Some(topics) = self.unsubscribe.take() {
            return Ok(Ask::Unsubscribe { topics: names(topics)? });
        }
        if let Some(topic) = self.request.take() {
            let to = match self.to.take() {
                None => None,
                Some(RawTo::Slot(slot)) => Some(slot),
                Some(RawTo::Who(_) | RawTo::App { .. }) => return Err(BadAsk::NotASlot),
            };
            return Ok(Ask::Request {
                topic: name(topic, false)?,
                id: self.id.take().ok_or(BadAsk::Missing { of: "request", member: "id" })?,
                to,
                timeout: self.timeout.take().map_or(TIMEOUT, Duration::from_millis).min(MAX_TIMEOUT),
                data: self.data.take().unwrap_or_else(null),
            });
        }
        if let Some(id) = self.reply.take() {
            return Ok(Ask::Reply { id, data: self.data.take().unwrap_or_else(null) });
        }
        if let Some(id) = self.status.take() {
            return Ok(Ask::Status { id });
        }
        if let Some(changes) = self.metric.take() {
            if changes.len() > MAX_TOPICS {
                return Err(BadAsk::TooMany);
            }
            let changes = changes.into_iter().map(|(metric, change)| Ok((name(metric, false)?, change)));
            return Ok(Ask::Metric { changes: changes.collect::<Result<_, BadAsk>>()? });
        }
        match self.ready.take() {
            Some(true) => Ok(Ask::Ready),
            Some(false) | None => Err(BadAsk::NotOne),
        }
    }

    /// Whether nothing is left that does not go with `of`.
    fn is_empty_but(&self, of: &'static str) -> Result<(), BadAsk> {
        let verbs = [
            self.subscribe.is_some(),
            self.unsubscribe.is_some(),
            self.request.is_some(),
            self.reply.is_some(),
            self.status.is_some(),
            self.ready.is_some(),
            self.metric.is_some(),
        ];
        if verbs.contains(&true) {
            return Err(BadAsk::NotOne);
        }
        let others = [
            ("id", self.id.is_some()),
            ("to", self.to.is_some()),
            ("timeout", self.timeout.is_some()),
            ("retain", self.retain.is_some()),
            ("replay", self.replay.is_some()),
            ("data", self.data.is_some()),
        ];
        match others.into_iter().find(|(_, is_there)| *is_there) {
            Some((member, _)) => Err(BadAsk::Stray { of, member }),
            None => Ok(()),
        }
    }
}

fn names(topics: OneOrMany) -> Result<Vec<String>, BadAsk> {
    let topics = match topics {
        OneOrMany::One(topic) => vec![topic],
        OneOrMany::Many(topics) => topics,
    };
    if topics.len() > MAX_TOPICS {
        return Err(BadAsk::TooMany);
    }
    topics.into_iter().map(|topic| name(topic, true)).collect()
}

fn name(name: String, is_pattern: bool) -> Result<String, BadAsk> {
    let plain = if is_pattern { name.strip_suffix('*').unwrap_or(&name) } else { &name };
    if name.is_empty() || name.len() > MAX_TOPIC || plain.contains('*') {
        let start = name.chars().take(MAX_TOPIC).collect();
        return Err(BadAsk::Name(start));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ask: &str, expected: &str) {
        let raw: &RawValue = serde_json::from_str(ask).unwrap();
        let found = match Ask::read(raw) {
            Ok(ask) => format!("{ask:?}"),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{ask}: {found}");
    }

    #[test]
    fn what_can_be_asked() {
        check(r#"{"publish":"a.b","data":{"k":1}}"#, r#"Publish { topic: "a.b", to: Others"#);
        check(r#"{"publish":"a","to":"all"}"#, "to: All, retain: None, data: RawValue(null)");
        check(r#"{"publish":"a","to":3}"#, "to: Slot(3), retain: None");
        check(r#"{"publish":"a","retain":3}"#, "retain: Some(3)");
        check(r#"{"publish":"a","to":{"app":"web"}}"#, r#"to: App("web")"#);
        check(r#"{"subscribe":"*"}"#, r#"Subscribe { topics: ["*"], replay: None }"#);
        check(r#"{"subscribe":["a","b.*"],"replay":true}"#, r#"["a", "b.*"], replay: Some(10000)"#);
        check(r#"{"subscribe":"a","replay":2}"#, "replay: Some(2)");
        check(r#"{"unsubscribe":["a"]}"#, "Unsubscribe");
        check(r#"{"request":"sum","id":7,"data":[1]}"#, "id: 7, to: None, timeout: 5s");
        check(r#"{"request":"sum","id":7,"to":1,"timeout":9999999999}"#, "to: Some(1), timeout: 600s");
        check(r#"{"reply":7,"data":0}"#, "Reply { id: 7");
        check(r#"{"status":1}"#, "Status { id: 1 }");
        check(r#"{"ready":true}"#, "Ready");
        check(r#"{"metric":{"a":1.5,"b":{"add":2}}}"#, r#"{"a": Set(1.5), "b": Add { add: 2.0 }}"#);
    }

    #[test]
    fn what_cannot() {
        for not_one in ["{}", r#"{"ready":false}"#, r#"{"publish":"a","subscribe":"b"}"#, r#"{"data":1}"#] {
            check(not_one, "must have one of `publish`");
        }
        check("null", "not as documented");
        check(r#"{"publish":5}"#, "not as documented");
        check(r#"{"publsh":"a"}"#, "unknown field `publsh`");
        check(r#"{"publish":""}"#, "must have 1 to 128 bytes");
        check(r#"{"publish":"a*"}"#, "the name `a*`");
        check(r#"{"subscribe":"a*b"}"#, "the name `a*b`");
        check(r#"{"request":"a"}"#, "`request` needs `id`");
        check(r#"{"request":"a","id":1,"to":"all"}"#, "must be a slot");
        check(r#"{"publish":"a","retain":10001}"#, "`retain` can be at most 10000");
        check(r#"{"subscribe":"a","retain":1}"#, "`retain` does not go with `subscribe`");
        check(r#"{"status":1,"data":2}"#, "`data` does not go with `status`");
        check(&format!(r#"{{"subscribe":{}}}"#, serde_json::json!(vec!["a"; 65])), "at most 64");
    }
}
