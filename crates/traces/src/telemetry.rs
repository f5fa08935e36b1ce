//! What the export tells about itself: counted, and said once when it begins and when it ends.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

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
    is_lossy: bool,
    /// Of those that were crowded out, how many were looked at.
    crowded_out: u64,
}

impl Telemetry {
    pub(crate) fn queue_was_full(&self) {
        self.crowded_out.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch was sent, or not.
    pub(crate) fn batch_ended(&self, spans: usize, sent: &Result<(), String>, told: &mut Told) {
        let count = if sent.is_ok() { &self.exported } else { &self.refused };
        count.fetch_add(spans as u64, Ordering::Relaxed);
        let crowded_out = load(&self.crowded_out);
        let was_full = std::mem::replace(&mut told.crowded_out, crowded_out) != crowded_out;
        let why = match sent {
            Err(why) => Some(why.as_str()),
            Ok(()) if was_full => Some("there are more than it takes in time"),
            Ok(()) => None,
        };
        match why {
            Some(error) if !told.is_lossy => {
                warn!(error, "the collector does not take all spans: they are dropped");
            }
            None if told.is_lossy => {
                info!(dropped = self.dropped(), "the collector takes all spans again");
            }
            _ => {}
        }
        told.is_lossy = why.is_some();
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
    fn it_is_said_once_that_spans_are_lost_and_once_that_they_are_not() {
        let page = Page::default();
        let writer = page.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let (telemetry, mut told) = (Telemetry::default(), Told::default());
        let dead = Err("connection refused".to_owned());
        tracing::subscriber::with_default(lines.finish(), || {
            telemetry.batch_ended(3, &Ok(()), &mut told);
            telemetry.batch_ended(2, &dead, &mut told);
            telemetry.batch_ended(2, &dead, &mut told);
            telemetry.queue_was_full();
            telemetry.batch_ended(2, &Ok(()), &mut told);
            telemetry.batch_ended(2, &Ok(()), &mut told);
            telemetry.batch_ended(2, &Ok(()), &mut told);
        });
        let page = page.text();
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines.len(), 2, "{page}");
        assert!(lines[0].contains("WARN") && lines[0].contains("connection refused"), "{page}");
        assert!(lines[1].contains("INFO") && lines[1].contains("dropped=5"), "{page}");
        assert_eq!((load(&telemetry.exported), telemetry.dropped()), (9, 5));
    }
}
