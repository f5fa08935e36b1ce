//! Exports spans to a collector of the test.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod collector;

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::span::{Span, Spans};
use eventbus_core::testing::{KeptSpans, ManualClock, Page, SeededEntropy, event};
use eventbus_core::wire::trace::Trace;
use eventbus_core::{Tracer, limits};
use eventbus_traces::{BadCollector, CollectorUrl, Config, Exporter, Form, Telemetry};
use http::{HeaderMap, HeaderValue};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::collector::{Collector, Told};

const B3: &str = "64fe8b2a57d3eff7-e457b5a2e4d86bd1-d";

fn exporter(url: &str, form: Form) -> (Exporter, Arc<Telemetry>) {
    let telemetry = Arc::<Telemetry>::default();
    let url = CollectorUrl::parse(url, form).unwrap();
    let config = Config { form, url, service: "eventbus".to_owned() };
    let clock = Arc::new(ManualClock::at(0));
    (Exporter::start(config, telemetry.clone(), clock).unwrap(), telemetry)
}

/// A publish, its append, and an attempt that failed.
fn record(spans: Arc<dyn Spans>) {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let entropy = Arc::new(SeededEntropy::new(1));
    let tracer = Tracer::new(spans, clock.clone(), entropy, 0.0);
    let mut headers = HeaderMap::new();
    headers.insert("b3", HeaderValue::from_static(B3));
    let trace = Trace::from_headers(&headers);
    let mut publish = tracer.publish(&trace).unwrap();
    publish.tag_event(&event("order.created", "{}"));
    publish.tag("http.status_code", 200_u64);
    let carried = trace.carrying(publish.context());
    let append = tracer.append(publish.context());
    clock.advance(Duration::from_millis(7));
    tracer.end(*append, None);
    tracer.end(*publish, None);
    let attempt = tracer.attempt(&carried).unwrap();
    tracer.end(*attempt, Some("timeout"));
}

fn one_span() -> Span {
    let kept = Arc::<KeptSpans>::default();
    record(kept.clone());
    kept.of(eventbus_core::span::Work::Append).remove(0)
}

fn value(telemetry: &Arc<Telemetry>, series: &str) -> u64 {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(telemetry.clone()));
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

async fn is_told(form: Form, trace_id: &str, internal: &str) {
    let collector = Collector::start().await;
    let (exporter, telemetry) = exporter(&collector.url, form);
    record(exporter.spans());
    let told = collector.wait(|told| told.len() == 3).await;
    let named = |name: &str| told.iter().find(|told| told.name == name).unwrap().clone();
    let (append, publish) = (named("append"), named("send-to-internal-broker"));
    let attempt = named("deliver-to-endpoint");
    for told in &told {
        assert_eq!((told.trace_id.as_str(), told.service.as_str()), (trace_id, "eventbus"));
    }
    let parents = [&publish, &append, &attempt].map(|told| told.parent_id.clone().unwrap());
    assert_eq!(parents, ["e457b5a2e4d86bd1".to_owned(), publish.id.clone(), publish.id.clone()]);
    let kinds = [&publish, &append, &attempt].map(|told| told.kind.as_str());
    assert_eq!(kinds, ["PRODUCER", internal, "CONSUMER"]);
    assert_eq!((publish.began_us, publish.took_us), (1_700_000_000_000_000, 7_000));
    assert_eq!(attempt.began_us, 1_700_000_000_007_000);
    let tags = [
        ("event-id", "a45ad3b8-6b4a-4a0d-9a86-2f5c34b6d7a1"),
        ("event-type", "order.created"),
        ("event-type-ver", "v1"),
        ("http.status_code", "200"),
        ("source-id", "shop"),
    ];
    let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((publish.tags, publish.has_failed), (tags.into(), false));
    assert_eq!((attempt.tags["error"].as_str(), attempt.has_failed), ("timeout", true));
    exporter.drain().await;
    assert_eq!(value(&telemetry, "eventbus_exported_spans_total"), 3);
    assert_eq!(value(&telemetry, "eventbus_dropped_spans_total"), 0);
}

#[tokio::test]
async fn otlp_is_what_the_published_definitions_say() {
    is_told(Form::Otlp, "000000000000000064fe8b2a57d3eff7", "INTERNAL").await;
}

#[tokio::test]
async fn zipkin_is_told_in_its_json() {
    is_told(Form::Zipkin, "64fe8b2a57d3eff7", "").await;
}

#[tokio::test]
async fn a_stop_sends_what_waits() {
    let collector = Collector::start().await;
    let (exporter, _) = exporter(&collector.url, Form::Otlp);
    let spans = exporter.spans();
    for _ in 0..limits::SPANS_AT_ONCE + 7 {
        spans.record(one_span());
    }
    exporter.drain().await;
    assert_eq!(collector.spans().len(), limits::SPANS_AT_ONCE + 7);
    assert!(collector.batches().iter().all(|spans| *spans <= limits::SPANS_AT_ONCE));
}

#[tokio::test]
async fn a_dead_collector_costs_dropped_spans() {
    let collector = Collector::start().await;
    let url = collector.url.clone();
    drop(collector);
    let (exporter, telemetry) = exporter(&url, Form::Zipkin);
    let spans = exporter.spans();
    let count = limits::SPANS_WAITING + limits::SPANS_AT_ONCE;
    let span = one_span();
    for _ in 0..count {
        spans.record(span.clone());
    }
    // Nothing was awaited since: what the queue did not hold is lost already.
    assert_eq!(value(&telemetry, "eventbus_dropped_spans_total") as usize, limits::SPANS_AT_ONCE);
    exporter.drain().await;
    assert_eq!(value(&telemetry, "eventbus_dropped_spans_total") as usize, count);
    assert_eq!(value(&telemetry, "eventbus_exported_spans_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn spans_that_are_left_at_a_stop_are_counted_and_told() {
    let page = Page::default();
    let writer = page.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _told = tracing::subscriber::set_default(lines.finish());
    // Nobody ever answers there.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (exporter, telemetry) = exporter(&url, Form::Otlp);
    let (spans, span) = (exporter.spans(), one_span());
    let count = limits::SPANS_AT_ONCE + 7;
    for _ in 0..count {
        spans.record(span.clone());
    }
    // A batch is under way when it stops.
    tokio::time::sleep(limits::SPANS_LINGER).await;
    exporter.drain().await;
    spans.record(span);
    assert_eq!(value(&telemetry, "eventbus_dropped_spans_total") as usize, count + 1);
    let page = page.text();
    let told = format!("the collector did not take the last spans in time spans={count}");
    assert!(page.lines().count() == 1 && page.contains(&told), "{page}");
}

#[tokio::test]
async fn a_collector_that_rejects_some_spans_is_believed() {
    let collector = Collector::start().await;
    collector.rejects(2);
    let (exporter, telemetry) = exporter(&collector.url, Form::Otlp);
    record(exporter.spans());
    exporter.drain().await;
    assert_eq!(collector.batches(), [3]);
    assert_eq!(value(&telemetry, "eventbus_exported_spans_total"), 1);
    assert_eq!(value(&telemetry, "eventbus_dropped_spans_total"), 2);
}

#[tokio::test]
async fn a_collector_that_refuses_is_asked_again_with_the_next() {
    let collector = Collector::start().await;
    collector.answers(503);
    let (exporter, telemetry) = exporter(&collector.url, Form::Zipkin);
    let spans = exporter.spans();
    spans.record(one_span());
    while value(&telemetry, "eventbus_dropped_spans_total") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    collector.answers(200);
    spans.record(one_span());
    let told: Vec<Told> = collector.wait(|told| !told.is_empty()).await;
    assert_eq!(told.len(), 1, "a batch is sent once");
    exporter.drain().await;
}

#[test]
fn a_url_that_cannot_be_posted_to_is_refused() {
    for url in ["ftp://collector/", "collector:4318", "/v1/traces", "http://me:secret@collector/"] {
        let refused = CollectorUrl::parse(url, Form::Otlp);
        assert!(matches!(refused, Err(BadCollector::Url)), "{url}");
    }
}
