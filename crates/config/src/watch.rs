//! Files whose changes reload an app: `watch: [src]`, `ignore_watch: ["*.tmp"]`.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};

use crate::app::millis;
use crate::fields::Fields;
use crate::path;
use crate::report::{Problem, Report};
use crate::tree::{Node, Value};
use crate::value::{duration, expected, non_empty, text};

/// What is never watched, unless `ignore_watch` takes it back: hidden files and
/// those that programs, editors and package managers write for themselves.
const ALWAYS: &[&str] = &[".*", "node_modules", "__pycache__", "*.log", "*.log.*", "*~"];

/// The files whose changes reload an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Files, and folders with all below them; absolute, never empty.
    pub paths: Vec<PathBuf>,
    /// Patterns as in a `.gitignore` file of the app's working directory.
    pub ignore: Vec<String>,
    /// How long nothing must have changed before the app is reloaded.
    #[serde(with = "millis")]
    pub delay: Duration,
}

impl Watch {
    /// What is not watched. Patterns start from `cwd`.
    ///
    /// # Errors
    ///
    /// In words: the first pattern that is none.
    pub fn ignored(&self, cwd: &Path) -> Result<Gitignore, String> {
        let mut builder = GitignoreBuilder::new(cwd);
        for pattern in ALWAYS.iter().copied().chain(self.ignore.iter().map(String::as_str)) {
            add(&mut builder, &from_cwd(pattern, cwd))?;
        }
        builder.build().map_err(|error| error.to_string())
    }
}

fn add(builder: &mut GitignoreBuilder, pattern: &str) -> Result<(), String> {
    builder.add_line(None, pattern).map(|_| ()).map_err(|error| error.to_string())
}

/// A pattern as git would have it: those that name a path from `cwd` with `./`,
/// or from the root, mean that path.
fn from_cwd(pattern: &str, cwd: &Path) -> String {
    let below = cwd.to_str().and_then(|cwd| pattern.strip_prefix(cwd)?.strip_prefix('/'));
    match below.or_else(|| pattern.strip_prefix("./")) {
        Some(path) => format!("/{path}"),
        None => pattern.to_owned(),
    }
}

/// `None` where nothing is watched.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>, cwd: &Path) -> Option<Watch> {
    let ignore = fields.list("ignore_watch", pattern);
    let delay = fields.value("watch_delay", duration);
    let entry = fields.given("watch")?;
    let paths = match &entry.value.value {
        Value::Bool(true) => vec![cwd.to_owned()],
        Value::Bool(false) => return None,
        // As PM2 reads what is off.
        Value::Number(text) | Value::Text(text) if matches!(text.as_str(), "" | "0" | "false") => {
            return None;
        }
        Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            let named = fields.list("watch", |node| match &node.value {
                Value::Text(_) => Ok((path::absolute(text(node)?, cwd)?, node)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => {
                    Err(expected("`true`, `false`, a path or a list of paths", node))
                }
            });
            named.into_iter().map(|(path, node)| without_stars(path, node, fields.report)).collect()
        }
    };
    (!paths.is_empty()).then_some(Watch { paths, ignore, delay })
}

/// PM2 takes patterns here as well. The folder that all matches of one lie in is
/// more than was asked for, which is said.
fn without_stars(path: PathBuf, node: &Node, report: &mut Report<'_>) -> PathBuf {
    let has_star = |part: &Component<'_>| part.as_os_str().as_encoded_bytes().contains(&b'*');
    if !path.components().any(|part| has_star(&part)) {
        return path;
    }
    let folder: PathBuf = path.components().take_while(|part| !has_star(part)).collect();
    let problem = Problem::new(format!("`watch` takes no patterns: all of {} is watched", folder.display()));
    report.warning(node.span, problem.help("name folders and files, and leave some out by `ignore_watch`"));
    folder
}

fn pattern(node: &Node) -> Result<String, Problem> {
    let pattern = non_empty(node)?;
    match add(&mut GitignoreBuilder::new(""), pattern) {
        Ok(()) => Ok(pattern.to_owned()),
        Err(error) => Err(Problem::new(format!("is no pattern: {error}"))
            .help("patterns are those of `.gitignore`, such as `*.tmp`, `build/` or `/data`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored() {
        let watch = Watch {
            paths: vec!["/srv".into()],
            ignore: ["*.tmp", "/data", "build/", "!.env", "./logs", "/srv/var/*"].map(str::to_owned).into(),
            delay: Duration::ZERO,
        };
        let ignored = watch.ignored(Path::new("/srv")).unwrap();
        let check = |path: &str, is_folder: bool, expected: bool| {
            assert_eq!(ignored.matched(path, is_folder).is_ignore(), expected, "{path}");
        };
        check("/srv/src/main.js", false, false);
        for path in
            ["/srv/a.tmp", "/srv/sub/a.tmp", "/srv/out.log", "/srv/out.log.20260101T000000Z.gz", "/srv/a~"]
        {
            check(path, false, true);
        }
        for path in ["/srv/.git", "/srv/sub/node_modules", "/srv/__pycache__", "/srv/data", "/srv/sub/build"]
        {
            check(path, true, true);
        }
        check("/srv/.env", false, false);
        check("/srv/sub/data", true, false);
        check("/srv/logs", true, true);
        check("/srv/sub/logs", true, false);
        check("/srv/var/cache", true, true);
        check("/srv/sub/var/cache", true, false);
        check("/srv/build", false, false);
        // Not below the working directory.
        check("/etc/app/x.tmp", false, true);
        check("/etc/app/x.conf", false, false);
    }
}
