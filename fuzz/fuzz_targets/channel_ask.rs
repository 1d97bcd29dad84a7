//! The envelope: what is asked for keeps to the limits, and what is refused is
//! refused in one whole line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use supervisor_protocol::channel::{Ask, MAX_TIMEOUT, MAX_TOPIC, Tell};

fuzz_target!(|text: &str| {
    // It comes as a part of a line.
    if text.contains('\n') {
        return;
    }
    let Ok(ask) = serde_json::from_str::<&RawValue>(text) else { return };
    let is_name = |name: &String| (1..=MAX_TOPIC).contains(&name.len());
    match Ask::read(ask) {
        Ok(Ask::Publish { topic, data, .. }) => {
            assert!(is_name(&topic) && !topic.contains('*'));
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
});

/// What a worker is told is one line with one value.
fn check(tell: &Tell<'_>) {
    let line = tell.line();
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    assert!(serde_json::from_slice::<&RawValue>(&line).is_ok());
}
