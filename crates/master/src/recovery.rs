//! Finding the workers of a daemon whose keeper and master have died together.
//!
//! The ledger names them. One is taken over when the machine has not been booted
//! since, and the process with its pid is the one that was started then. Its
//! sockets and our end of its channel are copied from it, its output pipes
//! opened again, its notify socket bound to the same name. What only keeper and
//! master had is lost, and named: queues of sockets that no worker has, where
//! its calls come, a channel in the middle of a long line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, fstat, memfd_create};
use rustix::net::{Shutdown, shutdown};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::process::{Nameless, nameless, open_pipe};
use supervisor_sys::{Pid, capture, pidfd, process, socket};

use crate::LEDGER_FILE;
use crate::control::to_json;
use crate::family::Processes;
use crate::ledger::{Header, Line, Trace};
use crate::records::{self, Held, ProcessRecord, WorkerRecord};

/// The largest file that is read, bytes.
const MAX_FILE: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) entries: Vec<Found>,
    /// For people: who goes on, and what is lost.
    pub(crate) notices: Vec<String>,
}

/// An entry of the table that was lost.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) record: Vec<u8>,
    pub(crate) fds: Vec<(FdRole, OwnedFd)>,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("there is none")]
    Missing,
    #[error("the machine has been booted since")]
    OtherBoot,
    #[error("it was written in another pid namespace")]
    OtherNamespace,
    #[error("it is of another version")]
    OtherVersion,
    #[error("another user could have written it")]
    Strange,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("line {number} is damaged")]
    Damaged {
        number: usize,
        /// What the lines before it say.
        lines: BTreeMap<String, Line>,
    },
}

/// A worker that a daemon which has died has left.
#[derive(Debug)]
pub struct Orphan {
    /// Its pidfd.
    pub process: OwnedFd,
    /// Those of its descendants, and of what is left of its session.
    pub family: Vec<OwnedFd>,
}

/// The workers of a daemon which has died, by what it left in this runtime
/// folder: those that certainly are its own.
#[must_use]
pub fn orphans(runtime_dir: &Path) -> Vec<Orphan> {
    let lines = match read(&runtime_dir.join(LEDGER_FILE)) {
        Ok(lines) | Err(Unusable::Damaged { lines, .. }) => lines,
        Err(_) => return Vec::new(),
    };
    let known = lines.values().filter_map(worker).filter_map(|worker| worker.process);
    let held: Vec<_> = known.filter_map(|meant| Some((Pid::from_raw(meant.pid)?, hold(&meant)?))).collect();
    // As long as they are held they keep their numbers, if they are no zombies.
    let processes = Processes::look().ok();
    let family = |pid: Pid| {
        let all = processes.iter().flat_map(|all| all.family(pid)).filter(|one| *one != pid);
        all.filter_map(|one| pidfd::open(one).ok()).collect()
    };
    held.into_iter().map(|(pid, process)| Orphan { process, family: family(pid) }).collect()
}

/// Forgets the workers of a daemon that has died.
pub fn forget_orphans(runtime_dir: &Path) {
    let _ = fs::remove_file(runtime_dir.join(LEDGER_FILE));
}

/// Finds what can be found again, by the ledger in this folder.
pub(crate) fn recover(runtime_dir: &Path) -> Recovered {
    let path = runtime_dir.join(LEDGER_FILE);
    match read(&path) {
        Ok(lines) => find(&lines),
        Err(Unusable::Missing) => Recovered::default(),
        Err(error @ (Unusable::OtherBoot | Unusable::OtherNamespace)) => {
            // None of its workers can be here.
            tracing::info!("{} is of no use: {error}", path.display());
            Recovered::default()
        }
        Err(error) => {
            let mut notices = vec![format!(
                "the workers of the daemon before cannot be taken over: {}: {error}",
                path.display()
            )];
            if let Unusable::Damaged { lines, .. } = &error {
                notices.extend(unsupervised(lines));
            }
            // For whoever wants to look at it; the next one is written in its place.
            let _ = fs::rename(&path, path.with_extension("damaged"));
            Recovered { entries: Vec::new(), notices }
        }
    }
}

/// Names the workers that run, though nobody looks after them.
fn unsupervised(lines: &BTreeMap<String, Line>) -> Option<String> {
    let running =
        lines.values().filter_map(worker).filter(|worker| worker.process.as_ref().is_some_and(runs));
    let names: Vec<String> = running.map(|worker| name(&worker)).collect();
    (!names.is_empty()).then(|| format!("these run on, and nobody looks after them: {}", names.join(", ")))
}

/// Reads a file: the last line about each key.
fn read(path: &Path) -> Result<BTreeMap<String, Line>, Unusable> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
        file => file?,
    };
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(Unusable::Strange);
    }
    let mut reader = BufReader::new(file.take(MAX_FILE));
    let mut text = Vec::new();
    reader.read_until(b'\n', &mut text)?;
    let damaged = |number, lines| Unusable::Damaged { number, lines };
    let header: Header = serde_json::from_slice(&text).map_err(|_| damaged(1, BTreeMap::new()))?;
    let now = Header::now()?;
    if header.version != now.version {
        return Err(Unusable::OtherVersion);
    } else if header.boot != now.boot {
        return Err(Unusable::OtherBoot);
    } else if header.pid_namespace != now.pid_namespace {
        return Err(Unusable::OtherNamespace);
    }
    let mut lines = BTreeMap::new();
    for number in 2.. {
        text.clear();
        // One that was being written is not there yet.
        if reader.read_until(b'\n', &mut text)? == 0 || !text.ends_with(b"\n") {
            break;
        }
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) if line.record.is_some() => _ = lines.insert(line.key.clone(), line),
            Ok(line) => _ = lines.remove(&line.key),
            Err(_) => return Err(damaged(number, lines)),
        }
    }
    Ok(lines)
}

/// The worker that a line is about, if it is about one with a process.
fn worker(line: &Line) -> Option<WorkerRecord> {
    line.key.strip_prefix(records::WORKER)?;
    let record: WorkerRecord = records::read(line.record.as_ref()?.as_bytes()).ok()?;
    (record.process.is_some() && record.exit.is_none()).then_some(record)
}

/// Holds a process, if it is the one that is meant.
fn hold(meant: &ProcessRecord) -> Option<OwnedFd> {
    let pid = Pid::from_raw(meant.pid)?;
    let pidfd = pidfd::open(pid).ok()?;
    (meant.start_time != 0 && process::start_time(pid).ok()? == meant.start_time).then_some(pidfd)
}

fn runs(meant: &ProcessRecord) -> bool {
    hold(meant).is_some()
}

/// `web:0 (pid 7)`
fn name(worker: &WorkerRecord) -> String {
    let pid = worker.process.map_or(0, |process| process.pid);
    format!("{}:{} (pid {pid})", worker.app, worker.slot)
}

/// Finds what lines speak of.
fn find(lines: &BTreeMap<String, Line>) -> Recovered {
    let workers: BTreeMap<&str, (WorkerRecord, OwnedFd)> = lines
        .iter()
        .filter_map(|(key, line)| {
            let worker = worker(line)?;
            let pidfd = hold(&worker.process?)?;
            Some((key.as_str(), (worker, pidfd)))
        })
        .collect();
    if workers.is_empty() {
        // Nothing has outlived them: what is declared is begun with.
        return Recovered::default();
    }
    let places = Places::of(workers.values().map(|(worker, _)| worker));
    let mut recovered = Recovered::default();
    recovered.notices.push(format!(
        "keeper and master of the daemon before have died; {} of its workers go on",
        workers.len()
    ));
    // Whose channel goes on, by its id.
    let mut served = BTreeSet::new();
    for (key, (worker, pidfd)) in workers {
        let (Some(line), Some(id)) = (lines.get(key), key.strip_prefix(records::WORKER)) else { continue };
        let in_a_line = lines.contains_key(&format!("{}{id}", records::LINE));
        let (found, lost) = find_worker(key, worker, pidfd, (&line.fds, in_a_line), &places);
        if found.has_channel {
            served.insert(id);
        }
        recovered.entries.push(found.entry);
        recovered.notices.extend(lost);
    }
    for (key, line) in lines {
        let of_channel = [records::CHANNEL, records::TOPICS].iter().find_map(|kind| key.strip_prefix(kind));
        let is_over = of_channel.is_some_and(|id| !served.contains(id));
        if is_over || [records::WORKER, records::LINE].iter().any(|kind| key.starts_with(kind)) {
            continue;
        }
        match find_entry(key, line, &places) {
            Some(found) => recovered.entries.push(found),
            None => tracing::warn!("{key}: it is lost, with what waited there"),
        }
    }
    recovered
}

/// A worker's entry.
struct FoundWorker {
    entry: Found,
    has_channel: bool,
}

/// Finds the descriptors of a worker, and says what of it is lost. `in_a_line`
/// says whether a long line to it had begun, whose rest is lost.
fn find_worker(
    key: &str,
    mut worker: WorkerRecord,
    pidfd: OwnedFd,
    (traces, in_a_line): (&[Trace], bool),
    places: &Places,
) -> (FoundWorker, Option<String>) {
    let held = std::mem::take(&mut worker.fds);
    let (mut fds, mut lost) = (vec![(Held::Process, pidfd)], Vec::new());
    for (held, trace) in held.iter().copied().zip(traces) {
        let found = match (held, trace) {
            (Held::Process | Held::Introduction | Held::Introducer | Held::Unknown, _) => continue,
            // Its messages go nowhere then, but it can be followed.
            (Held::Notify, trace) => places.find(trace).or_else(|| Some(socket::abstract_datagram().ok()?.0)),
            // Only who had the other end could have kept it.
            (Held::Calls, _) => None,
            // What came next would be taken for the rest of the line.
            (Held::Channel, trace) if in_a_line => {
                let _ = places.find(trace).map(|socket| shutdown(socket, Shutdown::Both));
                None
            }
            (Held::Out | Held::Error | Held::Channel, trace) => places.find(trace),
        };
        match found {
            Some(fd) => fds.push((held, fd)),
            None => lost.push(match held {
                Held::Out => "its standard output",
                Held::Error => "its standard error",
                Held::Channel => "its channel",
                Held::Calls => "the addresses that it binds from now on (they fail with ENOSYS)",
                Held::Process | Held::Notify | Held::Introduction | Held::Introducer | Held::Unknown => {
                    continue;
                }
            }),
        }
    }
    let notice = (!lost.is_empty()).then(|| format!("{}: lost: {}", name(&worker), lost.join(", ")));
    worker.cut_off |= held.contains(&Held::Calls);
    worker.fds = fds.iter().map(|(held, _)| *held).collect();
    let record = to_json(&worker);
    let fds = fds.into_iter().map(|(held, fd)| (held.role(), fd)).collect();
    let entry = Found { key: key.to_owned(), record, fds };
    (FoundWorker { entry, has_channel: worker.fds.contains(&Held::Channel) }, notice)
}

/// Finds another entry; `None` when a descriptor is lost.
fn find_entry(key: &str, line: &Line, places: &Places) -> Option<Found> {
    let fds = line.fds.iter().map(|trace| Some((FdRole::Hold, places.find(trace)?)));
    let record = line.record.clone()?.into_bytes();
    Some(Found { key: key.to_owned(), record, fds: fds.collect::<Option<_>>()? })
}

/// Which process has which socket or pipe.
#[derive(Debug)]
struct Places(HashMap<Nameless, (Pid, RawFd)>);

impl Places {
    /// Those of these workers and their descendants.
    fn of<'w>(workers: impl Iterator<Item = &'w WorkerRecord>) -> Self {
        let processes = Processes::look().ok();
        let mut places = HashMap::new();
        for leader in workers.filter_map(|worker| Pid::from_raw(worker.process?.pid)) {
            let family = processes.iter().flat_map(|all| all.family(leader));
            for pid in family {
                let open = nameless(pid).unwrap_or_default();
                places.extend(open.into_iter().map(|(fd, file)| (file, (pid, fd))));
            }
        }
        Self(places)
    }

    fn find(&self, trace: &Trace) -> Option<OwnedFd> {
        match trace {
            Trace::Contents(text) => memory_file(text).ok(),
            Trace::Name(name) => socket::abstract_datagram_named(name).ok(),
            Trace::Socket(inode) => {
                let (pid, fd) = *self.0.get(&Nameless::Socket(*inode))?;
                let socket = capture::copy_descriptor(pidfd::open(pid).ok()?, fd).ok()?;
                is_file(&socket, *inode).then_some(socket)
            }
            Trace::Pipe(inode) => {
                let (pid, fd) = *self.0.get(&Nameless::Pipe(*inode))?;
                let pipe = open_pipe(pid, fd).ok()?;
                is_file(&pipe, *inode).then_some(pipe)
            }
            Trace::Process | Trace::Lost => None,
        }
    }
}

/// Whether it is still the one that was seen there.
fn is_file(fd: &OwnedFd, inode: u64) -> bool {
    fstat(fd).is_ok_and(|found| found.st_ino == inode)
}

fn memory_file(text: &str) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("record", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::os::fd::AsFd;

    use super::*;
    use crate::ledger::Ledger;
    use crate::mirror::Mirror;

    fn header() -> Vec<u8> {
        [to_json(&Header::now().unwrap()), b"\n".to_vec()].concat()
    }

    fn read_text(text: &[u8]) -> Result<BTreeMap<String, Line>, Unusable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER_FILE);
        File::options().write(true).create(true).mode(0o600).truncate(true).open(&path).unwrap();
        fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn the_last_line_about_a_key_counts() {
        let lines = [
            r#"{"key":"ids","record":"1"}"#,
            r#"{"key":"told:1","record":""}"#,
            r#"{"key":"ids","record":"2","fds":["lost"]}"#,
            r#"{"key":"told:1"}"#,
            r#"{"key":"app:one","rec"#,
        ];
        let text = [header(), lines.join("\n").into_bytes()].concat();
        let lines = read_text(&text).unwrap();
        assert_eq!(lines.keys().collect::<Vec<_>>(), ["ids"]);
        assert_eq!(lines["ids"].record.as_deref(), Some("2"));
        assert_eq!(lines["ids"].fds, [Trace::Lost]);
    }

    #[test]
    fn files_that_say_nothing() {
        let first = String::from_utf8(header()).unwrap();
        let boot = process::boot_id().unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(read_text(text.as_bytes()).unwrap_err().to_string(), expected, "{text:?}");
        };
        check("", "line 1 is damaged");
        check("nonsense\n", "line 1 is damaged");
        check(&first.replace("\"version\":1", "\"version\":2"), "it is of another version");
        check(&first.replace(&boot, "another"), "the machine has been booted since");
        check(
            &first.replace("pid_namespace\":", "pid_namespace\":1"),
            "it was written in another pid namespace",
        );
        check(&format!("{first}{{}}\n"), "line 2 is damaged");
        check(&format!("{first}\u{0}\n"), "line 2 is damaged");
        assert!(matches!(read(Path::new("/nonexistent/ledger")), Err(Unusable::Missing)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER_FILE);
        fs::write(&path, &first).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(matches!(read(&path), Err(Unusable::Strange)));
    }

    #[test]
    fn what_a_ledger_says_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER_FILE);
        let mirror = Mirror::new();
        let own = rustix::process::getpid();
        let start_time = process::start_time(own).unwrap();
        let (output, mut writer) = pipe().unwrap();
        let (notify, notify_name) = socket::abstract_datagram().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let record = WorkerRecord {
            app: "web".to_owned(),
            slot: 0,
            generation: 1,
            process: Some(ProcessRecord { pid: own.as_raw_pid(), start_time }),
            exit: None,
            fds: vec![Held::Process, Held::Out, Held::Notify, Held::Channel],
            cut_off: false,
        };
        let pidfd = pidfd::open(own).unwrap();
        let (channel, other) = supervisor_sys::fdpass::stream_pair().unwrap();
        let fds = [
            (FdRole::Process, pidfd.as_fd()),
            (FdRole::Drain, output.as_fd()),
            (FdRole::Hold, notify.as_fd()),
            (FdRole::Hold, channel.as_fd()),
        ];
        mirror.put("worker:7", &to_json(&record), &fds).unwrap();
        mirror.put("member:web:0:A:127.0.0.1:1", b"{}", &[(FdRole::Hold, listener.as_fd())]).unwrap();
        let account = memory_file("an account").unwrap();
        mirror.put("memo:web", b"", &[(FdRole::Hold, account.as_fd())]).unwrap();
        mirror.put("channel:7", b"", &[]).unwrap();
        mirror.put("control", b"", &[]).unwrap();
        let ledger = Ledger::start(path.clone(), &mirror).unwrap();
        let all = ["channel:7", "member:web:0:A:127.0.0.1:1", "memo:web", "worker:7"];
        let is_whole = || read(&path).is_ok_and(|lines| lines.keys().eq(all));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_whole() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }

        // Its reader and its name are gone with those who had them. The worker has our end of its channel.
        let mut lines = read(&path).unwrap();
        drop((output, notify));
        mirror.delete("worker:7");
        assert!(lines["worker:7"].fds.contains(&Trace::Name(notify_name)));
        let recovered = find(&lines);
        assert_eq!(recovered.notices.len(), 1, "{:?}", recovered.notices);
        let by_key = |recovered: Recovered| -> BTreeMap<String, Found> {
            recovered.entries.into_iter().map(|found| (found.key.clone(), found)).collect()
        };
        let found = by_key(recovered);
        assert!(found.keys().eq(&all));
        let worker: WorkerRecord = records::read(&found["worker:7"].record).unwrap();
        assert_eq!(worker.fds, [Held::Process, Held::Out, Held::Notify, Held::Channel]);
        writer.write_all(b"x").unwrap();
        let mut byte = [0; 1];
        assert_eq!(rustix::io::read(&found["worker:7"].fds[1].1, &mut byte), Ok(1));
        rustix::io::write(&found["worker:7"].fds[3].1, b"y").unwrap();
        assert_eq!(rustix::io::read(&other, &mut byte), Ok(1));

        // In the middle of a long line it cannot go on, and the worker sees its end.
        let begun = Line { key: "line:7".to_owned(), record: Some(String::new()), fds: Vec::new() };
        lines.insert(begun.key.clone(), begun);
        let recovered = find(&lines);
        assert!(recovered.notices[1].ends_with("lost: its channel"), "{:?}", recovered.notices);
        assert!(by_key(recovered).keys().eq(&all[1..]));
        assert_eq!(rustix::io::read(&other, &mut byte), Ok(0));
        ledger.finish();
        assert!(!path.exists());
    }
}
