//! What the export tells about itself: counted, and said once when spans begin to be lost and when
//! none was for a while.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::limits;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tracing::{info, warn};

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    exported: AtomicU64,
    /// The collector did not take them.
    refused: AtomicU64,
    /// The queue was full.
    crowded_out: AtomicU64,
}

/// What the log has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// When the last loss was, by the clock that never falls; `None`: all is well.
    lossy_at: Option<Duration>,
    /// Of those that were crowded out, how many were looked at.
    crowded_out: u64,
}

impl Telemetry {
    pub(crate) fn queue_was_full(&self) {
        self.crowded_out.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch was sent, and this many of its spans were rejected; or it was not taken.
    pub(crate) fn batch_ended(
        &self,
        spans: u64,
        sent: &Result<u64, String>,
        told: &mut Told,
        now: Duration,
    ) {
        let refused = sent.as_ref().map_or(spans, |rejected| spans.min(*rejected));
        self.exported.fetch_add(spans - refused, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
        let crowded_out = load(&self.crowded_out);
        let was_full = std::mem::replace(&mut told.crowded_out, crowded_out) != crowded_out;
        let why = match sent {
            Err(why) => Some(why.as_str()),
            Ok(_) if refused > 0 => Some("it rejected some of those it took"),
            Ok(_) if was_full => Some("there are more than it takes in time"),
            Ok(_) => None,
        };
        if let Some(error) = why {
            if told.lossy_at.replace(now).is_none() {
                warn!(error, "the collector does not take all spans: they are dropped");
            }
        } else if let Some(at) = told.lossy_at
            && now.saturating_sub(at) >= limits::SPANS_WELL_TIME
        {
            told.lossy_at = None;
            info!(dropped = self.dropped(), "the collector takes all spans again");
        }
    }

    /// The export has stopped, with so many spans left.
    pub(crate) fn stopped(&self, left: usize) {
        if left > 0 {
            self.refused.fetch_add(left as u64, Ordering::Relaxed);
            warn!(spans = left, "the collector did not take the last spans in time");
        }
    }

    fn dropped(&self) -> u64 {
        load(&self.refused) + load(&self.crowded_out)
    }
}

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut counter = |family: &'static str, what: &str, count: u64| {
            let family = encoder.encode_descriptor(family, what, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(family)
        };
        counter(
            "eventbus_exported_spans",
            "Spans of traces that the collector took.",
            load(&self.exported),
        )?;
        counter(
            "eventbus_dropped_spans",
            "Spans of traces that are lost: the collector did not take them, or not in time.",
            self.dropped(),
        )
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use eventbus_core::testing::Page;

    use super::*;

    #[test]
    fn it_is_said_once_that_spans_are_lost_and_once_that_none_was_for_a_while() {
        let page = Page::default();
        let writer = page.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let (telemetry, mut told) = (Telemetry::default(), Told::default());
        let dead = Err("connection refused".to_owned());
        let well = limits::SPANS_WELL_TIME;
        let second = Duration::from_secs(1);
        tracing::subscriber::with_default(lines.finish(), || {
            let mut ended = |spans, sent: &_, now| {
                telemetry.batch_ended(spans, sent, &mut told, now);
            };
            ended(3, &Ok(0), Duration::ZERO);
            // One of two collectors behind one address is dead: it is said once.
            for turn in 1..=10 {
                ended(1, &dead, second * turn);
                ended(1, &Ok(0), second * turn);
            }
            ended(2, &Ok(1), second * 10);
            ended(2, &Ok(7), second * 11);
            telemetry.queue_was_full();
            ended(2, &Ok(0), second * 12);
            ended(2, &Ok(0), second * 11 + well);
            ended(2, &Ok(0), second * 12 + well);
            ended(2, &Ok(0), second * 13 + well);
            telemetry.stopped(0);
        });
        let page = page.text();
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines.len(), 2, "{page}");
        assert!(lines[0].contains("WARN") && lines[0].contains("connection refused"), "{page}");
        assert!(lines[1].contains("INFO") && lines[1].contains("dropped=14"), "{page}");
        assert_eq!((load(&telemetry.exported), telemetry.dropped()), (22, 14));
    }
}
