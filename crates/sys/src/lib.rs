//! The kernel's side of the supervisor: everything that talks to Linux directly.
//!
//! This is the only crate with `unsafe` code. It knows nothing of apps, slots or policies: it offers
//! facts and acts (a child and its pidfd, a socket, a message with its fds) that the keeper and the
//! master put together.
//!
//! Three rules hold throughout:
//!
//! - Descriptors are [`OwnedFd`](std::os::fd::OwnedFd) or [`BorrowedFd`](std::os::fd::BorrowedFd), and
//!   close-on-exec from birth. What a child inherits is an explicit list.
//! - Nothing blocks unless its documentation says so.
//! - No call holds a lock, starts a thread or installs a signal handler.
//!
//! Where to look: [`spawn`] starts children, [`pidfd`] follows and ends them, [`inherited`] takes over
//! what a parent passed to us, [`poll`] waits, [`fdpass`] and [`socket`] move bytes and descriptors,
//! [`capture`] finishes a child's `bind` and `listen`, [`steering`] says which of several sockets gets a
//! connection, [`diag`] what sockets there are and what happens on them, [`process`] and [`cpus`] read
//! `/proc` and the cgroup, [`cgroup`] makes others below it, [`own`] and [`limits`] change the calling
//! process itself, [`file_rights`] lends a thread a user's, [`user`], [`lock`] and [`signal`] are what
//! their names say.

#![expect(unsafe_code, reason = "the one crate that may call the kernel without a safe wrapper")]
#![cfg_attr(any(test, feature = "fuzzing"), allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

#[cfg(not(target_os = "linux"))]
compile_error!("the supervisor runs on Linux only: it is built on pidfds, SO_REUSEPORT steering and seccomp");

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the supervisor is written and tested for x86-64 and arm64");

pub mod capture;
pub mod cgroup;
pub mod cpus;
pub mod diag;
pub mod fdpass;
pub mod file_rights;
pub mod inherited;
pub mod limits;
pub mod lock;
pub mod own;
pub mod pidfd;
pub mod poll;
pub mod process;
mod rights;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod steering;
pub mod user;

pub use rustix::process::Pid;
