//! What a client of the control API sends.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::control(data));
