//! What a spawn costs the parent, by the number of its open files: `spawn_cost [ROUNDS]`.
//!
//! Prints medians in microseconds of [`Launcher::spawn`] (until it returns, and until the child has
//! been reaped) with eight descriptors for the child, beside those of the standard library's `Command`
//! (which is `posix_spawn(3)` here) with three.

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use supervisor_sys::limits::raise_nofile;
use supervisor_sys::pidfd;
use supervisor_sys::spawn::{Launcher, Plan, Program};

fn main() -> io::Result<()> {
    let rounds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(500);
    raise_nofile(0)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut launcher = Launcher::new()?;
    let mut open: Vec<OwnedFd> = Vec::new();
    for wanted in [10, 1_000, 8_000] {
        while open.len() < wanted {
            open.push(null.try_clone()?.into());
        }
        let program = Program::Path(PathBuf::from("/bin/true"));
        let mut plan = Plan::new(program, vec!["true".into()], [null.as_fd(); 3]);
        plan.fds = vec![null.as_fd(); 5];

        let (mut ours, mut ours_whole, mut std, mut std_whole) = (vec![], vec![], vec![], vec![]);
        for _ in 0..rounds {
            let start = Instant::now();
            let child = launcher.spawn(&plan).map_err(io::Error::other)?;
            ours.push(start.elapsed());
            pidfd::wait(&child.pidfd)?;
            ours_whole.push(start.elapsed());

            let start = Instant::now();
            let mut child = Command::new("/bin/true").stdin(Stdio::null()).spawn()?;
            std.push(start.elapsed());
            child.wait()?;
            std_whole.push(start.elapsed());
        }
        println!(
            "{wanted:5} open files: launcher {:7.1} (reaped {:7.1}), Command {:7.1} (reaped {:7.1})",
            median(ours),
            median(ours_whole),
            median(std),
            median(std_whole),
        );
    }
    Ok(())
}

fn median(mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    let middle = samples.get(samples.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1e6
}
