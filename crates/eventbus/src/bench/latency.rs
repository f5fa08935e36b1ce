//! Latencies, in microseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart: an hour. A longer one counts as that.
const LONGEST_US: u64 = 3_600_000_000;

/// Significant digits kept.
const DIGITS: u8 = 3;

/// Recorded latencies.
#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

/// What is said about recorded latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50_us: u64,
    pub(super) p90_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    pub(super) max_us: u64,
}

impl Latency {
    /// Nothing recorded.
    #[expect(clippy::expect_used, reason = "the bounds are constants and valid")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("valid bounds"))
    }

    /// Records one.
    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    /// What can be said about all recorded so far.
    pub(super) fn percentiles(&self) -> Percentiles {
        let at = |percentile| self.0.value_at_percentile(percentile);
        Percentiles {
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::new();
        for ms in 1..=1000 {
            latency.record(Duration::from_millis(ms));
        }
        let near = |is: u64, should: u64| is.abs_diff(should) * 500 <= should;
        let seen = latency.percentiles();
        assert!(near(seen.p50_us, 500_000) && near(seen.p90_us, 900_000), "{seen:?}");
        assert!(near(seen.p99_us, 990_000) && near(seen.p999_us, 999_000), "{seen:?}");
        assert!(near(seen.max_us, 1_000_000), "{seen:?}");
    }

    #[test]
    fn extremes_are_counted_at_the_ends() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), Percentiles::default());
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(1_000_000));
        let seen = latency.percentiles();
        assert_eq!(seen.p50_us, 1);
        assert!(seen.max_us >= LONGEST_US);
    }
}
