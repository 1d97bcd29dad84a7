//! What a line is for.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a worker's line is for.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// An object with a true `broadcast` member: for all other ready workers of
    /// the app, as it stands.
    Broadcast,
    /// An object with a member `supervisor`, which this is: for an
    /// [`Ask`](super::Ask).
    Envelope(&'a RawValue),
    /// The message `"ready"`.
    Ready,
    /// An object whose `cmd` begins with `NODE_`, which Node takes for its own:
    /// it is never passed on.
    Internal,
    /// Any other value: for whoever looks at the channel.
    Other,
}

/// What is no JSON value.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// Bytes that are no text.
    #[error("the line is not UTF-8")]
    NotText,
    /// Text that is no JSON.
    #[error("the line is no JSON value: {0}")]
    NotJson(#[from] serde_json::Error),
}

impl<'a> Line<'a> {
    /// Reads a line without its end.
    ///
    /// # Errors
    ///
    /// When it is not one JSON value. What is no error here is none for
    /// JavaScript's `JSON.parse`.
    pub fn read(line: &'a [u8]) -> Result<Self, BadLine> {
        let text = std::str::from_utf8(line).map_err(|_| BadLine::NotText)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        if !text.trim_ascii_start().starts_with('{') {
            IgnoredAny::deserialize(&mut deserializer)?;
            deserializer.end()?;
            return Ok(if text.trim_ascii() == "\"ready\"" { Self::Ready } else { Self::Other });
        }
        let members = deserializer.deserialize_map(Members::default())?;
        deserializer.end()?;
        Ok(match members {
            Members { internal: true, .. } => Self::Internal,
            Members { supervisor: Some(ask), .. } => Self::Envelope(ask),
            Members { broadcast: true, .. } => Self::Broadcast,
            Members { .. } => Self::Other,
        })
    }
}

/// The members that count. Of two with one name the last one does, as in
/// JavaScript.
#[derive(Debug, Default)]
struct Members<'a> {
    broadcast: bool,
    internal: bool,
    supervisor: Option<&'a RawValue>,
}

/// A member's name.
#[derive(Debug)]
enum Name {
    Broadcast,
    Cmd,
    Supervisor,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Name;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "broadcast" => Name::Broadcast,
                    "cmd" => Name::Cmd,
                    "supervisor" => Name::Supervisor,
                    _ => Name::Other,
                })
            }
        }
        deserializer.deserialize_str(Names)
    }
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Self;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self, M::Error> {
        while let Some(name) = map.next_key()? {
            match name {
                Name::Broadcast => self.broadcast = map.next_value::<&RawValue>()?.get() == "true",
                Name::Cmd => self.internal = is_internal(map.next_value()?),
                Name::Supervisor => self.supervisor = Some(map.next_value()?),
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(self)
    }
}

/// Whether Node takes a message with this `cmd` for its own.
fn is_internal(cmd: &RawValue) -> bool {
    /// As bytes, since JavaScript's texts may have halves of characters.
    struct Prefix(bool);
    impl<'de> Deserialize<'de> for Prefix {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Text;
            impl Visitor<'_> for Text {
                type Value = Prefix;

                fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                    to.write_str("a text")
                }

                fn visit_bytes<E>(self, text: &[u8]) -> Result<Prefix, E> {
                    Ok(Prefix(text.starts_with(b"NODE_")))
                }
            }
            deserializer.deserialize_bytes(Text)
        }
    }
    serde_json::from_str(cmd.get()).is_ok_and(|Prefix(is_node)| is_node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let found = match Line::read(line.as_bytes()) {
            Ok(Line::Broadcast) => "broadcast".to_owned(),
            Ok(Line::Envelope(ask)) => format!("envelope {}", ask.get()),
            Ok(Line::Ready) => "ready".to_owned(),
            Ok(Line::Internal) => "internal".to_owned(),
            Ok(Line::Other) => "other".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn broadcasts() {
        check(r#"{"broadcast":true}"#, "broadcast");
        check(" { \"key\" : [1, {\"a\":null}], \"broad\\u0063ast\" : true } ", "broadcast");
        check(r#"{"broadcast":false,"broadcast":true,"cmd":"evict"}"#, "broadcast");
        check(r#"{"broadcast":true,"broadcast":1}"#, "other");
        for other in
            [r#"{"broadcast":"true"}"#, r#"{"a":{"broadcast":true}}"#, "{}", "[true]", "1e999", "null"]
        {
            check(other, "other");
        }
    }

    #[test]
    fn envelopes_win_over_broadcasts() {
        check(r#"{"broadcast":true,"supervisor":{"ready":true}}"#, r#"envelope {"ready":true}"#);
        check(r#"{"supervisor":null}"#, "envelope null");
    }

    #[test]
    fn what_node_takes_for_its_own() {
        check(r#"{"broadcast":true,"cmd":"NODE_HANDLE"}"#, "internal");
        check(r#"{"cmd":"\u004eODE_X","supervisor":{}}"#, "internal");
        check(r#"{"broadcast":true,"cmd":"NODE_\ud800"}"#, "internal");
        check(r#"{"broadcast":true,"cmd":{"NODE_":1}}"#, "broadcast");
    }

    #[test]
    fn readiness() {
        check("\"ready\"", "ready");
        check(" \"ready\" ", "ready");
        check("\"steady\"", "other");
    }

    #[test]
    fn rubbish() {
        for line in
            ["", " ", "{", "{\"a\":1}}", "ready", "{'a':1}", "1 2", "\"\u{1}\"", "\u{feff}1", "[1,]", "NaN"]
        {
            assert!(matches!(Line::read(line.as_bytes()), Err(BadLine::NotJson(_))), "{line}");
        }
        assert!(matches!(Line::read(b"\"\xff\""), Err(BadLine::NotText)));
        // As deep as a line can be: no stack is used up.
        let deep = "[".repeat(1 << 20);
        assert!(Line::read(deep.as_bytes()).is_err());
        let deep = format!("{{\"broadcast\":true,\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(Line::read(deep.as_bytes()), Ok(Line::Broadcast)));
    }
}
