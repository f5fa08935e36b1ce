//! What the publish port has to tell, as typed events.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use eventbus_core::telemetry::{Families, Histogram, Times, add, load};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
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
    repeated_events: AtomicU64,
    rejected: [AtomicU64; STATUSES.len()],
    requests_took: Histogram<Times>,
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
    /// Events are not stored again.
    Repeated {
        /// How many.
        events: usize,
    },
    /// An event of a batch is refused, others perhaps not.
    Rejected {
        /// The status that it would have been answered with alone.
        status: u16,
    },
    /// A publish request was answered.
    Answered {
        /// With this HTTP status.
        status: u16,
        /// So long after its head was read.
        took: Duration,
    },
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
            Published::Repeated { events } => add(&self.repeated_events, events as u64),
            Published::Rejected { status } => add(&self.rejected[index(status)], 1),
            Published::Answered { status, took } => {
                add(&self.requests[index(status)], 1);
                self.requests_took.took(took);
                if status >= 400 {
                    debug!(status, "a publish was refused");
                }
            }
        }
    }
}

impl Collector for Telemetry {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::to(encoder);
        families.counter(
            "eventbus_published_events",
            "Events stored for delivery, now or when they are due; repeats of a stored one are not \
             counted.",
            load(&self.published_events),
        )?;
        families.counter(
            "eventbus_published_bytes",
            "Bytes of the payloads of the events stored for delivery.",
            load(&self.published_bytes),
        )?;
        families.counter(
            "eventbus_ignored_events",
            "Events that no Subscription asked for: answered `ignored`, not stored.",
            load(&self.ignored_events),
        )?;
        families.counter(
            "eventbus_duplicate_events",
            "Events that were stored before: answered `duplicate`, not stored again.",
            load(&self.repeated_events),
        )?;
        families.counters(
            "eventbus_batch_rejected_events",
            "Events refused in batches that were answered with a result for each, by the HTTP \
             status that each would have been answered with alone.",
            "status",
            by_status(&self.rejected),
        )?;
        families.counters(
            "eventbus_publish_requests",
            "Publish requests answered, by HTTP status.",
            "status",
            by_status(&self.requests),
        )?;
        families.histogram(
            "eventbus_publish_duration_seconds",
            "How long a publish request took, from its head to the answer: whatever the answer, \
             and with the time in which its body arrived.",
            &self.requests_took,
        )
    }
}

fn by_status(counts: &[AtomicU64; STATUSES.len()]) -> impl Iterator<Item = (&'static str, u64)> {
    STATUSES.into_iter().zip(counts.iter().map(load))
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
