//! What publishers of CloudEvents are answered.

use serde_json::{Value, json};

use super::{Road, STRUCTURED, Said, document, over_each_broker, stored, told};
use crate::served::{Answer, event};

/// Headers that make an event `id`, with one of them replaced, or left out where it is empty.
fn changed(id: &str, name: &str, value: &str) -> Vec<(String, String)> {
    let mut headers = Said::new(id, &[], "").headers();
    headers.retain(|(kept, _)| kept != name);
    if !value.is_empty() {
        headers.push((name.to_owned(), value.to_owned()));
    }
    headers
}

impl Road {
    /// Publishes with headers; returns the answer.
    async fn publish_headers(&self, headers: &[(String, String)]) -> Answer {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.post("/publish", &headers, "").await
    }

    /// Nothing but this event was stored since the last one that arrived.
    async fn brings_only(&mut self, id: &str) {
        let said = Said::new(id, &[], "");
        self.publish(&said).await;
        self.brings(&said).await;
    }
}

/// A refusal in a line of text, which has these words.
fn assert_refused(answer: &Answer, words: &str) {
    assert_eq!(answer.status, 400, "{words}: {answer:?}");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{answer:?}");
    assert!(answer.body.contains(words), "{words}: {answer:?}");
    assert!(!answer.body.contains("internal error"), "{answer:?}");
    assert_eq!(answer.body.lines().count(), 1, "{answer:?}");
    assert!(answer.headers.get("eventbus-status").is_none(), "{answer:?}");
}

#[tokio::test]
async fn a_stored_event_is_answered_without_a_body() {
    let mut road = Road::start().await;
    for path in ["/publish", "/v1/events"] {
        let headers = changed(path, "eventbus-durability", "accepted");
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = stored(road.post(path, &headers, "").await);
        assert_eq!((told(&answer, "event-id"), told(&answer, "durability")), (path, "accepted"));
        assert!(!answer.headers.contains_key("content-type"), "{answer:?}");
        road.brings(&Said::new(path, &[], "")).await;
    }
    // Unasked it is the best; an extension asks as well as a header.
    let said = Said::new("weak é", &[("durability", "written")], "");
    let answer = road.publish(&said).await;
    assert_eq!(told(&answer, "durability"), "written");
    assert_eq!(told(&answer, "event-id"), "weak%20%C3%A9");
    road.brings(&said).await;
    let answer = road.publish_document(&document("best", &json!({}))).await;
    assert_eq!(told(&answer, "durability"), "synced");
    road.brings(&Said::new("best", &[], "")).await;
    // Nobody asks for this one.
    let ignored = road.publish_headers(&changed("nobody", "ce-type", "other")).await;
    assert_eq!((ignored.status, &*ignored.body), (204, ""), "{ignored:?}");
    assert_eq!((told(&ignored, "status"), told(&ignored, "durability")), ("ignored", ""));
    assert_eq!(told(&ignored, "event-id"), "nobody");
    road.brings_only("last").await;
}

#[tokio::test]
async fn what_is_wrong_in_headers_is_told_and_not_stored() {
    let mut road = Road::start().await;
    for (name, value, words) in [
        ("ce-specversion", "", "specversion"),
        ("ce-id", "", "id"),
        ("ce-source", "", "source"),
        ("ce-type", "", "type"),
        ("ce-id", "\"\"", "id"),
        ("ce-specversion", "1.1", "1.0 or 0.3"),
        ("ce-subject", "%C0%A0", "UTF-8"),
        ("ce-note", "a%ff", "UTF-8"),
        ("ce-subject", "\"\"", "subject"),
        ("ce-source", "not a uri", "source"),
        ("ce-time", "2018-02-30T00:00:00Z", "time"),
        ("ce-time", "yesterday", "time"),
        ("ce-dataschema", "<x>", "dataschema"),
        ("ce-datacontenttype", "text/xml", "Content-Type"),
        ("ce-data", "x", "data"),
        ("ce-with-dash", "x", "lower-case letters and digits"),
        ("ce-note", "a%00b", "control characters"),
        ("ce-expirytime", "never", "expirytime"),
        ("ce-durability", "forever", "Durability"),
        ("eventbus-durability", "forever", "Durability"),
        ("eventbus-attribute-id", "x", "id"),
    ] {
        let answer = road.publish_headers(&changed("bad", name, value)).await;
        assert_refused(&answer, words);
    }
    let mut bytes = http::Request::post(format!("{}/publish", road.bus.publish));
    for (name, value) in Said::new("bad", &[], "").headers() {
        bytes = bytes.header(name, value);
    }
    bytes = bytes.header("ce-subject", &b"\xc0\xa0"[..]);
    assert_refused(&road.bus.ask(bytes.body("".into()).unwrap()).await, "UTF-8");
    let twice = [changed("bad", "", ""), changed("other", "", "")].concat();
    assert_refused(&road.publish_headers(&twice).await, "twice");
    // No CloudEvent at all.
    let answer = road.post("/publish", &[("content-type", "application/json")], "{}").await;
    assert_refused(&answer, "specversion");
    road.brings_only("last").await;
}

#[tokio::test]
async fn what_is_wrong_in_a_document_is_told_and_not_stored() {
    let mut road = Road::start().await;
    let post = async |road: &Road, media_type: &str, body: Vec<u8>| {
        road.post("/publish", &[("content-type", media_type)], body).await
    };
    for (members, words) in [
        (json!({ "specversion": null }), "specversion"),
        (json!({ "id": "" }), "id"),
        (json!({ "source": null }), "source"),
        (json!({ "type": "" }), "type"),
        (json!({ "id": 1 }), "id"),
        (json!({ "time": 1 }), "time"),
        (json!({ "specversion": "1" }), "1.0 or 0.3"),
        (json!({ "note": 1.5 }), "note"),
        (json!({ "note": 2_147_483_648_u32 }), "note"),
        (json!({ "note": { "a": 1 } }), "note"),
        (json!({ "note": [] }), "note"),
        (json!({ "Note": "x" }), "Note"),
        (json!({ "my_note": "x" }), "my_note"),
        (json!({ "data": 1, "data_base64": "AA==" }), "data_base64"),
        (json!({ "data_base64": "A" }), "base64"),
        (json!({ "subject": "" }), "subject"),
    ] {
        let body = document("bad", &members).to_string().into_bytes();
        assert_refused(&post(&road, STRUCTURED, body).await, words);
    }
    let whole = document("bad", &json!({})).to_string();
    for body in ["", "null", "[]", "{", &format!("{whole}{whole}"), &format!("[{whole}]")] {
        assert_refused(&post(&road, STRUCTURED, body.into()).await, "");
    }
    let no_text = whole.replace("bad", "b\u{1}").into_bytes();
    let no_text = no_text.into_iter().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    assert_refused(&post(&road, STRUCTURED, no_text).await, "UTF-8");
    let answer = post(&road, "application/cloudevents+avro", whole.into()).await;
    assert_refused(&answer, "JSON format");
    road.brings_only("last").await;
}

#[tokio::test]
async fn what_is_too_large_is_told() {
    let mut road = Road::with(&["--max-event-bytes", "1000"]).await;
    let large = "x".repeat(1001);
    let said = Said::new("large", &[("datacontenttype", "text/plain")], large.clone());
    let headers = said.headers();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    for path in ["/publish", "/v1/events"] {
        let answer = road.post(path, &headers, large.clone()).await;
        assert_eq!((answer.status, &*answer.body), (413, "Request body too large\n"));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
    let structured = document("large", &json!({ "data": large })).to_string();
    let answer = road.post("/publish", &[("content-type", STRUCTURED)], structured).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let contract = road.bus.post("/v1/events", event("a", &json!(large)).to_string()).await;
    assert_eq!(contract.status, 413, "{contract:?}");
    let told: Value = serde_json::from_str(&contract.body).unwrap();
    assert_eq!(told["type"], "request_body_too_large");
    let fits = Said::new("fits", &[("datacontenttype", "text/plain")], "x".repeat(1000));
    road.publish(&fits).await;
    road.brings(&fits).await;
}

over_each_broker!(an_event_that_is_repeated_is_stored_once);

async fn an_event_that_is_repeated_is_stored_once(flags: &[&str]) {
    let level = if flags.is_empty() { "synced" } else { "written" };
    let mut road = Road::with(flags).await;
    road.subscribe(&json!({
        "source_id": "shop", "event_type": "order.created", "event_type_version": "v1",
    }))
    .await;
    let one = Said::new("one", &[], "");
    road.publish(&one).await;
    road.brings(&one).await;
    // In another mode, with another payload, on the other path: the source and the id count.
    let again = document("one", &json!({ "data": 2 })).to_string();
    for path in ["/publish", "/v1/events"] {
        let answer = road.post(path, &[("content-type", STRUCTURED)], again.clone()).await;
        assert_eq!((answer.status, &*answer.body), (204, ""), "{answer:?}");
        assert_eq!((told(&answer, "status"), told(&answer, "event-id")), ("duplicate", "one"));
        assert_eq!(told(&answer, "durability"), level);
    }
    let id = "31109198-4D69-4ae0-972d-76117f3748c8";
    let mut contract = event("order.created", &json!(1));
    contract["event-id"] = id.into();
    let first = road.bus.post("/v1/events", contract.to_string()).await;
    assert_eq!((first.status, told(&first, "status")), (200, "published"), "{first:?}");
    let next = road.next().await;
    assert_eq!(Said::in_binary(&next.binary).attributes["id"], id);
    let again = road.bus.post("/v1/events", contract.to_string()).await;
    assert_eq!((again.status, told(&again, "status")), (200, "duplicate"), "{again:?}");
    let body: Value = serde_json::from_str(&again.body).unwrap();
    assert_eq!((&body["event-id"], &body["status"]), (&json!(id), &json!("duplicate")));
    assert!(!body["reason"].as_str().unwrap().is_empty());
    // And as a CloudEvent; of another source, or spelt otherwise, it is another event.
    let mut of_shop = document(id, &json!({ "type": "order.created", "eventtypeversion": "v1" }));
    of_shop["source"] = "shop".into();
    let post = async |road: &Road, document: &Value| {
        road.post("/publish", &[("content-type", STRUCTURED)], document.to_string()).await
    };
    assert_eq!(told(&post(&road, &of_shop).await, "status"), "duplicate");
    of_shop["id"] = id.to_lowercase().into();
    assert_eq!(told(&post(&road, &of_shop).await, "status"), "published");
    assert_eq!(Said::in_binary(&road.next().await.binary).attributes["id"], id.to_lowercase());
    road.brings_only(id).await;
    // After a kill it is still known; the batch knows it as well.
    road.bus.kill().await;
    road.bus.start_again(flags).await;
    assert_eq!(told(&post(&road, &document("one", &json!({}))).await, "status"), "duplicate");
    let batch = json!([document(id, &json!({})), document("new", &json!({}))]).to_string();
    let answer = road.post("/publish", &[("content-type", super::BATCHED)], batch).await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let statuses = [&body["results"][0]["status"], &body["results"][1]["status"]];
    assert_eq!(statuses, ["duplicate", "published"], "{answer:?}");
}

#[tokio::test]
async fn whoever_asks_may_send_events() {
    let road = Road::empty(&[]).await;
    for path in ["/publish", "/v1/events", "/v1/events/batch"] {
        let ask = async |method: &str, headers: &[(&str, &str)]| {
            let url = format!("{}{path}", road.bus.publish);
            let mut request = http::Request::builder().method(method).uri(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            road.bus.ask(request.body("".into()).unwrap()).await
        };
        let asked = [("webhook-request-origin", "shop.example"), ("webhook-request-rate", "120")];
        let allowed = ask("OPTIONS", &asked).await;
        assert_eq!((allowed.status, &*allowed.body), (200, ""), "{path}");
        assert_eq!(allowed.headers["webhook-allowed-origin"], "shop.example", "{path}");
        assert_eq!(allowed.headers["webhook-allowed-rate"], "*", "{path}");
        assert_eq!(allowed.headers["allow"], "POST, OPTIONS", "{path}");
        let unasked = ask("OPTIONS", &[]).await;
        assert_eq!(unasked.status, 200, "{path}");
        assert!(!unasked.headers.contains_key("webhook-allowed-origin"), "{path}");
        let other = ask("GET", &[]).await;
        if path == "/publish" {
            assert_eq!((other.status, &*other.body), (405, ""));
            assert_eq!(other.headers["allow"], "POST, OPTIONS");
        } else {
            assert_eq!(other.status, 400, "{path}");
            assert!(other.body.contains("\"type\":\"bad_request\""), "{path}: {other:?}");
        }
    }
}
