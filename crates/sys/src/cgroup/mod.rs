//! Control groups of version 2: `cgroups(7)`, and "Control Group v2" of the kernel's documentation.
//!
//! A cgroup is a folder; what is done to it is a file in there. Nothing here decides whose it is.

pub(crate) mod hierarchy;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, getxattr, openat};
use rustix::process::getpid;

use crate::{Pid, pidfd};
use hierarchy::{Mount, Version, membership};

/// A cgroup, by its place. It may be gone, or not be there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Where the hierarchy can be seen.
    mount: PathBuf,
    /// The place below that.
    path: PathBuf,
}

impl Cgroup {
    /// The one that this process is in. `None` where there is no hierarchy of version 2, or none that
    /// shows it.
    #[must_use]
    pub fn own() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        candidates(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
            .into_iter()
            .find(|cgroup| cgroup.file("cgroup.procs").exists())
    }

    /// The one above; `None` for the highest that can be seen.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        Some(Self { mount: self.mount.clone(), path: self.path.parent()?.to_owned() })
    }

    /// The one of this name below. The name is one component of a path.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { mount: self.mount.clone(), path: self.path.join(name) }
    }

    /// Its name among its siblings; `None` for the highest that can be seen.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.path.file_name()?.to_str()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    /// Its place below the highest one that can be seen: `system.slice/web.service`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `PermissionDenied` or `EROFS` where we may not.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir(self.folder())
    }

    /// Removes it, with those below it that its processes have made. A process that is being killed
    /// stays for a moment.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while a process is in it or below it, `NotFound`.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                for child in self.children()? {
                    child.remove()?;
                }
                fs::remove_dir(self.folder())
            }
            result => result,
        }
    }

    /// Its folder as a descriptor: see [`Plan::cgroup`](crate::spawn::Plan::cgroup).
    ///
    /// # Errors
    ///
    /// `NotFound`, or those of `open(2)`.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(CWD, self.folder(), flags, Mode::empty())?)
    }

    /// The cgroups in it.
    ///
    /// # Errors
    ///
    /// Those of reading a folder.
    pub fn children(&self) -> io::Result<Vec<Self>> {
        let mut children = Vec::new();
        for entry in fs::read_dir(self.folder())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let path = self.path.join(entry.file_name());
                children.push(Self { mount: self.mount.clone(), path });
            }
        }
        Ok(children)
    }

    /// The processes in itself, not in those below, without zombies. `None` stands for one that this
    /// process cannot name, in another pid namespace.
    ///
    /// # Errors
    ///
    /// Those of reading a file.
    pub fn processes(&self) -> io::Result<Vec<Option<Pid>>> {
        processes(&self.folder())
    }

    /// Moves a process into it.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` where controllers are enabled for those below, `PermissionDenied`, `ESRCH`.
    pub fn add(&self, pid: Pid) -> io::Result<()> {
        self.write("cgroup.procs", &pid.as_raw_pid().to_string())
    }

    /// Sends SIGKILL to all processes in it and below it, and to those that they start meanwhile.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is gone, and for the root of the whole hierarchy.
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Whether it can be killed: Linux has the file since 5.14, and not for the root of the hierarchy.
    #[must_use]
    pub fn can_be_killed(&self) -> bool {
        self.file("cgroup.kill").exists()
    }

    /// Whether a process is in it or below it. Zombies do not count.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is gone.
    pub fn is_populated(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.file("cgroup.events"))?;
        Ok(value(&events, "populated") != Some(0))
    }

    /// Whether its manager has left it, and what is below it, to us, as systemd marks it.
    #[must_use]
    pub fn is_delegated(&self) -> bool {
        let folder = self.folder();
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0; 2];
            getxattr(&folder, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
        })
    }

    /// Whether its children may have this controller.
    #[must_use]
    pub fn has_controller(&self, name: &str) -> bool {
        let list = fs::read_to_string(self.file("cgroup.controllers")).unwrap_or_default();
        list.split_whitespace().any(|controller| controller == name)
    }

    /// Gives its children a controller. From then on no process can be in itself.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while one is, `NotFound` for a controller that it does not have.
    pub fn enable(&self, controller: &str) -> io::Result<()> {
        self.write("cgroup.subtree_control", &format!("+{controller}"))
    }

    /// Limits its memory, with all that the kernel holds for it. When it cannot be kept below, all
    /// processes in it are killed together.
    ///
    /// # Errors
    ///
    /// `NotFound` or `PermissionDenied` without the controller `memory`.
    pub fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.write("memory.oom.group", "1")?;
        self.write("memory.max", &bytes.to_string())
    }

    /// What the kernel has counted of its memory.
    ///
    /// # Errors
    ///
    /// `NotFound` without the controller `memory`.
    pub fn memory_events(&self) -> io::Result<MemoryEvents> {
        Ok(MemoryEvents::parse(&fs::read_to_string(self.file("memory.events"))?))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The file must be there: a cgroup's cannot be made.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        use std::io::Write;
        fs::OpenOptions::new().write(true).open(self.file(name))?.write_all(text.as_bytes())
    }
}

/// Holds the processes in a cgroup and in those below it, but for the calling one, so that they can be
/// signalled. The cgroup, of any version, is given by its folder. What cannot be read is passed over.
#[must_use]
pub fn open_processes(folder: &Path) -> Vec<OwnedFd> {
    let list = || processes(folder).unwrap_or_default().into_iter().flatten();
    let named = list().filter(|pid| *pid != getpid());
    let opened: Vec<_> = named.filter_map(|pid| Some((pid, pidfd::open(pid).ok()?))).collect();
    // A pid that is still there belongs to the process that was opened.
    let still: HashSet<Pid> = list().collect();
    let own = opened.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, process)| process);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    own.chain(below.flat_map(|entry| open_processes(&entry.path()))).collect()
}

fn processes(folder: &Path) -> io::Result<Vec<Option<Pid>>> {
    let text = fs::read_to_string(folder.join("cgroup.procs"))?;
    Ok(text.lines().map(|line| line.parse().ok().and_then(Pid::from_raw)).collect())
}

/// Counters since a cgroup was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// How often it, or one below it, could not be kept below its own limit.
    pub at_limit: u64,
    /// How many of its processes the kernel has killed for want of memory, whoever's limit it was.
    pub killed: u64,
}

impl MemoryEvents {
    /// The text of `memory.events`; what is not there was not counted.
    fn parse(text: &str) -> Self {
        let count = |name| value(text, name).unwrap_or(0);
        Self { at_limit: count("oom"), killed: count("oom_kill") }
    }
}

/// Where our cgroup may be, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn candidates(membership_text: &str, mountinfo: &str) -> Vec<Cgroup> {
    let ours = membership_text.lines().filter_map(membership).find(|(version, _)| *version == Version::V2);
    let Some((_, path)) = ours else { return Vec::new() };
    let mounts = mountinfo.lines().filter_map(Mount::parse).filter(|mount| mount.version == Version::V2);
    mounts
        .filter_map(|mount| {
            let path = mount.below(path)?.to_owned();
            Some(Cgroup { mount: mount.point, path })
        })
        .collect()
}

/// The number behind a name, in a file of lines `name number`.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cgroup_is_where_it_can_be_seen() {
        let check = |cgroup: &str, root: &str, expected: Option<&str>| {
            let mountinfo = format!(
                "30 21 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 31 21 0:27 {root} /sys/fs/c\\040group rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
            );
            let found = candidates(cgroup, &mountinfo);
            let folder = found.first().map(Cgroup::folder);
            assert_eq!(folder, expected.map(PathBuf::from), "{cgroup} {root}");
        };
        check("0::/system.slice/a.service\n", "/", Some("/sys/fs/c group/system.slice/a.service"));
        check("4:cpu:/b\n0::/a\n", "/", Some("/sys/fs/c group/a"));
        check("0::/\n", "/", Some("/sys/fs/c group/"));
        // A container that sees only its own part, and a mount from outside of it.
        check("0::/outer/a\n", "/outer", Some("/sys/fs/c group/a"));
        check("0::/\n", "/../..", None);
        check("0::/../a\n", "/", None);
        check("4:cpu:/b\n", "/", None);
        check("", "/", None);
    }

    #[test]
    fn the_highest_has_no_parent() {
        let cgroup = candidates("0::/a", "1 2 3 / /x rw - cgroup2 x rw").remove(0);
        let parent = cgroup.parent().unwrap();
        assert_eq!(parent.child("a"), cgroup);
        assert_eq!((cgroup.name(), parent.name(), parent.parent()), (Some("a"), None, None));
    }

    #[test]
    fn limits_are_written_where_the_controller_is() {
        let mount = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { mount: mount.path().to_owned(), path: "a".into() };
        cgroup.create().unwrap();
        assert_eq!(cgroup.limit_memory(1 << 30).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(cgroup.memory_events().unwrap_err().kind(), io::ErrorKind::NotFound);
        for name in ["memory.oom.group", "memory.max", "memory.events", "cgroup.controllers"] {
            fs::write(cgroup.file(name), "").unwrap();
        }
        cgroup.limit_memory(1 << 30).unwrap();
        let read = |name| fs::read_to_string(cgroup.file(name)).unwrap();
        assert_eq!((read("memory.oom.group"), read("memory.max")), ("1".into(), "1073741824".into()));
        fs::write(cgroup.file("memory.events"), "oom 1\noom_kill 2\n").unwrap();
        assert_eq!(cgroup.memory_events().unwrap(), MemoryEvents { at_limit: 1, killed: 2 });
        fs::write(cgroup.file("cgroup.controllers"), "cpuset memory pids\n").unwrap();
        assert!(cgroup.has_controller("memory") && !cgroup.has_controller("cpu"));
    }

    #[test]
    fn memory_events_are_counted() {
        let check = |text: &str, at_limit, killed| {
            assert_eq!(MemoryEvents::parse(text), MemoryEvents { at_limit, killed }, "{text}");
        };
        check("low 0\nhigh 7\nmax 3\noom 2\noom_kill 1\noom_group_kill 4\n", 2, 1);
        // Somebody else's limit.
        check("low 0\nhigh 0\nmax 0\noom 0\noom_kill 3\noom_group_kill 0\n", 0, 3);
        // Before Linux 4.13 and 5.17 there were fewer.
        check("low 0\nhigh 0\nmax 9\noom 1", 1, 0);
        check("oom_kill\noom x\noom_kill -1\n", 0, 0);
        check("", 0, 0);
    }

    #[test]
    fn populated_is_one_of_several_events() {
        assert_eq!(value("populated 1\nfrozen 0\n", "populated"), Some(1));
        assert_eq!(value("frozen 0\npopulated 0\n", "populated"), Some(0));
        assert_eq!(value("unpopulated 0\n", "populated"), None);
    }
}
