//! Paths of a file, which start from its folder.

use std::path::{Path, PathBuf};

use crate::report::Problem;

/// The absolute path of `path` from `base`, without looking at any folder: `.`
/// is dropped, and `..` stays because links may stand before it. It is UTF-8.
pub(crate) fn absolute(path: &str, base: &Path) -> Result<PathBuf, Problem> {
    if path.is_empty() {
        return Err(Problem::new("is empty"));
    }
    if path == "~" || path.starts_with("~/") {
        return Err(Problem::new("starts with `~`, which only a shell expands").help("write the whole path"));
    }
    let path: PathBuf = base.join(path).components().collect();
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(Problem::new(format!("lies in `{}`, whose name is not UTF-8 text", base.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_from_the_base() {
        for (path, expected) in [
            ("a", "/srv/a"),
            ("./a/./b/", "/srv/a/b"),
            ("../a", "/srv/../a"),
            ("/x//y", "/x/y"),
            (".", "/srv"),
        ] {
            assert_eq!(absolute(path, Path::new("/srv")), Ok(PathBuf::from(expected)), "{path}");
        }
        for path in ["", "~", "~/x"] {
            assert!(absolute(path, Path::new("/srv")).is_err(), "{path}");
        }
    }
}
