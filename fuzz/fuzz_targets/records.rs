//! What the keeper gives a new master.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::records(data));
