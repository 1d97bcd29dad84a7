//! What a service manager is told, if one has started the daemon:
//! `sd_notify(3)`. The keeper passes it on, for it is the process that the
//! manager knows.

use std::fmt::Write as _;

use supervisor_core::{AppSnapshot, AppState, SlotState};

/// How much time is asked for at each beat while a start or a stop goes on,
/// microseconds. A master that dies meanwhile has a successor by then.
const EXTENSION: u32 = 15_000_000;

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Service {
    phase: Phase,
    status: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Ready,
    Stopping,
}

/// How things are.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) apps: usize,
    /// Workers that there should be.
    pub(crate) wanted: u64,
    pub(crate) ready: u64,
    /// Workers that have not had their first chance yet.
    pub(crate) awaited: usize,
    /// Workers whose process exists.
    pub(crate) running: u64,
    /// An app is being reloaded.
    pub(crate) reloading: bool,
    /// Everything is to end.
    pub(crate) ending: bool,
    /// Something will be done before long though nothing happens: what goes on
    /// comes to its end.
    pub(crate) advancing: bool,
}

impl Facts {
    /// Takes an app into account.
    pub(crate) fn add(&mut self, app: &AppSnapshot) {
        self.apps += 1;
        self.wanted += u64::from(app.wanted);
        self.ready += u64::from(app.ready);
        self.running += u64::from(app.running);
        self.reloading |= app.state == AppState::Reloading;
        let first = |state| match state {
            SlotState::Starting | SlotState::Draining | SlotState::Stopping => true,
            SlotState::Ready | SlotState::Stopped | SlotState::Backoff | SlotState::Errored => false,
        };
        self.awaited +=
            app.slots.iter().filter(|slot| first(slot.state) && slot.last_ending.is_none()).count();
    }
}

impl Service {
    /// What to tell now. To be called at each beat, so that the manager's
    /// watchdog sees that the master lives.
    pub(crate) fn words(&mut self, facts: &Facts) -> String {
        let mut text = "WATCHDOG=1".to_owned();
        let phase = match self.phase {
            _ if facts.ending => Phase::Stopping,
            Phase::Starting if facts.awaited > 0 => Phase::Starting,
            Phase::Starting | Phase::Ready => Phase::Ready,
            Phase::Stopping => Phase::Stopping,
        };
        if phase != self.phase {
            self.phase = phase;
            match phase {
                Phase::Starting => {}
                Phase::Ready => text.push_str("\nREADY=1"),
                Phase::Stopping => text.push_str("\nSTOPPING=1"),
            }
        }
        let Facts { apps, wanted, ready, running, .. } = facts;
        let status = match phase {
            Phase::Starting => format!("starting: {ready} of {wanted} workers ready"),
            Phase::Ready if *apps == 0 => "no app is declared".to_owned(),
            Phase::Ready if facts.reloading => format!("reloading, {ready} of {wanted} workers ready"),
            Phase::Ready => format!("{ready} of {wanted} workers ready"),
            Phase::Stopping => format!("ending, workers left: {running}"),
        };
        if status != self.status {
            // Writing to a String cannot fail.
            let _ = write!(text, "\nSTATUS={status}");
            self.status = status;
        }
        if (phase != Phase::Ready || facts.reloading) && facts.advancing {
            let _ = write!(text, "\nEXTEND_TIMEOUT_USEC={EXTENSION}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_told() {
        let mut service = Service::default();
        let mut check = |facts: Facts, expected: &str| {
            assert_eq!(service.words(&facts).replace('\n', " "), expected);
        };
        let starting = Facts { apps: 1, wanted: 2, awaited: 2, advancing: true, ..Facts::default() };
        check(starting, "WATCHDOG=1 STATUS=starting: 0 of 2 workers ready EXTEND_TIMEOUT_USEC=15000000");
        check(Facts { awaited: 1, ..starting }, "WATCHDOG=1 EXTEND_TIMEOUT_USEC=15000000");
        // One failed, the other is ready: both had their chance.
        let ready = Facts { awaited: 0, ready: 1, ..starting };
        check(ready, "WATCHDOG=1 READY=1 STATUS=1 of 2 workers ready");
        check(ready, "WATCHDOG=1");
        check(Facts { awaited: 1, ..ready }, "WATCHDOG=1");
        let reloading = Facts { reloading: true, ..ready };
        check(reloading, "WATCHDOG=1 STATUS=reloading, 1 of 2 workers ready EXTEND_TIMEOUT_USEC=15000000");
        check(ready, "WATCHDOG=1 STATUS=1 of 2 workers ready");
        let ending = Facts { ending: true, running: 1, ..ready };
        check(ending, "WATCHDOG=1 STOPPING=1 STATUS=ending, workers left: 1 EXTEND_TIMEOUT_USEC=15000000");
        // Nothing more can be done about what is left.
        check(Facts { advancing: false, ..ending }, "WATCHDOG=1");
    }

    #[test]
    fn without_apps_it_is_ready() {
        let words = Service::default().words(&Facts::default());
        assert_eq!(words, "WATCHDOG=1\nREADY=1\nSTATUS=no app is declared");
    }
}
