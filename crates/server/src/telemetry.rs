//! What the publish port has to tell, as typed events.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tracing::debug;

/// The statuses a publish is answered with, and a last word for any other: whatever is answered one
/// day, there are no more series than these.
const STATUSES: [&str; 12] =
    ["200", "204", "400", "404", "405", "408", "413", "429", "500", "503", "507", "other"];

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    published_events: AtomicU64,
    published_bytes: AtomicU64,
    ignored_events: AtomicU64,
    requests: [AtomicU64; STATUSES.len()],
}

/// What can happen at the publish port.
#[derive(Clone, Copy, Debug)]
pub enum Published {
    /// Events are stored.
    Stored {
        /// How many.
        events: usize,
        /// Bytes of their payloads.
        payload_bytes: usize,
    },
    /// Nobody wanted some events.
    Ignored {
        /// How many.
        events: usize,
    },
    /// A publish request was answered with this HTTP status.
    Answered(u16),
}

impl Telemetry {
    /// Takes note of an event.
    pub fn published(&self, event: Published) {
        match event {
            Published::Stored { events, payload_bytes } => {
                add(&self.published_events, events as u64);
                add(&self.published_bytes, payload_bytes as u64);
            }
            Published::Ignored { events } => add(&self.ignored_events, events as u64),
            Published::Answered(status) => {
                add(&self.requests[index(status)], 1);
                if status >= 400 {
                    debug!(status, "a publish was refused");
                }
            }
        }
    }
}

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut counter = |family: &'static str, what: &str, count: &AtomicU64| {
            let family = encoder.encode_descriptor(family, what, None, MetricType::Counter)?;
            ConstCounter::new(load(count)).encode(family)
        };
        counter(
            "eventbus_published_events",
            "Events stored for delivery; repeats of a stored one are not counted.",
            &self.published_events,
        )?;
        counter(
            "eventbus_published_bytes",
            "Bytes of the payloads of the events stored for delivery.",
            &self.published_bytes,
        )?;
        counter(
            "eventbus_ignored_events",
            "Events that no Subscription asked for: answered `ignored`, not stored.",
            &self.ignored_events,
        )?;
        let mut requests = encoder.encode_descriptor(
            "eventbus_publish_requests",
            "Publish requests answered, by HTTP status.",
            None,
            MetricType::Counter,
        )?;
        for (status, count) in STATUSES.iter().zip(&self.requests) {
            let labels = [("status", *status)];
            ConstCounter::new(load(count)).encode(requests.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Where a status stands in [`STATUSES`].
fn index(status: u16) -> usize {
    match status {
        200 => 0,
        204 => 1,
        400 => 2,
        404 => 3,
        405 => 4,
        408 => 5,
        413 => 6,
        429 => 7,
        500 => 8,
        503 => 9,
        507 => 10,
        _ => 11,
    }
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_counted_under_its_own_word() {
        for (place, word) in STATUSES.iter().enumerate() {
            let status = word.parse().unwrap_or(302);
            assert_eq!(index(status), place, "{word}");
        }
    }
}
