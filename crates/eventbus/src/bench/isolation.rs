//! What bad endpoints cost the good ones: the same run without and with them, in alternating pairs.

use serde::Serialize;

use super::measured::Measured;
use super::plan::Plan;
use super::run::measure;
use super::subscribers::Trouble;
use crate::cli::{Fault, World};
use crate::output;

/// The least share of their throughput that healthy endpoints keep.
const THROUGHPUT_MIN: f64 = 0.95;

/// The most by which their 99th percentile grows.
const P99_MAX: f64 = 1.5;

/// The most by which it grows in absolute terms, in microseconds.
const P99_MORE_MAX_US: f64 = 10_000.0;

/// All pairs, and what they say.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Isolation {
    pub(super) pairs: Vec<Pair>,
    pub(super) summary: Summary,
}

/// The healthy endpoints of two runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    pub(super) without: Measured,
    pub(super) with: Measured,
}

/// Medians over the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Deliveries a second to healthy endpoints, without bad ones.
    pub(super) without_rate_per_s: f64,
    /// The same beside bad ones.
    pub(super) with_rate_per_s: f64,
    /// Median of the pairs' ratios.
    pub(super) throughput_ratio: f64,
    /// 99th percentile of healthy deliveries, without bad ones.
    pub(super) without_p99_us: f64,
    /// The same beside bad ones.
    pub(super) with_p99_us: f64,
    /// Median of the pairs' ratios.
    pub(super) p99_ratio: f64,
}

/// Deliveries a second and 99th percentile of one run.
type Healthy = (f64, f64);

/// Runs all pairs; every second one begins with the bad endpoints.
pub(super) async fn measure_pairs(plan: &Plan, world: &World) -> Result<Isolation, Fault> {
    let mut pairs = Vec::new();
    for number in 0..plan.pairs {
        output::note(&format!("pair {} of {}", number + 1, plan.pairs));
        let pair = if number % 2 == 0 {
            let without = measure(plan, world, &[]).await?;
            Pair { without, with: measure(plan, world, &Trouble::ALL).await? }
        } else {
            let with = measure(plan, world, &Trouble::ALL).await?;
            Pair { without: measure(plan, world, &[]).await?, with }
        };
        pairs.push(pair);
    }
    let healthy: Vec<_> = pairs.iter().map(Pair::healthy).collect();
    Ok(Isolation { summary: Summary::of(&healthy), pairs })
}

// === impl Pair ===

impl Pair {
    /// The figures of the endpoints that are healthy in both runs. In the run without bad ones the
    /// last five are healthy too, and as busy as the others: they are left out of its rate.
    fn healthy(&self) -> (Healthy, Healthy) {
        let figures = |measured: &Measured| {
            let delivered =
                measured.delivered.as_ref().map(|flow| (flow.rate_per_s, flow.latency.p99_us));
            let (rate, p99_us) = delivered.unwrap_or_default();
            (rate, p99_us as f64)
        };
        let (mut without, with) = (figures(&self.without), figures(&self.with));
        without.0 *= self.with.checked as f64 / self.without.checked as f64;
        (without, with)
    }
}

// === impl Summary ===

impl Summary {
    fn of(pairs: &[(Healthy, Healthy)]) -> Self {
        let over = |figure: fn(&(Healthy, Healthy)) -> f64| median(pairs.iter().map(figure));
        Self {
            without_rate_per_s: over(|(without, _)| without.0),
            with_rate_per_s: over(|(_, with)| with.0),
            throughput_ratio: over(|(without, with)| with.0 / without.0),
            without_p99_us: over(|(without, _)| without.1),
            with_p99_us: over(|(_, with)| with.1),
            p99_ratio: over(|(without, with)| with.1 / without.1),
        }
    }

    /// What is beyond its bound, if anything.
    pub(super) fn complaint(&self) -> Option<String> {
        let more_us = self.with_p99_us - self.without_p99_us;
        let kept = self.throughput_ratio >= THROUGHPUT_MIN
            && self.p99_ratio <= P99_MAX
            && more_us <= P99_MORE_MAX_US;
        (!kept).then(|| {
            format!(
                "bad endpoints cost the good ones too much: throughput × {:.3} (at least \
                 {THROUGHPUT_MIN}), p99 × {:.2} (at most {P99_MAX}) and {more_us:.0} µs more (at \
                 most {P99_MORE_MAX_US})",
                self.throughput_ratio, self.p99_ratio
            )
        })
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => (values[middle - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn a_cost_beyond_each_bound_is_noticed() {
        let complaint = |with: Healthy| Summary::of(&[((1000.0, 4000.0), with)]).complaint();
        assert_eq!(complaint((1000.0, 4000.0)), None);
        assert_eq!(complaint((950.0, 6000.0)), None);
        assert!(complaint((940.0, 4000.0)).is_some());
        assert!(complaint((1000.0, 6100.0)).is_some());
        let slow = Summary::of(&[((1000.0, 100_000.0), (1000.0, 120_000.0))]);
        assert!(slow.complaint().is_some(), "{slow:?}");
        assert!(complaint((0.0, 0.0)).is_some());
        let nothing = Summary::of(&[((0.0, 0.0), (0.0, 0.0))]);
        assert!(nothing.complaint().is_some(), "no figures are no success");
    }

    #[test]
    fn one_bad_pair_of_five_does_not_decide() {
        let good = ((1000.0, 4000.0), (1000.0, 4000.0));
        let bad = ((1000.0, 4000.0), (100.0, 40_000.0));
        assert_eq!(Summary::of(&[good, bad, good, bad, good]).complaint(), None);
        assert!(Summary::of(&[good, bad, bad, bad, good]).complaint().is_some());
    }
}
