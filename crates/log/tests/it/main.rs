//! The log from outside, through the broker's seam.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

mod concurrency;
mod conformance;
mod damage;
mod dead_letters;
mod delayed;
mod full;
mod lagging;
mod opening;
mod repeats;
mod retention;
mod road;
mod support;
mod waking;
