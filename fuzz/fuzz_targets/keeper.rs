//! Packets between keeper and master.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_protocol::fuzzing::keeper(data));
