//! Real children, seen from inside: what they are given, and what is left when a step fails.

#![expect(unsafe_code, reason = "signal masks and dispositions have no safe wrapper here")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{DumpableBehavior, dumpable_behavior, geteuid};
use supervisor_sys::cpus;
use supervisor_sys::fdpass;
use supervisor_sys::limits::{Limit, Resource};
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::{
    Child, Credentials, Launcher, MAX_CPUS, MAX_FDS, Plan, ProcessGroup, Program, SpawnError, Stage,
};

const NOBODY: u32 = 65534;

/// Prints what the shell's descriptors from 3 on hold, up to the first gap. cat opens each anew.
const SHOW_FDS: &str = "i=3; while [ -e /proc/$$/fd/$i ]; do cat /proc/$$/fd/$i; i=$((i+1)); done";

fn null() -> File {
    File::options().read(true).write(true).open("/dev/null").unwrap()
}

fn strings(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

/// What children read from and write to.
struct Stdio {
    null: File,
    output: File,
}

impl Stdio {
    fn new() -> Self {
        Self { null: null(), output: File::from(named_file("")) }
    }

    /// A plan for a shell that runs `script`.
    fn shell(&self, script: &str) -> Plan<'_> {
        let program = Program::Path(PathBuf::from("/bin/sh"));
        let stdio = [self.null.as_fd(), self.output.as_fd(), self.output.as_fd()];
        let mut plan = Plan::new(program, strings(&["sh", "-c", script]), stdio);
        plan.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
        plan
    }

    /// What a shell prints, once `change` has had its way with the plan. The shell must succeed.
    fn output<'a>(&'a self, script: &str, change: impl FnOnce(&mut Plan<'a>)) -> String {
        self.output_by(&mut Launcher::new().unwrap(), script, change)
    }

    fn output_by<'a>(
        &'a self,
        launcher: &mut Launcher,
        script: &str,
        change: impl FnOnce(&mut Plan<'a>),
    ) -> String {
        let mut plan = self.shell(script);
        change(&mut plan);
        let child = launcher.spawn(&plan).unwrap();
        let exit = pidfd::wait(&child.pidfd).unwrap();
        let mut text = String::new();
        let mut output = &self.output;
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        output.set_len(0).unwrap();
        output.rewind().unwrap();
        assert_eq!(exit, Exit::Code(0), "{text}");
        text
    }

    /// The error of a spawn that must fail. Its child introduces itself, and must be gone.
    fn failure<'a>(&'a self, change: impl FnOnce(&mut Plan<'a>)) -> SpawnError {
        let (ours, theirs) = fdpass::seqpacket_pair().unwrap();
        let mut plan = self.shell("exit 0");
        change(&mut plan);
        let mut plan = Plan { ..plan };
        plan.introduce = plan.introduce.or(Some(theirs.as_fd()));
        let error = Launcher::new().unwrap().spawn(&plan).unwrap_err();
        drop(plan);
        drop(theirs);
        if let Some(pid) = introduced(&ours) {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
        }
        error
    }

    fn check_failure<'a>(&'a self, stage: Stage, errno: i32, change: impl FnOnce(&mut Plan<'a>)) {
        assert_eq!(self.failure(change), SpawnError { stage, errno });
    }
}

fn introduced(socket: &OwnedFd) -> Option<i32> {
    let mut buffer = [0; 8];
    let received = fdpass::receive(socket, &mut buffer).unwrap();
    (received.len > 0).then(|| i32::from_ne_bytes(buffer[..received.len].try_into().unwrap()))
}

/// A file in memory that holds its own name.
fn named_file(name: &str) -> OwnedFd {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
    file.write_all(name.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

fn status_field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let words: Vec<&str> = line.trim_start_matches(':').split_whitespace().collect();
    words.join(" ")
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can change users");
    }
    root
}

#[test]
fn arguments_environment_and_folder_arrive() {
    let stdio = Stdio::new();
    let folder = tempfile::tempdir().unwrap();
    let script = "pwd -P; echo \"$0|$1|$2\"; env | sort";
    let text = stdio.output(script, |plan| {
        plan.args.extend(strings(&["zero", "", "two words"]));
        plan.env.push(("EMPTY".into(), "".into()));
        plan.env.push(("LINES".into(), "a=b".into()));
        plan.cwd = Some(folder.path().to_owned());
    });
    let cwd = folder.path().canonicalize().unwrap();
    let expected =
        format!("{0}\nzero||two words\nEMPTY=\nLINES=a=b\nPATH=/usr/bin:/bin\nPWD={0}\n", cwd.display());
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("_=")).collect();
    assert_eq!(text, expected.lines().collect::<Vec<_>>());
}

#[test]
fn listen_pid_is_the_childs_own() {
    let stdio = Stdio::new();
    let text = stdio.output("echo $LISTEN_PID $$; env | grep -c LISTEN_PID", |plan| {
        plan.listen_pid = true;
        plan.env.push(("LISTEN_PID".into(), "1".into()));
    });
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[0], words[1]);
    assert_eq!(words[2], "1");
}

#[test]
fn as_many_descriptors_as_promised_in_their_order() {
    let stdio = Stdio::new();
    let files: Vec<OwnedFd> = (0..MAX_FDS).map(|i| named_file(&format!("<{i}>"))).collect();
    let text = stdio.output(SHOW_FDS, |plan| plan.fds = files.iter().map(AsFd::as_fd).collect());
    assert_eq!(text, (0..MAX_FDS).map(|i| format!("<{i}>")).collect::<String>());
}

#[test]
fn numbers_that_collide_do_not_matter() {
    let stdio = Stdio::new();
    // Wherever the parent has them: backwards, twice, and around the numbers of the targets and of
    // the reserved range.
    let mut files: Vec<(String, OwnedFd)> = Vec::new();
    for number in (3..100).step_by(4) {
        let name = format!("<{number}>");
        let file = fcntl_dupfd_cloexec(named_file(&name), number).unwrap();
        files.push((name, file));
    }
    files.reverse();
    let mut launcher = Launcher::new().unwrap();
    for _ in 0..4 {
        let twice = || files.iter().chain(&files);
        let text = stdio.output_by(&mut launcher, SHOW_FDS, |plan| {
            plan.fds = twice().map(|(_, file)| file.as_fd()).collect();
        });
        assert_eq!(text, twice().map(|(name, _)| name.as_str()).collect::<String>());
        let half = files.len() / 2;
        files.rotate_left(half);
    }
}

#[test]
fn nothing_leaks() {
    let stdio = Stdio::new();
    // Inheritable on purpose, low and high.
    let leaks: Vec<OwnedFd> =
        [3, 200, 2000].map(|number| fcntl_dupfd_cloexec(null(), number).unwrap()).into();
    for leak in &leaks {
        fcntl_setfd(leak, FdFlags::empty()).unwrap();
    }
    let (ours, theirs) = fdpass::seqpacket_pair().unwrap();
    let text = stdio.output("ls /proc/$$/fd", |plan| plan.introduce = Some(theirs.as_fd()));
    assert_eq!(text, "0\n1\n2\n");
    assert!(introduced(&ours).is_some());
}

#[test]
fn a_program_can_be_a_descriptor() {
    let stdio = Stdio::new();
    let program = File::open("/bin/sh").unwrap();
    let text = stdio.output("echo $0; ls /proc/$$/fd", |plan| {
        plan.program = Program::Binary(program.as_fd());
        plan.args.push("named".into());
    });
    assert_eq!(text, "named\n0\n1\n2\n");

    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let script = File::open(script).unwrap();
    stdio.check_failure(Stage::Exec, libc::ENOENT, |plan| {
        plan.program = Program::Binary(script.as_fd());
    });
}

#[test]
fn the_child_introduces_itself() {
    let stdio = Stdio::new();
    let (ours, theirs) = fdpass::seqpacket_pair().unwrap();
    let mut plan = stdio.shell("exit 0");
    plan.introduce = Some(theirs.as_fd());
    let Child { pid, pidfd, .. } = Launcher::new().unwrap().spawn(&plan).unwrap();
    assert_eq!(introduced(&ours), Some(pid.as_raw_pid()));
    assert_eq!(pidfd::wait(&pidfd).unwrap(), Exit::Code(0));
}

#[test]
fn signals_are_at_their_default() {
    let stdio = Stdio::new();
    let thread_mask = |how, set: &[i32]| {
        // SAFETY: plain sets of signals, of this thread only.
        unsafe {
            let mut mask = std::mem::zeroed();
            let mut former = std::mem::zeroed();
            libc::sigemptyset(&raw mut mask);
            for signal in set {
                libc::sigaddset(&raw mut mask, *signal);
            }
            libc::pthread_sigmask(how, &raw const mask, &raw mut former);
            (1..=31).filter(|n| libc::sigismember(&raw const former, *n) == 1).collect::<Vec<i32>>()
        }
    };
    supervisor_sys::signal::ignore(Signal::HUP).unwrap();
    thread_mask(libc::SIG_SETMASK, &[libc::SIGTERM, libc::SIGUSR1]);

    // Not the shell's, which changes its own: `exec` makes it cat's from the start.
    let status = stdio.output("unused", |plan| {
        plan.program = Program::Path("/bin/cat".into());
        plan.args = strings(&["cat", "/proc/self/status"]);
    });
    for field in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(status_field(&status, field), "0000000000000000", "{field}");
    }
    let after = thread_mask(libc::SIG_BLOCK, &[]);
    let before: BTreeSet<i32> = [libc::SIGTERM, libc::SIGUSR1].into();
    assert_eq!(after.into_iter().collect::<BTreeSet<_>>(), before);
}

#[test]
fn sessions_and_groups() {
    let stdio = Stdio::new();
    let ids = |group: ProcessGroup| {
        let text = stdio.output("echo $$; cat /proc/$$/stat", |plan| plan.process_group = group);
        let (pid, stat) = text.split_once('\n').unwrap();
        let fields: Vec<i32> = stat
            .rsplit(") ")
            .next()
            .unwrap()
            .split_whitespace()
            .skip(2)
            .take(2)
            .map(|field| field.parse().unwrap())
            .collect();
        (pid.parse::<i32>().unwrap(), fields[0], fields[1])
    };
    // SAFETY: they only return a number. rustix takes it for a pid, but in a
    // pid namespace entered from outside both are 0.
    let (our_group, our_session) = unsafe { (libc::getpgrp(), libc::getsid(0)) };
    let (_, group, session) = ids(ProcessGroup::Inherit);
    assert_eq!((group, session), (our_group, our_session));
    let (pid, group, session) = ids(ProcessGroup::NewGroup);
    assert_eq!((group, session), (pid, our_session));
    let (pid, group, session) = ids(ProcessGroup::NewSession);
    assert_eq!((group, session), (pid, pid));
}

#[test]
fn umask_nice_limits_and_score() {
    let stdio = Stdio::new();
    let script = "umask; cut -d' ' -f19 /proc/$$/stat; ulimit -Sn; ulimit -Hn; ulimit -Sc; \
                  cat /proc/$$/oom_score_adj";
    let text = stdio.output(script, |plan| {
        plan.umask = Some(0o027);
        plan.nice = Some(7);
        plan.oom_score_adj = Some(321);
        plan.limits = vec![
            (Resource::Nofile, Limit { soft: Some(55), hard: Some(66) }),
            (Resource::Core, Limit::both(Some(0))),
        ];
    });
    assert_eq!(text, "0027\n7\n55\n66\n0\n321\n");
    // None of it is ours.
    assert_ne!(fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim(), "321");
}

#[test]
fn cpus_of_its_own() {
    let allowed = cpus::allowed_cpus().unwrap();
    let last = *allowed.last().unwrap();
    let stdio = Stdio::new();
    let script = "grep Cpus_allowed_list /proc/$$/status | cut -f2";
    // One that is not there is passed over.
    let text = stdio.output(script, |plan| plan.cpus = vec![last, 8000]);
    assert_eq!(text, format!("{last}\n"));
    assert_eq!(cpus::allowed_cpus().unwrap(), allowed);
    stdio.check_failure(Stage::CpuAffinity, libc::EINVAL, |plan| plan.cpus = vec![8000]);
    stdio.check_failure(Stage::Plan, libc::EINVAL, |plan| plan.cpus = vec![MAX_CPUS]);
}

#[test]
fn another_user_without_our_groups() {
    if !is_root() {
        return;
    }
    let stdio = Stdio::new();
    let credentials = |groups: &[u32]| Credentials { uid: NOBODY, gid: 12345, groups: groups.to_vec() };
    for groups in [&[][..], &[7, 12345, 99]] {
        let status = stdio.output("cat /proc/$$/status", |plan| {
            plan.credentials = Some(credentials(groups));
        });
        assert_eq!(status_field(&status, "Uid"), "65534 65534 65534 65534");
        assert_eq!(status_field(&status, "Gid"), "12345 12345 12345 12345");
        let mut sorted = groups.to_vec();
        sorted.sort_unstable();
        let expected: Vec<String> = sorted.iter().map(u32::to_string).collect();
        assert_eq!(status_field(&status, "Groups"), expected.join(" "));
        assert_eq!(status_field(&status, "CapEff"), "0000000000000000");
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
    }
}

#[test]
fn what_the_new_user_may_not_is_refused() {
    if !is_root() {
        return;
    }
    let stdio = Stdio::new();
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    let program = open.join("program");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let nobody = Credentials { uid: NOBODY, gid: NOBODY, groups: vec![] };

    stdio.check_failure(Stage::Chdir, libc::EACCES, |plan| {
        plan.cwd = Some(open.clone());
        plan.credentials = Some(nobody.clone());
    });
    stdio.check_failure(Stage::Exec, libc::EACCES, |plan| {
        plan.program = Program::Path(program.clone());
        plan.credentials = Some(nobody.clone());
    });
}

#[test]
fn privileges_are_used_before_they_are_dropped() {
    let stdio = Stdio::new();
    let mut plan = stdio.shell("cut -d' ' -f19 /proc/$$/stat | grep -qx -- -3");
    plan.nice = Some(-3);
    let mut launcher = Launcher::new().unwrap();
    match launcher.spawn(&plan) {
        Ok(child) => assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(0)),
        Err(error) => {
            assert_eq!(error, SpawnError { stage: Stage::Nice, errno: libc::EACCES });
            eprintln!("skipped: needs CAP_SYS_NICE");
            return;
        }
    }
    plan.credentials = Some(Credentials { uid: NOBODY, gid: NOBODY, groups: vec![] });
    let child = launcher.spawn(&plan).unwrap();
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(0));
}

#[test]
fn each_stage_fails_by_its_name() {
    let stdio = Stdio::new();
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "no program\n").unwrap();

    stdio.check_failure(Stage::Plan, libc::EINVAL, |plan| plan.args.clear());
    stdio.check_failure(Stage::Plan, libc::EINVAL, |plan| plan.args.push("a\0b".into()));
    stdio.check_failure(Stage::Plan, libc::EINVAL, |plan| {
        plan.env.push(("NAME".into(), "a\0b".into()));
    });
    stdio.check_failure(Stage::Plan, libc::E2BIG, |plan| plan.fds = vec![plan.stdin; MAX_FDS + 1]);
    stdio.check_failure(Stage::Fds, libc::EBADF, |plan| {
        plan.limits = vec![(Resource::Nofile, Limit::both(Some(2)))];
    });
    stdio.check_failure(Stage::Introduce, libc::ENOTSOCK, |plan| plan.introduce = Some(plan.stdin));
    stdio.check_failure(Stage::OomScoreAdj, libc::EINVAL, |plan| plan.oom_score_adj = Some(5000));
    stdio.check_failure(Stage::Limits, libc::EINVAL, |plan| {
        let limit = Limit { soft: Some(2), hard: Some(1) };
        plan.limits = vec![(Resource::Core, limit)];
    });
    stdio.check_failure(Stage::Chdir, libc::ENOENT, |plan| plan.cwd = Some("/nonexistent".into()));
    stdio.check_failure(Stage::Chdir, libc::ENOTDIR, |plan| plan.cwd = Some(plain.clone()));
    stdio.check_failure(Stage::Exec, libc::ENOENT, |plan| {
        plan.program = Program::Path("/nonexistent".into());
    });
    stdio.check_failure(Stage::Exec, libc::EACCES, |plan| {
        plan.program = Program::Path(plain.clone());
    });
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    stdio.check_failure(Stage::Exec, libc::ENOEXEC, |plan| {
        plan.program = Program::Path(plain.clone());
    });

    let credentials = Credentials { uid: 1, gid: 1, groups: vec![1; 70_000] };
    let refused = if is_root() { libc::EINVAL } else { libc::EPERM };
    stdio.check_failure(Stage::Groups, refused, |plan| plan.credentials = Some(credentials));
    assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
}

#[test]
fn a_socket_that_nobody_empties_fails_the_spawn() {
    let stdio = Stdio::new();
    let (ours, theirs) = fdpass::seqpacket_pair().unwrap();
    let mut plan = stdio.shell("exit 0");
    plan.introduce = Some(theirs.as_fd());
    supervisor_sys::socket::set_nonblocking(&theirs, true).unwrap();
    while fdpass::send(&theirs, b"x", &[]).is_ok() {}
    supervisor_sys::socket::set_nonblocking(&theirs, false).unwrap();

    let mut launcher = Launcher::new().unwrap();
    let error = launcher.spawn(&plan).unwrap_err();
    assert_eq!(error, SpawnError { stage: Stage::Introduce, errno: libc::EAGAIN });
    drop(ours);
    // Children that other tests are just starting have a copy of it, for a moment.
    let mut errors = iter::repeat_with(|| launcher.spawn(&plan).unwrap_err()).take(10_000);
    let error = errors.find(|error| error.errno != libc::EAGAIN).unwrap();
    assert_eq!(error, SpawnError { stage: Stage::Introduce, errno: libc::ECONNRESET });
    // A launcher that has failed is as good as new.
    assert_eq!(stdio.output_by(&mut launcher, "echo fine", |_| {}), "fine\n");
}

#[test]
fn threads_may_open_files_meanwhile() {
    let stdio = Stdio::new();
    let stop = AtomicBool::new(false);
    let keep_opening = |inheritable: bool| {
        let mut rounds = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let files: Vec<OwnedFd> = (0..20).map(|i| named_file(&format!("{i}"))).collect();
            for (i, file) in files.into_iter().enumerate() {
                if inheritable {
                    fcntl_setfd(&file, FdFlags::empty()).unwrap();
                }
                // Still the file that was opened, whatever the child did with that number.
                let mut text = String::new();
                File::from(file).read_to_string(&mut text).unwrap();
                assert_eq!(text, i.to_string());
            }
            rounds += 1;
        }
        rounds
    };
    thread::scope(|scope| {
        let others = [scope.spawn(|| keep_opening(false)), scope.spawn(|| keep_opening(true))];
        let mut launcher = Launcher::new().unwrap();
        for i in 0..200 {
            let name = format!("<{i}>");
            let file = named_file(&name);
            let text = stdio.output_by(&mut launcher, "ls /proc/$$/fd; cat /proc/$$/fd/3", |plan| {
                plan.fds = vec![file.as_fd()];
            });
            assert_eq!(text, format!("0\n1\n2\n3\n{name}"));
            if i % 10 == 0 {
                stdio.failure(|plan| plan.cwd = Some("/nonexistent".into()));
            }
        }
        stop.store(true, Ordering::Relaxed);
        for other in others {
            assert!(other.join().unwrap() > 0);
        }
    });
}

#[test]
fn descriptors_are_shared_not_copied() {
    let stdio = Stdio::new();
    let file = named_file("shared");
    let inode = File::from(file.try_clone().unwrap()).metadata().unwrap().ino();
    let text = stdio.output("stat -L -c %i /proc/$$/fd/3; cat <&3", |plan| {
        plan.fds = vec![file.as_fd()];
    });
    assert_eq!(text, format!("{inode}\nshared"));
    let mut rest = String::new();
    File::from(file).read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the child has moved the common offset");
}

#[test]
fn the_launcher_keeps_nothing_open() {
    let stdio = Stdio::new();
    let mut launcher = Launcher::new().unwrap();
    for script in ["echo text", "/nonexistent/folder"] {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut plan = stdio.shell("echo text");
        plan.stdout = writer.as_fd();
        plan.cwd = script.starts_with('/').then(|| script.into());
        let child = launcher.spawn(&plan);
        drop(plan);
        drop(writer);
        let mut text = String::new();
        // The end comes once nobody has the pipe open.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.is_empty(), child.is_err());
        if let Ok(child) = child {
            assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(0));
        }
    }
}

#[test]
#[ignore = "the program of the test below"]
fn program_with_a_full_table() {
    let stdio = Stdio::new();
    let mut launcher = Launcher::new().unwrap();
    let file = null();
    let mut files = Vec::new();
    while let Ok(duplicate) = file.try_clone() {
        files.push(duplicate);
    }
    let error = launcher.spawn(&stdio.shell("exit 0")).unwrap_err();
    assert_eq!(error, SpawnError { stage: Stage::Process, errno: libc::EMFILE });
    // One number, for the pidfd, is enough.
    files.pop();
    let child = launcher.spawn(&stdio.shell("exit 7")).unwrap();
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(7));

    files.clear();
    while let Ok(duplicate) = fcntl_dupfd_cloexec(&file, 40) {
        files.push(File::from(duplicate));
    }
    let error = Launcher::new().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
}

#[test]
fn a_full_table_is_an_error() {
    let stdio = Stdio::new();
    stdio.output("unused", |plan| {
        plan.program = Program::Path(env::current_exe().unwrap());
        plan.args = strings(&["program", "--exact", "program_with_a_full_table", "--ignored"]);
        plan.limits = vec![(Resource::Nofile, Limit::both(Some(300)))];
    });
}
