//! What push tells about itself: typed events, each counted and written down in one place.
//!
//! Whatever a publisher or a manifest wrote is logged as a field, never as part of the text: the
//! subscriber of the log escapes it, so that nobody forges a line.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::delivery::Outcome;
use eventbus_core::reconcile::Fill;
use eventbus_core::subscription::Identity;
use eventbus_core::{Position, Text};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tracing::{debug, error, info, warn};

/// Every word of [`Outcome::word`], in the order in which they are counted.
const WORDS: [&str; 12] = [
    "success",
    "redirect",
    "client_error",
    "server_error",
    "other_status",
    "timeout",
    "connect",
    "dns",
    "tls",
    "broken",
    "bad_answer",
    "bad_endpoint",
];

/// What has happened since the start.
#[derive(Debug, Default)]
pub struct Telemetry {
    attempts: [AtomicU64; WORDS.len()],
    attempts_us: AtomicU64,
    skipped: AtomicU64,
    expired: AtomicU64,
    settle_failures: AtomicU64,
}

/// The counters, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts, by the word of their outcome.
    pub attempts: Vec<(&'static str, u64)>,
    /// Time that all attempts together took.
    pub attempts_took: Duration,
    /// Events that were not delivered because the Subscription no longer asks for them.
    pub skipped: u64,
    /// Events that were not delivered because they had expired.
    pub expired: u64,
    /// Turns whose verdicts the broker did not take; their events come again.
    pub settle_failures: u64,
}

/// An attempt has ended.
#[derive(Debug)]
pub(crate) struct DeliveryAttempted<'a> {
    pub(crate) subscription: &'a Identity,
    pub(crate) event_id: &'a str,
    pub(crate) position: Position,
    /// 1 for the first.
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl Telemetry {
    /// The counters now.
    pub fn counts(&self) -> Counts {
        let attempts = WORDS.iter().zip(&self.attempts);
        Counts {
            attempts: attempts.map(|(word, count)| (*word, load(count))).collect(),
            attempts_took: Duration::from_micros(load(&self.attempts_us)),
            skipped: load(&self.skipped),
            expired: load(&self.expired),
            settle_failures: load(&self.settle_failures),
        }
    }

    pub(crate) fn delivery_attempted(&self, attempted: &DeliveryAttempted<'_>) {
        let DeliveryAttempted { subscription, event_id, position, attempt, outcome, took } =
            *attempted;
        self.attempts[index(outcome)].fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.attempts_us.fetch_add(took_us, Ordering::Relaxed);
        debug!(
            namespace = &*subscription.namespace,
            subscription = &*subscription.name,
            event_id,
            position = position.0,
            attempt,
            outcome = outcome.word(),
            status = status(outcome),
            took_us,
            "delivery attempted"
        );
    }

    pub(crate) fn events_skipped(&self, count: u64) {
        self.skipped.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn events_expired(&self, subscription: &Identity, count: u64) {
        self.expired.fetch_add(count, Ordering::Relaxed);
        debug!(
            namespace = &*subscription.namespace,
            subscription = &*subscription.name,
            count,
            "events have expired before they could be delivered: they are dropped"
        );
    }

    pub(crate) fn turn_not_settled(&self) {
        self.settle_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut dropped = encoder.encode_descriptor(
            "eventbus_dropped_events",
            "Events that a Subscription asked for and will not be delivered, by reason.",
            None,
            MetricType::Counter,
        )?;
        let labels = [("reason", "expired")];
        ConstCounter::new(load(&self.expired)).encode(dropped.encode_family(&labels)?)
    }
}

pub(crate) fn subscription_failing(subscription: &Identity, outcome: Outcome) {
    warn!(
        namespace = &*subscription.namespace,
        subscription = &*subscription.name,
        outcome = outcome.word(),
        status = status(outcome),
        "deliveries fail: they are tried again until retention ends"
    );
}

pub(crate) fn subscription_recovered(subscription: &Identity) {
    info!(
        namespace = &*subscription.namespace,
        subscription = &*subscription.name,
        "deliveries succeed again"
    );
}

pub(crate) fn backlog_fills(subscription: &Identity, fill: Fill) {
    warn!(
        namespace = &*subscription.namespace,
        subscription = &*subscription.name,
        bytes = fill.bytes,
        max_bytes = fill.max_bytes,
        percent = fill.percent(),
        "a backlog fills: at 100 % its oldest events are lost"
    );
}

pub(crate) fn broker_failed(cursor: &Text, error: &dyn std::error::Error) {
    warn!(cursor = &**cursor, error = &*error.to_string(), "the broker failed: it is asked again");
}

pub(crate) fn cursor_lost(cursor: &Text) {
    error!(
        cursor = &**cursor,
        "the cursor was removed while its Subscription exists: a new one begins where the \
         Subscription did, and what is kept comes again"
    );
}

pub(crate) fn attempt_lost(cursor: &Text) {
    error!(cursor = &**cursor, "an attempt panicked: its event comes again");
}

pub(crate) fn dispatcher_lost(cursor: &Text) {
    error!(cursor = &**cursor, "a dispatcher panicked: another one goes on");
}

pub(crate) fn attempts_abandoned(subscriptions: usize) {
    warn!(subscriptions, "attempts still under way are abandoned: their events come again");
}

pub(crate) fn system_certificates_loaded(found: usize, errors: usize) {
    if found == 0 || errors > 0 {
        warn!(found, errors, "the system's certificates could not all be read");
    } else {
        debug!(found, "the system's certificates are read");
    }
}

fn index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Status(200..=299) => 0,
        Outcome::Status(300..=399) => 1,
        Outcome::Status(400..=499) => 2,
        Outcome::Status(500..=599) => 3,
        Outcome::Status(_) => 4,
        Outcome::Timeout => 5,
        Outcome::Connect => 6,
        Outcome::Dns => 7,
        Outcome::Tls => 8,
        Outcome::Broken => 9,
        Outcome::BadAnswer => 10,
        Outcome::BadEndpoint => 11,
    }
}

/// The status an answer had; 0 when there was none.
fn status(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Status(status) => status,
        _ => 0,
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::io;

    use eventbus_core::testing::Page;

    use super::*;

    #[test]
    fn nobody_forges_a_line() {
        let page = Page::default();
        let writer = page.clone();
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let evil = "a\n2026-01-01 INFO all is well\r\u{1b}[31m";
        let subscription = Identity {
            uid: evil.into(),
            group: "eventing.kyma.cx",
            namespace: evil.into(),
            name: evil.into(),
            generation: 1,
            resource_version: 1,
            created_ms: 0,
        };
        tracing::subscriber::with_default(log, || {
            Telemetry::default().delivery_attempted(&DeliveryAttempted {
                subscription: &subscription,
                event_id: evil,
                position: Position(1),
                attempt: 1,
                outcome: Outcome::Status(204),
                took: Duration::from_millis(1),
            });
            subscription_failing(&subscription, Outcome::Dns);
            subscription_recovered(&subscription);
            backlog_fills(&subscription, Fill { bytes: 1, max_bytes: 2 });
            broker_failed(&subscription.uid, &io::Error::other(evil));
            attempt_lost(&subscription.uid);
        });
        let page = page.text();
        assert_eq!(page.lines().count(), 6, "{page}");
        assert!(page.lines().all(|line| !line.contains(char::is_control)), "{page}");
    }

    #[test]
    fn each_outcome_is_counted_under_its_word() {
        let statuses = [101, 200, 302, 404, 503].map(Outcome::Status);
        let others = [1, 2, 3, 4, 5, 6, 7].map(Outcome::from_code);
        for outcome in statuses.into_iter().chain(others) {
            assert_eq!(WORDS[index(outcome)], outcome.word());
        }
    }
}
