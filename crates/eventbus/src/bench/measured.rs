//! What a run has measured.

use std::sync::PoisonError;
use std::time::Duration;

use eventbus_core::{Clock, Durability};
use rustix::time::ClockId;
use serde::Serialize;

use super::args::Mode;
use super::arrivals::Arrivals;
use super::board::{Board, Counters};
use super::latency::{Bar, Latency, Percentiles, Point};
use super::plan::Plan;
use super::progress::{STEP, Sample};
use super::publishers::Heard;

/// Undelivered events at the end of an end-to-end run that count as being under way, not as a
/// backlog: what is delivered in a tenth of a second, and never fewer than this.
const BACKLOG_FLOOR: u64 = 1024;
const BACKLOG_TIME_S: f64 = 0.1;

/// One direction of a run: what was published, or what was delivered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Flow {
    /// Events in the measured time.
    pub(super) events: u64,
    /// Events a second in the measured time.
    pub(super) rate_per_s: f64,
    /// From when an event was due to the answer, or to its arrival at a subscriber.
    pub(super) latency: Percentiles,
    /// The same at more shares.
    pub(super) curve: Vec<Point>,
    /// How many took how long.
    pub(super) distribution: Vec<Bar>,
}

/// What a run has measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    /// How long was measured.
    pub(super) seconds: f64,
    /// Events of each request.
    pub(super) batch: u16,
    /// Requests a second in the measured time.
    pub(super) requests_per_s: f64,
    /// The least durability that any answer told, if they told any.
    pub(super) durability: Option<&'static str>,
    /// At the publishers.
    pub(super) published: Flow,
    /// At the (healthy) subscribers, where events are delivered while they are published.
    pub(super) delivered: Option<Flow>,
    /// Events a second, from the beginning of the measured time to the last arrival.
    pub(super) timeline: Vec<Rates>,
    /// Deliveries outstanding when the measured time ended.
    pub(super) backlog: u64,
    /// How many of them are legal.
    pub(super) backlog_max: u64,
    /// All events published, warm-up included: every one was answered `published`.
    pub(super) events: u64,
    /// All deliveries: every event once at each Subscription that is checked.
    pub(super) deliveries: u64,
    /// Subscriptions that are busy and healthy: their deliveries are what is counted.
    pub(super) checked: u32,
    /// Whether arrivals were looked at: all targets but those that deliver nothing.
    pub(super) is_checked: bool,
    /// Deliveries that subscribers answered with 500, as they were told; each came again.
    pub(super) failed: u64,
    /// What arrived at the endpoints that were slow, where some were.
    pub(super) slow: Option<u64>,
    /// From the last answer to the last arrival.
    pub(super) drain_s: f64,
    /// CPU time of the load generator, all of it, in the measured time.
    pub(super) generator_cpu_s: f64,
}

/// What happened until a moment, counted from the beginning of the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    /// The moment.
    pub(super) at_s: f64,
    /// Events a second taken by the target, since the moment before.
    pub(super) published_per_s: f64,
    /// Events a second that arrived.
    pub(super) delivered_per_s: f64,
}

/// A moment of a run.
pub(super) struct Moment {
    pub(super) at: Duration,
    cpu: Duration,
    counters: Counters,
}

/// A run that is over.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) arrivals: &'a Arrivals,
    pub(super) heard: &'a Heard,
    /// From the last answer to the last arrival.
    pub(super) drain: Duration,
}

// === impl Moment ===

impl Moment {
    /// The present one.
    pub(super) fn now(clock: &dyn Clock, board: &Board) -> Self {
        let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
        Self {
            at: clock.elapsed(),
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            counters: board.counters(),
        }
    }
}

// === impl Measured ===

impl Measured {
    /// What was measured between two moments of a run.
    pub(super) fn of(run: &Run<'_>, from: &Moment, to: &Moment, samples: Vec<Sample>) -> Self {
        let Run { plan, arrivals, heard, drain } = run;
        let seconds = (to.at - from.at).as_secs_f64();
        let flow = |events: u64, latency: &Latency| Flow {
            events,
            rate_per_s: events as f64 / seconds,
            latency: latency.percentiles(),
            curve: latency.curve(),
            distribution: latency.distribution(),
        };
        let published = flow(to.counters.published - from.counters.published, &heard.latency);
        let counts = arrivals.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_delivered_meanwhile = plan.delivers() && plan.mode != Mode::Publish;
        let delivered = is_delivered_meanwhile
            .then(|| flow(to.counters.delivered - from.counters.delivered, &counts.latency));
        let event_types = u64::from(plan.layout.event_types);
        let owed = to.counters.published * arrivals.owed(event_types) / event_types;
        let deliveries_per_s = delivered.as_ref().map_or(0.0, |flow| flow.rate_per_s);
        let under_way = BACKLOG_FLOOR.max((deliveries_per_s * BACKLOG_TIME_S) as u64);
        let batch = plan.load.batch;
        Self {
            seconds,
            batch,
            requests_per_s: published.rate_per_s / f64::from(batch),
            durability: heard.durability.map(Durability::as_str),
            published,
            delivered,
            timeline: timeline(from, &samples),
            backlog: owed.saturating_sub(to.counters.delivered),
            // What failed and has not come again waits for its retry.
            backlog_max: under_way + to.counters.failing,
            events: arrivals.board.issued(),
            deliveries: arrivals.board.counters().delivered,
            checked: arrivals.checked(),
            is_checked: plan.delivers(),
            failed: counts.failed,
            slow: (plan.slow.0 > 0).then_some(counts.slow),
            drain_s: drain.as_secs_f64(),
            generator_cpu_s: (to.cpu - from.cpu).as_secs_f64(),
        }
    }
}

/// The rates between the samples since `from`, up to the last one at which anything happened.
fn timeline(from: &Moment, samples: &[Sample]) -> Vec<Rates> {
    let mut before = Sample { at: from.at, counters: from.counters };
    let mut rates = Vec::new();
    for sample in samples {
        // So soon after the moment before the rate would be a matter of chance.
        if sample.at < before.at + STEP / 2 {
            continue;
        }
        let seconds = (sample.at - before.at).as_secs_f64();
        let per_s = |now: u64, then: u64| (now - then) as f64 / seconds;
        rates.push(Rates {
            at_s: (sample.at - from.at).as_secs_f64(),
            published_per_s: per_s(sample.counters.published, before.counters.published),
            delivered_per_s: per_s(sample.counters.delivered, before.counters.delivered),
        });
        before = *sample;
    }
    let is_still = |rates: &Rates| rates.published_per_s + rates.delivered_per_s == 0.0;
    while rates.last().is_some_and(is_still) {
        rates.pop();
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_the_rates_between_its_samples() {
        let counters =
            |published, delivered| Counters { published, delivered, ..Counters::default() };
        let at = Duration::from_millis;
        let from = Moment { at: at(1000), cpu: Duration::ZERO, counters: counters(100, 90) };
        let samples =
            [(900, 80, 80), (1010, 140, 90), (1500, 150, 100), (2000, 150, 150), (2500, 150, 150)]
                .map(|(ms, published, delivered)| Sample {
                    at: at(ms),
                    counters: counters(published, delivered),
                });
        let rates = |at_s, published_per_s, delivered_per_s| Rates {
            at_s,
            published_per_s,
            delivered_per_s,
        };
        assert_eq!(timeline(&from, &samples), [rates(0.5, 100.0, 20.0), rates(1.0, 0.0, 100.0)]);
        assert_eq!(timeline(&from, &[]), []);
    }
}
