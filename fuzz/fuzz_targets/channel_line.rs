//! A line of a worker: what the channel makes of it is what any reader of JSON
//! would.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use supervisor_protocol::channel::Line;

fuzz_target!(|bytes: &[u8]| {
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
});
