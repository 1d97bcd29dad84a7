//! Programs of classic BPF that pick who gets a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervisor_sys::steering::fuzz(data));
