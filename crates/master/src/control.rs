//! The control API on its Unix socket: requests become messages to the master,
//! whose answers are snapshots or streams. Nothing here can hold the master's
//! loop: it only ever hands over what is ready.

mod environment;
mod history;
mod logs;
mod routes;
mod server;

use supervisor_protocol::control::{
    Apply, ErrorDetail, Flush, Kill, Reopen, Reset, Scale, Select, SendSignal,
};
use tokio::sync::oneshot;

pub(crate) use environment::Subject;
pub(crate) use logs::{LogFile, LogQuery, Logs};
pub(crate) use routes::to_json;
pub(crate) use server::{Server, bind};

use crate::operations::Answer;
use crate::output::FlushError;

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Result<Reply, ErrorDetail>>,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Ping,
    Status {
        selectors: Vec<String>,
    },
    Describe {
        selectors: Vec<String>,
    },
    /// The variables of workers, with secrets or without.
    Env {
        selectors: Vec<String>,
        reveal: bool,
    },
    Logs(LogQuery),
    Apply(Apply),
    Start(Select),
    Stop(Select),
    Restart(Select),
    Reload(Select),
    Delete(Select),
    Scale(Scale),
    Signal(SendSignal),
    Reset(Reset),
    Flush(Flush),
    Reopen(Reopen),
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
            | Self::Signal(_)
            | Self::Reset(_)
            | Self::Flush(_)
            | Self::Reopen(_)
            | Self::Kill(_) => false,
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
    /// The workers whose variables are to be read, and whether secrets are shown.
    Env(Vec<Subject>, bool),
    /// Output of workers.
    Logs(Logs),
    /// Log files that are being emptied: how many, and what became of it.
    Flush(u32, oneshot::Receiver<Result<(), FlushError>>),
}
