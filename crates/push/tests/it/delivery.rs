//! The road from a stored event to its subscriber.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::event::SourceParts;
use eventbus_core::span::Work;
use eventbus_core::testing::{KeptSpans, SeededEntropy};
use eventbus_core::wire::trace::Trace;
use eventbus_core::{Event, Source, Tracer};
use http::HeaderMap;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::subscriber::{Subscriber, raw, read_request};
use crate::world::{SystemClock, World, event, eventually, soon, subscription};

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_once_with_its_payload() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish((0..2_000).map(|number| number.to_string()));
    eventually("all is settled", || world.lag("a") == 0).await;
    let mut payloads: Vec<usize> =
        subscriber.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
    payloads.sort_unstable();
    assert!(payloads.into_iter().eq(0..2_000));
    assert!(subscriber.connections() <= 10, "connections are kept");
}

#[tokio::test]
async fn the_request_is_on_the_wire_as_the_contract_draws_it() {
    let (seen, mut requests) = mpsc::channel(1);
    let (url, _subscriber) = raw(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                seen.send(request).await.unwrap();
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let mut world = World::new();
    let url = url.replace("http://", "http://user:secret@") + "?shop=1";
    let mut named = subscription("my-subscription", &url);
    named.names_itself = true;
    let parts =
        SourceParts { environment: "stage", namespace: "com.github", source_type: "commerce" };
    named.interest.source = Source::from_parts(parts);
    let mut published = event("{\"a\": 1}");
    published.source = named.interest.source.clone();
    published.id = "31109198-4d69-4ae0-972d-76117f3748c8".into();
    let mut trace = HeaderMap::new();
    trace.insert("x-b3-traceid", "80f198ee56343ba8".parse().unwrap());
    trace.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-01".parse().unwrap());
    published.trace = Trace::from_headers(&trace);
    world.declare_open(named).await;
    world.broker.publish(published);

    let request = soon("the request", requests.recv()).await.unwrap();
    let (head, payload) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(payload, "{\"a\": 1}");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /in?shop=1 HTTP/1.1"));
    let host = url.split(['@', '/']).nth(3).unwrap();
    let lines: BTreeSet<_> = lines.filter(|line| !line.starts_with("X-Request-Id: ")).collect();
    let expected = [
        "Authorization: Basic dXNlcjpzZWNyZXQ=",
        "Content-Length: 8",
        "Content-Type: application/json",
        &format!("Host: {host}"),
        "Kyma-Event-Id: 31109198-4d69-4ae0-972d-76117f3748c8",
        "Kyma-Event-Time: 2026-01-01T00:00:00Z",
        "Kyma-Event-Type-Version: v1",
        "Kyma-Event-Type: order.created",
        "Kyma-Source-Environment: stage",
        "Kyma-Source-Namespace: com.github",
        "Kyma-Source-Type: commerce",
        "Kyma-Subscription: my-subscription",
        "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-01",
        concat!("User-Agent: eventbus/", env!("CARGO_PKG_VERSION")),
        "X-B3-Traceid: 80f198ee56343ba8",
    ];
    assert_eq!(lines, expected.into_iter().collect());
}

#[tokio::test]
async fn each_attempt_of_a_recorded_trace_has_a_span_of_its_own() {
    let subscriber = Subscriber::start().await;
    subscriber.answer("retried", vec![500]);
    let spans = Arc::<KeptSpans>::default();
    let entropy = Arc::new(SeededEntropy::new(1));
    let tracer = Tracer::new(spans.clone(), SystemClock::start(), entropy, 1.0);
    let mut world = World::with(|parts| parts.tracer = Some(tracer));
    world.declare_open(subscription("a", &subscriber.url())).await;
    let unsampled = format!("{TRACE}-e457b5a2e4d86bd1-0");
    for (id, b3) in [("retried", format!("{TRACE}-e457b5a2e4d86bd1-1")), ("not", unsampled.clone())]
    {
        let mut headers = HeaderMap::new();
        headers.insert("b3", b3.parse().unwrap());
        world.broker.publish(Event { trace: Trace::from_headers(&headers), ..event(id) });
    }
    eventually("all is settled", || world.lag("a") == 0).await;
    let got = subscriber.shared.got.lock().unwrap();
    let b3 = |payload: &str| {
        let of = got.iter().filter(move |got| got.payload == payload);
        of.map(|got| got.headers["b3"].to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(b3("not"), [unsampled]);
    let told = spans.of(Work::Attempt);
    let carried = told.iter().map(|span| {
        assert_eq!(span.context.trace_id.to_string(), TRACE);
        assert_eq!(span.context.parent_id.unwrap().to_string(), "e457b5a2e4d86bd1");
        format!("{TRACE}-{}-1-e457b5a2e4d86bd1", span.context.span_id)
    });
    assert_eq!(b3("retried"), carried.collect::<Vec<_>>());
    let [first, second] = &told[..] else { panic!("{told:?}") };
    assert_eq!((first.error, second.error), (Some("server_error"), None));
    for (span, rest) in [
        (first, ["attempt=1", "http.status_code=500"]),
        (second, ["attempt=2", "http.status_code=204"]),
    ] {
        let tags: Vec<_> = span.tags.iter().map(|(name, tag)| format!("{name}={tag}")).collect();
        let wanted = [
            "event-id=retried",
            "event-type=order.created",
            "event-type-ver=v1",
            "source-id=shop",
            "sub-name=a",
            "sub-env=stage",
        ];
        assert_eq!(tags, [&wanted[..], &rest].concat());
    }
}

#[tokio::test]
async fn a_payload_may_be_empty_or_large() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    let large = "x".repeat(1024 * 1024);
    for payload in ["", &large] {
        let mut event = event("id");
        event.payload = Bytes::copy_from_slice(payload.as_bytes());
        world.broker.publish(event);
    }
    eventually("all is settled", || world.lag("a") == 0).await;
    let got = subscriber.shared.got.lock().unwrap();
    let lengths: BTreeSet<_> = got.iter().map(|got| (got.payload.len(), length(got))).collect();
    assert_eq!(lengths, [(0, "0".to_owned()), (large.len(), large.len().to_string())].into());
}

fn length(got: &crate::subscriber::Got) -> String {
    got.headers["content-length"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_attempt_has_a_request_id_of_its_own() {
    let subscriber = Subscriber::start().await;
    subscriber.answer("retried", vec![500]);
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["retried"]);
    eventually("all is settled", || world.lag("a") == 0).await;
    let got = subscriber.shared.got.lock().unwrap();
    let ids: BTreeSet<_> = got.iter().map(|got| got.headers["x-request-id"].clone()).collect();
    assert_eq!((got.len(), ids.len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_max_inflight_requests_are_under_way() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    let mut narrow = subscription("a", &subscriber.url());
    narrow.max_inflight = 7;
    world.declare_open(narrow).await;
    world.publish((0..200).map(|number| number.to_string()));
    for answered in 0..50 {
        eventually("seven wait", || subscriber.in_work() == 7).await;
        assert_eq!(subscriber.count(), 7 + answered);
        subscriber.open_gate(1);
        eventually("one is answered", || subscriber.count() > 7 + answered).await;
    }
    subscriber.open_gate(200);
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(subscriber.in_work_max(), 7);
}

#[tokio::test]
async fn a_lease_under_way_is_not_given_up_when_an_attempt_ends() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish((0..9).map(|number| number.to_string()));
    eventually("nine are under way", || subscriber.in_work() == 9).await;
    let cursor = world.broker.cursor("a").unwrap();
    cursor.place().lease_takes = Duration::from_millis(100);
    subscriber.open_gate(1);
    eventually("one is settled", || world.lag("a") == 8).await;
    world.publish(["last"]);
    let before = world.broker.leases();
    for lag in (1..9).rev() {
        subscriber.open_gate(1);
        eventually("one is settled", || world.lag("a") <= lag).await;
    }
    eventually("the last is under way", || subscriber.count() == 10).await;
    assert!(world.broker.leases() <= before + 2, "each lease was waited for");
}

#[tokio::test]
async fn two_subscriptions_of_one_name_are_two() {
    let (one, other) = (Subscriber::start().await, Subscriber::start().await);
    let mut world = World::new();
    for (uid, namespace, subscriber) in [("1", "shop", &one), ("2", "office", &other)] {
        let mut subscription = subscription(uid, &subscriber.url());
        subscription.identity.namespace = namespace.into();
        subscription.identity.name = "same".into();
        world.declare_open(subscription).await;
    }
    world.publish(["a", "b"]);
    eventually("both have settled", || world.lag("1") + world.lag("2") == 0).await;
    assert_eq!((one.count(), other.count()), (2, 2));
}

#[tokio::test]
async fn what_happened_is_counted() {
    let subscriber = Subscriber::start().await;
    subscriber.answer("b", vec![503, 404]);
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["a", "b"]);
    eventually("all is settled", || world.lag("a") == 0).await;
    let counts = world.push.as_ref().unwrap().telemetry().counts();
    let attempts: BTreeSet<_> =
        counts.attempts.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(attempts, [("success", 2), ("server_error", 1), ("client_error", 1)].into());
}
