//! A datagram of a worker: `sd_notify(3)`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_master::fuzzing::notify(data));
