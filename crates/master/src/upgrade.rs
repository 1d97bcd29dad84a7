//! Upgrades of the daemon itself, as the master sees them: it looks whether the
//! new binary is one of ours, hands it to the keeper, and tells people how far
//! the keeper has come.
//!
//! The keeper does the rest: a child of the new binary restores a copy of the
//! table (`rehearsal`), this master makes room, and one of the new binary is
//! tried out. Then the keeper becomes the new binary, and says so; until it has,
//! the binary of the version before is at hand for the master that takes the
//! place of a keeper that dies of that, or hangs (`succession`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use supervisor_protocol::control::{ErrorCode, ErrorDetail, StartUpgrade, Upgrade, UpgradeStage, Upgrades};
use supervisor_protocol::events::Happening;
use supervisor_protocol::keeper::{self, FdRole, MAX_TEXT};
use supervisor_protocol::release::{Identity, RELEASE};
use supervisor_sys::socket;
use supervisor_sys::spawn::{Plan, ProcessGroup, Program};
use tokio::sync::mpsc;

use crate::checks::Running;
use crate::control::to_json;
use crate::master::Master;
use crate::records::{self, FORMER, UPGRADED};
use crate::registry::refuse;
use crate::succession::own_binary;
use crate::words;

/// How long a binary may take to say what it is.
const PROBE: Duration = Duration::from_secs(5);
/// How long the keeper may take to become the new binary.
const SETTLING: Duration = Duration::from_secs(10);
/// The word by which it is asked.
const PROBE_COMMAND: &str = "identify";
/// What is added to the path of a file that was replaced (`proc_pid_exe(5)`).
const DELETED: &[u8] = b" (deleted)";

/// What is known of the last upgrade.
#[derive(Debug)]
pub(crate) struct Progress {
    last: Option<Upgrade>,
    /// While the keeper becomes the new binary.
    settling: Option<Settling>,
    /// Those who ask a binary what it is.
    answers: mpsc::Sender<Answer>,
    answered: mpsc::Receiver<Answer>,
}

/// How long the keeper may still take to say that it has become the new binary.
#[derive(Debug, Clone, Copy)]
struct Settling {
    until: Instant,
    /// It has not said so in time.
    is_late: bool,
}

/// What a binary has said of itself.
#[derive(Debug)]
pub(crate) struct Answer {
    id: u64,
    binary: OwnedFd,
    identity: Result<Identity, String>,
}

/// What the keeper calls an upgrade, and gives back to every master.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    id: u64,
    binary: PathBuf,
    from: String,
    to: String,
}

impl Settling {
    fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }
}

impl Default for Progress {
    fn default() -> Self {
        // There is one at a time.
        let (answers, answered) = mpsc::channel(1);
        Self { last: None, settling: None, answers, answered }
    }
}

impl Progress {
    /// The next answer of a binary that was asked.
    pub(crate) async fn answered(&mut self) -> Option<Answer> {
        self.answered.recv().await
    }

    /// Whether this master is to make room.
    pub(crate) fn leaves(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.stage == UpgradeStage::Leaving)
    }

    /// Whether this master is one of a new binary, on trial.
    pub(crate) fn is_trial(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.stage == UpgradeStage::Trying)
    }

    /// What the keeper said before this master began.
    pub(crate) fn found(&mut self, news: Option<keeper::Upgrade>) {
        self.last = news.and_then(read);
    }
}

impl Master {
    /// What is known of the last upgrade.
    pub(crate) fn upgrades(&self) -> Upgrades {
        Upgrades { daemon: self.daemon(), upgrade: self.upgrade.last.clone() }
    }

    /// Begins an upgrade: asks the binary what it is.
    ///
    /// # Errors
    ///
    /// When another one is under way, the keeper is gone, or there is no such
    /// file.
    pub(crate) fn begin_upgrade(&mut self, order: StartUpgrade) -> Result<Upgrades, ErrorDetail> {
        if let Some(last) = self.upgrade.last.as_ref().filter(|last| !last.stage.is_over()) {
            let message = format!("an upgrade to {} is under way", last.binary.display());
            return Err(refuse(ErrorCode::Busy, message));
        }
        if self.link.keeper_pid().is_none() {
            let message = "the keeper is gone, which would start the new master".to_owned();
            return Err(refuse(ErrorCode::Failed, message));
        }
        let path = match order.binary {
            Some(path) => path,
            None => own_path().map_err(|error| {
                refuse(ErrorCode::Failed, format!("cannot tell the path of the running binary: {error}"))
            })?,
        };
        let binary = open(&path).map_err(|error| {
            let message = format!("cannot open {}: {}", path.display(), words::errno(&error));
            refuse(ErrorCode::Usage, message)
        })?;
        let id = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        tracing::info!("upgrade: {} is asked what it is", path.display());
        self.upgrade.last = Some(Upgrade {
            id,
            binary: path.clone(),
            from: RELEASE.to_owned(),
            to: None,
            stage: UpgradeStage::Checking,
            cause: None,
        });
        match self.ask(&path, &binary) {
            Ok(running) => {
                let answers = self.upgrade.answers.clone();
                tokio::spawn(async move {
                    let answer = running.answer(PROBE).await;
                    let identity = answer.and_then(|line| identity(line.as_deref().unwrap_or_default()));
                    let _ = answers.send(Answer { id, binary, identity }).await;
                });
            }
            Err(cause) => self.give_upgrade_up(cause),
        }
        Ok(self.upgrades())
    }

    /// Starts a binary that is to say what it is.
    fn ask(&mut self, path: &Path, binary: &OwnedFd) -> Result<Running, String> {
        let fail = |error: io::Error| words::errno(&error);
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fail(errno.into()))?;
        socket::set_nonblocking(&read, true).map_err(fail)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let plan = Plan {
            env: std::env::vars_os().collect(),
            process_group: ProcessGroup::NewSession,
            ..Plan::new(
                Program::Binary(binary.as_fd()),
                vec![name.clone(), PROBE_COMMAND.into()],
                [self.null.as_fd(), write.as_fd(), write.as_fd()],
            )
        };
        let child = self.launcher.spawn(&plan).map_err(|error| {
            format!("it is no program: {}", words::errno(&io::Error::from_raw_os_error(error.errno)))
        })?;
        Running::new(name.to_string_lossy().into(), child.pid, child.pidfd, read).map_err(fail)
    }

    /// Hands a binary that is one of ours to the keeper.
    pub(crate) fn hear_answer(&mut self, answer: Answer) {
        let Some(last) = self.upgrade.last.as_mut().filter(|last| last.id == answer.id) else { return };
        let to = match answer.identity {
            Ok(identity) => identity.version,
            Err(cause) => return self.give_upgrade_up(cause),
        };
        last.to = Some(to);
        let Some(label) = label(last) else {
            return self.give_upgrade_up("its path is too long".to_owned());
        };
        let own = match own_binary() {
            Ok(own) => own,
            Err(error) => {
                let cause = format!("cannot open the running binary: {}", words::errno(&error));
                return self.give_upgrade_up(cause);
            }
        };
        last.stage = UpgradeStage::Rehearsing;
        self.tell_of_upgrade();
        self.link.put(FORMER, &[], &[(FdRole::Hold, own.as_fd())]);
        self.link.upgrade(label, answer.binary.as_fd());
    }

    /// Takes what the keeper says of an upgrade.
    pub(crate) fn hear_of_upgrade(&mut self, news: keeper::Upgrade) {
        if self.upgrade.settling.is_some_and(|settling| settling.is_late || settling.is_over()) {
            // Too late: what it did not read in time it has lost.
            return;
        }
        let known = self.upgrade.last.take();
        self.upgrade.last = read(news);
        let settles = self.upgrade.last.as_ref().is_some_and(|last| last.stage == UpgradeStage::Settling);
        self.upgrade.settling =
            settles.then(|| Settling { until: Instant::now() + SETTLING, is_late: false });
        // One that does not read must not hold this process up for ever.
        self.link.set_patience(settles.then_some(SETTLING));
        if self.upgrade.last != known {
            self.tell_of_upgrade();
        }
        self.forget_former();
    }

    /// Kills a keeper that hangs as it becomes the new binary: it is heard of as
    /// any that dies. To be called once a second.
    pub(crate) fn look_after_settling(&mut self) {
        let Some(settling) = self.upgrade.settling.as_mut().filter(|settling| settling.is_over()) else {
            return;
        };
        *settling = Settling { until: Instant::now() + SETTLING, is_late: true };
        let words = match self.link.kill_keeper() {
            Ok(()) => "it is killed".to_owned(),
            Err(error) => format!("it cannot be killed: {}", words::errno(&error)),
        };
        tracing::error!("upgrade: the keeper did not become the new binary within {SETTLING:?}, {words}");
    }

    /// Nobody is left who could say more of an upgrade that is under way. Returns
    /// what the next keeper is to tell masters of it, if that one `is_ours` to
    /// start: it is of the version before, and its master tells of it.
    pub(crate) fn hear_of_lost_keeper(&mut self, is_ours: bool) -> Option<keeper::Upgrade> {
        let is_late = self.upgrade.settling.is_some_and(|settling| settling.is_late);
        let last = self.upgrade.last.as_mut().filter(|last| !last.stage.is_over())?;
        let settles = last.stage == UpgradeStage::Settling;
        let cause = match (settles, is_late) {
            (true, true) => "the keeper hung as it became the new binary",
            (true, false) => "the keeper died as it became the new binary",
            (false, _) => "the keeper has died",
        };
        // A service manager starts what is installed, which is the new one.
        let is_done = settles && !is_ours;
        last.stage = if is_done { UpgradeStage::Done } else { UpgradeStage::RolledBack };
        last.cause = Some(cause.to_owned());
        let news = label(last).filter(|_| is_ours).map(|label| keeper::Upgrade {
            label,
            stage: keeper::UpgradeStage::RolledBack,
            cause: cause.to_owned(),
        });
        if news.is_none() {
            self.tell_of_upgrade();
        }
        news
    }

    /// Lets go of the binary of the version before, unless it may still be
    /// needed.
    pub(crate) fn forget_former(&self) {
        if self.upgrade.last.as_ref().is_none_or(|last| last.stage.is_over()) {
            self.link.delete(FORMER);
        }
    }

    fn give_upgrade_up(&mut self, cause: String) {
        if let Some(last) = &mut self.upgrade.last {
            last.stage = UpgradeStage::RolledBack;
            last.cause = Some(cause);
            self.tell_of_upgrade();
        }
    }

    /// Tells of the upgrade that the keeper has named to this master, as to every
    /// one; of its end only if no other master has.
    pub(crate) fn hear_of_past_upgrade(&self) {
        // One that was given up before the keeper knew of it was told last.
        let told = self.upgrade_told();
        let is_told = |last: &Upgrade| last.stage.is_over() && told >= Some(last.id);
        if !self.upgrade.last.as_ref().is_some_and(is_told) {
            self.tell_of_upgrade();
        }
    }

    /// The last upgrade whose end was told: numbers ascend.
    fn upgrade_told(&self) -> Option<u64> {
        let held = self.link.mirror().lock();
        held.table.get(UPGRADED).and_then(|entry| records::read(&entry.record).ok())
    }

    /// Tells the log, and those who follow what happens.
    pub(crate) fn tell_of_upgrade(&self) {
        let Some(last) = &self.upgrade.last else { return };
        let binary = last.binary.display();
        let (from, to) = (&last.from, last.to.as_deref().unwrap_or("an unknown version"));
        let detail = match (last.stage, &last.cause) {
            (UpgradeStage::RolledBack, Some(cause)) => {
                format!("upgrade to {binary}: version {from} goes on: {cause}")
            }
            (UpgradeStage::RolledBack, None) => format!("upgrade to {binary}: version {from} goes on"),
            (UpgradeStage::Done, _) => format!("upgrade to {binary}: done, version {to} in place of {from}"),
            (stage, _) => format!("upgrade to {binary}, version {to} in place of {from}: {}", stage.as_str()),
        };
        if last.stage == UpgradeStage::RolledBack {
            tracing::error!("{detail}");
        } else {
            tracing::info!("{detail}");
        }
        self.events.tell(|| Happening::Daemon { detail });
        if last.stage.is_over() && self.upgrade_told() < Some(last.id) {
            self.link.put(UPGRADED, &to_json(&last.id), &[]);
        }
    }
}

/// What the keeper is to call an upgrade; `None` if that is too long, or if it is not known
/// to which version it leads.
fn label(upgrade: &Upgrade) -> Option<String> {
    let Upgrade { id, binary, from, to, .. } = upgrade.clone();
    let text = String::from_utf8(to_json(&Label { id, binary, from, to: to? })).ok()?;
    (text.len() <= MAX_TEXT).then_some(text)
}

/// What the keeper says, in our words; `None` for the label of another program.
fn read(news: keeper::Upgrade) -> Option<Upgrade> {
    let keeper::Upgrade { label, stage, cause } = news;
    let Label { id, binary, from, to } = serde_json::from_str(&label)
        .inspect_err(|error| tracing::warn!("the keeper tells of an unknown upgrade: {error}"))
        .ok()?;
    let stage = match stage {
        keeper::UpgradeStage::Rehearsing => UpgradeStage::Rehearsing,
        keeper::UpgradeStage::Leaving => UpgradeStage::Leaving,
        keeper::UpgradeStage::Trying => UpgradeStage::Trying,
        keeper::UpgradeStage::Settling => UpgradeStage::Settling,
        keeper::UpgradeStage::Done => UpgradeStage::Done,
        keeper::UpgradeStage::RolledBack => UpgradeStage::RolledBack,
    };
    Some(Upgrade { id, binary, from, to: Some(to), stage, cause: (!cause.is_empty()).then_some(cause) })
}

/// What a binary says of itself, if it is one of ours.
fn identity(line: &str) -> Result<Identity, String> {
    let identity = serde_json::from_str(line).ok().filter(Identity::is_ours);
    identity.ok_or_else(|| format!("it is no supervisor: asked what it is, it said {line:?}"))
}

/// A file that may be executed, as its descriptor.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

/// Where the running binary is, or another in its place.
fn own_path() -> io::Result<PathBuf> {
    let path = fs::read_link("/proc/self/exe")?.into_os_string().into_vec();
    let path = path.strip_suffix(DELETED).unwrap_or(&path);
    Ok(Path::new(std::ffi::OsStr::from_bytes(path)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_are_known() {
        let json = String::from_utf8(to_json(&Identity::own())).unwrap();
        assert_eq!(identity(&json).unwrap().version, RELEASE);
        for line in ["", "identify: unknown command", "{\"program\":\"other\",\"version\":\"1\"}"] {
            assert!(identity(line).unwrap_err().contains("no supervisor"), "{line}");
        }
    }

    #[test]
    fn folders_are_no_binaries() {
        assert!(open(Path::new("/tmp")).is_err());
        assert!(open(Path::new("/nonexistent")).is_err());
        assert!(open(&own_path().unwrap()).is_ok());
    }
}
