//! The publish port, request by request.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::broker::AppendError;
use http::{Method, Request};
use http_body_util::Full;
use proptest::prelude::*;

use crate::world::{ORDER, World};

const FRONT_ORDER: &str = r#"{"event-type":"order.created","event-type-version":"v1",
    "event-time":"2012-11-01T22:08:41Z","data":{"a":1}}"#;

fn request(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::default()).unwrap()
}

#[tokio::test]
async fn an_event_somebody_asks_for_is_stored_and_answered_published() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let answer = world.post("/v1/events", ORDER).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        "{\"event-id\":\"31109198-4d69-4ae0-972d-76117f3748c8\",\"status\":\"published\",\
         \"reason\":\"stored for delivery\"}\n"
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["eventbus-status"], "published");
    assert_eq!(answer.headers["eventbus-durability"], "synced");
    assert_eq!(answer.headers["eventbus-event-id"], "31109198-4d69-4ae0-972d-76117f3748c8");
    let [event] = &world.broker.events()[..] else { panic!("one event is stored") };
    assert_eq!(event.payload, "{ \"a\" : 1 }");
}

#[tokio::test]
async fn a_durability_is_asked_for_in_the_header_or_in_the_body() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let asking = Request::post("/v1/events").header("eventbus-durability", "accepted");
    let answer = world.ask(asking.body(Full::new(Bytes::from(ORDER))).unwrap()).await;
    assert_eq!(
        (answer.status, &answer.headers["eventbus-durability"].as_bytes()),
        (200, &&b"accepted"[..])
    );
    let body = ORDER.replace("\"data\"", "\"durability\":\"accepted\",\"data\"");
    let answer = world.post("/v1/events", body.clone()).await;
    assert_eq!(answer.headers["eventbus-durability"], "accepted");
    let answer = world.post("/v1/events", body.replace("accepted", "replicated")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("\"field\":\"Eventbus-Durability\""), "{}", answer.body);
    assert!(answer.body.contains("This bus can promise: accepted, synced"), "{}", answer.body);
    assert_eq!(world.broker.events().len(), 2);
}

#[tokio::test]
async fn an_event_nobody_asks_for_is_ignored_and_not_stored() {
    let world = World::new();
    world.subscribe("shop", "order.paid");
    let answer = world.post("/v1/events", ORDER).await;
    assert_eq!(
        (answer.status, answer.headers["eventbus-status"].as_bytes()),
        (200, &b"ignored"[..])
    );
    assert!(answer.body.contains("\"status\":\"ignored\""));
    assert!(world.broker.events().is_empty());
}

#[tokio::test]
async fn a_subscription_that_is_listed_but_not_yet_in_the_catalog_is_waited_for() {
    let world = World::new();
    world.lists_one.store(true, Ordering::SeqCst);
    let publishing = world.post("/v1/events", ORDER);
    let watching = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.subscribe("shop", "order.created");
    };
    let (answer, ()) = tokio::join!(publishing, watching);
    assert_eq!(answer.headers["eventbus-status"], "published");
}

#[tokio::test]
async fn where_the_catalog_stays_behind_the_event_is_stored() {
    let world = World::new();
    world.lists_one.store(true, Ordering::SeqCst);
    let answer = world.post("/v1/events", ORDER).await;
    assert_eq!(answer.headers["eventbus-status"], "published");
    assert_eq!(world.broker.events().len(), 1);
}

#[tokio::test]
async fn a_body_at_the_limit_passes_and_one_byte_more_is_413() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let padded = |bytes: usize| format!("{ORDER}{}", " ".repeat(bytes - ORDER.len()));
    assert_eq!(world.post("/v1/events", padded(1000)).await.status, 200);
    let answer = world.post("/v1/events", padded(1001)).await;
    assert_eq!(answer.status, 413);
    assert_eq!(
        answer.body,
        "{\"status\":413,\"type\":\"request_body_too_large\",\
         \"message\":\"Request body too large\",\"moreInfo\":\"\",\"details\":null}\n"
    );
    let front = world.post("/shop/v1/events", padded(1001)).await;
    assert_eq!(front.status, 413);
    assert!(front.body.contains("http: request body too large"));
}

#[tokio::test]
async fn what_the_broker_cannot_do_is_said_with_retry_after() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let full = AppendError::Full { used_bytes: 9, max_bytes: 8 };
    let away = AppendError::Unavailable("the sync failed".into());
    for (failure, status, kind) in
        [(full, 507, "insufficient_storage"), (away, 503, "service_unavailable")]
    {
        *world.broker.failure.lock().unwrap() = Some(failure);
        let answer = world.post("/v1/events", ORDER).await;
        assert_eq!(answer.status, status);
        assert!(answer.headers.contains_key("retry-after"));
        assert!(answer.body.contains(&format!("\"type\":\"{kind}\"")), "{}", answer.body);
    }
}

#[tokio::test]
async fn beyond_the_bound_of_requests_in_work_the_answer_is_429() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    world.broker.hangs.store(true, Ordering::SeqCst);
    let mut hanging: [Pin<Box<dyn Future<Output = _>>>; 2] =
        [Box::pin(world.post("/v1/events", ORDER)), Box::pin(world.post("/v1/events", ORDER))];
    for publish in &mut hanging {
        assert!(futures::poll!(publish).is_pending());
    }
    let answer = world.post("/v1/events", ORDER).await;
    assert_eq!(answer.status, 429);
    assert!(answer.body.contains("\"type\":\"too_many_requests\""));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(world.post("/shop/v1/events", FRONT_ORDER).await.status, 429);
    assert_eq!(world.ask(request(Method::GET, "/healthz")).await.status, 200);
}

#[tokio::test]
async fn every_path_and_method_has_the_answer_of_the_contract() {
    let world = World::new();
    let text = "404 page not found\n";
    let no_path = "{\"code\":404,\"error\":\"Requested resource could not be found.\"}\n";
    let no_method = "{\"code\":405,\"error\":\"Method not allowed.\"}\n";
    for (method, path, status, body) in [
        (Method::GET, "/", 404, text),
        (Method::POST, "/v1/events/", 404, text),
        (Method::GET, "/metrics", 404, text),
        (Method::POST, "/shop/v1/events/", 404, no_path),
        (Method::POST, "/shop/v1/eventsfoo", 404, no_path),
        (Method::POST, "/1shop/v1/events", 404, no_path),
        (Method::GET, "/shop/v1/events", 405, no_method),
        (Method::POST, "/shop/v1/events/subscribed", 405, no_method),
        (Method::GET, "/v1/health", 200, ""),
        (Method::GET, "/v1/status/ready", 502, ""),
        (Method::POST, "/v1/status/ready", 502, ""),
        (Method::GET, "/readyz", 503, "[-]the test not ready\nreadyz check failed\n"),
        (Method::GET, "/livez", 200, "ok\n"),
    ] {
        let answer = world.ask(request(method.clone(), path)).await;
        assert_eq!((answer.status, &*answer.body), (status, body), "{method} {path}");
    }
    let answer = world.ask(request(Method::GET, "/v1/events")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("\"type\":\"bad_request\""));
}

#[tokio::test]
async fn ready_is_said_once_every_condition_holds() {
    let mut world = World::new();
    world.ready.take().unwrap().open();
    assert_eq!(world.ask(request(Method::GET, "/v1/status/ready")).await.status, 200);
    assert_eq!(world.ask(request(Method::GET, "/readyz")).await.body, "ok\n");
    let verbose = world.ask(request(Method::GET, "/readyz?verbose")).await.body;
    assert_eq!(verbose, "[+]the test ok\nreadyz check passed\n");
}

#[tokio::test]
async fn the_front_adds_the_source_and_lists_what_is_subscribed() {
    let world = World::new();
    world.subscribe("shop", "order.created");
    let answer = world.post("/shop/v1/events", FRONT_ORDER).await;
    assert_eq!(answer.headers["eventbus-status"], "published");
    assert_eq!(world.broker.events()[0].source.as_str(), "shop");
    let subscribed = world.ask(request(Method::GET, "/shop/v1/events/subscribed")).await;
    assert_eq!(
        subscribed.body,
        "{\"eventsInfo\":[{\"name\":\"order.created\",\"version\":\"v1\"}]}\n"
    );
    let other = world.ask(request(Method::GET, "/other/v1/events/subscribed")).await;
    assert_eq!(other.body, "{\"eventsInfo\":[]}\n");
}

#[tokio::test]
async fn options_answers_the_abuse_protection_of_webhooks() {
    let world = World::new();
    let mut options = request(Method::OPTIONS, "/v1/events");
    options.headers_mut().insert("webhook-request-origin", "example.com".parse().unwrap());
    let answer = world.ask(options).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["webhook-allowed-origin"], "example.com");
    assert_eq!(answer.headers["allow"], "POST, OPTIONS");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_request_is_answered_in_the_contracts_form(
        path in "(/v1/events|/[a-z0-9]{0,3}/v1/events(/subscribed)?|/[ -~&&[^?# ]]{0,20})",
        post in any::<bool>(),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            Just(ORDER.as_bytes().to_vec()),
            Just(FRONT_ORDER.as_bytes().to_vec()),
        ],
        flip in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
        let mut body = body;
        if !body.is_empty() {
            let at = flip.index(body.len());
            body[at] = byte;
        }
        let method = if post { Method::POST } else { Method::GET };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let world = World::new();
            world.subscribe("shop", "order.created");
            let body = Full::new(Bytes::from(body));
            world.ask(Request::builder().method(method).uri(uri).body(body).unwrap()).await
        });
        prop_assert!(matches!(answer.status, 200 | 400 | 404 | 405 | 502 | 503));
        let content_type = answer.headers.get("content-type").map(|value| value.as_bytes());
        if content_type.is_some_and(|kind| kind.starts_with(b"application/json")) {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&answer.body);
            prop_assert!(parsed.is_ok(), "{}", answer.body);
        }
    }
}
