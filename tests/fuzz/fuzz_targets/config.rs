//! libFuzzer's program for `vendue_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::config::run(bytes));
