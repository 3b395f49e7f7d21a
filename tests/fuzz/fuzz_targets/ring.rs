//! libFuzzer's program for `vendue_fuzz::ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::ring::run(bytes));
