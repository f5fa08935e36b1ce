//! Requests to the Application Connector's front.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eventbus_fuzz::front(bytes));
