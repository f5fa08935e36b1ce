//! What is fuzzed. Each function takes any bytes, and panics only when the bus has a defect.
//!
//! The targets of cargo-fuzz call them, and so does a test of the program, with the corpus.

mod api;
mod log;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::{Clock, Entropy};

pub use api::api;
pub use log::log;
pub use wire::{batch, cloudevents, contract, front, stored};

/// A moment in 2026, in milliseconds since 1970.
const NOW_MS: u64 = 1_780_000_000_000;

/// Time that passes a little with each look, and dice that count: a run can be played again.
#[derive(Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(10, Ordering::Relaxed))
    }
}

impl Entropy for Still {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
