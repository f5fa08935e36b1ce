//! The broker over real servers.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and one that cannot run says so"
)]

mod access;
mod cluster;
mod conformance;
mod delay;
mod durability;
mod health;
mod server;
mod streams;
mod world;
