//! The spans of a publish, and what its events carry of them.

use eventbus_core::broker::AppendError;
use eventbus_core::span::{Span, Work};
use eventbus_core::wire::trace::Trace;
use http::Request;
use http_body_util::Full;

use crate::world::{Answer, ORDER, World};

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const SPAN: &str = "e457b5a2e4d86bd1";

impl World {
    async fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Full::new(body.to_owned().into())).unwrap()).await
    }

    fn one(&self, work: Work) -> Span {
        let [span] = &self.spans.of(work)[..] else { panic!("{:?}", self.spans) };
        span.clone()
    }
}

fn lines(trace: &Trace) -> Vec<String> {
    trace.iter().map(|(header, value)| format!("{}: {value}", header.name())).collect()
}

fn tags(span: &Span) -> Vec<String> {
    span.tags.iter().map(|(name, tag)| format!("{name}={tag}")).collect()
}

#[tokio::test]
async fn an_event_carries_the_span_of_its_publish() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let b3 = format!("{TRACE}-{SPAN}-1");
    let answer = world.post_with("/v1/events", ORDER, &[("b3", &b3)]).await;
    assert_eq!(answer.status, 200);
    let (publish, append) = (world.one(Work::Publish), world.one(Work::Append));
    assert_eq!(publish.context.trace_id.to_string(), TRACE);
    assert_eq!(publish.context.parent_id.unwrap().to_string(), SPAN);
    assert_eq!(append.context.parent_id, Some(publish.context.span_id));
    assert_eq!(
        tags(&publish),
        [
            "event-id=31109198-4d69-4ae0-972d-76117f3748c8",
            "event-type=order.created",
            "event-type-ver=v1",
            "source-id=shop",
            "http.status_code=200",
        ]
    );
    assert_eq!(tags(&append), ["durability=synced", "events=1", "bytes=11"]);
    assert_eq!((publish.error, append.error), (None, None));
    let [event] = &world.broker.events()[..] else { panic!("one event is stored") };
    let carried = format!("b3: {TRACE}-{}-1-{SPAN}", publish.context.span_id);
    assert_eq!(lines(&event.trace), [carried]);
}

#[tokio::test]
async fn what_is_not_sampled_passes_untouched() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    for headers in [
        &[][..],
        &[("traceparent", unsampled.as_str()), ("tracestate", "a=1")],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "false")],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)],
        &[("traceparent", "nonsense"), ("x-b3-spanid", SPAN)],
    ] {
        assert_eq!(world.post_with("/v1/events", ORDER, headers).await.status, 200);
        let event = world.broker.events().pop().unwrap();
        let mut wanted: Vec<_> = headers.iter().map(|(name, v)| format!("{name}: {v}")).collect();
        let mut carried = lines(&event.trace);
        wanted.sort();
        carried.sort();
        assert_eq!(carried, wanted);
    }
    assert!(world.spans.of(Work::Publish).is_empty() && world.spans.of(Work::Append).is_empty());
}

#[tokio::test]
async fn a_batch_has_one_span_that_all_its_events_carry() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let late = ORDER.replace("\"data\"", "\"delay_s\":60,\"data\"").replace("f3748c8", "f3748c9");
    let batch = format!("[{ORDER},{},{late},{{}}]", ORDER.replace("f3748c8", "f3748c7"));
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("traceparent", sampled.as_str()), ("tracestate", "a=1")];
    let answer = world.post_with("/v1/events/batch", &batch, &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let publish = world.one(Work::Publish);
    assert_eq!(tags(&publish), ["events=4", "http.status_code=200"]);
    let appends = world.spans.of(Work::Append);
    let told: Vec<_> = appends.iter().map(tags).collect();
    assert_eq!(told[0], ["durability=synced", "events=2", "bytes=22"]);
    assert_eq!(told[1], ["durability=synced", "events=1", "bytes=11"]);
    let carried = format!("traceparent: 00-{TRACE}-{}-01", publish.context.span_id);
    let delayed = world.broker.delayed.lock().unwrap().clone();
    let events = world.broker.events();
    let events: Vec<_> = events.iter().chain(delayed.iter().map(|(event, _)| event)).collect();
    assert_eq!(events.len(), 3);
    for event in events {
        assert_eq!(lines(&event.trace), [carried.as_str(), "tracestate: a=1"]);
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_by_its_word() {
    let sampled = [("b3", "1")];
    for (path, body, failure, word, status) in [
        ("/v1/events", "{", None, "bad_payload_syntax", 400),
        ("/v1/events", "{}", None, "validation_violation", 400),
        ("/shop/v1/events", "", None, "bad_payload_syntax", 400),
        ("/shop/v1/events", "{}", None, "validation_violation", 400),
        (
            "/v1/events",
            ORDER,
            Some(AppendError::Full { used_bytes: 2, max_bytes: 1 }),
            "insufficient_storage",
            507,
        ),
    ] {
        let world = World::new();
        world.subscribe("shop", "order.created");
        let has_failed = failure.is_some();
        *world.broker.failure.lock().unwrap() = failure;
        let answer = world.post_with(path, body, &sampled).await;
        let publish = world.one(Work::Publish);
        assert_eq!((answer.status, publish.error), (status, Some(word)), "{path} {body}");
        assert_eq!(publish.context.parent_id, None, "a decision alone begins a trace");
        assert_eq!(tags(&publish).pop().unwrap(), format!("http.status_code={status}"));
        let append = world.spans.of(Work::Append).pop();
        assert_eq!(append.map(|span| span.error), has_failed.then_some(Some(word)));
    }
}

#[tokio::test]
async fn an_extension_is_the_publishers_own() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let own = format!("00-{SPAN}{SPAN}-{SPAN}-01");
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "shop"),
        ("ce-type", "order.created"),
        ("ce-eventtypeversion", "v1"),
        ("ce-traceparent", own.as_str()),
        ("traceparent", sampled.as_str()),
    ];
    assert_eq!(world.post_with("/publish", "{}", &headers).await.status, 204);
    let publish = world.one(Work::Publish);
    let [event] = &world.broker.events()[..] else { panic!("one event is stored") };
    let carried = format!("traceparent: 00-{TRACE}-{}-01", publish.context.span_id);
    assert_eq!(lines(&event.trace), [carried]);
    assert_eq!(event.attributes.text("traceparent").unwrap(), own.as_str());
}
