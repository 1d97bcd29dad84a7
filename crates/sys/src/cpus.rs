//! How many CPUs this process may use, rather than how many the machine has.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity};

/// The CPUs of our affinity mask, in ascending order.
///
/// # Errors
///
/// `EINVAL` on a machine with more than [`CpuSet::MAX_CPU`] CPUs.
pub fn allowed_cpus() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(None)?;
    Ok((0..).zip(0..CpuSet::MAX_CPU).filter(|(_, cpu)| set.is_set(*cpu)).map(|(number, _)| number).collect())
}

/// The CPUs of our affinity mask, or fewer if the quota of our cgroup or one of its ancestors allows
/// less time than that; part of a CPU counts as one. Reads `/proc` and the cgroup's files, some 0.1 ms.
#[must_use]
pub fn usable_cpus() -> NonZeroUsize {
    let allowed = match sched_getaffinity(None) {
        Ok(set) => usize::try_from(CpuSet::count(&set)).unwrap_or(1),
        // The mask of a very large machine does not fit: the library has a larger one.
        Err(_) => thread::available_parallelism().map_or(1, NonZeroUsize::get),
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let quota = quota(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let usable = quota.map_or(allowed, |quota| quota.min(allowed));
    NonZeroUsize::new(usable).unwrap_or(NonZeroUsize::MIN)
}

/// The smallest quota that holds for us, in CPUs rounded up.
fn quota(cgroup: &str, mountinfo: &str) -> Option<usize> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    cgroup
        .lines()
        .filter_map(|line| {
            let (version, path) = membership(line)?;
            let mount = mounts.iter().find(|mount| mount.version == version)?;
            smallest(version, &mount.point, &mount.folder(path))
        })
        .min()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The hierarchy of the `cpu` controller.
    V1,
    V2,
}

/// Where a hierarchy can be seen.
#[derive(Debug)]
struct Mount<'a> {
    version: Version,
    /// The part of the hierarchy that is mounted.
    root: &'a str,
    point: PathBuf,
}

impl<'a> Mount<'a> {
    /// A line of `/proc/self/mountinfo`, `proc_pid_mountinfo(5)`.
    fn parse(line: &'a str) -> Option<Self> {
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

    /// The folder of a cgroup, or the mount itself for one outside of what is mounted.
    fn folder(&self, cgroup: &str) -> PathBuf {
        let below = Path::new(cgroup).strip_prefix(self.root).unwrap_or(Path::new(""));
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if below.components().all(is_plain) { self.point.join(below) } else { self.point.clone() }
    }
}

/// Our cgroup as one line of `/proc/self/cgroup` has it, `cgroups(7)`.
fn membership(line: &str) -> Option<(Version, &str)> {
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

/// The smallest quota from `folder` up to the mount.
fn smallest(version: Version, mount: &Path, folder: &Path) -> Option<usize> {
    folder
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with(mount))
        .filter_map(|ancestor| {
            let read = |name: &str| fs::read_to_string(ancestor.join(name)).ok();
            match version {
                Version::V2 => {
                    let text = read("cpu.max")?;
                    let (quota, period) = text.trim().split_once(' ')?;
                    cpus(quota, period)
                }
                Version::V1 => cpus(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
            }
        })
        .min()
}

/// `quota` of each `period`, in CPUs rounded up; `max` and −1 mean that there is none.
fn cpus(quota: &str, period: &str) -> Option<usize> {
    let quota: usize = quota.trim().parse().ok()?;
    let period: usize = period.trim().parse().ok()?;
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

/// Blanks, tabs, newlines and backslashes stand as `\040` in mountinfo.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_may_use_at_least_one() {
        let all = thread::available_parallelism().unwrap();
        let usable = usable_cpus();
        // The library rounds a quota down where we round it up.
        assert!(usable == all || usable.get() == all.get() + 1);
    }

    #[test]
    fn allowed_cpus_are_listed() {
        let cpus = allowed_cpus().unwrap();
        assert!(cpus.is_sorted() && !cpus.is_empty());
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
        let first = list.split(['-', ',']).next().unwrap();
        assert_eq!(first, cpus[0].to_string());
    }

    #[test]
    fn parts_of_a_cpu_count_as_one() {
        let check = |quota: &str, period: &str, expected: Option<usize>| {
            assert_eq!(cpus(quota, period), expected, "{quota} {period}");
        };
        check("100000", "100000", Some(1));
        check("150000", "100000", Some(2));
        check("1000", "100000", Some(1));
        check("400000\n", "100000\n", Some(4));
        check("max", "100000", None);
        check("-1", "100000", None);
        check("100000", "0", None);
        check("0", "100000", Some(1));
        check("", "", None);
    }

    /// A hierarchy in a folder with a blank in its name, and our place in it.
    fn check(kind: &str, root: &str, cgroup: &str, files: &[(&str, &str)], expected: Option<usize>) {
        let folder = tempfile::Builder::new().prefix("c group").tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let point = folder.path().display().to_string().replace(' ', "\\040");
        let mountinfo = format!(
            "21 1 8:1 / / rw - ext4 /dev/root rw\n\
             30 21 0:26 {root} {point} rw,relatime shared:9 - {kind}\n"
        );
        assert_eq!(quota(cgroup, &mountinfo), expected, "{kind} {root} {cgroup} {files:?}");
    }

    #[test]
    fn the_smallest_quota_of_the_ancestors_holds() {
        let v2 = "cgroup2 cgroup2 rw,nsdelegate";
        let files = [
            ("cpu.max", "max 100000\n"),
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/cpu.max", "300000 100000\n"),
        ];
        check(v2, "/", "0::/a/b\n", &files, Some(2));
        check(v2, "/", "0::/a/b/c\n", &files, Some(2));
        check(v2, "/", "0::/\n", &files, None);
        // A container that sees only its own part.
        check(v2, "/outer", "0::/outer/a\n", &files, Some(2));
        check(v2, "/outer", "0::/elsewhere/a\n", &files, None);
        check(v2, "/", "0::/../a\n", &files, None);

        let v1 = "cgroup cgroup rw,cpu,cpuacct";
        let files = [
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("a/cpu.cfs_quota_us", "50000\n"),
            ("a/cpu.cfs_period_us", "100000\n"),
        ];
        check(v1, "/", "4:cpu,cpuacct:/a\n0::/b\n", &files, Some(1));
        check(v1, "/", "4:cpu,cpuacct:/b\n", &files, None);
        check(v1, "/", "5:memory:/a\n", &files, None);
        check("cgroup cgroup rw,cpuset", "/", "4:cpu,cpuacct:/a\n", &files, None);
    }

    #[test]
    fn nonsense_means_no_quota() {
        assert_eq!(quota("", ""), None);
        assert_eq!(quota("0::/", "1 2 - cgroup2\n - \n1 2 3 / /x rw - cgroup2 x rw"), None);
    }
}
