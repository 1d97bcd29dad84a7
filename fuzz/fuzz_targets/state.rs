//! The file of what is declared.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::state(data));
