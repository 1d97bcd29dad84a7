//! What the second version does differently that tests build of the same source
//! (the feature `next-version`): it writes what this one does not know, and it
//! fails where a file beside its binary says so.

/// A place where it may fail. Nothing happens in any other build.
#[cfg(not(feature = "next-version"))]
pub const fn stage(_: &str) {}

/// Fails if a line of the file `BINARY.fault` says so: `STAGE exit`, `STAGE hang`
/// or `STAGE panic`.
#[cfg(feature = "next-version")]
#[expect(clippy::exit, clippy::panic, reason = "that is what it is for")]
pub fn stage(name: &str) {
    match fault(name).as_deref() {
        Some("exit") => std::process::exit(3),
        Some("hang") => loop {
            std::thread::park();
        },
        Some("panic") => panic!("a fault at {name}"),
        Some(_) | None => {}
    }
}

#[cfg(feature = "next-version")]
fn fault(name: &str) -> Option<String> {
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    let faults = std::fs::read_to_string(format!("{}.fault", path.display())).ok()?;
    let found = faults.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map(str::to_owned)
}

/// A small record as the later version writes it.
#[cfg(feature = "next-version")]
pub(crate) fn record(record: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(record) {
        Ok(serde_json::Value::Object(mut fields)) => {
            fields.insert("later".to_owned(), true.into());
            crate::control::to_json(&fields)
        }
        Ok(_) | Err(_) => record.to_vec(),
    }
}

/// A large one likewise.
#[cfg(feature = "next-version")]
pub(crate) fn file(value: &impl serde::Serialize) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(value)?;
    mark(&mut value);
    value.as_array_mut().into_iter().flatten().for_each(mark);
    if fault("records").as_deref() == Some("strange")
        && let Some(slot) = value.pointer_mut("/slots/0")
    {
        // What no earlier version knows.
        slot["rest"] = serde_json::json!({"hibernating": 7});
    }
    Ok(value)
}

/// A request of a command likewise, and the settings in it.
#[cfg(feature = "next-version")]
pub fn request(body: &impl serde::Serialize) -> serde_json::Value {
    let mut body = serde_json::to_value(body).unwrap_or_default();
    mark(&mut body);
    body.pointer_mut("/apps").and_then(serde_json::Value::as_array_mut).into_iter().flatten().for_each(mark);
    body
}

#[cfg(feature = "next-version")]
fn mark(value: &mut serde_json::Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("later".to_owned(), true.into());
    }
}
