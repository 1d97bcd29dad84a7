//! Masters of another binary: from the order to its end, or back.
//!
//! Until a master of the new binary has proved itself the keeper is of the old
//! one, and going back is starting the old one's master again.

use std::ffi::OsString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use supervisor_protocol::keeper::{self as protocol, ToKeeper, UpgradeStage};
use supervisor_sys::pidfd::{self, Exit};
use supervisor_sys::signal::{self, Signal};
use supervisor_sys::{Pid, own};

use super::{BURST, Keeper};
use crate::log::say;
use crate::master::Master;
use crate::state::{save, save_running};

/// How long the new binary may take to restore a copy of the table.
const REHEARSAL: Duration = Duration::from_secs(10);
/// How long the old master may take to leave.
const LEAVING: Duration = Duration::from_secs(5);
/// How long the new one may take to serve.
const TAKEOVER: Duration = Duration::from_secs(10);
/// So often it must say that it is alive, once a second, while it serves. One
/// that hangs meanwhile is ended for its silence.
const BEATS: u32 = 5;
/// What tells a keeper where its state is.
const STATE_FD_OPTION: &str = "--state-fd";

/// An upgrade that is under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    label: String,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The new binary restores a copy of the table in a child.
    Rehearsing { child: Master, binary: OwnedFd, until: Instant },
    /// The old master makes room.
    Leaving { binary: OwnedFd, until: Instant },
    /// The master is of the new binary. It has served for so many beats, or must
    /// do so by then.
    Trying { former: OwnedFd, until: Instant, beats: u32 },
}

impl Keeper {
    /// Begins an upgrade to the binary that came with the order.
    pub(super) fn begin_upgrade(&mut self, label: String, binary: Option<OwnedFd>, now: Instant) {
        let Some(binary) = binary.filter(|_| self.upgrade.is_none() && !self.ends()) else {
            say!("the upgrade is not begun: one is under way, everything is to end, or no binary came");
            return;
        };
        let state = match save(&self.hello, &self.table, None) {
            Ok(state) => state,
            Err(error) => return self.roll_back(&label, format!("cannot save the keeper's state: {error}")),
        };
        match self.cradle.rehearse(binary.as_fd(), state.file(), &self.poller, now) {
            Ok(child) => {
                say!("upgrade: a child of the new binary, {}, restores a copy of the table", child.pid);
                self.report(&label, UpgradeStage::Rehearsing, String::new());
                let step = Step::Rehearsing { child, binary, until: now + REHEARSAL };
                self.upgrade = Some(Upgrade { label, step });
            }
            Err(error) => {
                say!("upgrade: {error}");
                self.report(&label, UpgradeStage::RolledBack, error.to_string());
            }
        }
    }

    /// Whether everything is to end.
    fn ends(&self) -> bool {
        self.finish.is_some() || self.ending.is_asked()
    }

    /// When an upgrade has waited long enough.
    pub(super) fn upgrade_deadline(&self) -> Option<Instant> {
        let Upgrade { step, .. } = self.upgrade.as_ref()?;
        match step {
            Step::Rehearsing { child, until, .. } => {
                Some(child.retry().map_or(*until, |retry| retry.min(*until)))
            }
            Step::Leaving { until, .. } => Some(*until),
            Step::Trying { until, beats: 0, .. } => Some(*until),
            Step::Trying { .. } => None,
        }
    }

    /// Ends what an upgrade has waited for long enough. Its end comes as
    /// SIGCHLD.
    pub(super) fn look_after_upgrade(&mut self, now: Instant) {
        let Some(Upgrade { step, .. }) = &mut self.upgrade else { return };
        match step {
            Step::Rehearsing { child, until, .. } => {
                child.send(&self.hello, &self.table, &mut self.news, &self.poller, now);
                if now >= *until {
                    child.last_words = Some(format!("it was not done within {REHEARSAL:?}"));
                    let _ = pidfd::send_signal(&child.pidfd, Signal::KILL);
                    *until = now + REHEARSAL;
                }
            }
            Step::Leaving { until, .. } if now >= *until => {
                if let Some(master) = &self.master {
                    say!("master {} does not make room: killing it", master.pid);
                    let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
                }
                *until = now + LEAVING;
            }
            Step::Trying { until, beats: 0, .. } if now >= *until => {
                if let Some(master) = &mut self.master {
                    master.last_words = Some(format!("it did not serve within {TAKEOVER:?}"));
                    let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
                }
                *until = now + TAKEOVER;
            }
            Step::Leaving { .. } | Step::Trying { .. } => {}
        }
    }

    /// Takes what the child has said that rehearses.
    pub(super) fn hear_rehearsal(&mut self) {
        let Some(Upgrade { step: Step::Rehearsing { child, .. }, .. }) = &mut self.upgrade else { return };
        for _ in 0..BURST {
            match child.receive(&mut self.buffer) {
                Ok(received) if received.len > 0 => {
                    match ToKeeper::decode(self.buffer.get(..received.len).unwrap_or_default()) {
                        Ok(ToKeeper::Adopted) => child.serves = true,
                        Ok(ToKeeper::Failed { text }) => child.last_words = Some(text),
                        // It has nothing else to say.
                        Ok(_) | Err(_) => {}
                    }
                }
                Ok(_) => {
                    let _ = self.poller.remove(&child.socket);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Whether this is the child that rehearses.
    pub(super) fn rehearses(&self, pid: Pid) -> bool {
        matches!(&self.upgrade, Some(Upgrade { step: Step::Rehearsing { child, .. }, .. }) if child.pid == pid)
    }

    /// The child that rehearses has ended: the old master makes room, or stays.
    pub(super) fn end_rehearsal(&mut self, exit: Exit) {
        // What it said before it ended counts.
        self.hear_rehearsal();
        let Some(Upgrade { label, step }) = self.upgrade.take() else { return };
        let Step::Rehearsing { child, binary, .. } = step else {
            self.upgrade = Some(Upgrade { label, step });
            return;
        };
        let _ = self.poller.remove(&child.socket);
        if !child.serves || exit != Exit::Code(0) {
            let what = if child.last_words.is_none() && exit == Exit::Code(0) {
                "it said nothing of the table, and ended".to_owned()
            } else {
                "it cannot take over what runs".to_owned()
            };
            self.roll_back(&label, explain(&what, exit, child.last_words));
        } else if !self.ends() {
            let now = Instant::now();
            self.report(&label, UpgradeStage::Leaving, String::new());
            self.upgrade = Some(Upgrade { label, step: Step::Leaving { binary, until: now + LEAVING } });
            if self.master.is_none() {
                // One that has died has made room, too.
                self.try_new_binary(now);
            }
        }
    }

    /// Lets the next masters be of the new binary, if the one that has ended was
    /// to make room for them. Returns whether it was.
    pub(super) fn try_new_binary(&mut self, now: Instant) -> bool {
        let Some(Upgrade { label, step }) = self.upgrade.take() else { return false };
        let Step::Leaving { binary, .. } = step else {
            self.upgrade = Some(Upgrade { label, step });
            return false;
        };
        say!("upgrade: the next master is of the new binary");
        self.report(&label, UpgradeStage::Trying, String::new());
        let former = mem::replace(&mut self.cradle.binary, binary);
        self.safe = None;
        self.upgrade =
            Some(Upgrade { label, step: Step::Trying { former, until: now + TAKEOVER, beats: 0 } });
        true
    }

    /// Goes back to the old binary, if the master that has ended or could not be
    /// started was on trial. Returns whether it was.
    pub(super) fn go_back(&mut self, served: bool, how: &str, last_words: Option<String>) -> bool {
        let Some(Upgrade { label, step }) = self.upgrade.take() else { return false };
        let Step::Trying { former, .. } = step else {
            self.upgrade = Some(Upgrade { label, step });
            return false;
        };
        self.cradle.binary = former;
        let what = if served { "its master served, and ended soon after" } else { "its master never served" };
        self.roll_back(&label, explain(what, how, last_words));
        true
    }

    /// Notes that the master is alive, and serves if it is known to. Once it has
    /// done so for a while its binary is the keeper's.
    pub(super) fn note_beat(&mut self) {
        let serves = self.master.as_ref().is_some_and(|master| master.serves);
        let Some(Upgrade { label, step: Step::Trying { beats, .. } }) = &mut self.upgrade else { return };
        *beats += u32::from(serves);
        if *beats < BEATS {
            return;
        }
        let label = label.clone();
        if self.ends() {
            self.upgrade = None;
            return;
        }
        self.report(&label, UpgradeStage::Settling, String::new());
        // If this process fails from here on, the master knows why.
        self.send_to_master(Instant::now());
        self.report(&label, UpgradeStage::Done, String::new());
        let error = self.settle();
        let _ = signal::unblock_all();
        // It is still the old one, so all is to be.
        if let Some(Upgrade { step: Step::Trying { former, .. }, .. }) = self.upgrade.take() {
            self.cradle.binary = former;
        }
        self.roll_back(&label, format!("the keeper cannot become it: {error}"));
        if let Some(master) = &self.master {
            let _ = pidfd::send_signal(&master.pidfd, Signal::KILL);
        }
    }

    /// Becomes the new binary. It only returns when that has failed.
    fn settle(&mut self) -> io::Error {
        // A signal that comes from now on waits for the handlers of the new one;
        // those that were caught are told to the master.
        if let Err(error) = signal::block_all() {
            return error;
        }
        for signal in self.signals.take() {
            self.news.add_signal(signal);
        }
        let Some(master) = &self.master else { return io::ErrorKind::NotFound.into() };
        let state = match save_running(&self.hello, &self.table, &self.news, master) {
            Ok(state) => state,
            Err(error) => return error,
        };
        let number = match state.pass_on() {
            Ok(number) => number,
            Err(error) => return error,
        };
        say!("upgrade: becoming the new binary");
        let state_fd = [STATE_FD_OPTION.into(), number.to_string().into()];
        let args: Vec<OsString> = self.cradle.keeper_args.iter().cloned().chain(state_fd).collect();
        let error = own::become_program(self.cradle.binary.as_fd(), &args);
        let _ = state.take_back();
        error
    }

    /// Ends the child of an upgrade, if there is one: the keeper is about to
    /// leave.
    pub(super) fn abandon_upgrade(&mut self) {
        if let Some(Upgrade { step: Step::Rehearsing { child, .. }, .. }) = &self.upgrade {
            let _ = pidfd::send_signal(&child.pidfd, Signal::KILL);
        }
    }

    fn roll_back(&mut self, label: &str, cause: String) {
        say!("upgrade: going back: {cause}");
        self.report(label, UpgradeStage::RolledBack, cause);
    }

    /// Tells every master how far it has come.
    fn report(&mut self, label: &str, stage: UpgradeStage, mut cause: String) {
        cause.truncate(cause.floor_char_boundary(protocol::MAX_TEXT));
        self.news.set_upgrade(protocol::Upgrade { label: label.to_owned(), stage, cause });
    }
}

/// Why it went back: what did not work, how it ended, and its last words.
fn explain(what: &str, how: impl std::fmt::Display, last_words: Option<String>) -> String {
    match last_words {
        Some(words) => format!("{what} ({how}): {words}"),
        None => format!("{what} ({how})"),
    }
}
