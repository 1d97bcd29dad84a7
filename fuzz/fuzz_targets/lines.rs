//! Output of a worker, in pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::lines(data));
