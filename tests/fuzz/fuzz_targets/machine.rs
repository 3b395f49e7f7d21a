//! libFuzzer's program for `vendue_fuzz::machine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::machine::run(bytes));
