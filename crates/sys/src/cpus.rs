//! How many CPUs this process may use, rather than how many the machine has.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::cgroup::hierarchy::{Mount, Version, membership};

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
            // One outside of what is mounted is at least below that.
            let below = mount.below(path).unwrap_or(Path::new(""));
            smallest(version, &mount.point, &mount.point.join(below))
        })
        .min()
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
