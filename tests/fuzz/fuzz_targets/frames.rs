//! libFuzzer's program for `vendue_fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::frames::run(bytes));
