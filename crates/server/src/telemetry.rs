//! What the publish port and the sub-validator have to tell, as typed events.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::debug;

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    published_events: AtomicU64,
    published_bytes: AtomicU64,
    ignored_events: AtomicU64,
    refused_requests: AtomicU64,
}

/// What can happen to a publish request.
#[derive(Clone, Copy, Debug)]
pub enum Published {
    /// The event is stored.
    Stored {
        /// Bytes of its payload.
        payload_bytes: usize,
    },
    /// Nobody wanted the event.
    Ignored,
    /// The request was refused with this HTTP status.
    Refused(u16),
}

impl Telemetry {
    /// Takes note of an event.
    pub fn published(&self, event: Published) {
        match event {
            Published::Stored { payload_bytes } => {
                self.published_events.fetch_add(1, Ordering::Relaxed);
                self.published_bytes.fetch_add(payload_bytes as u64, Ordering::Relaxed);
            }
            Published::Ignored => {
                self.ignored_events.fetch_add(1, Ordering::Relaxed);
            }
            Published::Refused(status) => {
                self.refused_requests.fetch_add(1, Ordering::Relaxed);
                debug!(status, "a publish was refused");
            }
        }
    }

    /// Events published, events ignored and requests refused so far.
    pub fn totals(&self) -> [u64; 3] {
        [&self.published_events, &self.ignored_events, &self.refused_requests]
            .map(|count| count.load(Ordering::Relaxed))
    }
}
