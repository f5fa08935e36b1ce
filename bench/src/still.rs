//! A world that does not move, so that a step does the same whenever it is done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::{Clock, Entropy};

/// A moment in 2026, in milliseconds since 1970.
const NOW_MS: u64 = 1_780_000_000_000;

/// Time that stands, and dice that count.
#[derive(Default)]
pub(crate) struct Still(AtomicU64);

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl Entropy for Still {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
