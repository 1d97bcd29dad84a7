//! What the keeper gives a new master.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::records(data));
