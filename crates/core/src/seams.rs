//! The seams to the world outside: time and chance.
//!
//! Both are given to whoever needs them by the program (or by a test), so that a run can be
//! repeated exactly.

use std::sync::Arc;
use std::time::Duration;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time in milliseconds since 1970-01-01 UTC. May jump, forwards and backwards.
    fn now_ms(&self) -> u64;

    /// The same in microseconds, as far as the clock tells them.
    fn now_us(&self) -> u64 {
        self.now_ms() * 1_000
    }

    /// Time since some fixed moment of this process. Never falls.
    fn elapsed(&self) -> Duration;
}

/// Rolls the dice.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }

    fn now_us(&self) -> u64 {
        (**self).now_us()
    }

    fn elapsed(&self) -> Duration {
        (**self).elapsed()
    }
}

impl<T: Entropy + ?Sized> Entropy for Arc<T> {
    fn next_u64(&self) -> u64 {
        (**self).next_u64()
    }
}
