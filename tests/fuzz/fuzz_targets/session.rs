//! libFuzzer's program for `vendue_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vendue_fuzz::session::run(bytes));
