//! An ecosystem file.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_config::fuzzing::config(data));
