//! Push against real sockets on loopback and a broker in memory.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failure is a panic")]

mod broker;
mod changes;
mod delivery;
mod drain;
mod isolation;
mod log;
mod memory;
mod outcomes;
mod random;
mod subscriber;
mod tls;
mod world;
