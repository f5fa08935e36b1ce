//! The highest rate that holds: doubled until one breaks, then the gap between the last that held
//! and the first that broke is halved.
//!
//! Each step is a run of its own, in open loop, checked like any other. A rate holds when the
//! target took it all, the latency stayed below its bound, and everything arrived.

use std::time::Duration;

use serde::Serialize;

use super::args::Mode;
use super::measured::{Flow, Measured};
use super::plan::{Load, Plan};
use super::run::{Failure, measure};
use crate::cli::{Fault, World};
use crate::output;

/// The search ends when the lowest rate that broke is at most so many times the highest that held.
const CLOSE_ENOUGH: f64 = 1.05;

/// Below this nothing is searched for, and above nothing either, in events a second.
const LOWEST_PER_S: f64 = 1.0;
const HIGHEST_PER_S: f64 = 10_000_000.0;

/// The share of its rate that a run must have made in the measured time.
const SHARE_MIN: f64 = 0.98;

/// How the search went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ramp {
    /// The latency that had to be kept.
    pub(super) p99_max_us: u64,
    /// The highest rate that held, if any did.
    pub(super) highest_rate_per_s: Option<f64>,
    /// In the order they were made.
    pub(super) steps: Vec<Step>,
}

/// A run at one rate.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    pub(super) rate_per_s: f64,
    /// What was looked at: deliveries, or answers with `--mode publish`. None where a check of what
    /// arrives broke: such a run has no figures.
    pub(super) flow: Option<Flow>,
    /// Why it did not hold.
    pub(super) broke: Option<String>,
}

/// Which rates have held and which have not.
#[derive(Clone, Copy, Debug)]
struct Search {
    next: f64,
    held: Option<f64>,
    broke: Option<f64>,
}

/// Searches from the rate of the plan.
pub(super) async fn climb(plan: &Plan, world: &World) -> Result<Ramp, Fault> {
    let p99_max = plan.p99_max.unwrap_or_default();
    let mut search = Search::from(plan.load.rate.unwrap_or(LOWEST_PER_S));
    let mut steps = Vec::new();
    while let Some(rate) = search.rate() {
        output::note(&format!("{rate:.0}/s"));
        let plan = Plan { load: Load { rate: Some(rate), ..plan.load.clone() }, ..plan.clone() };
        let step = match measure(&plan, world, &plan.troubles()).await {
            Ok(measured) => Step::of(rate, &measured, &plan, p99_max),
            Err(Failure::Broken(why)) => Step { rate_per_s: rate, flow: None, broke: Some(why) },
            Err(Failure::Fault(fault)) => return Err(fault),
        };
        search.learn(step.broke.is_none());
        steps.push(step);
    }
    let highest_rate_per_s = search.held;
    Ok(Ramp { p99_max_us: p99_max.as_micros() as u64, highest_rate_per_s, steps })
}

// === impl Ramp ===

impl Ramp {
    /// What is wrong, if no rate held.
    pub(super) fn complaint(&self) -> Option<String> {
        let why = self.steps.last().and_then(|step| step.broke.as_deref()).unwrap_or_default();
        self.highest_rate_per_s.is_none().then(|| format!("no rate held; the last: {why}"))
    }
}

// === impl Step ===

impl Step {
    fn of(rate: f64, measured: &Measured, plan: &Plan, p99_max: Duration) -> Self {
        let flow = match plan.mode {
            Mode::Publish => &measured.published,
            _ => measured.delivered.as_ref().unwrap_or(&measured.published),
        };
        let p99 = Duration::from_micros(flow.latency.p99_us);
        let made = measured.published.rate_per_s;
        let mut broke = None;
        if made < rate * SHARE_MIN {
            broke = Some(format!("only {made:.0}/s were published"));
        } else if p99 > p99_max {
            broke = Some(format!("p99 {} µs", p99.as_micros()));
        }
        Self { rate_per_s: rate, flow: Some(flow.clone()), broke }
    }
}

// === impl Search ===

impl Search {
    fn from(first: f64) -> Self {
        Self { next: first, held: None, broke: None }
    }

    /// The next rate to try; none when the gap is small enough.
    fn rate(&self) -> Option<f64> {
        let is_close = match (self.held, self.broke) {
            (Some(held), Some(broke)) => broke <= held * CLOSE_ENOUGH,
            _ => false,
        };
        let is_within = (LOWEST_PER_S..=HIGHEST_PER_S).contains(&self.next);
        (is_within && !is_close).then_some(self.next)
    }

    /// Takes down how the last rate did.
    fn learn(&mut self, has_held: bool) {
        let found = if has_held { &mut self.held } else { &mut self.broke };
        *found = Some(self.next);
        self.next = match (self.held, self.broke) {
            (Some(held), Some(broke)) => (held * broke).sqrt(),
            (Some(held), None) => held * 2.0,
            (None, Some(broke)) => broke / 2.0,
            (None, None) => self.next,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates tried against a target that holds up to `limit`, and what was found.
    fn search(first: f64, limit: f64) -> (Vec<f64>, Option<f64>) {
        let mut search = Search::from(first);
        let mut tried = Vec::new();
        while let Some(rate) = search.rate() {
            tried.push(rate);
            search.learn(rate <= limit);
        }
        (tried, search.held)
    }

    #[test]
    fn the_highest_rate_is_found_from_above_and_from_below() {
        for (first, limit) in [(1000.0, 37_000.0), (1000.0, 1000.0), (50_000.0, 333.0), (1.0, 1.5)]
        {
            let (tried, found) = search(first, limit);
            let found = found.unwrap();
            assert!(found <= limit && limit <= found * CLOSE_ENOUGH, "{limit}: {tried:?}");
            assert!(tried.len() < 24, "{tried:?}");
        }
        assert_eq!(search(1000.0, 5_000.0).0[..4], [1000.0, 2000.0, 4000.0, 8000.0]);
    }

    #[test]
    fn where_nothing_holds_nothing_is_found() {
        let (tried, found) = search(1000.0, 0.0);
        assert_eq!((found, tried.len()), (None, 10));
        assert_eq!(search(1000.0, f64::MAX).1, Some(8_192_000.0));
    }
}
