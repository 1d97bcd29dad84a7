//! Output: the workers', and the keeper's own.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionread};
use supervisor_protocol::keeper::{FdRole, ToKeeper};
use supervisor_sys::signal::Signal;

use crate::daemon::Daemon;
use crate::wait::{until, until_readable};

fn waiting(pipe: &PipeReader) -> u64 {
    ioctl_fionread(pipe).unwrap()
}

#[test]
fn workers_output_is_drained_while_nobody_reads() {
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    let (mut reader, mut writer) = io::pipe().unwrap();
    let (held, mut held_writer) = io::pipe().unwrap();
    held_writer.write_all(b"not to be drained").unwrap();
    master.put("worker", b"", &[(FdRole::Drain, reader.as_fd()), (FdRole::Hold, held.as_fd())]);
    // Much more than a pipe holds: this ends only if somebody reads.
    writer.write_all(&[0; 10 << 16]).unwrap();
    until("all that fills the pipe is drained", || waiting(&reader) < 1 << 14);
    assert_eq!(waiting(&held), 17);
    daemon.until_logged("no master reads workers' output");

    let left = waiting(&reader);
    master.adopted();
    daemon.until_logged(&format!("{} bytes of it were thrown away", (10 << 16) - left));
    writer.write_all(b"for the master").unwrap();
    let mut bytes = vec![0; usize::try_from(left).unwrap() + 14];
    reader.read_exact(&mut bytes).unwrap();
    assert!(bytes.ends_with(b"for the master"));

    writer.write_all(&[0; 1 << 16]).unwrap();
    master.kill();
    until("drained again", || waiting(&reader) == 0);
}

#[test]
fn a_keeper_outlives_the_reader_of_its_lines() {
    let (reader, writer) = io::pipe().unwrap();
    let daemon = Daemon::start_with(|keeper| keeper.stderr(writer));
    let (mut master, _) = daemon.master_with_table();
    drop(reader);
    for _ in 0..3 {
        master.adopted();
        master.kill();
        (master, _) = daemon.master_with_table();
    }
}

#[test]
fn a_keeper_never_waits_for_the_reader_of_its_lines() {
    let (reader, writer) = io::pipe().unwrap();
    let full = writer.try_clone().unwrap();
    let daemon = Daemon::start_with(|keeper| keeper.stderr(writer));
    let (mut master, _) = daemon.master_with_table();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while rustix::io::write(&full, &[b'.'; 4096]).is_ok() {}
    // The keeper's descriptor is the same open file.
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    for _ in 0..3 {
        master.adopted();
        master.kill();
        (master, _) = daemon.master_with_table();
    }
    daemon.signal(Signal::HUP);
    master.expect_signal(Signal::HUP);
    drop(reader);
}

#[test]
fn the_service_manager_hears_the_keeper() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let daemon = Daemon::start_with(|keeper| keeper.env("NOTIFY_SOCKET", &path));
    let (master, _) = daemon.master_with_table();
    master.send(&ToKeeper::Notify { text: "READY=1\nSTATUS=2 apps".to_owned() });
    let mut text = [0; 64];
    until_readable("the words", &manager);
    let length = manager.recv(&mut text).unwrap();
    assert_eq!(&text[..length], b"READY=1\nSTATUS=2 apps");
    assert_eq!(master.run("echo ${NOTIFY_SOCKET-none}"), "none");
}

#[test]
fn a_master_inherits_its_link_and_nothing_else() {
    // What the keeper's starter left open goes no further.
    let (reader, _writer) = io::pipe().unwrap();
    fcntl_setfd(&reader, FdFlags::empty()).unwrap();
    let pipe = std::fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
    let pipe = pipe.to_str().unwrap();
    let daemon = Daemon::start();
    let (master, _) = daemon.master_with_table();
    let open = |pid: &str| master.run(&format!("readlink /proc/{pid}/fd/*"));
    assert!(open(&daemon.pid().as_raw_pid().to_string()).contains(pipe), "it is there to be inherited");
    assert!(!open("$PPID").contains(pipe));
}
