//! Drives the built program over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bench;
mod bus;
mod kubectl;
mod listen;
mod program;
mod publish;
mod road;
mod served;
mod server;
mod serving;
mod subscriber;
