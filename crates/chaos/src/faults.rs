//! What goes wrong: each function does one thing, and undoes it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::World;
use crate::apps::{App, DRAIN};
use crate::processes::{Number, Process, own, pid};
use crate::story::{Strike, Trouble, now};
use crate::upgrade;

/// How long the next master may take to answer.
const NEXT_MASTER: Duration = Duration::from_secs(30);

/// How soon output is written again when there is space.
const AGAIN: Duration = Duration::from_millis(2_500);

/// What a thread of its own does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillWorker,
    HangWorker,
    KillMaster,
    HangMaster,
    KillKeeper,
    HangKeeper,
    Upgrade,
    Forks,
    Descriptors,
    Disk,
    Flood,
    SlowClients,
}

impl Fault {
    /// How often each is chosen.
    const WEIGHTS: [(Self, u32); 12] = [
        (Self::KillWorker, 12),
        (Self::HangWorker, 5),
        (Self::KillMaster, 8),
        (Self::HangMaster, 3),
        (Self::KillKeeper, 4),
        (Self::HangKeeper, 2),
        (Self::Upgrade, 4),
        (Self::Forks, 2),
        (Self::Descriptors, 2),
        (Self::Disk, 2),
        (Self::Flood, 2),
        (Self::SlowClients, 2),
    ];

    /// One by chance.
    pub(crate) fn choose(rng: &mut Rng) -> Self {
        let all: u32 = Self::WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.u32(0..all);
        for (fault, weight) in Self::WEIGHTS {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return fault,
            }
        }
        Self::KillWorker
    }

    /// Whether it may begin while these are under way.
    pub(crate) fn may_begin(self, under_way: &BTreeSet<Self>) -> bool {
        match self {
            Self::KillWorker | Self::HangWorker | Self::SlowClients => true,
            // When both are gone at once, nobody starts the daemon again; an upgrade has a
            // moment without a master.
            Self::KillMaster | Self::HangMaster | Self::Upgrade => {
                !under_way.contains(&self) && !under_way.contains(&Self::KillKeeper)
            }
            Self::KillKeeper => ![self, Self::KillMaster, Self::HangMaster, Self::Upgrade]
                .iter()
                .any(|fault| under_way.contains(fault)),
            Self::HangKeeper | Self::Forks | Self::Descriptors | Self::Disk | Self::Flood => {
                !under_way.contains(&self)
            }
        }
    }
}

/// Does it.
pub(crate) fn inject(world: &World, fault: Fault, rng: &mut Rng) -> Result<()> {
    world.count(format!("fault: {fault:?}"));
    match fault {
        Fault::KillWorker => kill_worker(world, rng),
        Fault::HangWorker => hang_worker(world, rng),
        Fault::KillMaster => kill_master(world),
        Fault::HangMaster => hang_master(world, rng),
        Fault::KillKeeper => kill_keeper(world),
        Fault::HangKeeper => hang_keeper(world, rng),
        Fault::Upgrade => upgrade::carry_out(world, rng),
        Fault::Forks => no_forks(world, rng),
        Fault::Descriptors => no_descriptors(world, rng),
        Fault::Disk => no_space(world, rng),
        Fault::Flood => flood(world, rng),
        Fault::SlowClients => slow_clients(world, rng),
    }
}

/// The pids of keeper and master.
pub(crate) fn daemon(world: &World) -> Result<(Number, Number)> {
    let status = world.home.ask("/v1/status")?;
    let number = |field: &str| -> Result<Number> {
        Ok(status["daemon"][field].as_u64().with_context(|| format!("no {field} in {status}"))?.try_into()?)
    };
    Ok((number("keeper_pid")?, number("pid")?))
}

/// Any worker that has a process.
fn worker(world: &World, rng: &mut Rng) -> Result<Option<(&'static App, Process)>> {
    // Nobody answers while there is no master.
    let Ok(status) = world.home.ask("/v1/status") else { return Ok(None) };
    let apps = status["apps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all: Vec<(&'static App, Number)> = apps
        .iter()
        .filter_map(|app| Some((App::named(app["name"].as_str()?)?, app["workers"].as_array()?)))
        .flat_map(|(app, workers)| workers.iter().filter_map(move |worker| Some((app, pid_of(worker)?))))
        .collect();
    if all.is_empty() {
        return Ok(None);
    }
    let (app, number) = all.get(rng.usize(0..all.len())).copied().context("no worker")?;
    Ok(Process::open(number).ok().map(|process| (app, process)))
}

/// The pid of a worker in a status.
pub(crate) fn pid_of(worker: &Value) -> Option<Number> {
    worker["pid"].as_u64()?.try_into().ok()
}

/// Stops a worker. If it is `lost` what it has accepted is noted. `false`: it is gone.
fn stand_still(world: &World, app: &App, process: &Process, lost: bool) -> Result<bool> {
    if !process.stop() {
        return Ok(false);
    }
    if let Some(port) = app.port().filter(|_| lost) {
        let peers = process.accepted(port).inspect_err(|_| _ = process.signal(Signal::CONT))?;
        world.story.strike(Strike { at: now(), peers });
    }
    Ok(true)
}

fn kill_worker(world: &World, rng: &mut Rng) -> Result<()> {
    let Some((app, process)) = worker(world, rng)? else { return Ok(()) };
    let signal = match rng.u32(0..4) {
        // With several threads one takes the signal while another may still take a connection.
        0..2 if !process.has_one_thread() => Signal::KILL,
        0 => Signal::ABRT,
        1 => Signal::from_raw(11).context("SIGSEGV")?,
        _ => Signal::KILL,
    };
    let trouble = world.story.trouble(Trouble::Worker, Some(app.name));
    if stand_still(world, app, &process, true)? {
        world.story.tell(format_args!(
            "worker {} of {} gets signal {}",
            process.number,
            app.name,
            signal.as_raw()
        ));
        process.signal(signal);
        process.signal(Signal::CONT);
    }
    world.story.over(trouble);
    Ok(())
}

fn hang_worker(world: &World, rng: &mut Rng) -> Result<()> {
    let Some((app, process)) = worker(world, rng)? else { return Ok(()) };
    let pause = Duration::from_millis(if rng.u32(0..3) == 0 { 8_000 } else { rng.u64(50..1_500) });
    let trouble = world.story.trouble(Trouble::Worker, Some(app.name));
    // Whatever ends a worker that stands still waits for longer than the shorter ones.
    let is_long = pause > DRAIN;
    if stand_still(world, app, &process, is_long)? {
        world
            .story
            .tell(format_args!("worker {} of {} stands still for {pause:?}", process.number, app.name));
        let still = is_long.then(|| world.story.trouble(Trouble::Still, Some(app.name)));
        sleep(pause);
        process.signal(Signal::CONT);
        if let Some(still) = still {
            world.story.over(still);
        }
    }
    world.story.over(trouble);
    Ok(())
}

fn kill_master(world: &World) -> Result<()> {
    let Ok((_, master)) = daemon(world) else { return Ok(()) };
    let Ok(process) = Process::open(master) else { return Ok(()) };
    // When both are gone at once, nobody starts the daemon again.
    if world.story.was(Trouble::KeeperDeath, None, now(), now()) {
        return Ok(());
    }
    let trouble = world.story.trouble(Trouble::Master, None);
    world.story.tell(format_args!("the master {master} is killed"));
    process.signal(Signal::KILL);
    let next = until_answered(world, Some(master));
    world.story.over(trouble);
    world.story.tell(format_args!("the next master is {}", next?));
    Ok(())
}

fn hang_master(world: &World, rng: &mut Rng) -> Result<()> {
    let Ok((_, master)) = daemon(world) else { return Ok(()) };
    let pause = Duration::from_millis(if rng.u32(0..4) == 0 { 12_000 } else { rng.u64(50..3_000) });
    let Ok(process) = Process::open(master) else { return Ok(()) };
    let trouble = world.story.trouble(Trouble::Master, None);
    world.story.tell(format_args!("the master {master} stands still for {pause:?}"));
    process.signal(Signal::STOP);
    sleep(pause);
    process.signal(Signal::CONT);
    let next = until_answered(world, None);
    world.story.over(trouble);
    world.story.tell(format_args!("the master is {}", next?));
    Ok(())
}

/// Waits for an answer, of another master than this one.
fn until_answered(world: &World, other_than: Option<Number>) -> Result<Number> {
    let begin = Instant::now();
    while begin.elapsed() < NEXT_MASTER {
        match daemon(world) {
            Ok((_, master)) if Some(master) != other_than => return Ok(master),
            _ => sleep(Duration::from_millis(5)),
        }
    }
    bail!("no master answers for {NEXT_MASTER:?}");
}

/// Its master becomes the keeper, and starts another one.
fn kill_keeper(world: &World) -> Result<()> {
    let Ok((keeper, master)) = daemon(world) else { return Ok(()) };
    let Ok(process) = Process::open(keeper) else { return Ok(()) };
    let trouble = world.story.trouble(Trouble::KeeperDeath, None);
    world.story.tell(format_args!("the keeper {keeper} is killed, the master is {master}"));
    process.signal(Signal::KILL);
    let next = until_answered(world, Some(master));
    world.story.over(trouble);
    world.story.tell(format_args!("the next master is {}", next?));
    Ok(())
}

fn hang_keeper(world: &World, rng: &mut Rng) -> Result<()> {
    let Ok((keeper, _)) = daemon(world) else { return Ok(()) };
    let pause = Duration::from_millis(rng.u64(50..3_000));
    let Ok(process) = Process::open(keeper) else { return Ok(()) };
    let trouble = world.story.trouble(Trouble::Keeper, None);
    world.story.tell(format_args!("the keeper stands still for {pause:?}"));
    process.signal(Signal::STOP);
    sleep(pause);
    process.signal(Signal::CONT);
    world.story.over(trouble);
    Ok(())
}

/// Keeper and master get a cgroup in which there is room for nobody else.
fn no_forks(world: &World, rng: &mut Rng) -> Result<()> {
    let Some(hierarchy) = pids_hierarchy() else {
        world.count("not tried: forks (no cgroup of pids)".to_owned());
        return Ok(());
    };
    let Ok((keeper, master)) = daemon(world) else { return Ok(()) };
    let pause = Duration::from_millis(rng.u64(300..4_000));
    let cgroup = hierarchy.join(format!("supervisor-chaos-{}", std::process::id()));
    fs::create_dir(&cgroup)?;
    let trouble = world.story.trouble(Trouble::Forks, None);
    let held = hold(world, &hierarchy, &cgroup, [keeper, master], pause);
    fs::write(cgroup.join("pids.max"), "max")?;
    world.story.tell("forks are possible again");
    let begin = Instant::now();
    while fs::remove_dir(&cgroup).is_err() {
        for process in members(&cgroup) {
            let _ = fs::write(hierarchy.join("cgroup.procs"), process.to_string());
        }
        if begin.elapsed() > NEXT_MASTER {
            bail!("the cgroup {} does not become empty", cgroup.display());
        }
        sleep(Duration::from_millis(5));
    }
    // Masters that could not begin may have brought it into safe mode, which it leaves by itself.
    let begin = Instant::now();
    while begin.elapsed() < NEXT_MASTER && !world.is_over() && !is_ordinary(world) {
        sleep(Duration::from_millis(50));
    }
    world.story.over(trouble);
    held
}

/// Has room in a cgroup for none but these.
fn hold(
    world: &World,
    hierarchy: &Path,
    cgroup: &Path,
    processes: [Number; 2],
    pause: Duration,
) -> Result<()> {
    let begin = Instant::now();
    for process in processes {
        // It may be gone.
        let _ = fs::write(cgroup.join("cgroup.procs"), process.to_string());
    }
    let there = fs::read_to_string(cgroup.join("pids.current"))?;
    fs::write(cgroup.join("pids.max"), there.trim())?;
    world.story.tell(format_args!("nobody can fork for {pause:?}"));
    while begin.elapsed() < pause {
        // Somebody's end makes room, but workers have a right to threads.
        for process in members(cgroup) {
            let is_daemons =
                own(world.home.folder())?.iter().any(|own| own.number == process && own.app.is_none());
            if !is_daemons {
                let _ = fs::write(hierarchy.join("cgroup.procs"), process.to_string());
            }
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a master answers that is not in safe mode.
fn is_ordinary(world: &World) -> bool {
    world.home.ask("/v1/status").is_ok_and(|status| status["daemon"]["safe_mode"].is_null())
}

fn members(cgroup: &Path) -> Vec<Number> {
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    members.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Where cgroups limit the number of processes: the one that this process is in.
fn pids_hierarchy() -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let below = |wanted: &str, folder: &str| {
        let path = own.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(wanted))?;
        Some(root.join(folder).join(path.trim_start_matches('/')))
    };
    let found = below("pids:", "pids").or_else(|| below(":", ""))?;
    // It takes a child to see whether there is a limit.
    let probe = found.join(format!("supervisor-chaos-probe-{}", std::process::id()));
    fs::create_dir(&probe).ok()?;
    let is_limited = probe.join("pids.max").is_file();
    fs::remove_dir(&probe).ok()?;
    is_limited.then_some(found)
}

fn no_descriptors(world: &World, rng: &mut Rng) -> Result<()> {
    let Ok((_, master)) = daemon(world) else { return Ok(()) };
    let Ok(process) = Process::open(master) else { return Ok(()) };
    let Ok(open) = process.descriptors() else { return Ok(()) };
    let open: usize = open.values().sum();
    let left = rng.u64(0..12);
    let pause = Duration::from_millis(rng.u64(300..3_000));
    let trouble = world.story.trouble(Trouble::Descriptors, None);
    world.story.tell(format_args!("the master {master} has {left} descriptors left for {pause:?}"));
    let all = getrlimit(Resource::Nofile);
    let target = pid(master)?;
    let limit = |current: Option<u64>| prlimit(Some(target), Resource::Nofile, Rlimit { current, ..all });
    // It may be gone by now.
    if let Ok(before) = limit(Some(u64::try_from(open)? + left)) {
        sleep(pause);
        let _ = prlimit(Some(target), Resource::Nofile, before);
    }
    world.story.over(trouble);
    Ok(())
}

fn no_space(world: &World, rng: &mut Rng) -> Result<()> {
    let Some(disk) = world.home.disk() else {
        world.count("not tried: disk (tmpfs cannot be mounted)".to_owned());
        return Ok(());
    };
    let pause = Duration::from_millis(rng.u64(300..4_000));
    let filler = disk.join("filler");
    let file = fs::File::create(&filler)?;
    let trouble = world.story.trouble(Trouble::Disk, None);
    world.story.tell(format_args!("the disk is full for {pause:?}"));
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let mut length = file.metadata()?.len();
        while fallocate(&file, FallocateFlags::empty(), length, size).is_ok() {
            length += size;
        }
    }
    sleep(pause);
    fs::remove_file(filler)?;
    drop(file);
    // Writing is tried again each second.
    sleep(AGAIN);
    world.story.over(trouble);
    Ok(())
}

fn flood(world: &World, rng: &mut Rng) -> Result<()> {
    let messages = rng.u64(500..6_000);
    let trouble = world.story.trouble(Trouble::Flood, None);
    world.story.tell(format_args!("a worker of channel sends {messages} long messages"));
    let output = world.home.run(&["send", "channel:0", &format!("{{\"flood\":{messages}}}")])?;
    world.story.tell(format_args!("`send` {}", output.status));
    sleep(Duration::from_secs(2));
    world.story.over(trouble);
    Ok(())
}

/// Clients of the control socket that ask for much and read nothing, or never end their question.
fn slow_clients(world: &World, rng: &mut Rng) -> Result<()> {
    const QUESTIONS: [&str; 4] = [
        "GET /v1/events HTTP/1.1\r\nHost: chaos\r\n\r\n",
        "GET /v1/logs?selector=all&lines=10000&follow=true HTTP/1.1\r\nHost: chaos\r\n\r\n",
        "GET /v1/channel?selector=channel HTTP/1.1\r\nHost: chaos\r\n\r\n",
        "POST /v1/stop HTTP/1.1\r\nHost: chaos\r\nContent-Length: 1000\r\n\r\n{",
    ];
    let clients = rng.usize(4..30);
    let pause = Duration::from_millis(rng.u64(1_000..8_000));
    world.story.tell(format_args!("{clients} clients of the control socket do not read for {pause:?}"));
    let ask = |question: &&str| -> Result<UnixStream> {
        let mut stream = world.home.connect()?;
        stream.write_all(question.as_bytes())?;
        Ok(stream)
    };
    // Without a master there is nobody to ask.
    let open: Vec<_> =
        QUESTIONS.iter().cycle().take(clients).filter_map(|question| ask(question).ok()).collect();
    sleep(pause);
    drop(open);
    Ok(())
}
