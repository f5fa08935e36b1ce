//! Drives the publish port's service with requests, over a broker and an API that tests steer.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod forms;
mod metrics;
mod publish;
mod traces;
mod world;
