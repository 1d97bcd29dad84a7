//! A tree as YAML.

use super::{Node, Value, plain_scalar};

/// A value in one line: lists and mappings in brackets.
pub(crate) fn in_one_line(node: &Node) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        // What is a number elsewhere may be none in YAML.
        Value::Number(number) if plain_scalar(number.clone()) == node.value => number.clone(),
        Value::Number(text) | Value::Text(text) => scalar(text),
        Value::List(nodes) => format!("[{}]", joined(nodes.iter().map(in_one_line).collect())),
        Value::Map(entries) => {
            let entry =
                |entry: &super::Entry| format!("{}: {}", scalar(&entry.key), in_one_line(&entry.value));
            format!("{{{}}}", joined(entries.iter().map(entry).collect()))
        }
    }
}

/// A text, in quotes where it could be read as something else.
pub(crate) fn scalar(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_./-+=@%".contains(char);
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric() || "_./".contains(first));
    let is_text = matches!(plain_scalar(text.to_owned()), Value::Text(_));
    if starts_well && is_text && text.chars().all(is_plain) { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Beside controls, what YAML takes for a line break or for nothing.
            _ if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(char)));
            }
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::source::{Format, Source};
    use crate::tree::{Entry, parse};

    #[test]
    fn is_read_back_as_it_was() {
        let texts = [
            "a",
            "",
            " ",
            "a b",
            "true",
            "null",
            "~",
            "1",
            "1.5",
            "0x1",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "&a",
            "*a",
            "!a",
            "'",
            "\"",
            "\\",
            "\n",
            "a\tb",
            "\u{0}",
            "\u{85}",
            "\u{FEFF}",
            "\u{2028}",
            "é",
            "🦀",
            "[a]",
            "{a}",
            "a,b",
            "?",
            "%a",
            "@a",
            "`a`",
            "|",
            ">",
            "./a",
            "--inspect",
            "0022",
            "NULL",
            "yes",
            "=",
            "<<",
            ".",
        ];
        for text in texts {
            let node = Node::new(Value::List(vec![
                Node::new(Value::Text(text.to_owned())),
                Node::new(Value::Map(vec![Entry {
                    key: text.to_owned(),
                    key_span: None,
                    value: Node::new(Value::Number("1.10".to_owned())),
                }])),
            ]));
            // A merge key has a meaning of its own, quoted or not.
            if text == "<<" {
                continue;
            }
            let source = Source { path: "file".into(), text: in_one_line(&node), format: Format::Yaml };
            let mut read = parse(&source, &mut Report::of_file(&source)).unwrap();
            forget_places(&mut read);
            assert_eq!(read, node, "{text:?}: {}", source.text);
        }
    }

    fn forget_places(node: &mut Node) {
        node.span = None;
        match &mut node.value {
            Value::List(nodes) => nodes.iter_mut().for_each(forget_places),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.key_span = None;
                forget_places(&mut entry.value);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
    }
}
