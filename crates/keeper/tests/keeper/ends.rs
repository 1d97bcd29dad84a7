//! Ends, of masters and of the keeper.

use supervisor_protocol::keeper::ToKeeper;
use supervisor_sys::pidfd;

use crate::daemon::Daemon;
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

#[test]
fn masters_that_never_serve_are_replaced_all_the_same() {
    let daemon = Daemon::start();
    for _ in 0..5 {
        let (master, _) = daemon.master_with_table();
        master.kill();
    }
    daemon.master_with_table();
    assert!(daemon.log().contains("(SIGKILL); the next one starts in 100ms"), "{}", daemon.log());
}

#[test]
fn a_home_has_one_daemon() {
    let daemon = Daemon::start();
    let (_master, _) = daemon.master_with_table();
    assert!(!daemon.start_another().success());
    daemon.until_logged("another daemon runs in this home");
}
