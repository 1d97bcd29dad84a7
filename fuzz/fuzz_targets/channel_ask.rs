//! The envelope in a line of a worker.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_protocol::fuzzing::channel_ask(data));
