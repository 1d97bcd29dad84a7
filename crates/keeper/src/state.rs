//! A keeper's state as a file of memory, with which a program becomes the
//! keeper by `exec`: the pid stays, and so do the children and descriptors.
//!
//! ```text
//! file    = "supstate" version:u8 section*
//! section = kind:u16 length:u32 count:u16 descriptor:i32 × count payload
//! ```
//!
//! Numbers are little-endian; descriptors are named by the numbers that they
//! have in the process that saves, and so after its `exec`. The length is the
//! payload's. Payloads are packets of `supervisor_protocol::keeper`.
//!
//! Keepers of different versions read each other's files. A kind of section
//! never changes: what is new gets a kind of its own. A section that is not
//! understood is kept, with its descriptors, and saved again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use supervisor_protocol::keeper::{FdRole, FromKeeper, Hello, Upgrade};
use supervisor_sys::Pid;

use crate::master::Master;
use crate::news::News;
use crate::table::{Entry, Table};

const MAGIC: &[u8; 8] = b"supstate";
/// It changes when older programs could not read on.
const VERSION: u8 = 1;
/// The largest file, bytes: twice what a full table takes.
const MAX_FILE: u64 = 1 << 30;

/// Kinds of sections.
mod kind {
    /// A [`Hello`](super::Hello): what the daemon was started with.
    pub(super) const HELLO: u16 = 1;
    /// An entry of the table.
    pub(super) const ENTRY: u16 = 2;
    /// The master that runs: its pid, and which orphan it is to be told of next;
    /// its pidfd and our end of the pair.
    pub(super) const MASTER: u16 = 3;
    /// What masters are to be told: the end of an orphan, a signal, or how far
    /// an upgrade has come.
    pub(super) const NEWS: u16 = 4;
}

/// What a keeper begins with that takes the place of another.
#[derive(Debug)]
pub struct State {
    /// What the daemon was started with. The pid is that of the keeper before.
    pub hello: Hello,
    /// What is held.
    pub table: Table,
    /// The master that runs, where the keeper itself goes on as another binary.
    pub(crate) master: Option<Running>,
    /// What masters are to be told.
    pub(crate) news: News,
}

impl State {
    /// Whether a master runs that is this process's child.
    #[must_use]
    pub const fn has_master(&self) -> bool {
        self.master.is_some()
    }
}

/// A master that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: OwnedFd,
    /// The first orphan that it has not been told of.
    pub(crate) orphan: u64,
}

/// A part of a state that this version does not understand.
#[derive(Debug)]
pub(crate) struct Section {
    kind: u16,
    payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Why a file is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read the state of the keeper: {0}")]
    Io(#[from] io::Error),
    /// It is something else, or from a version that writes it otherwise.
    #[error("the state of the keeper is not of version {VERSION}")]
    Version,
    /// It ends within a section.
    #[error("the state of the keeper is cut off")]
    Cut,
    /// A descriptor that it names was not passed on.
    #[error("descriptor {0} of the keeper's state was not passed on")]
    Missing(RawFd),
    /// It does not say what the daemon was started with.
    #[error("the state of the keeper does not say how the daemon began")]
    NoHello,
}

/// A state that is saved, with the descriptors that belong to it.
#[derive(Debug)]
pub struct Saved<'a> {
    file: OwnedFd,
    fds: Vec<BorrowedFd<'a>>,
}

/// Saves a state, and how far an upgrade has come that masters are to be told of.
///
/// # Errors
///
/// `EMFILE`, `ENOMEM`.
pub fn save<'a>(hello: &Hello, table: &'a Table, upgrade: Option<&Upgrade>) -> io::Result<Saved<'a>> {
    let mut writer = write(hello, table);
    if let Some(upgrade) = upgrade {
        writer.section(kind::NEWS, &[], &FromKeeper::Upgrade(upgrade.clone()).encode());
    }
    writer.finish()
}

/// Saves the state of a keeper whose master runs on.
///
/// # Errors
///
/// As [`save`].
pub(crate) fn save_running<'a>(
    hello: &Hello,
    table: &'a Table,
    news: &News,
    master: &'a Master,
) -> io::Result<Saved<'a>> {
    let mut writer = write(hello, table);
    let orphan = master.orphan().saturating_sub(news.orphan(0).map_or(master.orphan(), |(first, _)| first));
    let pid = master.pid.as_raw_pid().to_le_bytes();
    let fds = [master.pidfd.as_fd(), master.socket.as_fd()];
    writer.section(kind::MASTER, &fds, &[&pid[..], &orphan.to_le_bytes()].concat());
    for message in news.messages() {
        writer.section(kind::NEWS, &[], &message.encode());
    }
    writer.finish()
}

fn write<'a>(hello: &Hello, table: &'a Table) -> Writer<'a> {
    let mut writer = Writer { bytes: [MAGIC.as_slice(), &[VERSION]].concat(), fds: Vec::new() };
    writer.section(kind::HELLO, &[], &FromKeeper::Hello(*hello).encode());
    let mut last = None;
    while let Some((key, entry)) = table.after(last) {
        let roles = entry.fds.iter().map(|(role, _)| *role).collect();
        let fds: Vec<_> = entry.fds.iter().map(|(_, fd)| fd.as_fd()).collect();
        let packet = FromKeeper::Entry { key: key.to_owned(), record: entry.record.to_vec(), roles };
        writer.section(kind::ENTRY, &fds, &packet.encode());
        last = Some(key);
    }
    for Section { kind, payload, fds } in table.unknown() {
        writer.section(*kind, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>(), payload);
    }
    writer
}

impl Saved<'_> {
    /// The file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Lets the file and all descriptors survive the next `exec`. No other
    /// thread may start programs meanwhile. Returns the number of the file.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn pass_on(&self) -> io::Result<RawFd> {
        self.mark(FdFlags::empty())?;
        Ok(self.file.as_raw_fd())
    }

    /// Takes that back: the `exec` has failed.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn take_back(&self) -> io::Result<()> {
        self.mark(FdFlags::CLOEXEC)
    }

    fn mark(&self, flags: FdFlags) -> io::Result<()> {
        for fd in self.fds.iter().copied().chain([self.file.as_fd()]) {
            fcntl_setfd(fd, flags)?;
        }
        Ok(())
    }
}

/// Reads a state from a file that [`save`] has made, and takes the descriptors
/// that it names out of the inherited ones.
///
/// # Errors
///
/// See [`StateError`].
pub fn restore(file: OwnedFd, inherited: &mut BTreeMap<RawFd, OwnedFd>) -> Result<State, StateError> {
    let bytes = read(file)?;
    let mut reader = Reader::new(&bytes)?;
    let (mut hello, mut table) = (None, Table::new(usize::MAX));
    let (mut master, mut news) = (None, News::default());
    while let Some(Part { kind, numbers, payload }) = reader.section()? {
        let take = |number: RawFd| inherited.remove(&number).ok_or(StateError::Missing(number));
        let fds: Vec<OwnedFd> = numbers.into_iter().map(take).collect::<Result<_, _>>()?;
        match (kind, FromKeeper::decode(payload)) {
            (kind::HELLO, Ok(FromKeeper::Hello(found))) => hello = Some(found),
            (kind::ENTRY, Ok(FromKeeper::Entry { key, record, roles })) if roles.len() == fds.len() => {
                let fds: Box<[(FdRole, OwnedFd)]> = roles.into_iter().zip(fds).collect();
                table.put(&key, Entry { record: record.into(), fds });
            }
            (kind::MASTER, _) => master = Some(running(payload, fds).ok_or(StateError::Cut)?),
            (kind::NEWS, Ok(message)) => news.take_message(message),
            _ => table.keep(Section { kind, payload: payload.to_vec(), fds }),
        }
    }
    Ok(State { hello: hello.ok_or(StateError::NoHello)?, table, master, news })
}

/// Looks whether a keeper of this version could begin with the state in a file.
///
/// # Errors
///
/// See [`StateError`]; no descriptor is missing, as none is taken.
pub fn check(file: OwnedFd) -> Result<(), StateError> {
    let bytes = read(file)?;
    let mut reader = Reader::new(&bytes)?;
    let mut begins = false;
    while let Some(Part { kind, payload, .. }) = reader.section()? {
        begins |= kind == kind::HELLO && matches!(FromKeeper::decode(payload), Ok(FromKeeper::Hello(_)));
    }
    if begins { Ok(()) } else { Err(StateError::NoHello) }
}

fn read(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A master that runs, as its section has it.
fn running(payload: &[u8], fds: Vec<OwnedFd>) -> Option<Running> {
    let (pid, orphan) = payload.split_first_chunk()?;
    let [pidfd, socket] = <[OwnedFd; 2]>::try_from(fds).ok()?;
    let pid = Pid::from_raw(i32::from_le_bytes(*pid))?;
    Some(Running { pid, pidfd, socket, orphan: u64::from_le_bytes(*orphan.first_chunk()?) })
}

/// Puts a file together.
struct Writer<'a> {
    bytes: Vec<u8>,
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Writer<'a> {
    fn finish(self) -> io::Result<Saved<'a>> {
        let mut file = File::from(memfd_create("supervisor-state", MemfdFlags::CLOEXEC)?);
        file.write_all(&self.bytes)?;
        Ok(Saved { file: file.into(), fds: self.fds })
    }

    fn section(&mut self, kind: u16, fds: &[BorrowedFd<'a>], payload: &[u8]) {
        // A payload is a packet, and a packet has few descriptors.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let count = u16::try_from(fds.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&count.to_le_bytes());
        self.bytes.extend(fds.iter().flat_map(|fd| fd.as_raw_fd().to_le_bytes()));
        self.bytes.extend_from_slice(payload);
        self.fds.extend_from_slice(fds);
    }
}

/// A section as a file has it.
struct Part<'a> {
    kind: u16,
    /// Those of its descriptors.
    numbers: Vec<RawFd>,
    payload: &'a [u8],
}

/// Takes a file apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, StateError> {
        match bytes.strip_prefix(MAGIC) {
            Some([VERSION, rest @ ..]) => Ok(Self(rest)),
            _ => Err(StateError::Version),
        }
    }

    /// The next section.
    fn section(&mut self) -> Result<Option<Part<'a>>, StateError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let kind = u16::from_le_bytes(self.array()?);
        let length = u32::from_le_bytes(self.array()?);
        let count = u16::from_le_bytes(self.array()?);
        let numbers = (0..count).map(|_| self.array().map(RawFd::from_le_bytes)).collect::<Result<_, _>>()?;
        let payload = self.take(usize::try_from(length).map_err(|_| StateError::Cut)?)?;
        Ok(Some(Part { kind, numbers, payload }))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(StateError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        self.take(N)?.try_into().map_err(|_| StateError::Cut)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Instant;

    use supervisor_protocol::keeper::{Orphan, OrphanExit, Upgrade, UpgradeStage};
    use supervisor_sys::fdpass;
    use supervisor_sys::poll::Poller;
    use supervisor_sys::signal::Signal;

    use super::*;

    const HELLO: Hello = Hello {
        keeper_pid: 7,
        nofile_soft: Some(1024),
        nofile_hard: None,
        oom_score_adj: Some(-5),
        service_manager: false,
    };

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn table() -> Table {
        let mut table = Table::new(usize::MAX);
        let fds = [(FdRole::Process, null()), (FdRole::Drain, null())];
        table.put("worker:1", Entry { record: b"{}".as_slice().into(), fds: Box::new(fds) });
        table.put("ids", Entry { record: b"5".as_slice().into(), fds: Box::default() });
        table
    }

    /// What an `exec` does with the descriptors: their numbers stay.
    fn inherited(saved: &Saved<'_>) -> BTreeMap<RawFd, OwnedFd> {
        saved.fds.iter().map(|fd| (fd.as_raw_fd(), fd.try_clone_to_owned().unwrap())).collect()
    }

    fn bytes(saved: &Saved<'_>) -> Vec<u8> {
        let mut file = File::from(saved.file.try_clone().unwrap());
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(bytes).unwrap();
        file.into()
    }

    #[test]
    fn a_state_survives() {
        let table = table();
        let saved = save(&HELLO, &table, None).unwrap();
        let mut left = inherited(&saved);
        left.insert(-1, null());
        let state = restore(saved.file.try_clone().unwrap(), &mut left).unwrap();
        assert_eq!(state.hello, HELLO);
        assert_eq!(left.len(), 1, "what it does not name stays");
        assert_eq!(state.table.size(), (2, 2));
        let (key, entry) = state.table.after(Some("ids")).unwrap();
        assert_eq!((key, &*entry.record), ("worker:1", b"{}".as_slice()));
        let roles: Vec<FdRole> = entry.fds.iter().map(|(role, _)| *role).collect();
        assert_eq!(roles, [FdRole::Process, FdRole::Drain]);
    }

    #[test]
    fn a_running_master_and_its_news_survive() {
        let (table, mut news) = (table(), News::default());
        let orphan = |pid| Orphan { pid, start_time: 1, exit: OrphanExit::Code(0) };
        (0..5000).for_each(|pid| news.add_orphan(orphan(pid)));
        news.add_signal(Signal::HUP);
        let upgrade = Upgrade { label: "it".into(), stage: UpgradeStage::Done, cause: String::new() };
        news.set_upgrade(upgrade.clone());
        let (pid, poller) = (rustix::process::getpid(), Poller::new().unwrap());
        let (socket, _theirs) = fdpass::seqpacket_pair().unwrap();
        let running = Running { pid, pidfd: null(), socket, orphan: 4990 };
        let master = Master::running(running, &poller, Instant::now()).unwrap();

        let saved = save_running(&HELLO, &table, &news, &master).unwrap();
        check(saved.file.try_clone().unwrap()).unwrap();
        let state = restore(saved.file.try_clone().unwrap(), &mut inherited(&saved)).unwrap();
        let (master, news) = (state.master.unwrap(), state.news);
        assert_eq!(master.pid, pid);
        assert_eq!(
            news.orphan(master.orphan),
            Some((master.orphan, orphan(4990))),
            "the first it is to be told"
        );
        assert_eq!((news.signal(), news.upgrade(0)), (Some(Signal::HUP), Some((1, &upgrade))));
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let (table, strange, stranger) = (table(), null(), null());
        let saved = save(&HELLO, &table, None).unwrap();
        let mut writer = Writer { bytes: bytes(&saved), fds: saved.fds.clone() };
        writer.section(999, &[strange.as_fd()], b"of a later version");
        let entry = FromKeeper::Entry { key: "new".into(), record: vec![], roles: vec![FdRole::Hold] };
        let mut packet = entry.encode();
        // A form that does not exist yet.
        packet[0] = 99;
        writer.section(kind::ENTRY, &[stranger.as_fd()], &packet);
        let later = Saved { file: file(&writer.bytes), fds: writer.fds };

        let state = restore(later.file.try_clone().unwrap(), &mut inherited(&later)).unwrap();
        assert_eq!(state.table.size(), (2, 4), "its descriptors count");
        let again = save(&state.hello, &state.table, None).unwrap();
        assert_eq!(again.fds.len(), 4);
        let unknown = state.table.unknown().iter().map(|section| (section.kind, &section.payload[..]));
        let expected: [(u16, &[u8]); 2] = [(999, b"of a later version"), (kind::ENTRY, &packet)];
        assert_eq!(unknown.collect::<Vec<_>>(), expected);
        assert_eq!(bytes(&again).len(), bytes(&later).len());
    }

    #[test]
    fn a_descriptor_that_is_missing_is_named() {
        let table = table();
        let saved = save(&HELLO, &table, None).unwrap();
        let mut inherited = inherited(&saved);
        let (number, _) = inherited.pop_last().unwrap();
        let error = restore(saved.file.try_clone().unwrap(), &mut inherited).unwrap_err();
        assert!(matches!(error, StateError::Missing(missing) if missing == number), "{error}");
    }

    #[test]
    fn other_files_are_refused() {
        let table = table();
        let saved = save(&HELLO, &table, None).unwrap();
        let whole = bytes(&saved);
        let restore = |bytes: &[u8]| restore(file(bytes), &mut inherited(&saved));
        for length in 0..whole.len() {
            let error = restore(&whole[..length]).err();
            // A file that ends between two sections is whole, but for what is missing.
            if length < MAGIC.len() + 1 {
                assert!(matches!(error, Some(StateError::Version)), "{length}: {error:?}");
            } else {
                assert!(
                    !matches!(error, Some(StateError::Version | StateError::Io(_))),
                    "{length}: {error:?}"
                );
            }
        }
        let mut other = whole.clone();
        other[MAGIC.len()] = VERSION + 1;
        assert!(matches!(restore(&other), Err(StateError::Version)));
        assert!(matches!(restore(&whole[..=MAGIC.len()]), Err(StateError::NoHello)));
        for place in MAGIC.len() + 1..whole.len() {
            let mut wrong = whole.clone();
            wrong[place] = !wrong[place];
            let _ = restore(&wrong);
        }
    }

    #[test]
    fn descriptors_survive_an_exec_when_they_are_to() {
        let table = table();
        let saved = save(&HELLO, &table, None).unwrap();
        let is_kept = |fd: BorrowedFd<'_>| {
            let flags = rustix::io::fcntl_getfd(fd).unwrap();
            !flags.contains(FdFlags::CLOEXEC)
        };
        // Children of other tests may get them meanwhile, which does no harm.
        assert_eq!(saved.pass_on().unwrap(), saved.file.as_raw_fd());
        assert!(saved.fds.iter().all(|fd| is_kept(*fd)) && is_kept(saved.file.as_fd()));
        saved.take_back().unwrap();
        assert!(!saved.fds.iter().any(|fd| is_kept(*fd)) && !is_kept(saved.file.as_fd()));
        assert!(File::from(saved.file).metadata().unwrap().size() > 0);
    }
}
