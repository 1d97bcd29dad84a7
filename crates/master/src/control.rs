//! The control API on its Unix socket: requests become messages to the master,
//! whose answers are snapshots or streams. Nothing here can hold the master's
//! loop: it only ever hands over what is ready.

mod channel;
mod environment;
mod events;
mod history;
mod logs;
mod routes;
mod server;

use std::collections::BTreeMap;

use jiff::Timestamp;
use supervisor_core::Slots;
use supervisor_protocol::control::{
    Apply, ErrorDetail, Flush, Kill, Progress, Reopen, Reset, Scale, Select, SendMessage, SendSignal,
    StartUpgrade,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use channel::Listening;
pub(crate) use environment::Subject;
pub(crate) use events::Following;
pub(crate) use logs::{LogFile, LogQuery, Logs};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use routes::router;
pub(crate) use routes::to_json;
pub(crate) use server::{Held, Server, bind};

use crate::operations::Answer;
use crate::output::FlushError;

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    /// What the client calls it, so that it can be given again.
    pub(crate) key: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<Reply, ErrorDetail>>,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Ping,
    Status {
        selectors: Vec<String>,
    },
    /// Settings, with values of variables or without.
    Describe {
        selectors: Vec<String>,
        reveal: bool,
    },
    /// The variables of workers, with secrets or without.
    Env {
        selectors: Vec<String>,
        reveal: bool,
    },
    Logs(LogQuery),
    /// What happens to these from now on.
    Events {
        selectors: Vec<String>,
        /// What has happened since then, too, as far as it is remembered.
        since: Option<Timestamp>,
    },
    Apply(Apply),
    Start(Select),
    Stop(Select),
    Restart(Select),
    Reload(Select),
    Abort(Select),
    Delete(Select),
    Scale(Scale),
    Signal(SendSignal),
    Send(SendMessage),
    /// What workers of these say to each other from now on.
    Channel {
        selectors: Vec<String>,
    },
    Reset(Reset),
    Flush(Flush),
    Reopen(Reopen),
    /// How far an upgrade has come.
    Upgrades,
    Upgrade(StartUpgrade),
    Kill(Kill),
}

impl Ask {
    /// Whether it can change what is declared.
    pub(crate) const fn declares(&self) -> bool {
        match self {
            Self::Apply(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Reload(_)
            | Self::Delete(_)
            | Self::Scale(_) => true,
            Self::Ping
            | Self::Status { .. }
            | Self::Describe { .. }
            | Self::Env { .. }
            | Self::Logs(_)
            | Self::Events { .. }
            | Self::Abort(_)
            | Self::Signal(_)
            | Self::Send(_)
            | Self::Channel { .. }
            | Self::Reset(_)
            | Self::Flush(_)
            | Self::Reopen(_)
            | Self::Upgrades
            | Self::Upgrade(_)
            | Self::Kill(_) => false,
        }
    }
}

/// Which apps and slots a stream is about.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    /// All that there are and that there will be.
    Everything,
    /// Those that the selectors meant when they were given.
    These(BTreeMap<String, Slots>),
}

impl Selection {
    /// Whether an app is in it, and the slot if there is one.
    pub(crate) fn contains(&self, app: &str, slot: Option<u32>) -> bool {
        match self {
            Self::Everything => true,
            Self::These(apps) => {
                apps.get(app).is_some_and(|slots| slot.is_none_or(|slot| slots.contains(slot)))
            }
        }
    }
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A JSON object.
    Json(Vec<u8>),
    /// The steps of an order.
    Order(Answer),
    /// The same in safe mode: the last one is `Done`.
    Steps(mpsc::Receiver<Progress>),
    /// The workers whose variables are to be read, and whether secrets are shown.
    Env(Vec<Subject>, bool),
    /// Output of workers.
    Logs(Logs),
    /// What happens.
    Events(Following),
    /// What workers say to each other.
    Channel(Listening),
    /// A message that is being sent: to how many workers, for each part.
    Sent(Vec<oneshot::Receiver<u32>>),
    /// Log files that are being emptied: how many, and what became of it.
    Flush(u32, oneshot::Receiver<Result<(), FlushError>>),
}
