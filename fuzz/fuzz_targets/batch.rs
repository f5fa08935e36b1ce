//! Publish requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eventbus_fuzz::batch(bytes));
