//! A line of a worker.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_protocol::fuzzing::channel_line(data));
