//! What outlives a master.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::process::Resource::Nofile;
use rustix::process::{Rlimit, getpgid, getrlimit, prlimit};
use supervisor_protocol::keeper::{FdRole, FromKeeper, LOCK_KEY, Orphan, OrphanExit, ToKeeper};
use supervisor_sys::limits;
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, process};

use crate::daemon::{Daemon, Master, file, text};
use crate::programs::INITIAL;
use crate::wait::{eventually, until};

/// Entries that a daemon begins with: what it was given, and its lock.
const AT_START: usize = 2;
/// Entries of a thousand workers.
const MANY: usize = 1000;
const ROLES: [FdRole; 6] =
    [FdRole::Process, FdRole::Hold, FdRole::Drain, FdRole::Drain, FdRole::Hold, FdRole::Hold];

fn key(number: usize) -> String {
    format!("worker:{number:04}")
}

/// Stores an entry for each worker, with a descriptor that has its own text.
fn put_many(master: &Master) {
    let null = File::open("/dev/null").unwrap();
    for number in 0..MANY {
        let own = file(&key(number));
        let mut fds = ROLES.map(|role| (role, null.as_fd()));
        fds[1].1 = own.as_fd();
        master.put(&key(number), format!("record {number}").as_bytes(), &fds);
    }
}

#[test]
fn the_first_master_finds_what_the_keeper_was_started_with() {
    let daemon = Daemon::start();
    let (master, inheritance) = daemon.master_with_table();
    let nofile = limits::get(limits::Resource::Nofile);
    assert_eq!(inheritance.hello.keeper_pid, daemon.pid().as_raw_pid().unsigned_abs());
    assert_eq!((inheritance.hello.nofile_soft, inheritance.hello.nofile_hard), (nofile.soft, nofile.hard));
    let [initial, lock] = &inheritance.entries[..] else { panic!("{:?}", inheritance.entries) };
    assert_eq!((lock.key.as_str(), lock.fds.len()), (LOCK_KEY, 1));
    assert_eq!((initial.key.as_str(), &initial.roles[..]), (INITIAL, &[FdRole::Hold][..]));
    assert_eq!(text(&initial.fds[0]), INITIAL);
    assert!(inheritance.orphans.is_empty());
    assert_eq!(getpgid(Some(master.pid)), Ok(master.pid), "a process group of its own");
    assert_eq!(master.run("readlink /proc/$PPID/fd/0"), "/dev/null");
}

#[test]
fn a_thousand_entries_outlive_a_killed_master() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    put_many(&master);
    let new = file("new");
    master.put(&key(7), b"replaced", &[(FdRole::Hold, new.as_fd())]);
    master.send(&ToKeeper::Delete { key: key(8) });
    for key in [INITIAL, LOCK_KEY] {
        master.send(&ToKeeper::Delete { key: key.to_owned() });
    }
    master.adopted();
    master.kill();

    for _ in 0..2 {
        let (master, inheritance) = daemon.master_with_table();
        let numbers: Vec<usize> = (0..MANY).filter(|number| *number != 8).collect();
        assert_eq!(inheritance.entries.len(), numbers.len());
        for (entry, number) in inheritance.entries.iter().zip(numbers) {
            assert_eq!(entry.key, key(number));
            if number == 7 {
                assert_eq!((&entry.record[..], &entry.roles[..]), (&b"replaced"[..], &[FdRole::Hold][..]));
                assert_eq!(text(&entry.fds[0]), "new");
            } else {
                assert_eq!(entry.record, format!("record {number}").as_bytes());
                assert_eq!(entry.roles, ROLES);
                assert_eq!(text(&entry.fds[1]), entry.key);
            }
        }
        master.kill();
    }
}

#[test]
fn what_was_sent_counts_though_the_master_never_read() {
    // A socket's buffer has room for more.
    const SENT: usize = 200;
    let daemon = Daemon::start();
    let master = daemon.master();
    // The keeper hears of its end together with the messages, which are more
    // than it takes in two turns of its loop.
    daemon.signal(Signal::STOP);
    until("the keeper has stopped", || status(daemon.pid()).contains("State:\tT"));
    for number in 0..SENT {
        master.put(&key(number), b"", &[]);
    }
    let pid = master.pid;
    master.kill();
    until("the master has ended", || status(pid).contains("State:\tZ"));
    daemon.signal(Signal::CONT);
    let (_master, inheritance) = daemon.master_with_table();
    assert_eq!(inheritance.entries.len(), SENT + AT_START);
}

#[test]
fn a_master_that_does_not_read_stops_nothing() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    put_many(&master);
    master.adopted();
    master.kill();

    // It reads nothing of a table that is larger than the socket's buffer.
    let master = daemon.master();
    let orphan = Process::new(&daemon, &master);
    orphan.kill();
    until("the orphan is reaped", || !orphan.exists());
    daemon.signal(Signal::HUP);
    // Now nothing but its reading makes the keeper go on.
    master.adopted();
    let inheritance = master.inherit();
    assert_eq!(inheritance.entries.len(), MANY + AT_START);
    assert_eq!(inheritance.orphans, [orphan.ended(OrphanExit::Signal(9))]);
    master.expect_signal(Signal::HUP);
    // Neither comes again.
    daemon.signal(Signal::USR1);
    master.expect_signal(Signal::USR1);
}

#[test]
fn orphans_are_reaped_and_told_of_to_every_master() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    master.adopted();
    let killed = Process::new(&daemon, &master);
    killed.kill();
    let killed = killed.ended(OrphanExit::Signal(9));
    assert_eq!(master.receive().0, FromKeeper::Orphan(killed));
    let left = Process::new(&daemon, &master);
    left.leave();
    let left = left.ended(OrphanExit::Code(7));
    assert_eq!(master.receive().0, FromKeeper::Orphan(left));
    master.kill();
    let (_master, inheritance) = daemon.master_with_table();
    assert_eq!(inheritance.orphans, [killed, left]);
}

#[test]
fn nonsense_is_passed_over() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    for packet in [&b"\x01\xc8"[..], b"\x63\x03", b"x", &[0xff; 10_000]] {
        master.send_raw(packet);
    }
    // More roles than descriptors.
    let put = |key: &str, roles| ToKeeper::Put { key: key.to_owned(), record: Vec::new(), roles };
    master.send(&put("half", vec![FdRole::Hold; 2]));
    master.send(&put("whole", Vec::new()));
    master.kill();
    let (_master, inheritance) = daemon.master_with_table();
    let keys: Vec<&str> = inheritance.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, [INITIAL, LOCK_KEY, "whole"]);
    for line in ["unknown message 200", "version 99", "\"half\" is not stored: 0 of its 2 descriptors"] {
        assert!(daemon.log().contains(line), "{line}");
    }
}

#[test]
fn a_lack_of_descriptors_loses_one_entry_and_delays_the_master() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    let limit = |soft| {
        let hard = getrlimit(Nofile).maximum;
        prlimit(Some(daemon.pid()), Nofile, Rlimit { current: soft, maximum: hard }).unwrap()
    };
    let file = file("kept");
    master.put("kept", b"old", &[(FdRole::Hold, file.as_fd())]);
    master.send_raw(b"\x01\xc8");
    daemon.until_logged("unknown message 200");

    let former = limit(Some(3));
    for key in ["kept", "lost"] {
        master.put(key, b"new", &[(FdRole::Hold, file.as_fd()), (FdRole::Hold, file.as_fd())]);
        daemon.until_logged(&format!("{key:?} is not stored: 0 of its 2 descriptors have come"));
    }
    master.adopted();
    master.kill();
    daemon.until_logged("cannot start a master");
    limit(former.current);

    let (_master, inheritance) = daemon.master_with_table();
    let [_, kept, _] = &inheritance.entries[..] else { panic!("{:?}", inheritance.entries) };
    assert_eq!((kept.key.as_str(), &kept.record[..]), ("kept", &b"old"[..]));
    assert_eq!(text(&kept.fds[0]), "kept");
}

/// A process that has lost its parent, and waits to be continued or killed.
struct Process {
    pid: Pid,
    start_time: u64,
}

impl Process {
    fn new(daemon: &Daemon, master: &Master) -> Self {
        let script = r"sh -c 'kill -STOP $$; exit 7' >/dev/null 2>&1 & echo $!";
        let pid = Pid::from_raw(master.run(script).parse().unwrap()).unwrap();
        let parent = || process::process_table().unwrap().into_iter().find(|entry| entry.pid == pid)?.parent;
        until("it is an orphan", || parent() == Some(daemon.pid()));
        until("it has stopped", || status(pid).contains("State:\tT"));
        let start_time = eventually("its start time", || process::start_time(pid).ok());
        Self { pid, start_time }
    }

    fn kill(&self) {
        rustix::process::kill_process(self.pid, Signal::KILL.into()).unwrap();
    }

    fn leave(&self) {
        rustix::process::kill_process(self.pid, Signal::CONT.into()).unwrap();
    }

    fn exists(&self) -> bool {
        process::start_time(self.pid).is_ok_and(|start| start == self.start_time)
    }

    fn ended(&self, exit: OrphanExit) -> Orphan {
        Orphan { pid: self.pid.as_raw_pid().unsigned_abs(), start_time: self.start_time, exit }
    }
}

fn status(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default()
}
