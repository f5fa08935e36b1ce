//! What is told of the broker.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::Position;
use eventbus_core::broker::AppendError;
use eventbus_core::telemetry::{
    COMMIT_DURATION, COMMIT_EVENTS, Events, Families, Histogram, Times, add,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tracing::{debug, error, info, warn};

use crate::api::ApiError;
use crate::levels::Levels;

/// Counts since the broker was opened.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Appends that were acknowledged, by the events in them.
    commits: Histogram<Events>,
    /// From the first event of such an append to the last acknowledgement.
    appends: Histogram<Times>,
    pub(crate) dropped_events: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    /// What waits to be due, as last heard.
    pub(crate) delayed_events: AtomicU64,
    pub(crate) delayed_bytes: AtomicU64,
}

impl Telemetry {
    pub(crate) fn appended(&self, events: usize, took: Duration) {
        self.commits.record(events as u64);
        self.appends.took(took);
    }

    pub(crate) fn lost(&self, consumer: &str, events: u64) {
        add(&self.dropped_events, events);
        warn!(consumer, events, "events were lost to retention before they were delivered");
    }

    pub(crate) fn gave_up(&self) {
        add(&self.dead_letters, 1);
    }

    pub(crate) fn waits(&self, events: u64, bytes: u64) {
        self.delayed_events.store(events, Ordering::Relaxed);
        self.delayed_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Collector for Telemetry {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::to(encoder);
        families.histogram(COMMIT_EVENTS.0, COMMIT_EVENTS.1, &self.commits)?;
        families.histogram(COMMIT_DURATION.0, COMMIT_DURATION.1, &self.appends)
    }
}

pub(crate) fn connected(server: &str, levels: Levels) {
    let durability = levels.reached();
    if levels.synced || levels.replicated {
        info!(server, %durability, "the NATS server stores events");
    } else {
        warn!(
            server, %durability,
            "the NATS server stores events, and is not known to sync them before it acknowledges: \
             a loss of power may take what was acknowledged"
        );
    }
}

pub(crate) fn disconnected() {
    warn!("the connection to the NATS server is lost");
}

pub(crate) fn not_ready(reason: &str) {
    warn!(reason, "the NATS server is not ready");
}

pub(crate) fn wrong(reason: &str) {
    error!(reason, "the NATS server cannot be used");
}

pub(crate) fn not_ours(position: Position, reason: &str) {
    error!(%position, reason, "a message among the events is none of ours: stepped over");
}

pub(crate) fn not_synced(reason: &str) {
    warn!(reason, "how the NATS server syncs could not be read: taken as not synced");
}

pub(crate) fn not_surveyed(error: &ApiError) {
    debug!(%error, "what the NATS server knows of the cursors could not be read whole");
}

pub(crate) fn not_a_report(reason: &str) {
    warn!(reason, "what a process tells of its deliveries cannot be read: skipped");
}

pub(crate) fn not_surveyed_at_all(error: &ApiError) {
    warn!(%error, "the NATS server does not tell how the events are: the broker is not usable");
}

pub(crate) fn not_taken(error: &ApiError) {
    debug!(%error, "the NATS server does not give what is due of the delayed events");
}

pub(crate) fn not_stored(error: &AppendError) {
    warn!(%error, "a delayed event is due and cannot be stored: it is tried again");
}

pub(crate) fn not_readable(reason: &str) {
    error!(reason, "a delayed event is due and cannot be read: it is left for another program");
}
