//! The messages between keeper and master: one a packet, on a
//! `SOCK_SEQPACKET` pair, descriptors beside them.
//!
//! ```text
//! packet  = version tag fields
//! text    = length:u16 bytes          record = length:u16 bytes
//! numbers are little-endian; an option is a byte 0 or 1, then the value
//! ```
//!
//! Everything is bounded, and no bytes make the decoder panic: keeper and
//! master may be of different versions, and either may be wrong. A message
//! that is not understood is an [`Error`], which the reader logs and passes
//! over.
//!
//! A later version may add messages, roles, and fields at the end of a message
//! that has no list there: an earlier one passes over the former and the latter,
//! and keeps the roles as they are. Anything else is another [`VERSION`].

use std::fmt;

/// The version of this encoding, the first byte of each packet.
pub const VERSION: u8 = 1;
/// The longest key, bytes.
pub const MAX_KEY: usize = 160;
/// The longest record, bytes.
pub const MAX_RECORD: usize = 4096;
/// The longest text for the service manager, bytes.
pub const MAX_TEXT: usize = 4096;
/// The most descriptors of one entry; one packet carries at most 253.
pub const MAX_FDS: usize = 250;
/// Enough for every packet, bytes: more than the largest entry takes, so that
/// several small ones go together.
pub const MAX_PACKET: usize = 16 * 1024;

const _: () = assert!(2 + 2 + MAX_KEY + 2 + MAX_RECORD + MAX_FDS <= MAX_PACKET);
const _: () = assert!(2 + 1 + 2 * (2 + MAX_TEXT) <= MAX_PACKET);

/// A message of a version to come, for tests of what this one makes of it.
#[cfg(feature = "next-version")]
pub const LATER: [u8; 2] = [VERSION, 200];

/// The tag of [`ToKeeper::Together`].
const TOGETHER: u8 = 20;

/// The key under which every master finds the daemon's lock, which it holds
/// for as long as it runs.
pub const LOCK_KEY: &str = "lock";

/// What a descriptor of an entry is to the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdRole {
    /// Something to hold.
    Hold,
    /// The read end of a worker's output pipe: drained when nobody reads.
    Drain,
    /// A pidfd of a worker: ended when the keeper must end everything.
    Process,
    /// What a later version means by this number: to be held, too.
    Later(u8),
}

impl FdRole {
    /// Its number in a packet.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Hold => 0,
            Self::Drain => 1,
            Self::Process => 2,
            Self::Later(number) => number,
        }
    }

    /// The role with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Hold,
            1 => Self::Drain,
            2 => Self::Process,
            number => Self::Later(number),
        }
    }
}

/// A message of the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToKeeper {
    /// Hold this in place of the entry with the same key. One descriptor for
    /// each role comes with it.
    Put {
        /// At most [`MAX_KEY`] bytes.
        key: String,
        /// Opaque; at most [`MAX_RECORD`] bytes.
        record: Vec<u8>,
        /// At most [`MAX_FDS`].
        roles: Vec<FdRole>,
    },
    /// Forget the entry and close its descriptors.
    Delete {
        /// Its key; none there is no mistake.
        key: String,
    },
    /// The master is alive. It says so each second.
    Beat,
    /// The master has read the table and serves.
    Adopted,
    /// Pass this on to the service manager: lines of `sd_notify(3)`, which must
    /// come from the process that it knows. Nothing happens without one.
    Notify {
        /// At most [`MAX_TEXT`] bytes.
        text: String,
    },
    /// Everything has ended as ordered: leave with this code.
    Finish {
        /// The keeper's exit code.
        exit_code: u8,
    },
    /// Let masters, and then the keeper itself, be of another binary, whose
    /// descriptor comes with it. What becomes of it is told as
    /// [`FromKeeper::Upgrade`].
    Upgrade {
        /// What to call it; at most [`MAX_TEXT`] bytes.
        label: String,
    },
    /// The master cannot go on, and why: its last words.
    Failed {
        /// At most [`MAX_TEXT`] bytes.
        text: String,
    },
    /// Take note of all of these, or of none: what a master sends in one packet
    /// is not cut by its death. Their descriptors come one after another, at
    /// most [`MAX_FDS`] in all. None of them is such a bundle itself.
    Together(Vec<ToKeeper>),
}

/// A message of the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromKeeper {
    /// The first one to every master.
    Hello(Hello),
    /// An entry of the table, with its descriptors.
    Entry {
        /// Its key.
        key: String,
        /// What the master before stored.
        record: Vec<u8>,
        /// What each descriptor is.
        roles: Vec<FdRole>,
    },
    /// The table is complete.
    TableEnd,
    /// A process that had lost its parent was reaped.
    Orphan(Orphan),
    /// A signal to pass on.
    Signal {
        /// Its number.
        number: i32,
    },
    /// How far the last upgrade has come: to every master before the end of the
    /// table, and to the one that serves whenever it changes.
    Upgrade(Upgrade),
}

/// How far an upgrade has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// As it was [ordered](ToKeeper::Upgrade).
    pub label: String,
    /// What is being done.
    pub stage: UpgradeStage,
    /// Why it went back; empty otherwise.
    pub cause: String,
}

/// What is being done for an upgrade, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpgradeStage {
    /// A child of the new binary restores a copy of the table, and touches
    /// nothing.
    Rehearsing,
    /// The master of the old binary makes room. It is asked to by this message.
    Leaving,
    /// A master of the new binary is on trial: it must serve, and go on serving
    /// for a while.
    Trying,
    /// The keeper becomes the new binary.
    Settling,
    /// Everything is of the new binary.
    Done,
    /// Everything is of the old binary.
    RolledBack,
}

impl UpgradeStage {
    const ALL: [Self; 6] =
        [Self::Rehearsing, Self::Leaving, Self::Trying, Self::Settling, Self::Done, Self::RolledBack];

    /// Its number in a packet.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The stage with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.number() == number)
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack)
    }
}

/// What a master needs to know of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The keeper's process id.
    pub keeper_pid: u32,
    /// The soft limit of open files before the daemon raised it; `None` is
    /// unlimited. Workers get it back.
    pub nofile_soft: Option<u64>,
    /// The hard limit likewise.
    pub nofile_hard: Option<u64>,
    /// The out-of-memory score adjustment before the daemon changed it; `None`
    /// when it did not.
    pub oom_score_adj: Option<i32>,
    /// Whether anybody wants to hear [`ToKeeper::Notify`].
    pub service_manager: bool,
}

/// The end of a process that the keeper reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Its process id, which may have another owner by now.
    pub pid: u32,
    /// When it was started, clock ticks since the boot; 0 if that could not be
    /// read.
    pub start_time: u64,
    /// How it ended.
    pub exit: OrphanExit,
}

/// How a reaped process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanExit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another version of the encoding.
    #[error("version {0} of the keeper's protocol, not {VERSION}")]
    Version(u8),
    /// A message that this version does not have.
    #[error("unknown message {0}")]
    Tag(u8),
    /// The packet ends too early.
    #[error("wrong length")]
    Length,
    /// A key, a record, a text or the descriptors are over their limit.
    #[error("over a limit")]
    TooLong,
    /// A field has a value that it cannot have.
    #[error("impossible value")]
    Value,
}

impl ToKeeper {
    /// The packet. A message over the limits is encoded, and refused by
    /// [`decode`](Self::decode).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Put { key, record, roles } => entry(1, key, record, roles),
            Self::Delete { key } => Writer::new(2).bytes(key.as_bytes()).done(),
            Self::Beat => Writer::new(3).done(),
            Self::Adopted => Writer::new(4).done(),
            Self::Finish { exit_code } => Writer::new(5).byte(*exit_code).done(),
            Self::Notify { text } => Writer::new(6).bytes(text.as_bytes()).done(),
            Self::Upgrade { label } => Writer::new(7).bytes(label.as_bytes()).done(),
            Self::Failed { text } => Writer::new(8).bytes(text.as_bytes()).done(),
            Self::Together(messages) => {
                let packets = messages.iter().map(Self::encode);
                packets.fold(Writer::new(TOGETHER), |writer, packet| writer.bytes(&packet)).done()
            }
        }
    }

    /// The message in a packet.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn decode(packet: &[u8]) -> Result<Self, Error> {
        let (tag, mut reader) = Reader::new(packet)?;
        let message = match tag {
            1 => {
                let (key, record, roles) = reader.entry()?;
                Self::Put { key, record, roles }
            }
            2 => Self::Delete { key: reader.text(MAX_KEY)? },
            3 => Self::Beat,
            4 => Self::Adopted,
            5 => Self::Finish { exit_code: reader.byte()? },
            6 => Self::Notify { text: reader.text(MAX_TEXT)? },
            7 => Self::Upgrade { label: reader.text(MAX_TEXT)? },
            8 => Self::Failed { text: reader.text(MAX_TEXT)? },
            TOGETHER => Self::Together(reader.together()?),
            tag => return Err(Error::Tag(tag)),
        };
        Ok(message)
    }

    /// How many descriptors come with it.
    #[must_use]
    pub fn fds(&self) -> usize {
        match self {
            Self::Put { roles, .. } => roles.len(),
            Self::Together(messages) => messages.iter().map(Self::fds).sum(),
            Self::Upgrade { .. } => 1,
            Self::Delete { .. }
            | Self::Beat
            | Self::Adopted
            | Self::Notify { .. }
            | Self::Finish { .. }
            | Self::Failed { .. } => 0,
        }
    }
}

impl FromKeeper {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => Writer::new(65)
                .u32(hello.keeper_pid)
                .option(hello.nofile_soft.map(u64::to_le_bytes))
                .option(hello.nofile_hard.map(u64::to_le_bytes))
                .option(hello.oom_score_adj.map(i32::to_le_bytes))
                .byte(u8::from(hello.service_manager))
                .done(),
            Self::Entry { key, record, roles } => entry(66, key, record, roles),
            Self::TableEnd => Writer::new(67).done(),
            Self::Orphan(orphan) => {
                let (kind, number) = match orphan.exit {
                    OrphanExit::Code(code) => (0, code),
                    OrphanExit::Signal(number) => (1, number),
                };
                Writer::new(68)
                    .u32(orphan.pid)
                    .raw(&orphan.start_time.to_le_bytes())
                    .byte(kind)
                    .i32(number)
                    .done()
            }
            Self::Signal { number } => Writer::new(69).i32(*number).done(),
            Self::Upgrade(Upgrade { label, stage, cause }) => {
                Writer::new(70).byte(stage.number()).bytes(label.as_bytes()).bytes(cause.as_bytes()).done()
            }
        }
    }

    /// The message in a packet.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn decode(packet: &[u8]) -> Result<Self, Error> {
        let (tag, mut reader) = Reader::new(packet)?;
        let message = match tag {
            65 => Self::Hello(Hello {
                keeper_pid: reader.u32()?,
                nofile_soft: reader.option()?.map(u64::from_le_bytes),
                nofile_hard: reader.option()?.map(u64::from_le_bytes),
                oom_score_adj: reader.option()?.map(i32::from_le_bytes),
                service_manager: reader.byte()? != 0,
            }),
            66 => {
                let (key, record, roles) = reader.entry()?;
                Self::Entry { key, record, roles }
            }
            67 => Self::TableEnd,
            68 => {
                let (pid, start_time) = (reader.u32()?, u64::from_le_bytes(reader.array()?));
                let exit = match (reader.byte()?, reader.i32()?) {
                    (0, code) => OrphanExit::Code(code),
                    (1, number) => OrphanExit::Signal(number),
                    _ => return Err(Error::Value),
                };
                Self::Orphan(Orphan { pid, start_time, exit })
            }
            69 => Self::Signal { number: reader.i32()? },
            70 => Self::Upgrade(Upgrade {
                stage: UpgradeStage::from_number(reader.byte()?).ok_or(Error::Value)?,
                label: reader.text(MAX_TEXT)?,
                cause: reader.text(MAX_TEXT)?,
            }),
            tag => return Err(Error::Tag(tag)),
        };
        Ok(message)
    }
}

impl fmt::Display for OrphanExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "killed by signal {number}"),
        }
    }
}

fn entry(tag: u8, key: &str, record: &[u8], roles: &[FdRole]) -> Vec<u8> {
    let roles: Vec<u8> = roles.iter().map(|role| role.number()).collect();
    Writer::new(tag).bytes(key.as_bytes()).bytes(record).raw(&roles).done()
}

/// Puts a packet together.
struct Writer(Vec<u8>);

impl Writer {
    fn new(tag: u8) -> Self {
        Self(vec![VERSION, tag])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(self, byte: u8) -> Self {
        self.raw(&[byte])
    }

    fn u32(self, number: u32) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn i32(self, number: i32) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn option<const N: usize>(self, value: Option<[u8; N]>) -> Self {
        match value {
            Some(bytes) => self.byte(1).raw(&bytes),
            None => self.byte(0),
        }
    }

    /// Bytes with their length; the limits are far below what it can count.
    fn bytes(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.raw(&length.to_le_bytes()).raw(bytes)
    }

    fn done(self) -> Vec<u8> {
        #[cfg(feature = "next-version")]
        let this = if matches!(self.0.get(1), Some(1 | 66)) { self } else { self.byte(7) };
        #[cfg(not(feature = "next-version"))]
        let this = self;
        this.0
    }
}

/// Takes a packet apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(packet: &'a [u8]) -> Result<(u8, Self), Error> {
        match packet {
            [VERSION, tag, rest @ ..] => Ok((*tag, Self(rest))),
            [VERSION] | [] => Err(Error::Length),
            [version, ..] => Err(Error::Version(*version)),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| Error::Length)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, Error> {
        self.array().map(i32::from_le_bytes)
    }

    fn option<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Error> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.array().map(Some),
            _ => Err(Error::Value),
        }
    }

    fn bytes(&mut self, limit: usize) -> Result<&'a [u8], Error> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > limit {
            return Err(Error::TooLong);
        }
        self.take(length)
    }

    fn text(&mut self, limit: usize) -> Result<String, Error> {
        let bytes = self.bytes(limit)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Error::Value)
    }

    fn entry(&mut self) -> Result<(String, Vec<u8>, Vec<FdRole>), Error> {
        let key = self.text(MAX_KEY)?;
        let record = self.bytes(MAX_RECORD)?.to_vec();
        if self.0.len() > MAX_FDS {
            return Err(Error::TooLong);
        }
        let roles = self.0.iter().map(|role| FdRole::from_number(*role)).collect();
        Ok((key, record, roles))
    }

    fn together(&mut self) -> Result<Vec<ToKeeper>, Error> {
        let mut messages = Vec::new();
        while !self.0.is_empty() {
            let packet = self.bytes(MAX_PACKET)?;
            // Before it is read: bundles in bundles could be without end.
            if packet.get(1) == Some(&TOGETHER) {
                return Err(Error::Value);
            }
            messages.push(ToKeeper::decode(packet)?);
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_to(message: ToKeeper) {
        assert_eq!(ToKeeper::decode(&message.encode()), Ok(message));
    }

    #[track_caller]
    fn check_from(message: FromKeeper) {
        assert_eq!(FromKeeper::decode(&message.encode()), Ok(message));
    }

    fn put(key: usize, record: usize, roles: usize) -> ToKeeper {
        ToKeeper::Put { key: "k".repeat(key), record: vec![7; record], roles: vec![FdRole::Drain; roles] }
    }

    #[test]
    fn messages_survive() {
        check_to(put(0, 0, 0));
        check_to(put(MAX_KEY, MAX_RECORD, MAX_FDS));
        check_to(ToKeeper::Delete { key: "worker:1".to_owned() });
        check_to(ToKeeper::Beat);
        check_to(ToKeeper::Adopted);
        check_to(ToKeeper::Finish { exit_code: 3 });
        check_to(ToKeeper::Notify { text: "READY=1\nSTATUS=ä".to_owned() });
        check_to(ToKeeper::Upgrade { label: "{}".to_owned() });
        check_to(ToKeeper::Failed { text: "no table".to_owned() });
        check_to(ToKeeper::Together(vec![]));
        check_to(ToKeeper::Together(vec![put(3, 4, 2), ToKeeper::Beat, put(5, 0, 1)]));
        let hello = Hello {
            keeper_pid: 7,
            nofile_soft: Some(1024),
            nofile_hard: None,
            oom_score_adj: Some(-900),
            service_manager: true,
        };
        check_from(FromKeeper::Hello(hello));
        let roles = vec![FdRole::Hold, FdRole::Drain, FdRole::Process, FdRole::Later(9)];
        check_from(FromKeeper::Entry { key: "app:ä".to_owned(), record: b"{}".to_vec(), roles });
        check_from(FromKeeper::TableEnd);
        for exit in [OrphanExit::Code(255), OrphanExit::Signal(9)] {
            check_from(FromKeeper::Orphan(Orphan { pid: 7, start_time: u64::MAX, exit }));
        }
        check_from(FromKeeper::Signal { number: 15 });
        for stage in UpgradeStage::ALL {
            let (label, cause) = ("l".repeat(MAX_TEXT), "c".repeat(MAX_TEXT));
            let message = FromKeeper::Upgrade(Upgrade { label, stage, cause });
            assert!(message.encode().len() <= MAX_PACKET);
            check_from(message);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        for message in [ToKeeper::Beat, ToKeeper::Adopted, ToKeeper::Finish { exit_code: 3 }] {
            let packet = [&message.encode()[..], b"more"].concat();
            assert_eq!(ToKeeper::decode(&packet), Ok(message));
        }
        let orphan = FromKeeper::Orphan(Orphan { pid: 7, start_time: 1, exit: OrphanExit::Code(0) });
        assert_eq!(FromKeeper::decode(&[&orphan.encode()[..], b"more"].concat()), Ok(orphan));
    }

    #[test]
    fn limits_hold() {
        assert!(put(MAX_KEY, MAX_RECORD, MAX_FDS).encode().len() < MAX_PACKET);
        let nested = ToKeeper::Together(vec![ToKeeper::Together(vec![ToKeeper::Beat])]);
        assert_eq!(ToKeeper::decode(&nested.encode()), Err(Error::Value));
        let notify = |length| ToKeeper::Notify { text: "x".repeat(length) };
        check_to(notify(MAX_TEXT));
        let huge = usize::from(u16::MAX) + 1;
        for message in [
            put(MAX_KEY + 1, 0, 0),
            put(0, MAX_RECORD + 1, 0),
            put(0, 0, MAX_FDS + 1),
            notify(MAX_TEXT + 1),
            notify(huge),
        ] {
            assert_eq!(ToKeeper::decode(&message.encode()), Err(Error::TooLong));
        }
    }

    #[test]
    fn other_bytes_are_errors() {
        assert_eq!(ToKeeper::decode(&[]), Err(Error::Length));
        assert_eq!(ToKeeper::decode(&[9, 3]), Err(Error::Version(9)));
        assert_eq!(ToKeeper::decode(&[VERSION, 200]), Err(Error::Tag(200)));
        assert_eq!(ToKeeper::decode(&[VERSION, 5]), Err(Error::Length));
        assert_eq!(FromKeeper::decode(&[VERSION, 70, 6, 0, 0, 0, 0]), Err(Error::Value));
        assert_eq!(ToKeeper::decode(&[VERSION, 2, 1, 0, 0xff]), Err(Error::Value));
    }

    #[test]
    fn every_cut_is_an_error_and_no_bytes_panic() {
        let packet = put(9, 9, 0).encode();
        for end in 0..packet.len() {
            assert!(ToKeeper::decode(&packet[..end]).is_err());
        }
        let mut state = 1_u64;
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..state % 40)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state.to_be_bytes()[0]
                })
                .collect();
            let mut packet = vec![VERSION, bytes.first().map_or(0, |byte| byte % 72)];
            packet.extend(bytes);
            let _ = ToKeeper::decode(&packet);
            let _ = FromKeeper::decode(&packet);
            state = state.wrapping_add(1);
        }
    }
}
