//! What a client of the control API sends.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::control(data));
