//! The real clock and the real dice: the only place of the program that asks the system for either.

use std::time::{Duration, UNIX_EPOCH};

use eventbus_core::{Clock, Entropy};

/// The clock of the machine.
#[derive(Debug)]
pub(crate) struct SystemClock {
    started: std::time::Instant,
}

/// The random source of the machine.
#[derive(Debug)]
pub(crate) struct SystemEntropy;

impl SystemClock {
    /// A clock whose `elapsed` counts from now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that all others ask")]
    pub(crate) fn start() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that all others ask")]
    fn now_us(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_micros() as u64)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
