//! The programs that the tests run: this very file as a keeper, which runs it
//! as its masters.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use supervisor_keeper::{MASTER_FD, Options};
use supervisor_sys::{fdpass, inherited};

/// The variable with the folder of a test's daemon.
pub(crate) const FOLDER: &str = "KEEPER_TEST_FOLDER";
/// What the first master finds: its key and its text.
pub(crate) const INITIAL: &str = "initial";

/// The arguments of a program below.
pub(crate) fn arguments(program: &str) -> [String; 5] {
    let name = format!("programs::{program}");
    [
        "--exact".to_owned(),
        name,
        "--ignored".to_owned(),
        "--nocapture".to_owned(),
        "--test-threads=1".to_owned(),
    ]
}

/// The folder of the test; `None` when nobody has started us as a program.
fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

#[test]
#[ignore = "a program of the other tests"]
#[expect(clippy::exit, reason = "a keeper's exit code is part of what is tested")]
fn keeper() {
    let Some(folder) = folder() else { return };
    let initial = folder.join(INITIAL);
    std::fs::write(&initial, INITIAL).unwrap();
    let initial = File::open(initial).unwrap();
    let options = Options {
        lock: folder.join("lock"),
        master: ["master".to_owned()].into_iter().chain(arguments("master")).map(Into::into).collect(),
        initial: vec![(INITIAL.to_owned(), initial.into())],
        keeper: ["keeper".to_owned()].into_iter().chain(arguments("keeper")).map(Into::into).collect(),
        state: None,
    };
    match supervisor_keeper::run(options) {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => panic!("{error}"),
    }
}

/// Gives its link with the keeper to the test, and then runs shell commands for
/// it until the test has closed the connection.
#[test]
#[ignore = "a program of the other tests"]
fn master() {
    let Some(folder) = folder() else { return };
    let link = inherited::take().unwrap().remove(&MASTER_FD).unwrap();
    let mut test = UnixStream::connect(folder.join("masters")).unwrap();
    fdpass::send(&test, &std::process::id().to_ne_bytes(), &[link.as_fd()]).unwrap();
    drop(link);
    for command in BufReader::new(test.try_clone().unwrap()).lines() {
        let output = Command::new("sh").arg("-c").arg(command.unwrap()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        writeln!(test, "{}", text.trim().replace('\n', " ")).unwrap();
    }
}
