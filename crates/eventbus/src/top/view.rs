//! What two scrapes tell of the time between them.

use std::time::Duration;

use serde::Serialize;

use super::page::{Page, Sample};

/// How a bus is, and what it did between two scrapes.
#[derive(Debug, Serialize)]
pub(super) struct View {
    /// Seconds between the scrapes.
    pub(super) interval_s: f64,
    pub(super) up_s: f64,
    pub(super) version: String,
    pub(super) broker_up: bool,
    pub(super) api_up: bool,
    /// Those that are not as they should be.
    pub(super) components_down: Vec<String>,
    pub(super) storage_full: bool,
    pub(super) published: Flow,
    pub(super) delivered: Flow,
    pub(super) end_to_end: Latency,
    pub(super) commits: Commits,
    pub(super) ignored_per_s: f64,
    pub(super) dropped_per_s: f64,
    pub(super) lag_events: f64,
    pub(super) waiting_events: f64,
    pub(super) delayed_events: f64,
    pub(super) oldest_unsettled_s: f64,
    pub(super) storage_bytes: f64,
    pub(super) storage_free_bytes: f64,
    pub(super) subscriptions: Vec<(String, f64)>,
    pub(super) cpus: f64,
    pub(super) resident_bytes: f64,
    pub(super) open_fds: f64,
    /// The worst first.
    pub(super) worst: Vec<Subscription>,
}

/// Events on their way in or out.
#[derive(Debug, Serialize)]
pub(super) struct Flow {
    pub(super) events_per_s: f64,
    pub(super) bytes_per_s: f64,
    /// Of the requests, or of the attempts.
    pub(super) failed_share: Option<f64>,
    #[serde(flatten)]
    pub(super) latency: Latency,
}

/// How long something took, in seconds; nothing where nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_s: Option<f64>,
    pub(super) p99_s: Option<f64>,
}

/// What the broker made durable.
#[derive(Debug, Serialize)]
pub(super) struct Commits {
    pub(super) per_s: f64,
    pub(super) events_each: Option<f64>,
    #[serde(flatten)]
    pub(super) latency: Latency,
}

/// One that has events to get.
#[derive(Debug, Serialize)]
pub(super) struct Subscription {
    /// The API group: in both there may be one of the same name.
    pub(super) group: String,
    pub(super) namespace: String,
    pub(super) subscription: String,
    pub(super) lag_events: f64,
    pub(super) oldest_unsettled_s: f64,
    pub(super) waiting_events: f64,
}

/// Are both of the same process? Another one counts from the beginning.
pub(super) fn are_of_one_process(before: &Page, now: &Page) -> bool {
    let began = |page: &Page| page.value("process_start_time_seconds");
    began(before) == began(now)
}

impl View {
    /// What happened between the two, `now_ms` being wall-clock milliseconds since 1970.
    pub(super) fn between(before: &Page, now: &Page, interval: Duration, now_ms: u64) -> Self {
        let span = Span { before, now, seconds: interval.as_secs_f64().max(1e-3) };
        let value = |name: &str| now.value(name).unwrap_or_default();
        let began_s = value("process_start_time_seconds");
        let down = now.all("eventbus_component_up").iter().filter(|sample| sample.value == 0.0);
        let states = now.all("eventbus_subscriptions").iter();
        Self {
            interval_s: span.seconds,
            up_s: (now_ms as f64 / 1e3 - began_s).max(0.0),
            version: now.all("eventbus_build_info").first().map_or("", version).to_owned(),
            broker_up: value("eventbus_broker_up") == 1.0,
            api_up: value("eventbus_api_up") == 1.0,
            components_down: down.map(|sample| sample.label("component").to_owned()).collect(),
            storage_full: value("eventbus_storage_full") == 1.0,
            published: Flow {
                events_per_s: span.rate("eventbus_published_events_total"),
                bytes_per_s: span.rate("eventbus_published_bytes_total"),
                failed_share: span.share("eventbus_publish_requests_total", "status", |status| {
                    !status.starts_with('2')
                }),
                latency: span.latency("eventbus_publish_duration_seconds"),
            },
            delivered: Flow {
                events_per_s: span.rate("eventbus_delivered_events_total"),
                bytes_per_s: span.rate("eventbus_delivered_bytes_total"),
                failed_share: span
                    .share("eventbus_delivery_attempts_total", "outcome", |word| word != "success"),
                latency: span.latency("eventbus_delivery_duration_seconds"),
            },
            end_to_end: span.latency("eventbus_end_to_end_duration_seconds"),
            commits: Commits {
                per_s: span.rate("eventbus_commit_duration_seconds_count"),
                events_each: span
                    .ratio("eventbus_commit_events_sum", "eventbus_commit_events_count"),
                latency: span.latency("eventbus_commit_duration_seconds"),
            },
            ignored_per_s: span.rate("eventbus_ignored_events_total"),
            dropped_per_s: span.rate("eventbus_dropped_events_total"),
            lag_events: value("eventbus_lag_events"),
            waiting_events: value("eventbus_waiting_events"),
            delayed_events: value("eventbus_delayed_events"),
            oldest_unsettled_s: value("eventbus_oldest_unsettled_seconds"),
            storage_bytes: value("eventbus_log_bytes"),
            storage_free_bytes: value("eventbus_log_free_bytes"),
            subscriptions: states
                .map(|sample| (sample.label("state").to_owned(), sample.value))
                .collect(),
            cpus: span.rate("process_cpu_seconds_total"),
            resident_bytes: value("process_resident_memory_bytes"),
            open_fds: value("process_open_fds"),
            worst: worst(now),
        }
    }
}

fn version(sample: &Sample) -> &str {
    sample.label("version")
}

/// Subscriptions that have events to get, as the bus orders them: the worst first.
fn worst(now: &Page) -> Vec<Subscription> {
    let lags = now.all("eventbus_subscription_lag_events").iter();
    let lags = lags.enumerate().filter(|(_, sample)| sample.value > 0.0);
    // The three families have the same Subscriptions in the same order.
    let beside = |family: &str, at: usize| now.all(family).get(at).map_or(0.0, |one| one.value);
    let subscriptions = lags.map(|(at, sample)| Subscription {
        group: sample.label("group").to_owned(),
        namespace: sample.label("namespace").to_owned(),
        subscription: sample.label("subscription").to_owned(),
        lag_events: sample.value,
        oldest_unsettled_s: beside("eventbus_subscription_oldest_unsettled_seconds", at),
        waiting_events: beside("eventbus_subscription_waiting_events", at),
    });
    subscriptions.collect()
}

/// Two scrapes and the time between them.
struct Span<'p> {
    before: &'p Page,
    now: &'p Page,
    seconds: f64,
}

impl Span<'_> {
    fn grown(&self, name: &str) -> f64 {
        (self.now.sum(name) - self.before.sum(name)).max(0.0)
    }

    fn rate(&self, name: &str) -> f64 {
        self.grown(name) / self.seconds
    }

    fn ratio(&self, name: &str, to: &str) -> Option<f64> {
        let to = self.grown(to);
        (to > 0.0).then(|| self.grown(name) / to)
    }

    /// The share of those whose label is so.
    fn share(&self, name: &str, label: &str, is_so: impl Fn(&str) -> bool) -> Option<f64> {
        let [now, before] = [self.now, self.before].map(|page| page.sum_where(name, label, &is_so));
        let all = self.grown(name);
        (all > 0.0).then(|| (now - before).max(0.0) / all)
    }

    fn latency(&self, family: &str) -> Latency {
        let buckets = self.buckets(&format!("{family}_bucket"));
        Latency { p50_s: quantile(&buckets, 0.5), p99_s: quantile(&buckets, 0.99) }
    }

    /// How many came until now, up to each bound, cumulative.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let before = self.before.all(name);
        let bound = |sample: &Sample| sample.label("le").parse::<f64>().ok();
        let grown = self.now.all(name).iter().filter_map(|sample| {
            let le = bound(sample)?;
            let then = before.iter().find(|then| bound(then) == Some(le));
            Some((le, (sample.value - then.map_or(0.0, |then| then.value)).max(0.0)))
        });
        grown.collect()
    }
}

/// The value below which this share lies: within a bucket values are taken to lie evenly, as
/// Prometheus takes them. `None` where there are no values.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let wanted = all * share;
    let (mut below, mut from) = (0.0, 0.0);
    for (bound, upto) in buckets {
        if *upto >= wanted && *upto > below {
            // Beyond the last bound nothing is known but that it is beyond.
            let width = if bound.is_finite() { bound - from } else { 0.0 };
            return Some(from + width * (wanted - below) / (upto - below));
        }
        (below, from) = (*upto, *bound);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
process_start_time_seconds 1000.0
process_cpu_seconds_total 10
eventbus_published_events_total 100
eventbus_publish_requests_total{status=\"200\"} 100
eventbus_publish_requests_total{status=\"503\"} 0
eventbus_publish_duration_seconds_bucket{le=\"0.001\"} 100
eventbus_publish_duration_seconds_bucket{le=\"0.002\"} 100
eventbus_publish_duration_seconds_bucket{le=\"+Inf\"} 100
";

    const NOW: &str = "\
process_start_time_seconds 1000.0
process_cpu_seconds_total 13
eventbus_published_events_total 300
eventbus_publish_requests_total{status=\"200\"} 250
eventbus_publish_requests_total{status=\"503\"} 50
eventbus_publish_duration_seconds_bucket{le=\"0.001\"} 200
eventbus_publish_duration_seconds_bucket{le=\"0.002\"} 290
eventbus_publish_duration_seconds_bucket{le=\"+Inf\"} 300
eventbus_broker_up 1
eventbus_component_up{component=\"push\"} 0
eventbus_component_up{component=\"catalog\"} 1
eventbus_build_info{version=\"0.1.0\"} 1
eventbus_subscription_lag_events{group=\"g\",namespace=\"n\",subscription=\"a\"} 5
eventbus_subscription_lag_events{namespace=\"n\",subscription=\"b\"} 0
eventbus_subscription_oldest_unsettled_seconds{namespace=\"n\",subscription=\"a\"} 1.5
eventbus_subscription_oldest_unsettled_seconds{namespace=\"n\",subscription=\"b\"} 0
";

    #[test]
    fn what_happened_between_two_scrapes() {
        let (before, now) = (Page::parse(BEFORE), Page::parse(NOW));
        let view = View::between(&before, &now, Duration::from_secs(2), 1_060_000);
        assert_eq!((view.up_s, &*view.version), (60.0, "0.1.0"));
        assert_eq!((view.broker_up, view.api_up), (true, false));
        assert_eq!(view.components_down, ["push"]);
        assert_eq!((view.published.events_per_s, view.cpus), (100.0, 1.5));
        assert_eq!(view.published.failed_share, Some(0.25));
        let Latency { p50_s, p99_s } = view.published.latency;
        assert!((p50_s.unwrap() - 0.001).abs() < 1e-9, "{p50_s:?}");
        assert_eq!(p99_s, Some(0.002), "what is beyond the last bound is not known");
        assert_eq!((view.delivered.failed_share, view.end_to_end.p50_s), (None, None));
        let [worst] = &view.worst[..] else { panic!("{:?}", view.worst) };
        assert_eq!((&*worst.group, &*worst.subscription, worst.lag_events), ("g", "a", 5.0));
        assert_eq!((worst.oldest_unsettled_s, worst.waiting_events), (1.5, 0.0));
    }

    #[test]
    fn another_process_counts_from_the_beginning() {
        let (before, now) = (Page::parse(BEFORE), Page::parse(NOW));
        assert!(are_of_one_process(&before, &now));
        let other = Page::parse("process_start_time_seconds 1001.5\n");
        assert!(!are_of_one_process(&before, &other));
        let view = View::between(&before, &other, Duration::from_secs(1), 0);
        assert_eq!((view.published.events_per_s, view.up_s), (0.0, 0.0));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = [(1.0, 0.0), (2.0, 10.0), (4.0, 20.0), (f64::INFINITY, 20.0)];
        assert_eq!(quantile(&buckets, 0.25), Some(1.5));
        assert_eq!(quantile(&buckets, 0.5), Some(2.0));
        assert_eq!(quantile(&buckets, 0.75), Some(3.0));
        assert_eq!(quantile(&[(1.0, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
