//! What a run looks like while it goes on: samples of its counters, and a line a second for the
//! person at the terminal.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use eventbus_core::Clock;

use super::arrivals::Arrivals;
use super::board::{Board, Counters};
use crate::output;

/// Between two samples.
pub(super) const STEP: Duration = Duration::from_millis(200);

/// How many samples a line is about.
const STEPS_PER_LINE: usize = 5;

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Subscribing,
    WarmingUp,
    Measuring,
    Draining,
}

/// The counters at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) counters: Counters,
}

/// Looks at a run while it goes on.
pub(super) struct Progress<'a> {
    clock: &'a dyn Clock,
    board: Arc<Board>,
    arrivals: Arc<Arrivals>,
    is_told: bool,
    phase: Cell<Phase>,
    samples: RefCell<Vec<Sample>>,
}

// === impl Progress ===

impl<'a> Progress<'a> {
    /// A run that has not begun. Nobody is told of it unless standard error is a terminal.
    pub(super) fn new(clock: &'a dyn Clock, board: Arc<Board>, arrivals: Arc<Arrivals>) -> Self {
        let is_told = std::io::stderr().is_terminal();
        let (phase, samples) = (Cell::new(Phase::Subscribing), RefCell::default());
        Self { clock, board, arrivals, is_told, phase, samples }
    }

    /// What it is at from now on.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// All samples so far.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.borrow().clone()
    }

    /// Looks, again and again.
    pub(super) async fn watch(&self) -> Infallible {
        let mut told = self.sample();
        loop {
            for _ in 0..STEPS_PER_LINE {
                tokio::time::sleep(STEP).await;
                let sample = self.sample();
                self.samples.borrow_mut().push(sample);
            }
            let now = self.sample();
            if self.is_told {
                let counts = self.arrivals.counts.lock().unwrap_or_else(PoisonError::into_inner);
                let p99_us = counts.latency.percentiles().p99_us;
                drop(counts);
                output::note(&line(self.phase.get(), &told, &now, p99_us));
            }
            told = now;
        }
    }

    fn sample(&self) -> Sample {
        Sample { at: self.clock.elapsed(), counters: self.board.counters() }
    }
}

// === impl Phase ===

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Subscribing => "subscribing",
            Self::WarmingUp => "warming up",
            Self::Measuring => "measuring",
            Self::Draining => "draining",
        })
    }
}

/// What happened between two samples; `p99_us` is of what has been delivered, if anything has.
fn line(phase: Phase, from: &Sample, to: &Sample, p99_us: u64) -> String {
    let seconds = (to.at - from.at).as_secs_f64();
    let per_s = |now: u64, then: u64| (now - then) as f64 / seconds;
    let published = per_s(to.counters.published, from.counters.published);
    let delivered = per_s(to.counters.delivered, from.counters.delivered);
    let p99 = match p99_us {
        0 => String::new(),
        us => format!(", p99 {:.1} ms", us as f64 / 1000.0),
    };
    format!("{phase:<11} {published:>9.0}/s published {delivered:>9.0}/s delivered{p99}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_happened_since_the_last() {
        let sample = |s, published, delivered| Sample {
            at: Duration::from_secs(s),
            counters: Counters { published, delivered, ..Counters::default() },
        };
        let (from, to) = (sample(1, 10, 10), sample(3, 2010, 1010));
        assert_eq!(
            line(Phase::Measuring, &from, &to, 4_130),
            "measuring        1000/s published       500/s delivered, p99 4.1 ms"
        );
        assert!(line(Phase::Draining, &from, &to, 0).ends_with("delivered"));
    }
}
