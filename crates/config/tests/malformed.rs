//! Wrong files, and exactly what is shown for them. `UPDATE=1` rewrites the
//! `.expected` files.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use supervisor_config::{Context, Errors, Format, Source};

fn context() -> Context {
    Context { base_dir: "/srv".into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 4 }
}

fn wrong_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| Format::of(path).is_some()).collect();
    files.sort();
    files
}

/// The mistakes of a file, which messages name without its folder.
fn mistakes(path: &Path) -> Errors {
    let mut source = Source::read(path).unwrap();
    source.path = path.file_name().unwrap().into();
    supervisor_config::load(&source, &context()).unwrap_err()
}

#[test]
fn shows_what_is_expected() {
    let mut differences = String::new();
    for path in wrong_files() {
        let rendered = mistakes(&path).render(false) + "\n";
        let expected_path = PathBuf::from(format!("{}.expected", path.display()));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected_path, &rendered).unwrap();
        } else {
            let expected = fs::read_to_string(&expected_path).unwrap_or_default();
            if expected != rendered {
                writeln!(differences, "{}: expected\n{expected}\nnot\n{rendered}", path.display()).unwrap();
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn never_shows_a_secret() {
    for path in wrong_files() {
        let errors = mistakes(&path);
        for shown in [errors.render(false), errors.render(true), errors.to_string()] {
            assert!(!shown.contains("hunter") && !shown.contains("s3cret"), "{}:\n{shown}", path.display());
        }
    }
}

#[test]
fn three_mistakes_are_three_diagnostics_with_one_line_each() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed/three-mistakes.yaml");
    let errors = mistakes(&path);
    let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
    // `token_above` is a stranger as well.
    assert_eq!(places, [(Some(6), Some(5)), (Some(7), Some(5)), (Some(8), Some(19)), (Some(9), Some(13))]);
    for error in &errors {
        let rendered = error.render(false);
        assert_eq!(rendered.lines().filter(|line| line.contains('^')).count(), 1, "{rendered}");
        assert_eq!(
            rendered.lines().filter(|line| line.trim_start().starts_with(char::is_numeric)).count(),
            1,
            "{rendered}"
        );
    }
}
