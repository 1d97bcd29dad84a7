//! The same core in a fake machine, with faults.
//!
//! A [`Simulation`] drives [`supervisor_core::Supervisor`] through a life that
//! depends on its seed alone: workers crash, hang, ignore signals and never get
//! ready, use too much memory and are never drained, releases are good or bad,
//! spawns fail, news comes late, twice or for workers long forgotten, the clock
//! leaps, and people give orders at bad moments. After a while the machine
//! behaves, so that what must come true in the end can be seen to; at the end
//! everything is shut down.
//!
//! ```text
//!   machine ── news ──►              ──► actions ──► machine
//!   people ── orders ─►  Supervisor                  witness ──► properties
//!   clock ── moments ─►
//! ```
//!
//! The *witness* keeps its own book of what happened, from the events and the
//! actions alone, and the *properties* compare. A run that breaks one, or panics,
//! is a [`Violation`]: it tells the story in the words of the core's scenarios, so
//! that it is one as it stands, and can be made shorter with
//! [`Violation::shrunk`].

mod agenda;
mod book;
mod coverage;
mod life;
mod machine;
#[path = "../../core/tests/narrate/mod.rs"]
mod narrate;
mod observed;
mod panics;
mod people;
#[cfg(test)]
#[path = "../../core/tests/play/mod.rs"]
mod play;
mod properties;
mod shrink;
mod simulation;
#[cfg(test)]
mod tests;
mod trace;
mod witness;

pub use coverage::Coverage;
pub use simulation::{Report, Simulation, Violation};
