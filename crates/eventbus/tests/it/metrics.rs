//! `/metrics` of the running program: who may read it, what it tells, and the page of documentation
//! that is written from it. `EVENTBUS_ACCEPT=1` writes that page anew.

use std::path::Path;
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
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
