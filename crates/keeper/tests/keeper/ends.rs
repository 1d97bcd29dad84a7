//! Ends, of masters and of the keeper.

use std::io::Write;
use std::os::fd::AsFd;

use supervisor_protocol::keeper::{FdRole, FromKeeper, ToKeeper};
use supervisor_sys::pidfd;

use crate::daemon::{Daemon, Master};
use crate::wait::until_readable;

#[test]
fn a_finished_master_names_the_exit_code() {
    let mut daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    master.adopted();
    master.send(&ToKeeper::Finish { exit_code: 7 });
    drop(master);
    assert_eq!(daemon.exit_code(), 7);
}

#[test]
fn a_finished_master_that_stays_is_killed() {
    let mut daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    master.adopted();
    let pidfd = pidfd::open(master.pid).unwrap();
    master.send(&ToKeeper::Finish { exit_code: 0 });
    assert_eq!(daemon.exit_code(), 0);
    until_readable("the master has ended", pidfd);
}

#[test]
fn a_silent_master_is_replaced() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    master.adopted();
    let (next, _) = daemon.master_with_table();
    assert_ne!(next.pid, master.pid);
    daemon.until_logged("does not answer any more");
}

/// Kills masters that have not served until one is started in safe mode.
#[track_caller]
fn until_safe(daemon: &Daemon) -> Master {
    for _ in 0..20 {
        let (master, _) = daemon.master_with_table();
        if master.command_line().contains("--safe-mode") {
            return master;
        }
        master.send(&ToKeeper::Failed { text: "no luck".to_owned() });
        master.kill();
    }
    panic!("there is no safe mode");
}

#[test]
fn masters_that_never_serve_are_replaced_all_the_same() {
    let daemon = Daemon::start();
    let safe = until_safe(&daemon);
    let line = safe.command_line();
    assert!(
        line.contains("masters in a row ended before they served, the last one: SIGKILL: no luck"),
        "{line}"
    );
    assert!(line.contains("--leave-after 5"), "{line}");
    daemon.until_logged("safe mode: workers go on");
    // It may leave at any time; then there is another try, and safe mode again.
    safe.adopted();
    drop(safe);
    let (ordinary, _) = daemon.master_with_table();
    assert!(!ordinary.command_line().contains("--safe-mode"));
    ordinary.kill();
    let (safe, _) = daemon.master_with_table();
    assert!(safe.command_line().contains("--leave-after 10"), "{}", safe.command_line());
    drop(safe);
    // One that serves is replaced at once, however often.
    for _ in 0..5 {
        let (ordinary, _) = daemon.master_with_table();
        assert!(!ordinary.command_line().contains("--safe-mode"));
        ordinary.adopted();
        ordinary.kill();
    }
}

#[test]
fn output_is_drained_in_safe_mode() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    let (reader, mut writer) = std::io::pipe().unwrap();
    master.put("worker:1", b"", &[(FdRole::Drain, reader.as_fd())]);
    master.kill();
    let safe = until_safe(&daemon);
    safe.adopted();
    // More than a pipe holds: this ends only if somebody reads.
    writer.write_all(&[0; 300_000]).unwrap();
    drop(safe);
    let (ordinary, _) = daemon.master_with_table();
    ordinary.adopted();
    let (FromKeeper::Lost { key, bytes }, _) = ordinary.receive() else { panic!("nothing is lost") };
    // The rest may still be in the pipe.
    assert!(key == "worker:1" && (200_000..=300_000).contains(&bytes), "{key} {bytes}");
}

#[test]
fn what_finds_no_room_is_refused() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    master.adopted();
    // Without the descriptor that it speaks of.
    let roles = vec![FdRole::Hold];
    master.send(&ToKeeper::Put { key: "worker:7".to_owned(), record: Vec::new(), roles });
    assert_eq!(master.receive().0, FromKeeper::Refused { key: "worker:7".to_owned() });
}

#[test]
fn a_home_has_one_daemon() {
    let daemon = Daemon::start();
    let (_master, _) = daemon.master_with_table();
    assert!(!daemon.start_another().success());
    daemon.until_logged("another daemon runs in this home");
}
