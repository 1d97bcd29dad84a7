//! Files that cannot be read, and files that are too much.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use supervisor_config::{Context, Format, Source};

#[test]
fn extensions_say_the_format() {
    for (path, format) in [
        ("a.yaml", Some(Format::Yaml)),
        ("a.b.yml", Some(Format::Yaml)),
        ("a.json", Some(Format::Json)),
        ("a.json5", Some(Format::Json)),
        ("/x/a.toml", Some(Format::Toml)),
        ("a.js", None),
        ("a", None),
        ("yaml", None),
        (".yaml", None),
    ] {
        assert_eq!(Format::of(Path::new(path)), format, "{path}");
    }
}

#[test]
fn says_why_a_file_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("good.yaml"), "\u{feff}command: ./a").unwrap();
    fs::write(path("bytes.yaml"), b"command: \xff").unwrap();
    fs::write(path("large.yaml"), vec![b'#'; (8 << 20) + 1]).unwrap();
    fs::write(path("other.txt"), "").unwrap();
    fs::create_dir(path("folder.yaml")).unwrap();

    assert_eq!(Source::read(&path("good.yaml")).unwrap().text, "command: ./a");
    for (name, reason) in [
        ("absent.yaml", "there is no such file"),
        ("folder.yaml", "it is not a regular file"),
        ("bytes.yaml", "it is not UTF-8 text: byte 9 is wrong"),
        ("large.yaml", "it is larger than 8192 KiB"),
        ("other.txt", "a configuration file ends in .yaml, .yml, .json, .json5 or .toml"),
    ] {
        let message = Source::read(&path(name)).unwrap_err().to_string();
        assert_eq!(message, format!("cannot read {}: {reason}", path(name).display()));
    }
}

/// The first mistake of a text.
fn mistake(format: Format, text: String) -> String {
    let source = Source { path: "file".into(), text, format };
    let context =
        Context { base_dir: "/srv".into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 1 };
    supervisor_config::load(&source, &context).unwrap_err().iter().next().unwrap().message.clone()
}

#[test]
fn hostile_files_are_refused() {
    let much = 1 << 20;
    for (format, text, reason) in [
        (Format::Yaml, "[".repeat(much), "more than 32 deep"),
        (Format::Yaml, "- ".repeat(much / 2), "more than 32 deep"),
        (Format::Yaml, format!("[{}]", "a,".repeat(much / 2)), "more than 100000 values"),
        (
            Format::Yaml,
            format!("x-a: &a \"{}\"\napps: [{}]", "y".repeat(much), "*a,".repeat(20)),
            "16 MiB of text",
        ),
        (Format::Json, "[".repeat(much), "more than 32 deep"),
        (Format::Json, "{\"a\":".repeat(much / 5), "more than 32 deep"),
        (Format::Json, format!("[{}]", "0,".repeat(much / 2)), "more than 100000 values"),
        (Format::Toml, format!("a = {}", "[".repeat(much / 2)), "recursion"),
        (Format::Toml, format!("a = [{}]", "0,".repeat(much / 3)), "more than 100000 values"),
        (Format::Toml, " ".repeat(much + 1), "larger than 1 MiB"),
    ] {
        let message = mistake(format, text);
        assert!(message.contains(reason), "{format:?}: {message}");
    }
}

#[test]
fn many_mistakes_are_counted() {
    let text = "- {command: ./a, name: a b}\n".repeat(1000);
    let source = Source { path: "file".into(), text, format: Format::Yaml };
    let context =
        Context { base_dir: "/srv".into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 1 };
    let errors = supervisor_config::load(&source, &context).unwrap_err();
    assert_eq!(errors.iter().count(), 101);
    assert_eq!(errors.iter().last().unwrap().message, "and 900 more errors");
}
