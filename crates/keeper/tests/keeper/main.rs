//! A real keeper with real masters, whose part the test plays.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod daemon;
mod ends;
mod output;
mod programs;
mod signals;
mod table;
mod wait;
