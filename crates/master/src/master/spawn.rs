//! Starting workers, and what each of them is connected with: the thread that
//! writes its output, and the channel.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use supervisor_config::App;
use supervisor_core::{Generation, SeatId, WorkerId};
use supervisor_protocol::control::Stream;
use supervisor_sys::spawn::{Child, Launcher, Plan, ProcessGroup, Program, Stage, resolve_program};
use supervisor_sys::{Pid, fdpass, process, socket};

use super::Master;
use crate::cgroups::{Cgroups, WorkerCgroup};
use crate::channel::{Ends, Figures, Left, NewMember};
use crate::output::{NewStream, Source};
use crate::records::{Held, ProcessRecord, WorkerRecord};
use crate::settings::{Place, Settings, listener_name};
use crate::workers::Worker;
use crate::{fault, words};

impl Master {
    /// Starts a worker.
    ///
    /// The order of the steps makes a kill of this process at any of them safe:
    /// the keeper has the intent, with all that the child will hold, before the
    /// child exists; and the child introduces itself on a socket that the
    /// keeper has too.
    ///
    /// # Errors
    ///
    /// In words: the stage that failed and the cause.
    pub(super) fn spawn(&mut self, id: WorkerId, seat: SeatId, generation: Generation) -> Result<(), String> {
        self.lull.note();
        let slot = seat.slot;
        let entry = self.registry.by_id(slot.app).ok_or("its app is gone")?;
        let (settings, instances) = (Rc::clone(entry.settings_of(generation.0)), entry.instances);
        let app = &settings.app;
        self.listeners.open(seat, &settings, &self.link).map_err(|error| error.to_string())?;
        let identity = settings.identity()?;

        let (notify, notify_name) = socket::abstract_datagram().map_err(fail("notify socket"))?;
        let channel = app.channel.enabled.then(Ends::new).transpose().map_err(fail("channel"))?;
        let env = environment(&settings, (slot.index, instances), &notify_name, channel.as_ref())?;
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let (program, args) = app.command.split_first().ok_or("no command")?;
        let program =
            resolve_program(program.as_ref(), path, &app.cwd).map_err(|error| words::no_program(&error))?;

        let owner = identity.map(|identity| (identity.credentials.uid, identity.credentials.gid));
        let pipe = |stream| {
            let is_kept = !self.log_paths(&settings, stream, slot.index).is_empty();
            is_kept.then(|| Pipe::new(owner).map_err(fail("output pipe"))).transpose()
        };
        let out = pipe(Stream::Out)?;
        let error = pipe(Stream::Error)?;
        let (ours, theirs) = fdpass::seqpacket_pair().map_err(fail("introduction socket"))?;

        let mut record = WorkerRecord {
            app: app.name.clone(),
            slot: slot.index,
            generation: settings.generation,
            process: None,
            exit: None,
            fds: Vec::new(),
            cut_off: false,
        };
        let ends = [(Held::Out, &out), (Held::Error, &error)];
        let ends = ends.into_iter().filter_map(|(held, pipe)| Some((held, pipe.as_ref()?.read.as_fd())));
        let channel_end = channel.iter().map(|channel| (Held::Channel, channel.ours.as_fd()));
        let shared: Vec<_> = ends.chain([(Held::Notify, notify.as_fd())]).chain(channel_end).collect();
        let introduction = [(Held::Introduction, ours.as_fd()), (Held::Introducer, theirs.as_fd())];
        let stored = record.store(id, &[&introduction[..], &shared[..]].concat(), &self.link);
        stored.map_err(fail("keeper's copy"))?;

        let null = self.null.as_fd();
        let stdio = [
            null,
            out.as_ref().map_or(null, |pipe| pipe.write.as_fd()),
            error.as_ref().map_or(null, |pipe| pipe.write.as_fd()),
        ];
        let argv = std::iter::once(&app.command[0]).chain(args).map(Into::into).collect();
        let mut fds =
            self.listeners.hand_over(seat, &settings, &self.link).map_err(|error| error.to_string())?;
        fds.extend(channel.iter().map(|channel| channel.theirs.as_fd()));
        // Our ends outlive keeper and master in the worker: its writes neither fail nor signal it, its
        // channel stays open, and the next daemon finds all that has been written (`recovery`).
        fds.extend([&out, &error].into_iter().flatten().map(|pipe| pipe.read.as_fd()));
        fds.extend(channel.iter().map(|channel| channel.ours.as_fd()));
        let plan = Plan {
            env,
            listen_pid: !app.listen.is_empty(),
            cwd: Some(app.cwd.clone()),
            fds,
            introduce: Some(theirs.as_fd()),
            capture: self.captures && settings.wants_capture(),
            process_group: ProcessGroup::NewSession,
            credentials: identity.map(|identity| identity.credentials.clone()),
            umask: app.umask,
            nice: app.nice,
            cpus: settings.cpus(slot.index)?,
            limits: settings.limits(self.open_files)?,
            oom_score_adj: app.oom_score_adj.or(self.oom_score_adj),
            ..Plan::new(Program::Path(program.clone()), argv, stdio)
        };
        let (child, cgroup) =
            launch(plan, &program, (id, app), &mut self.launcher, &mut self.workers.cgroups)?;

        if let Some(errno) = child.uncaptured {
            let why = words::errno(&io::Error::from_raw_os_error(errno));
            tracing::error!("{}: its sockets are not captured, seccomp: {why}", self.place(slot));
        }
        // It has come before the program could make a call. What introduces the
        // child stays: a next master must find it until the keeper has its pid.
        let calls =
            fdpass::peek(&ours, &mut [0; 4]).ok().and_then(|received| received.fds.into_iter().next());
        // Its pid is reserved until it is reaped, so this is its own.
        let start_time = process::start_time(child.pid).unwrap_or(0);
        record.process = Some(ProcessRecord { pid: child.pid.as_raw_pid(), start_time });
        let pidfd = [(Held::Process, child.pidfd.as_fd())];
        let calls_too: Vec<_> = calls.iter().map(|calls| (Held::Calls, calls.as_fd())).collect();
        record.replace(id, &[&pidfd[..], &shared[..], &calls_too[..]].concat(), &self.link);
        drop(shared);
        drop(calls_too);

        let pipes = [(Stream::Out, out), (Stream::Error, error)];
        let pipes = pipes.into_iter().filter_map(|(stream, pipe)| Some((stream, pipe?.read))).collect();
        self.carry(id, slot.index, child.pid, &settings, pipes)?;
        let mut worker = Worker::new(Rc::clone(&settings), record, seat, child, cgroup, notify, calls);
        worker.channel = channel
            .map(|Ends { ours, theirs: _ }| self.connect(id, slot.index, &settings, ours, Left::default()));
        self.workers.add(id, worker, &self.poller).map_err(fail("epoll"))?;
        if settings.is_checked() {
            self.checks.add(id);
        }
        Ok(())
    }

    /// The files that a stream of a slot's workers goes to; none for one that is
    /// thrown away.
    fn log_paths(&self, settings: &Settings, stream: Stream, slot: u32) -> Vec<PathBuf> {
        let own = match stream {
            Stream::Out => settings.out_path(&self.log_dir, slot),
            Stream::Error => settings.error_path(&self.log_dir, slot),
        };
        let mut paths: Vec<PathBuf> = own.into_iter().chain(settings.combined_path(slot)).collect();
        paths.dedup();
        paths
    }

    /// Begins to carry a worker's output, and to look at what it uses.
    ///
    /// # Errors
    ///
    /// As [`Settings::access`].
    pub(crate) fn carry(
        &self,
        worker: WorkerId,
        slot: u32,
        pid: Pid,
        settings: &Settings,
        pipes: Vec<(Stream, OwnedFd)>,
    ) -> Result<(), String> {
        let access = settings.access()?;
        let name: Arc<str> = settings.app.name.as_str().into();
        let streams = pipes.into_iter().map(|(stream, pipe)| NewStream {
            source: Source {
                worker,
                app: Arc::clone(&name),
                slot,
                stream,
                pipe,
                paths: self.log_paths(settings, stream, slot).into_iter().map(Arc::from).collect(),
            },
            pid: pid.as_raw_pid().unsigned_abs(),
            generation: settings.generation,
            access: access.clone(),
            options: settings.app.logs.clone(),
            zone: settings.zone(),
        });
        self.output.add(streams.collect());
        self.sampler.add(worker, pid, settings.ceilings());
        Ok(())
    }

    /// Serves a worker's channel from now on.
    pub(crate) fn connect(
        &self,
        worker: WorkerId,
        slot: u32,
        settings: &Settings,
        socket: OwnedFd,
        left: Left,
    ) -> Arc<Figures> {
        let (app, generation) = (settings.app.name.as_str().into(), settings.generation);
        let new = NewMember { worker, app, slot, generation, socket, left };
        self.channel.join(new, &settings.app.channel)
    }
}

/// A worker's whole environment; `(slot, instances)` is where it stands.
fn environment(
    settings: &Settings,
    (slot, instances): (u32, u32),
    notify_name: &str,
    channel: Option<&Ends>,
) -> Result<Vec<(OsString, OsString)>, String> {
    let names: Vec<String> = settings.app.listen.iter().map(listener_name).collect();
    // It comes after the listeners.
    let channel = channel.map(|channel| channel.name(3 + names.len()));
    let channel = channel.transpose().map_err(fail("channel"))?;
    Ok(settings.environment(&Place {
        slot,
        instances,
        notify_socket: &format!("@{notify_name}"),
        listeners: &names,
        channel: channel.as_deref(),
    }))
}

/// Starts a child, in a cgroup of its own as long as workers get one.
///
/// # Errors
///
/// In words: the stage that failed and the cause.
fn launch(
    plan: Plan<'_>,
    program: &Path,
    (id, app): (WorkerId, &App),
    launcher: &mut Launcher,
    cgroups: &mut Cgroups,
) -> Result<(Child, Option<WorkerCgroup>), String> {
    let (mut cgroup, folder) = cgroups.make(&app.name, id, app.max_memory_hard).unzip();
    let mut plan = Plan { cgroup: folder.as_ref().map(AsFd::as_fd), ..plan };
    fault::step();
    let mut spawned = launcher.spawn(&plan);
    fault::step();
    if let Err(error) = &spawned
        && error.stage == Stage::Cgroup
    {
        cgroups.give_up(error, cgroup.take());
        plan.cgroup = None;
        spawned = launcher.spawn(&plan);
    }
    match spawned {
        Ok(child) => Ok((child, cgroup)),
        // The intent is deleted when the core announces the failure.
        Err(error) => {
            cgroups.remove(cgroup);
            let cause = words::lack(&io::Error::from_raw_os_error(error.errno));
            #[expect(clippy::wildcard_enum_match_arm, reason = "the other stages need no more")]
            Err(match error.stage {
                Stage::Exec => format!("exec {}: {cause}", program.display()),
                Stage::Chdir => format!("chdir {}: {cause}", app.cwd.display()),
                Stage::CpuAffinity => words::no_cpu(&plan.cpus),
                _ => format!("{}: {cause}", error.stage),
            })
        }
    }
}

/// A system call that failed, in words: what it was for, and the cause.
fn fail(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {}", words::lack(&error))
}

/// A worker's output pipe.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// It belongs to the worker's user, because programs open `/dev/stdout`.
    fn new(owner: Option<(u32, u32)>) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        socket::set_nonblocking(&read, true)?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            rustix::fs::fchown(&write, Some(uid), Some(gid))?;
        }
        Ok(Self { read, write })
    }
}
