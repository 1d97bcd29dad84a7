//! What the fuzz targets call: any bytes, and what must hold of them.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::channel::{Ask, Line, MAX_RETAIN, MAX_TIMEOUT, MAX_TOPIC, Tell};
use crate::keeper::{FromKeeper, MAX_PACKET, ToKeeper};

/// A packet between keeper and master: what is understood survives, and takes
/// no more room than before.
///
/// # Panics
///
/// When that does not hold.
pub fn keeper(packet: &[u8]) {
    if packet.len() > MAX_PACKET {
        return;
    }
    if let Ok(message) = ToKeeper::decode(packet) {
        let again = message.encode();
        assert!(again.len() <= packet.len(), "{} bytes became {}", packet.len(), again.len());
        assert_eq!(ToKeeper::decode(&again), Ok(message));
    }
    if let Ok(message) = FromKeeper::decode(packet) {
        let again = message.encode();
        assert!(again.len() <= packet.len(), "{} bytes became {}", packet.len(), again.len());
        assert_eq!(FromKeeper::decode(&again), Ok(message));
    }
}

/// A line of a worker: what the channel makes of it is what any reader of JSON
/// would.
///
/// # Panics
///
/// When that does not hold.
pub fn channel_line(bytes: &[u8]) {
    let line = Line::read(bytes);
    if let Err(error) = &line {
        assert!(!error.to_string().is_empty());
    }
    // Names of serde_json's own, which mean something else to it.
    if bytes.windows(11).any(|name| name == b"$serde_json") {
        return;
    }
    // This reader takes less: no number that is too large, no deep nesting.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let is_internal = value["cmd"].as_str().is_some_and(|cmd| cmd.starts_with("NODE_"));
    match line.expect("what is JSON there is JSON here") {
        Line::Internal => assert!(is_internal),
        Line::Envelope(ask) => {
            let ask: Value = serde_json::from_str(ask.get()).expect("it is a part of the line");
            assert!(!is_internal && Some(&ask) == value.get("supervisor"));
        }
        Line::Broadcast => {
            assert!(!is_internal && value.get("supervisor").is_none());
            assert_eq!(value["broadcast"], Value::Bool(true));
        }
        Line::Ready => assert_eq!(value, Value::String("ready".to_owned())),
        Line::Other => {
            assert!(!is_internal && value.get("supervisor").is_none());
            assert_ne!(value["broadcast"], Value::Bool(true));
        }
    }
}

/// The envelope: what is asked for keeps to the limits, and what is refused is
/// refused in one whole line.
///
/// # Panics
///
/// When that does not hold.
pub fn channel_ask(bytes: &[u8]) {
    // It comes as a part of a line.
    if bytes.contains(&b'\n') {
        return;
    }
    let Ok(ask) = serde_json::from_slice::<&RawValue>(bytes) else { return };
    let is_name = |name: &String| (1..=MAX_TOPIC).contains(&name.len());
    match Ask::read(ask) {
        Ok(Ask::Publish { topic, retain, data, .. }) => {
            assert!(is_name(&topic) && !topic.contains('*'));
            assert!(retain.is_none_or(|count| count <= MAX_RETAIN));
            check(&Tell::Message { message: &topic, app: "app", slot: 0, data });
        }
        Ok(Ask::Request { topic, timeout, data, .. }) => {
            assert!(is_name(&topic) && timeout <= MAX_TIMEOUT);
            check(&Tell::Request { request: &topic, id: 0, slot: 0, data });
        }
        Ok(Ask::Reply { data, .. }) => check(&Tell::Reply { reply: 0, slot: 0, data }),
        Ok(Ask::Subscribe { topics, .. } | Ask::Unsubscribe { topics }) => {
            assert!(topics.iter().all(is_name));
        }
        Ok(Ask::Metric { changes }) => assert!(changes.keys().all(is_name)),
        Ok(Ask::Status { .. } | Ask::Ready) => {}
        Err(error) => check(&Tell::Error { error: &error.to_string() }),
    }
}

/// What a worker is told is one line with one value.
fn check(tell: &Tell<'_>) {
    let line = tell.line();
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    assert!(serde_json::from_slice::<&RawValue>(&line).is_ok());
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn keeper() {
        replay("keeper", super::keeper);
    }

    #[test]
    fn channel_line() {
        replay("channel_line", super::channel_line);
    }

    #[test]
    fn channel_ask() {
        replay("channel_ask", super::channel_ask);
    }
}
