//! What the corpora have, on any toolchain: each crate's tests include this file.

use std::fs;
use std::path::{Path, PathBuf};

/// Lets a target see all that is kept for it, which is named as it comes: the
/// last one is what failed.
pub(crate) fn replay(target: &str, check: impl Fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates are in a folder");
    let folder = root.join("fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.sort();
    for path in paths {
        eprintln!("{}", path.display());
        check(&fs::read(&path).expect("a file"));
    }
}
