//! Stories about the core: `scenarios/*.txt`, events in, actions out.
//!
//! `UPDATE=1 cargo test -p supervisor-core` writes what comes out into the
//! files; the difference is then reviewed like code. The commands are listed at
//! the top of `play/mod.rs`.

mod narrate;
mod play;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use play::play;

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut different = 0;
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = play(&expected).unwrap_or_else(|error| panic!("{}:{error}", path.display()));
        if actual == expected {
            continue;
        }
        if update {
            fs::write(&path, actual).unwrap();
        } else {
            different += 1;
            println!("{}\n{}", path.display(), difference(&expected, &actual));
        }
    }
    assert_eq!(different, 0, "scenarios came out differently; UPDATE=1 accepts them");
}

/// The lines that differ, with the ones around them left out.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut text = format!("from line {}:\n", same + 1);
    for line in &old[same..old.len() - tail] {
        let _ = writeln!(text, "- {line}");
    }
    for line in &new[same..new.len() - tail] {
        let _ = writeln!(text, "+ {line}");
    }
    text
}
