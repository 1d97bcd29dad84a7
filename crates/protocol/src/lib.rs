//! The wires of the supervisor, as types: what travels between the command
//! line and the master ([`control`], [`events`]), and between the keeper and the master
//! ([`keeper`]).
//!
//! This crate opens no socket and knows no policy. Everything here is public
//! interface or crosses a version boundary: fields may be added, never renamed
//! or retyped.

pub mod channel;
pub mod control;
pub mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod keeper;
pub mod release;
