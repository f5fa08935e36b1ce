//! What push tells about itself: typed events, each counted and written down in one place.
//!
//! Whatever a publisher or a manifest wrote is logged as a field, never as part of the text: the
//! subscriber of the log escapes it, so that nobody forges a line.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use eventbus_core::broker::CursorStats;
use eventbus_core::delivery::Outcome;
use eventbus_core::reconcile::Fill;
use eventbus_core::subscription::Identity;
use eventbus_core::telemetry::{ClockTimes, Families, Histogram, Times, add, load};
use eventbus_core::{Stored, Subscription, Text};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
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

/// What has happened since the start, and how the cursors were at the last look.
#[derive(Debug, Default)]
pub struct Telemetry {
    attempts: [AtomicU64; WORDS.len()],
    attempts_took: Histogram<Times>,
    end_to_end: Histogram<ClockTimes>,
    delivered_bytes: AtomicU64,
    skipped: AtomicU64,
    expired: AtomicU64,
    settle_failures: AtomicU64,
    /// Replaced as a whole, so that who reads it keeps nobody from delivering.
    cursors: ArcSwap<Cursors>,
}

/// The counters, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts, by the word of their outcome.
    pub attempts: Vec<(&'static str, u64)>,
    /// Time that all attempts together took.
    pub attempts_took: Duration,
    /// Bytes of the payloads that were delivered.
    pub delivered_bytes: u64,
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
    pub(crate) stored: &'a Stored,
    /// 1 for the first.
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    /// Wall-clock milliseconds since 1970.
    pub(crate) began_ms: u64,
    pub(crate) took: Duration,
}

/// Events of a turn that are settled and were not to be delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeftOut {
    /// Their Subscription asks for others by now.
    pub(crate) unwanted: u64,
    /// They had expired.
    pub(crate) expired: u64,
}

/// How all cursors are.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    lag_events: u64,
    leased_events: u64,
    waiting_events: u64,
    oldest: Duration,
    /// Those that lag most, the worst first.
    worst: Vec<Ranked<Arc<Subscription>>>,
}

/// How one of them is.
#[derive(Debug)]
struct Ranked<S> {
    subscription: S,
    lag_events: u64,
    waiting_events: u64,
    oldest: Duration,
}

/// A look at all cursors.
pub(crate) struct Look<'a> {
    now_ms: u64,
    /// How many are told one by one.
    most: usize,
    all: Cursors,
    ranked: Vec<Ranked<&'a Arc<Subscription>>>,
}

impl<'a> Look<'a> {
    /// A look at `now_ms`, wall-clock milliseconds since 1970, that tells `most` Subscriptions one
    /// by one.
    pub(crate) fn at(now_ms: u64, most: usize) -> Self {
        Self { now_ms, most, all: Cursors::default(), ranked: Vec::new() }
    }

    pub(crate) fn add(&mut self, subscription: &'a Arc<Subscription>, stats: &CursorStats) {
        let CursorStats { lag_events, waiting_events, leased_events, .. } = *stats;
        let since_ms = stats.oldest_unsettled_ms.map_or(0, |ms| self.now_ms.saturating_sub(ms));
        let oldest = Duration::from_millis(since_ms);
        self.all.lag_events += lag_events;
        self.all.leased_events += leased_events;
        self.all.waiting_events += waiting_events;
        self.all.oldest = self.all.oldest.max(oldest);
        if self.most > 0 {
            self.ranked.push(Ranked { subscription, lag_events, waiting_events, oldest });
        }
    }

    fn end(self) -> Cursors {
        let Self { most, mut all, mut ranked, .. } = self;
        if ranked.len() > most {
            ranked.select_nth_unstable_by(most, Ranked::order);
            ranked.truncate(most);
        }
        ranked.sort_unstable_by(Ranked::order);
        let kept = ranked.into_iter().map(|one| Ranked {
            subscription: one.subscription.clone(),
            lag_events: one.lag_events,
            waiting_events: one.waiting_events,
            oldest: one.oldest,
        });
        all.worst = kept.collect();
        all
    }
}

impl Ranked<&Arc<Subscription>> {
    /// The worst first; of those alike always the same, so that they do not come and go.
    fn order(one: &Self, other: &Self) -> Ordering {
        let lag = (other.lag_events, other.oldest).cmp(&(one.lag_events, one.oldest));
        lag.then_with(|| one.subscription.identity.uid.cmp(&other.subscription.identity.uid))
    }
}

impl Telemetry {
    /// Events that were not delivered because they had expired.
    pub fn expired(&self) -> u64 {
        load(&self.expired)
    }

    /// The counters now.
    pub fn counts(&self) -> Counts {
        let attempts = WORDS.iter().zip(&self.attempts);
        Counts {
            attempts: attempts.map(|(word, count)| (*word, load(count))).collect(),
            attempts_took: Duration::from_micros(self.attempts_took.total()),
            delivered_bytes: load(&self.delivered_bytes),
            skipped: load(&self.skipped),
            expired: self.expired(),
            settle_failures: load(&self.settle_failures),
        }
    }

    pub(crate) fn delivery_attempted(&self, attempted: &DeliveryAttempted<'_>) {
        let DeliveryAttempted { subscription, stored, attempt, outcome, began_ms, took } =
            *attempted;
        add(&self.attempts[index(outcome)], 1);
        self.attempts_took.took(took);
        if outcome.is_success() {
            add(&self.delivered_bytes, stored.event.payload.len() as u64);
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let waited_us = began_ms.saturating_sub(stored.committed_ms).saturating_mul(1_000);
            self.end_to_end.record(waited_us.saturating_add(took_us));
        }
        debug!(
            namespace = &*subscription.namespace,
            subscription = &*subscription.name,
            event_id = &*stored.event.id,
            position = stored.position.0,
            attempt,
            outcome = outcome.word(),
            status = status(outcome),
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "delivery attempted"
        );
    }

    pub(crate) fn events_left_out(&self, subscription: &Identity, left_out: LeftOut) {
        let LeftOut { unwanted, expired } = left_out;
        add(&self.skipped, unwanted);
        add(&self.expired, expired);
        if expired > 0 {
            debug!(
                namespace = &*subscription.namespace,
                subscription = &*subscription.name,
                count = expired,
                "events have expired before they could be delivered: they are dropped"
            );
        }
    }

    pub(crate) fn turn_not_settled(&self) {
        add(&self.settle_failures, 1);
    }

    pub(crate) fn cursors_looked_at(&self, look: Look<'_>) {
        self.cursors.store(Arc::new(look.end()));
    }
}

impl Collector for Telemetry {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::to(encoder);
        let counts = self.counts();
        families.counters(
            "eventbus_delivery_attempts",
            "Attempts to deliver an event, by how they ended; only a success (2xx) takes it.",
            "outcome",
            counts.attempts.iter().copied(),
        )?;
        families.histogram(
            "eventbus_delivery_duration_seconds",
            "How long an attempt took, from its beginning to the answer or the end without one.",
            &self.attempts_took,
        )?;
        families.histogram(
            "eventbus_end_to_end_duration_seconds",
            "From the moment at which an event was stored (a delayed one: when it was due, and \
             stored for delivery then) to the 2xx that took it, its retries included; to a \
             millisecond, by the wall clocks of the broker and of this process.",
            &self.end_to_end,
        )?;
        families.counter(
            "eventbus_delivered_events",
            "Events that subscribers took; one for each Subscription that got it.",
            load(&self.attempts[index(Outcome::Status(200))]),
        )?;
        families.counter(
            "eventbus_delivered_bytes",
            "Bytes of the payloads of the events that subscribers took.",
            counts.delivered_bytes,
        )?;
        families.counter(
            "eventbus_skipped_events",
            "Events that were not delivered because their Subscription asks for others by now.",
            counts.skipped,
        )?;
        families.counter(
            "eventbus_settle_failures",
            "Times that the broker did not take what became of events; those come again.",
            counts.settle_failures,
        )?;
        self.cursors.load().encode(&mut families)
    }
}

impl Cursors {
    fn encode(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge(
            "eventbus_lag_events",
            "Events stored and not settled, of all Subscriptions together; looked at every 2 s, \
             as are the other families of lag.",
            self.lag_events,
        )?;
        families.gauge(
            "eventbus_leased_events",
            "Of those, events under way to their endpoints or about to be.",
            self.leased_events,
        )?;
        families.gauge(
            "eventbus_waiting_events",
            "Of those, events that wait for a retry.",
            self.waiting_events,
        )?;
        families.gauge(
            "eventbus_oldest_unsettled_seconds",
            "Age of the oldest of those events; 0 when there are none.",
            self.oldest.as_secs_f64(),
        )?;
        let labels = ["group", "namespace", "subscription"];
        let each = || {
            self.worst.iter().map(|one| {
                let identity = &one.subscription.identity;
                ([identity.group, &*identity.namespace, &*identity.name], one)
            })
        };
        families.gauges(
            "eventbus_subscription_lag_events",
            "Events stored for a Subscription and not settled. The families of Subscriptions tell \
             those that lag most, as many as `metrics_subscriptions` says.",
            labels,
            each().map(|(words, one)| (words, one.lag_events)),
        )?;
        families.gauges(
            "eventbus_subscription_oldest_unsettled_seconds",
            "Age of a Subscription's oldest event that is not settled; 0 when there is none.",
            labels,
            each().map(|(words, one)| (words, one.oldest.as_secs_f64())),
        )?;
        families.gauges(
            "eventbus_subscription_waiting_events",
            "Events of a Subscription that wait for a retry.",
            labels,
            each().map(|(words, one)| (words, one.waiting_events)),
        )
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

#[cfg(test)]
mod tests {
    use std::io;

    use eventbus_core::testing::{Page, event, subscription};
    use eventbus_core::{Event, Position};
    use prometheus_client::encoding;
    use prometheus_client::registry::Registry;

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
        let identity = Identity {
            uid: evil.into(),
            group: "eventing.kyma.cx",
            namespace: evil.into(),
            name: evil.into(),
            generation: 1,
            resource_version: 1,
            created_ms: 0,
        };
        let event = Event { id: evil.into(), ..event("a", "x") };
        let stored = Stored { position: Position(1), event: Arc::new(event), committed_ms: 0 };
        tracing::subscriber::with_default(log, || {
            Telemetry::default().delivery_attempted(&DeliveryAttempted {
                subscription: &identity,
                stored: &stored,
                attempt: 1,
                outcome: Outcome::Status(204),
                began_ms: 0,
                took: Duration::from_millis(1),
            });
            subscription_failing(&identity, Outcome::Dns);
            subscription_recovered(&identity);
            backlog_fills(&identity, Fill { bytes: 1, max_bytes: 2 });
            broker_failed(&identity.uid, &io::Error::other(evil));
            attempt_lost(&identity.uid);
        });
        let page = page.text();
        assert_eq!(page.lines().count(), 6, "{page}");
        assert!(page.lines().all(|line| !line.contains(char::is_control)), "{page}");
    }

    #[test]
    fn end_to_end_is_rounded_once_and_told_no_finer_than_the_clocks_are() {
        let subscription = subscription("a");
        let stored =
            Stored { position: Position(1), event: Arc::new(event("a", "x")), committed_ms: 1_000 };
        let telemetry = Telemetry::default();
        for (began_ms, took_us) in [(1_000, 300), (1_002, 1_700), (999, 50)] {
            telemetry.delivery_attempted(&DeliveryAttempted {
                subscription: &subscription.identity,
                stored: &stored,
                attempt: 1,
                outcome: Outcome::Status(200),
                began_ms,
                took: Duration::from_micros(took_us),
            });
        }
        assert_eq!(telemetry.end_to_end.total(), 300 + 3_700 + 50);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(telemetry));
        let mut page = String::new();
        encoding::text::encode(&mut page, &registry).unwrap();
        let first = page.lines().find(|line| line.contains("end_to_end_duration_seconds_bucket"));
        let wanted = "eventbus_end_to_end_duration_seconds_bucket{le=\"0.001\"} 2";
        assert_eq!(first, Some(wanted), "{page}");
    }

    fn lagging(uid: &str) -> Arc<Subscription> {
        Arc::new(subscription(uid))
    }

    #[test]
    fn the_worst_are_told_and_all_are_added_up() {
        let all = ["a", "b", "c", "d", "e"].map(lagging);
        let stats = |lag_events, oldest_unsettled_ms| CursorStats {
            lag_events,
            waiting_events: lag_events / 2,
            oldest_unsettled_ms,
            ..CursorStats::default()
        };
        let told = |most| {
            let mut look = Look::at(10_000, most);
            let each = [
                stats(0, None),
                stats(3, Some(9_000)),
                stats(8, Some(10_500)),
                stats(3, Some(4_000)),
                stats(0, None),
            ];
            for (subscription, stats) in all.iter().rev().zip(each) {
                look.add(subscription, &stats);
            }
            let Cursors { lag_events, waiting_events, oldest, worst, .. } = look.end();
            assert_eq!((lag_events, waiting_events, oldest), (14, 6, Duration::from_secs(6)));
            let uids = worst.iter().map(|one| one.subscription.identity.uid.to_string());
            uids.collect::<Vec<_>>()
        };
        let uids = |wanted: &[usize]| {
            let uids = wanted.iter().map(|at| all[*at].identity.uid.to_string());
            uids.collect::<Vec<_>>()
        };
        assert_eq!(told(0), uids(&[]));
        assert_eq!(told(1), uids(&[2]));
        assert_eq!(told(3), uids(&[2, 1, 3]));
        assert_eq!(told(4), uids(&[2, 1, 3, 0]), "of those alike always the same");
        assert_eq!(told(9), uids(&[2, 1, 3, 0, 4]));
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
