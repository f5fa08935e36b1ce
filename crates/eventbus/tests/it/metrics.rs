//! `/metrics` of the running program: who may read it, what it tells, and the page of documentation
//! that is written from it. `EVENTBUS_ACCEPT=1` writes that page anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use regex::Regex;
use serde_json::json;

use crate::cluster::Cluster;
use crate::nats_server::{NatsServer, Options};
use crate::program::within;
use crate::served::{Answer, Bus, event};
use crate::subscriber::Subscriber;

/// How a page of documentation begins.
const HEAD: &str = "\
# Metrics

What `/metrics` on the API port tells; [how to read it](operate.md#metrics). A test writes this page
from what a running bus says of itself.

| family | type | labels | |
|---|---|---|---|
";

impl Bus {
    /// Asks for its metrics with these headers.
    async fn scrape(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(format!("{}/metrics", self.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Full::default()).unwrap()).await
    }

    /// Its metrics, as the owner of its directory reads them.
    pub(crate) async fn metrics(&self) -> String {
        let token = std::fs::read_to_string(self.data_dir().join("token")).unwrap();
        let bearer = format!("Bearer {}", token.trim());
        let answer = self.scrape(&[("authorization", &bearer)]).await;
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        assert_eq!(answer.headers["content-type"], content_type, "{answer:?}");
        answer.body
    }
}

/// The value of a series; none where there is no such series.
pub(crate) fn value<'p>(page: &'p str, series: &str) -> Option<&'p str> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

/// Where the families are documented.
fn documented() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md")
}

/// The documentation of the families of a page.
fn documentation(page: &str) -> String {
    let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
    let mut text = HEAD.to_owned();
    for told in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (family, what) = told.split_once(' ').unwrap();
        let kind = value(page, &format!("# TYPE {family}")).unwrap();
        let sample = page.lines().find(|line| line.starts_with(&format!("{family}{{")));
        let labels = label.captures_iter(sample.unwrap_or_default());
        let labels: Vec<_> = labels.map(|found| format!("`{}`", &found[1])).collect();
        text.push_str(&format!("| `{family}` | {kind} | {} | {what} |\n", labels.join(", ")));
    }
    text
}

impl Bus {
    /// Its metrics, once they hold this.
    pub(crate) async fn metrics_with(&self, wanted: &str) -> String {
        within(async {
            loop {
                let page = self.metrics().await;
                if page.contains(wanted) {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn every_family_is_documented() {
    let (bus, subscriber) = (Bus::start().await, Subscriber::start().await);
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    // Now there is a series of everything that has one.
    let told = documentation(&bus.metrics_with("subscription=\"orders\"").await);
    let path = documented();
    if std::env::var_os("EVENTBUS_ACCEPT").is_some() {
        std::fs::write(&path, &told).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == told, "docs/metrics.md is not this (EVENTBUS_ACCEPT=1 accepts it):\n{told}");
}

#[tokio::test]
async fn what_is_published_ignored_and_refused_is_counted() {
    let bus = Bus::start().await;
    assert_eq!(bus.scrape(&[]).await.status, 401);
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    assert_eq!(bus.publish("order.created", &json!("abc")).await, "published");
    assert_eq!(bus.publish("order.read", &json!(1)).await, "ignored");
    assert_eq!(bus.post("/v1/events", "nonsense").await.status, 400);
    let page = bus.metrics().await;
    for (series, wanted) in [
        ("eventbus_broker_up", "1"),
        ("eventbus_storage_full", "0"),
        ("eventbus_durability_info{default=\"synced\",promised=\"accepted,written,synced\"}", "1"),
        ("eventbus_published_events_total", "1"),
        ("eventbus_published_bytes_total", "5"),
        ("eventbus_ignored_events_total", "1"),
        ("eventbus_publish_requests_total{status=\"200\"}", "2"),
        ("eventbus_publish_requests_total{status=\"400\"}", "1"),
        ("eventbus_publish_requests_total{status=\"507\"}", "0"),
    ] {
        assert_eq!(value(&page, series), Some(wanted), "{series} in\n{page}");
    }
    for series in ["eventbus_log_bytes", "eventbus_log_free_bytes"] {
        assert!(value(&page, series).unwrap().parse::<u64>().unwrap() > 0, "{series} in\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_real_api_server_they_are_there_without_a_token() {
    let cluster = Cluster::start().await;
    cluster
        .play(async |cluster| {
            let bus = Bus::over(cluster, &[]).await;
            let answer = bus.scrape(&[("accept", "application/openmetrics-text")]).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(value(&answer.body, "eventbus_broker_up"), Some("1"), "{answer:?}");
            assert!(answer.body.ends_with("# EOF\n"), "{answer:?}");
            let elsewhere = Request::get(format!("{}/apis", bus.api)).body(Full::default());
            assert_eq!(bus.ask(elsewhere.unwrap()).await.status, 404);
        })
        .await;
}

#[tokio::test]
async fn how_deliveries_go_is_told_and_of_whom_it_is_limited() {
    let bus = Bus::start_with(&["--metrics-subscriptions", "1"]).await;
    let (well, fails) = (Subscriber::start().await, Subscriber::answering(|_| 503).await);
    bus.activate().await;
    bus.subscribe("well", "order.created", &well.url()).await;
    bus.subscribe("fails", "order.paid", &fails.url()).await;
    assert_eq!(bus.publish("order.created", &json!("abc")).await, "published");
    assert_eq!(bus.publish("order.paid", &json!(1)).await, "published");
    assert_eq!(bus.publish("order.paid", &json!(2)).await, "published");
    let mut later = event("order.created", &json!(3));
    later["delay_s"] = json!(3_600);
    assert_eq!(bus.post("/v1/events", later.to_string()).await.status, 200);
    well.wait_for(1).await;
    let page = bus.metrics_with("eventbus_subscriptions{state=\"failing\"} 1").await;
    for (series, wanted) in [
        ("eventbus_published_events_total", "4"),
        ("eventbus_publish_duration_seconds_count", "4"),
        ("eventbus_delivery_attempts_total{outcome=\"success\"}", "1"),
        ("eventbus_delivered_events_total", "1"),
        ("eventbus_delivered_bytes_total", "5"),
        ("eventbus_end_to_end_duration_seconds_count", "1"),
        ("eventbus_subscriptions{state=\"active\"}", "1"),
        ("eventbus_subscriptions{state=\"inactive\"}", "0"),
        ("eventbus_commit_events_sum", "3.0"),
        ("eventbus_delayed_events", "1"),
        ("eventbus_component_up{component=\"push\"}", "1"),
        ("eventbus_api_up", "1"),
    ] {
        assert_eq!(value(&page, series), Some(wanted), "{series} in\n{page}");
    }
    let attempts = value(&page, "eventbus_delivery_attempts_total{outcome=\"server_error\"}");
    assert!(attempts.unwrap().parse::<u64>().unwrap() >= 3, "{page}");
    // Of the two the one that lags, once both were looked at.
    let worst = "subscription=\"fails\"} 2";
    let page = bus.metrics_with(worst).await;
    assert!(page.contains(&format!("eventbus_subscription_lag_events{{{LABELS}{worst}")), "{page}");
    assert!(!page.contains("subscription=\"well\""), "{page}");
    assert_eq!(value(&page, "eventbus_lag_events"), Some("2"), "{page}");
    let told = |family| {
        let series = format!("eventbus_subscription_{family}{{{LABELS}subscription=\"fails\"}}");
        value(&page, &series).unwrap().parse::<f64>().unwrap()
    };
    assert!(told("oldest_unsettled_seconds") > 0.5 && told("waiting_events") <= 2.0, "{page}");
}

/// What stands before the name of a Subscription of a test.
const LABELS: &str = "group=\"eventing.kyma.cx\",namespace=\"stage\",";

#[tokio::test]
async fn nobody_is_told_one_by_one_where_that_is_off() {
    let bus = Bus::start_with(&["--metrics-subscriptions", "0"]).await;
    let fails = Subscriber::answering(|_| 503).await;
    bus.activate().await;
    bus.subscribe("fails", "order.paid", &fails.url()).await;
    assert_eq!(bus.publish("order.paid", &json!(1)).await, "published");
    let page = bus.metrics_with("\neventbus_lag_events 1\n").await;
    assert!(!page.contains("subscription=\""), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_goes_is_told_of() {
    let mut bus = Bus::over(Some(&Cluster::start().await), &[]).await;
    let until = async |bus: &Bus, wanted| {
        while value(&bus.scrape(&[]).await.body, "eventbus_api_up") != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(until(&bus, "1")).await;
    bus.end_cluster();
    within(until(&bus, "0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_nats_the_same_families_are_told_as_far_as_they_mean_something() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let bus = Bus::start_with(&["--broker", "nats", "--nats-url", &server.url()]).await;
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    assert_eq!(bus.publish("order.created", &json!(1)).await, "published");
    let mut later = event("order.created", &json!(2));
    later["delay_s"] = json!(3_600);
    assert_eq!(bus.post("/v1/events", later.to_string()).await.status, 200);
    subscriber.wait_for(1).await;
    bus.metrics_with("eventbus_end_to_end_duration_seconds_count 1").await;
    let page = bus.metrics_with("\neventbus_delayed_events 1\n").await;
    assert_eq!(value(&page, "eventbus_commit_duration_seconds_count"), Some("1"), "{page}");
    assert_eq!(value(&page, "eventbus_commit_events_sum"), Some("1.0"), "{page}");
    let documented = std::fs::read_to_string(documented()).unwrap();
    for family in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = family.split_once(' ').unwrap();
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not documented");
        assert!(documented.contains(&format!("| {help} |")), "{name}: another help");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_full_is_told_and_so_is_the_level_in_force() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let (url, max_bytes) = (server.url(), (4 << 20).to_string());
    let limits = ["--max-bytes", &max_bytes, "--backlog-max-bytes", &max_bytes];
    let nats = ["--broker", "nats", "--nats-url", &url];
    let bus = Bus::start_with(&[&nats[..], &limits].concat()).await;
    let page = bus.metrics().await;
    let level = "eventbus_durability_info{default=\"written\",promised=\"accepted,written\"}";
    assert_eq!(value(&page, level), Some("1"), "{page}");
    assert_eq!(value(&page, "eventbus_storage_full"), Some("0"), "{page}");
    // Nothing of this is ever settled.
    let subscriber = Subscriber::answering(|_| 500).await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    let order = event("order.created", &json!("x".repeat(16 << 10))).to_string();
    within(async { while bus.post("/v1/events", order.clone()).await.status == 200 {} }).await;
    let page = bus.metrics().await;
    assert_eq!(value(&page, "eventbus_broker_up"), Some("1"), "{page}");
    assert_eq!(value(&page, "eventbus_storage_full"), Some("1"), "{page}");
    let refused = "eventbus_publish_requests_total{status=\"507\"}";
    assert_eq!(value(&page, refused), Some("1"), "{page}");
    server.kill();
    within(async {
        while value(&bus.metrics().await, "eventbus_broker_up") != Some("0") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(value(&bus.metrics().await, level), None, "who is not there promises nothing");
}
