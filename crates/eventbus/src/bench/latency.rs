//! Latencies, in microseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart: an hour. A longer one counts as that.
const LONGEST_US: u64 = 3_600_000_000;

/// Significant digits kept.
const DIGITS: u8 = 3;

/// The shares of the events, in percent, whose latency is told in a curve.
const SHARES: [f64; 16] = [
    10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99,
    99.999, 100.0,
];

/// Bars of a distribution between a latency and its double.
const BARS_PER_DOUBLING: f64 = 4.0;

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

/// A share of the events, and how long the slowest of them took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    pub(super) percent: f64,
    pub(super) us: u64,
}

/// How many events took longer than those of the bar before, and at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Bar {
    pub(super) upto_us: f64,
    pub(super) events: u64,
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

    /// How long the fastest of them took, at [`SHARES`].
    pub(super) fn curve(&self) -> Vec<Point> {
        let point = |percent| Point { percent, us: self.0.value_at_percentile(percent) };
        if self.0.is_empty() { Vec::new() } else { SHARES.map(point).to_vec() }
    }

    /// How they are spread: bars of even width on a logarithmic scale, from the first that is not
    /// empty to the last.
    pub(super) fn distribution(&self) -> Vec<Bar> {
        let mut bars: Vec<Bar> = Vec::new();
        let number = |us: u64| (us.max(1) as f64).log2() * BARS_PER_DOUBLING;
        let upto = |number: f64| (number / BARS_PER_DOUBLING).exp2();
        let mut next = number(self.0.min()).ceil();
        for step in self.0.iter_recorded() {
            let us = step.value_iterated_to();
            while bars.is_empty() || upto(next - 1.0) < us as f64 {
                bars.push(Bar { upto_us: upto(next), events: 0 });
                next += 1.0;
            }
            if let Some(bar) = bars.last_mut() {
                bar.events += step.count_since_last_iteration();
            }
        }
        bars
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
    fn every_event_is_in_one_bar() {
        let mut latency = Latency::new();
        for us in [1, 1, 2, 90, 100, 101, 100_000] {
            latency.record(Duration::from_micros(us));
        }
        let bars = latency.distribution();
        assert_eq!(bars.iter().map(|bar| bar.events).sum::<u64>(), 7);
        assert_eq!(bars[0], Bar { upto_us: 1.0, events: 2 });
        assert!(bars.is_sorted_by(|one, next| one.upto_us < next.upto_us));
        let last = bars.last().unwrap();
        assert!(last.events == 1 && last.upto_us >= 100_000.0 && last.upto_us < 130_000.0);
        let upto_128: u64 =
            bars.iter().filter(|bar| bar.upto_us < 129.0).map(|bar| bar.events).sum();
        assert_eq!(upto_128, 6);
        assert_eq!((Latency::new().distribution(), Latency::new().curve()), (vec![], vec![]));
    }

    #[test]
    fn a_curve_rises_to_the_longest() {
        let mut latency = Latency::new();
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        let curve = latency.curve();
        assert!(curve.is_sorted_by_key(|point| point.us));
        assert_eq!(curve.last().unwrap().us, latency.percentiles().max_us);
        assert!(curve[2].percent == 50.0 && curve[2].us.abs_diff(50_000) < 100, "{curve:?}");
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
