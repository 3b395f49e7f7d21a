//! libFuzzer's program for `vendue_fuzz::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::snapshot::run(bytes));
