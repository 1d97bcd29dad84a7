//! Signals, and who obeys them.

use std::os::fd::AsFd;

use supervisor_protocol::keeper::FdRole;
use supervisor_sys::signal::Signal;
use supervisor_sys::{Pid, pidfd};

use crate::daemon::Daemon;
use crate::wait::{eventually, until_readable};

#[test]
fn a_master_that_serves_gets_every_signal() {
    let mut daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    master.adopted();
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::INT, Signal::TERM, Signal::TERM] {
        daemon.signal(signal);
        master.expect_signal(signal);
    }
    daemon.signal(Signal::QUIT);
    master.expect_signal(Signal::TERM);
    // This one means nothing and must not end the keeper either.
    daemon.signal(Signal::PIPE);
    daemon.signal(Signal::HUP);
    master.expect_signal(Signal::HUP);
    assert_eq!(daemon.try_exit_code(), None);
}

#[test]
fn a_request_to_end_outlives_the_masters_that_got_it() {
    let daemon = Daemon::start();
    let (mut master, _) = daemon.master_with_table();
    master.adopted();
    daemon.signal(Signal::INT);
    master.expect_signal(Signal::INT);
    for _ in 0..2 {
        master.kill();
        (master, _) = daemon.master_with_table();
        master.expect_signal(Signal::TERM);
    }
}

#[test]
fn asked_again_while_no_master_serves_it_kills_the_workers() {
    let mut daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    let pid = master.run("sleep 1000 >/dev/null 2>&1 & echo $!").parse().unwrap();
    let worker = pidfd::open(Pid::from_raw(pid).unwrap()).unwrap();
    master.put("worker", b"", &[(FdRole::Process, worker.as_fd())]);
    daemon.signal(Signal::TERM);
    master.expect_signal(Signal::TERM);
    // Requests within a second of the first are its echo.
    let code = eventually("the keeper ends", || {
        let code = daemon.try_exit_code();
        if code.is_none() {
            daemon.signal(Signal::TERM);
        }
        code
    });
    assert_eq!(code, 1);
    until_readable("the worker's end", &worker);
    daemon.until_logged("asked again to end, and no master serves: killing all workers");
}
