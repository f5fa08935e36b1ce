//! Requests to the embedded API.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eventbus_fuzz::api(bytes));
