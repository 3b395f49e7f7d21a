//! libFuzzer's program for `vendue_fuzz::qmp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::qmp::run(bytes));
