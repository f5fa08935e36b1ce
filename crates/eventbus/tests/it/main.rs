//! Drives the built program over real sockets.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and one that cannot run says so"
)]

mod bench;
mod bench_page;
mod bench_peers;
mod bus;
mod cloudevents;
mod cluster;
#[path = "../../../traces/tests/it/collector.rs"]
#[expect(dead_code, reason = "the tests of the export use all of it")]
mod collector;
mod controller;
mod corpus;
mod deploy;
mod described;
mod envoy;
mod faults;
mod kubectl;
mod listen;
mod logs;
mod losses;
mod metrics;
#[path = "../../../nats/tests/it/server.rs"]
#[expect(dead_code, reason = "the tests of the broker use all of it")]
mod nats_server;
mod ports;
mod program;
mod prometheus;
mod publish;
mod publish_lines;
mod python;
mod resources;
mod road;
mod roles;
mod served;
mod server;
mod serving;
mod subscriber;
#[path = "../../src/system.rs"]
mod system;
mod tokens;
mod top;
mod traces;
mod transcripts;
