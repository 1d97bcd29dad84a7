//! A program, and its exit code.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use supervisor_core::WorkerId;
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::signal::Signal;
use supervisor_sys::spawn::{Plan, ProcessGroup, Program, resolve_program};
use supervisor_sys::{Pid, socket};
use tokio::io::unix::AsyncFd;

use crate::master::Master;
use crate::settings::Place;
use crate::words;

/// The last bytes of its output are kept.
const TAIL: usize = 1 << 10;
/// Bytes that are read at a time.
const CHUNK: usize = 4 << 10;
/// What is read of its output after its end, at most.
const LAST: usize = 64 << 10;

/// A check's program that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    pid: Pid,
    /// `None` once it is reaped.
    pidfd: Option<AsyncFd<OwnedFd>>,
    output: AsyncFd<OwnedFd>,
    tail: VecDeque<u8>,
}

impl Master {
    /// Starts a check's program as its worker was started.
    ///
    /// # Errors
    ///
    /// In words: the stage that failed and the cause.
    pub(super) fn start_check(&mut self, id: WorkerId, command: &[String]) -> Result<Running, String> {
        let worker = self.workers.get(id).ok_or("its process is gone")?;
        let (settings, slot) = (&worker.settings, worker.seat.slot);
        let app = &settings.app;
        let instances = self.registry.by_id(slot.app).map_or(0, |entry| entry.instances);
        let place = Place { slot: slot.index, instances, notify_socket: "", listeners: &[], channel: None };
        let mut env = settings.environment(&place);
        // It speaks for itself, and not for the worker.
        env.retain(|(name, _)| name != "NOTIFY_SOCKET");
        env.push(("SUPERVISOR_WORKER_PID".into(), worker.pid.to_string().into()));
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let name = command.first().ok_or("no command")?;
        let program =
            resolve_program(name.as_ref(), path, &app.cwd).map_err(|error| words::no_program(&error))?;

        let fail = |error: io::Error| format!("{name}: {}", words::errno(&error));
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fail(errno.into()))?;
        socket::set_nonblocking(&read, true).map_err(fail)?;
        let cgroup = worker.cgroup.as_ref().and_then(|cgroup| cgroup.open().ok());
        let plan = Plan {
            env,
            cwd: Some(app.cwd.clone()),
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            process_group: ProcessGroup::NewSession,
            credentials: settings.identity()?.map(|identity| identity.credentials.clone()),
            umask: app.umask,
            nice: app.nice,
            limits: settings.limits(self.open_files)?,
            oom_score_adj: app.oom_score_adj.or(self.oom_score_adj),
            ..Plan::new(
                Program::Path(program),
                command.iter().map(Into::into).collect(),
                [self.null.as_fd(), write.as_fd(), write.as_fd()],
            )
        };
        let child = self.launcher.spawn(&plan).map_err(|error| {
            let cause = words::errno(&io::Error::from_raw_os_error(error.errno));
            format!("{name}: {}: {cause}", error.stage)
        })?;
        let name =
            Path::new(name).file_name().map_or_else(|| name.clone(), |name| name.to_string_lossy().into());
        Running::new(name, child.pid, child.pidfd, read).map_err(fail)
    }
}

impl Running {
    /// Takes charge of a process that leads a group of its own, and whose output
    /// comes by that pipe, which does not block.
    pub(crate) fn new(name: String, pid: Pid, process: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        let watched = watch(output).and_then(|output| Ok((output, watch(process.try_clone()?)?)));
        match watched {
            Ok((output, pidfd)) => {
                Ok(Self { name, pid, pidfd: Some(pidfd), output, tail: VecDeque::with_capacity(TAIL) })
            }
            Err(error) => {
                // Nobody would see it end.
                let _ = pidfd::signal_group(pid, Signal::KILL);
                let _ = pidfd::wait(&process);
                Err(error)
            }
        }
    }

    /// Waits for its end.
    pub(super) async fn finish(self, limit: Duration) -> Result<(), String> {
        self.answer(limit).await.map(drop)
    }

    /// Waits for its end. Returns the last line that it wrote.
    pub(crate) async fn answer(mut self, limit: Duration) -> Result<Option<String>, String> {
        let how = match tokio::time::timeout(limit, self.exit()).await {
            Ok(Ok(Exit::Code(0))) => return Ok(self.last_line()),
            Ok(Ok(Exit::Code(code))) => format!("exit code {code}"),
            Ok(Ok(Exit::Signal { number, .. })) => format!("killed by {}", words::signal(number)),
            Ok(Err(error)) => words::errno(&error),
            Err(_) => format!("not done within {}", words::duration(limit)),
        };
        Err(match self.last_line() {
            Some(line) => format!("{}: {how}: {}", self.name, line.escape_debug()),
            None => format!("{}: {how}", self.name),
        })
    }

    async fn exit(&mut self) -> io::Result<Exit> {
        let Some(pidfd) = &self.pidfd else { return Err(io::ErrorKind::NotFound.into()) };
        let mut is_open = true;
        loop {
            tokio::select! {
                ended = pidfd.readable() => {
                    ended?.retain_ready();
                    break;
                }
                ready = self.output.readable(), if is_open => {
                    // Otherwise it was not ready after all.
                    if let Ok(read) = ready?.try_io(|output| read(output.get_ref(), &mut self.tail)) {
                        is_open = read.is_ok_and(|read| read > 0);
                    }
                }
            }
        }
        for _ in 0..LAST / CHUNK {
            if !read(self.output.get_ref(), &mut self.tail).is_ok_and(|read| read > 0) {
                break;
            }
        }
        // While it is not reaped, the group's number is its own.
        let _ = pidfd::signal_group(self.pid, Signal::KILL);
        let exit = pidfd::reap(pidfd.get_ref());
        self.pidfd = None;
        exit?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The last line that it wrote.
    fn last_line(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(self.tail.make_contiguous());
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(process) = self.pidfd.take() else { return };
        let _ = pidfd::signal_group(self.pid, Signal::KILL);
        // When the daemon ends, the keeper reaps it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = process.readable().await;
                let _ = pidfd::reap(process.get_ref());
            });
        }
    }
}

#[expect(
    deprecated,
    reason = "the successor is unsafe; an owned descriptor stays open for as long as it is watched"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}

/// Reads once, and keeps the end of all that was read.
fn read(output: &OwnedFd, tail: &mut VecDeque<u8>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let length = rustix::io::read(output, &mut chunk)?;
    let new = &chunk[length.saturating_sub(TAIL)..length];
    let old = TAIL - new.len();
    tail.drain(..tail.len().saturating_sub(old));
    tail.extend(new);
    Ok(length)
}
