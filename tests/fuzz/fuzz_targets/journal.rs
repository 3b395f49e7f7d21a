//! libFuzzer's program for `vendue_fuzz::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::journal::run(bytes));
