//! The decisions of the supervisor, and nothing else.
//!
//! ```text
//!   Event + now  ──►  Supervisor::handle  ──►  Actions, next deadline
//! ```
//!
//! An [`Event`] is a fact: a worker ended, a person gave an order, time passed.
//! An [`Action`] is an order to the shell around this crate: spawn, signal,
//! close. Its outcome comes back as a later event.
//!
//! Every event only updates what is known; then one function, `reconcile`,
//! compares what is *wanted* with what *is* and emits what is missing. An order
//! that was given is recorded too, so none goes out twice, and a step that was
//! missed heals at the next turn.
//!
//! Time is an argument. There is no I/O, clock, thread, pid or file descriptor
//! here, and the only randomness is the jitter of restart pauses, drawn from a
//! seed given at construction: the same events at the same times give the same
//! actions. `no_std` keeps it so.
//!
//! Read [`event`] and [`action`], then `supervisor` and `app`.

#![no_std]

extern crate alloc;

mod app;
mod breaker;
mod jitter;
mod life;
mod operation;
mod replace;
mod slot;
mod sockets;
mod steps;

pub mod action;
pub mod backoff;
pub mod event;
pub mod id;
pub mod memo;
pub mod policy;
pub mod status;
pub mod supervisor;
pub mod time;

pub use action::{Action, Failure, Next, Notice, Outcome, Portion, Refusal, Step};
pub use app::MAX_SLOTS;
pub use event::{Event, Exit, Hang, Order, Slots};
pub use id::{AppId, Generation, OperationId, SeatId, Side, SlotId, WorkerId};
pub use memo::{AppMemo, SlotMemo};
pub use policy::{Policy, ReadyWhen, Reload};
pub use slot::{Cause, Ending, Rest, Stage};
pub use status::{AppSnapshot, AppState, Beside, SlotSnapshot, SlotState};
pub use supervisor::Supervisor;
pub use time::Timestamp;
