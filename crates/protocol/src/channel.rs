//! The channel between workers: one JSON value a line, in both directions.
//!
//! [`Line`] says what a line of a worker is for; [`Ask`] is what it says in
//! the form `{"supervisor": …}`, and [`Tell`] what it is answered.

mod ask;
mod line;
mod tell;

pub use ask::{Ask, BadAsk, Change, MAX_RETAIN, MAX_TIMEOUT, MAX_TOPIC, To};
pub use line::{BadLine, Line};
pub use tell::{Peer, Tell};
