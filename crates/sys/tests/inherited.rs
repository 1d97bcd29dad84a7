//! What a program finds that was started with descriptors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;

use supervisor_sys::inherited;
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::spawn::{Launcher, Plan, Program};

#[test]
#[ignore = "the program of the test below"]
fn program() {
    let texts: Vec<(i32, String)> = inherited::take()
        .unwrap()
        .into_iter()
        .map(|(number, fd)| {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            (number, text)
        })
        .collect();
    assert_eq!(texts, [(3, "first".to_owned()), (4, "second".to_owned())]);
    for (number, _) in texts {
        let path = format!("/proc/self/fd/{number}");
        assert!(fs::symlink_metadata(path).is_err(), "closed by now");
    }
    assert!(inherited::take().unwrap().is_empty());
}

#[test]
fn inherited_descriptors_are_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = folder.path().join(text);
        fs::write(&path, text).unwrap();
        File::open(path).unwrap()
    };
    let (first, second) = (file("first"), file("second"));
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();

    let program = Program::Path(env::current_exe().unwrap());
    let args = ["program", "--exact", "program", "--ignored"].map(Into::into).to_vec();
    let mut plan = Plan::new(program, args, [null.as_fd(); 3]);
    plan.fds = vec![first.as_fd(), second.as_fd()];
    let child = Launcher::new().unwrap().spawn(&plan).unwrap();
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(0));
}
