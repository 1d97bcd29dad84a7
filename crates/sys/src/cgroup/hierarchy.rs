//! Where hierarchies of cgroups can be seen, and our place in them.

use std::path::{Component, Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The hierarchy of the `cpu` controller.
    V1,
    V2,
}

/// Where a hierarchy can be seen.
#[derive(Debug)]
pub(crate) struct Mount<'a> {
    pub(crate) version: Version,
    /// The part of the hierarchy that is mounted.
    root: &'a str,
    pub(crate) point: PathBuf,
}

impl<'a> Mount<'a> {
    /// A line of `/proc/self/mountinfo`, `proc_pid_mountinfo(5)`.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let version = match kind {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|option| option == "cpu") => Version::V1,
            _ => return None,
        };
        Some(Self { version, root, point: PathBuf::from(unescape(point)) })
    }

    /// The path of a cgroup below the mount; `None` for one outside of what is mounted.
    pub(crate) fn below<'p>(&self, cgroup: &'p str) -> Option<&'p Path> {
        let below = Path::new(cgroup).strip_prefix(self.root).ok()?;
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        below.components().all(is_plain).then_some(below)
    }
}

/// Our cgroup as one line of `/proc/self/cgroup` has it, `cgroups(7)`.
pub(crate) fn membership(line: &str) -> Option<(Version, &str)> {
    let mut parts = line.splitn(3, ':');
    let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    if id == "0" && controllers.is_empty() {
        Some((Version::V2, path))
    } else if controllers.split(',').any(|name| name == "cpu") {
        Some((Version::V1, path))
    } else {
        None
    }
}

/// Blanks, tabs, newlines and backslashes stand as `\040` in mountinfo.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}
