//! The forms of a publish request: CloudEvents, batches, attributes, delays.

use bytes::Bytes;
use eventbus_core::broker::AppendError;
use eventbus_core::event::SpecVersion;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::world::{Answer, ORDER, World};

const BATCH: &str = "application/cloudevents-batch+json";

fn world() -> World {
    let world = World::new();
    world.subscribe("shop", "order.created");
    world
}

/// Sends a body with these headers.
async fn send(
    world: &World,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.ask(request.body(Full::new(body.into())).unwrap()).await
}

/// The headers of an event that is asked for, and more.
fn cloud_event<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let least = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a b"),
        ("ce-source", "shop"),
        ("ce-type", "order.created"),
        ("ce-eventtypeversion", "v1"),
    ];
    [&least, more].concat()
}

fn document(id: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "shop", "type": "order.created",
           "eventtypeversion": "v1", "data": {"a": 1}})
}

fn order(id: u8) -> Value {
    let mut order: Value = serde_json::from_str(ORDER).unwrap();
    order["event-id"] = json!(format!("31109198-4d69-4ae0-972d-76117f3748{id:02x}"));
    order
}

/// Status and reason of each result of a batch.
fn results(answer: &Answer) -> Vec<(String, String)> {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let results = body["results"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    results.map(|result| (text(&result["event-id"]), text(&result["status"]))).collect()
}

#[tokio::test]
async fn a_cloud_event_is_answered_in_headers() {
    for path in ["/publish", "/v1/events"] {
        let world = world();
        let answer = send(&world, path, &cloud_event(&[("content-type", "a/b")]), "x").await;
        assert_eq!((answer.status, &*answer.body), (204, ""), "{path}");
        assert_eq!(answer.headers["eventbus-event-id"], "a%20b");
        assert_eq!(answer.headers["eventbus-status"], "published");
        assert_eq!(answer.headers["eventbus-durability"], "synced");
        let [event] = &world.broker.events()[..] else { panic!("one event is stored") };
        assert_eq!((&*event.id, &*event.content_type), ("a b", "a/b"));
        let structured = [("content-type", "application/cloudevents+json")];
        let answer = send(&world, path, &structured, document("2").to_string()).await;
        assert_eq!(answer.status, 204);
        assert_eq!(world.broker.events()[1].payload, "{\"a\":1}");
        let mut old = cloud_event(&[]);
        old[0].1 = "0.3";
        assert_eq!(send(&world, path, &old, "").await.status, 204);
        assert_eq!(world.broker.events()[2].spec_version, SpecVersion::V03);
    }
}

#[tokio::test]
async fn a_cloud_event_that_is_refused_hears_why_as_text() {
    let world = world();
    let answer = send(&world, "/publish", &[], "{}").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert!(answer.body.starts_with("specversion: "), "{}", answer.body);
    let answer = send(&world, "/publish", &cloud_event(&[]), vec![b'x'; 1001]).await;
    assert_eq!(answer.status, 413);
    let asking = cloud_event(&[("ce-durability", "replicated")]);
    let answer = send(&world, "/publish", &asking, "").await;
    assert_eq!((answer.status, answer.body.contains("accepted, synced")), (400, true));
    let full = AppendError::Full { used_bytes: 1, max_bytes: 1 };
    *world.broker.failure.lock().unwrap() = Some(full);
    let answer = send(&world, "/publish", &cloud_event(&[]), "").await;
    assert_eq!((answer.status, &answer.headers["retry-after"].as_bytes()), (507, &&b"1"[..]));
    let get = Request::get("/publish").body(Full::default()).unwrap();
    assert_eq!(world.ask(get).await.status, 405);
}

#[tokio::test]
async fn whoever_asks_whether_events_are_welcome_hears_yes() {
    let world = world();
    for path in ["/publish", "/v1/events", "/v1/events/batch"] {
        let asking = Request::builder().method(Method::OPTIONS).uri(path);
        let asking = asking.header("webhook-request-origin", "shop.example");
        let answer = world.ask(asking.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["webhook-allowed-origin"], "shop.example");
        assert_eq!(answer.headers["allow"], "POST, OPTIONS");
    }
}

#[tokio::test]
async fn each_event_of_a_batch_has_a_result_and_all_are_one_append() {
    let world = world();
    let mut unwanted = order(2);
    unwanted["event-type"] = json!("order.deleted");
    let mut wrong = order(3);
    wrong["event-type"] = json!("!");
    let mut large = order(4);
    large["data"] = json!("x".repeat(701));
    let batch = json!([order(1), unwanted, wrong, large, order(5)]);
    let lines: Vec<_> = batch.as_array().unwrap().iter().map(Value::to_string).collect();
    let id = |id: u8| order(id)["event-id"].as_str().unwrap().to_owned();
    for body in [batch.to_string(), lines.join("\n")] {
        world.broker.batches.lock().unwrap().clear();
        let answer = world.post("/v1/events/batch", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.headers["eventbus-durability"], "synced");
        let words = ["published", "ignored", "rejected", "rejected", "published"];
        let expected: Vec<_> = (1..=5).map(id).zip(words.map(str::to_owned)).collect();
        assert_eq!(results(&answer), expected);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["results"][2]["error"]["details"][0]["field"], "event-type");
        assert_eq!(body["results"][3]["error"]["status"], 413);
        assert_eq!(body["results"][0].get("error"), None);
        assert_eq!(*world.broker.batches.lock().unwrap(), [2]);
    }
}

#[tokio::test]
async fn an_atomic_batch_is_stored_whole_or_not_at_all() {
    let world = world();
    let path = "/v1/events/batch?atomic=true";
    let answer = world.post(path, json!([order(1), {}]).to_string()).await;
    assert_eq!(answer.status, 400);
    let words: Vec<_> = results(&answer).into_iter().map(|(_, status)| status).collect();
    assert_eq!(words, ["not_stored", "rejected"]);
    assert!(world.broker.events().is_empty());
    let answer = world.post(path, json!([order(1), order(2)]).to_string()).await;
    assert_eq!((answer.status, world.broker.events().len()), (200, 2));
    assert_eq!(world.post("/v1/events/batch?atomic=1", "[]").await.status, 400);
}

#[tokio::test]
async fn cloud_events_come_in_batches_too() {
    for path in ["/publish", "/v1/events", "/v1/events/batch"] {
        let world = world();
        let batch = json!([document("1"), {"id": "2"}, document("3")]).to_string();
        let answer = send(&world, path, &[("content-type", BATCH)], batch).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let expected = [("1", "published"), ("2", "rejected"), ("3", "published")];
        let expected = expected.map(|(id, status)| (id.to_owned(), status.to_owned()));
        assert_eq!(results(&answer), expected);
        let answer = send(&world, path, &[("content-type", BATCH)], "[]").await;
        assert_eq!((answer.status, &*answer.body), (200, "{\"results\":[]}\n"));
        let many = Value::Array(vec![json!(0); 11]).to_string();
        let answer = send(&world, path, &[("content-type", BATCH)], many).await;
        assert_eq!(answer.status, 413);
        let answer = send(&world, path, &[("content-type", BATCH)], vec![b' '; 3001]).await;
        assert_eq!((answer.status, answer.body.contains("request_body_too_large")), (413, true));
        let answer = send(&world, path, &[("content-type", BATCH)], "{}").await;
        assert_eq!((answer.status, answer.body.contains("bad_payload_syntax")), (400, true));
    }
}

#[tokio::test]
async fn attributes_come_from_headers_and_body() {
    let world = world();
    let mut body = order(1);
    body["attributes"] = json!({"tenant": "acme"});
    let headers = [("eventbus-attribute-tenant", "other"), ("eventbus-attribute-note", "a%20b")];
    let answer = send(&world, "/v1/events", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let [event] = &world.broker.events()[..] else { panic!("one event is stored") };
    let said: Vec<_> = event.attributes.iter().map(|a| format!("{}={}", a.name, a.value)).collect();
    assert_eq!(said, ["note=a b", "tenant=acme"]);
    let answer = send(&world, "/v1/events", &[("eventbus-attribute-a-b", "")], ORDER).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("\"field\":\"eventbus-attribute-a-b\""), "{}", answer.body);
}

#[tokio::test]
async fn an_event_that_is_due_later_is_kept_until_then_whoever_asks_for_it() {
    let world = World::new();
    let mut body = order(1);
    body["delay_s"] = json!(60);
    let answer = world.post("/v1/events", body.to_string()).await;
    assert_eq!(
        (answer.status, &answer.headers["eventbus-status"].as_bytes()),
        (200, &&b"published"[..])
    );
    assert!(answer.body.contains("when it is due"), "{}", answer.body);
    let later = [("eventbus-deliver-at", "1970-01-01T00:01:00Z")];
    assert_eq!(send(&world, "/publish", &cloud_event(&later), "").await.status, 204);
    let mut soon = document("2");
    soon["delays"] = json!(60);
    let batch = json!([soon]).to_string();
    let answer = send(&world, "/publish", &[("content-type", BATCH)], batch.clone()).await;
    assert_eq!(results(&answer), [("2".to_owned(), "published".to_owned())]);
    assert!(world.broker.delayed.lock().unwrap().iter().all(|(_, due_ms)| *due_ms == 60_000));
    assert_eq!(world.broker.delayed.lock().unwrap().len(), 3);
    assert!(world.broker.events().is_empty());
    let answer = send(&world, "/publish?atomic=true", &[("content-type", BATCH)], batch).await;
    assert_eq!(answer.status, 400);
    let late = [("eventbus-deliver-at", "1972-01-01T00:01:00Z")];
    let answer = send(&world, "/publish", &cloud_event(&late), "").await;
    assert_eq!((answer.status, answer.body.contains("366 days")), (400, true));
}

#[tokio::test]
async fn a_repeat_is_told_in_each_form() {
    let world = world();
    world.broker.repeats.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = world.post("/v1/events/batch", json!([order(1)]).to_string()).await;
    assert_eq!(results(&answer)[0].1, "duplicate");
    let answer = send(&world, "/publish", &cloud_event(&[]), "").await;
    assert_eq!(
        (answer.status, &answer.headers["eventbus-status"].as_bytes()),
        (204, &&b"duplicate"[..])
    );
}

#[tokio::test]
async fn what_cannot_be_kept_until_later_is_told_alone() {
    let world = world();
    let full = AppendError::Full { used_bytes: 1, max_bytes: 1 };
    *world.broker.delay_failure.lock().unwrap() = Some(full);
    let mut later = order(2);
    later["delay_s"] = json!(60);
    let answer = world.post("/v1/events/batch", json!([order(1), later]).to_string()).await;
    assert_eq!(answer.status, 200);
    let words: Vec<_> = results(&answer).into_iter().map(|(_, status)| status).collect();
    assert_eq!(words, ["published", "rejected"]);
    assert!(answer.body.contains("\"error\":{\"status\":507"), "{}", answer.body);
}

#[tokio::test]
async fn headers_are_not_stored_with_thousands_of_events() {
    let world = world();
    let value = "x".repeat(1024);
    let names: Vec<_> = (0..32).map(|number| format!("eventbus-attribute-a{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let few = json!([order(1), order(2)]).to_string();
    assert_eq!(send(&world, "/v1/events/batch", &headers, few).await.status, 200);
    let publish = std::sync::Arc::into_inner(world.publish).unwrap();
    let publish = eventbus_server::publish::Publish { batch_events: 1000, ..publish };
    let world = World { publish: std::sync::Arc::new(publish), ..world };
    let many = Value::Array(vec![json!(0); 200]).to_string();
    let answer = send(&world, "/v1/events/batch", &headers, many).await;
    assert_eq!((answer.status, answer.body.contains("at most 4 MiB")), (400, true));
}

#[tokio::test]
async fn a_batch_is_as_durable_as_its_events_ask_and_no_more() {
    let world = world();
    let mut least = order(1);
    least["durability"] = json!("accepted");
    let answer = world.post("/v1/events/batch", json!([least]).to_string()).await;
    assert_eq!(answer.headers["eventbus-durability"], "accepted");
    let answer = world.post("/v1/events/batch", json!([least, order(2)]).to_string()).await;
    assert_eq!(answer.headers["eventbus-durability"], "synced");
}

#[tokio::test]
async fn an_answer_repeats_little_of_what_was_sent() {
    let world = world();
    let long = "x".repeat(700);
    let answer = send(&world, "/publish", &[("content-type", BATCH)], format!("\"{long}\"")).await;
    assert_eq!((answer.status, answer.body.len() < 600), (400, true), "{}", answer.body);
    let mut wrong = order(1);
    wrong["event-id"] = json!(long);
    let answer = world.post("/v1/events/batch", json!([wrong]).to_string()).await;
    assert_eq!(results(&answer), [(String::new(), "rejected".to_owned())]);
}
