//! The contract's events and CloudEvents are one thing: each arrives in the other's form.

use serde_json::{Value, json};

use super::{Road, STRUCTURED, Said, document, stored, told};
use crate::metrics::value;
use crate::served::Answer;

/// An event of the contract from the source `shop`, with these members beside.
fn event(more: &Value) -> Value {
    let mut all = json!({
        "source-id": "shop", "event-type": "order.created", "event-type-version": "v1",
        "event-id": "31109198-4D69-4ae0-972d-76117f3748c8",
        "event-time": "2012-11-01T22:08:41+00:00", "data": { "a": 1 },
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

/// What that event says, with these attributes beside.
fn said(more: &[(&str, &str)]) -> Said {
    let all = [
        ("source", "shop"),
        ("type", "order.created"),
        ("eventtypeversion", "v1"),
        ("time", "2012-11-01T22:08:41+00:00"),
        ("datacontenttype", "application/json"),
    ];
    Said::new("31109198-4D69-4ae0-972d-76117f3748c8", &[&all[..], more].concat(), "{\"a\":1}")
}

/// With Subscriptions to what `wanted` says of the source, of orders of version 1.
async fn road(mut wanted: Value) -> Road {
    let mut road = Road::empty(&[]).await;
    wanted["event_type"] = "order.created".into();
    wanted["event_type_version"] = "v1".into();
    road.subscribe(&wanted).await;
    road
}

fn published(answer: &Answer) {
    assert_eq!((answer.status, told(answer, "status")), (200, "published"), "{answer:?}");
}

#[tokio::test]
async fn attributes_of_the_contract_are_extensions_and_kyma_metadata() {
    let mut road = road(json!({ "source_id": "shop" })).await;
    let body =
        event(&json!({ "attributes": { "tenant": "acme é", "both": "body", "none": null } }));
    let headers = [
        ("Eventbus-Attribute-Region", "eu%20west"),
        ("eventbus-attribute-both", "header"),
        ("eventbus-attribute-empty", ""),
    ];
    published(&road.post("/v1/events", &headers, body.to_string()).await);
    let arrived = road.next().await;
    let more = [("tenant", "acme é"), ("both", "body"), ("region", "eu west"), ("empty", "")];
    arrived.says(&said(&more));
    assert_eq!(arrived.kyma.headers()["kyma-attribute-tenant"], "acme%20%C3%A9");
    assert_eq!(arrived.binary.headers()["ce-tenant"], "acme%20%C3%A9");
    let members: Value = serde_json::from_slice(arrived.structured.body()).unwrap();
    assert_eq!((&members["tenant"], &members["specversion"]), (&json!("acme é"), &json!("1.0")));
    // Headers add to CloudEvents too; what the event itself says counts.
    let mut event = said(&more[..1]);
    event.attributes.insert("id".into(), "next".into());
    let own = event.headers();
    let own = own.iter().map(|(name, value)| (&**name, &**value));
    let with = [("eventbus-attribute-tenant", "header"), ("eventbus-attribute-more", "yes")];
    let headers: Vec<_> = own.chain(with).collect();
    stored(road.post("/v1/events", &headers, "{\"a\":1}").await);
    event.attributes.insert("more".into(), "yes".into());
    road.brings(&event).await;
}

#[tokio::test]
async fn attributes_outside_the_rules_are_refused_in_the_contracts_words() {
    let road = road(json!({ "source_id": "shop" })).await;
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("a{n}"), json!("x"))).collect();
    for (attributes, field) in [
        (json!({ "Tenant": "x" }), "attributes.Tenant"),
        (json!({ "a-b": "x" }), "attributes.a-b"),
        (json!({ "": "x" }), "attributes."),
        (json!({ "abcdefghijklmnopqrstu": "x" }), "attributes.abcdefghijklmnopqrstu"),
        (json!({ "subject": "x" }), "attributes.subject"),
        (json!({ "type": "x" }), "attributes.type"),
        (json!({ "a": "x".repeat(1025) }), "attributes.a"),
        (json!({ "a": "x\n" }), "attributes.a"),
        (json!({ "expirytime": "never" }), "attributes.expirytime"),
        (json!(many), "attributes.a"),
    ] {
        let body = event(&json!({ "attributes": attributes })).to_string();
        let answer = road.bus.post("/v1/events", body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(told["type"], "validation_violation", "{told}");
        assert_eq!(told["details"][0]["type"], "invalid_field", "{told}");
        assert!(told["details"][0]["field"].as_str().unwrap().starts_with(field), "{told}");
        assert!(!told["details"][0]["moreInfo"].as_str().unwrap().is_empty(), "{told}");
    }
    for wrong in [json!({ "a": 1 }), json!({ "a": {} }), json!([]), json!("x")] {
        let body = event(&json!({ "attributes": wrong })).to_string();
        let answer = road.bus.post("/v1/events", body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("bad_payload_syntax"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_subscriber_of_2018_gets_a_cloud_event_as_its_metadata() {
    let mut road = Road::empty(&[]).await;
    road.subscribe(&json!({
        "source_id": "https://shop.example/orders?x=1", "event_type": "com.shop order/ü",
        "event_type_version": "", "include_subscription_name_header": true,
    }))
    .await;
    let said = Said::new(
        "a b",
        &[
            ("source", "https://shop.example/orders?x=1"),
            ("type", "com.shop order/ü"),
            ("subject", "order 7"),
            ("rank", "3"),
            ("datacontenttype", "image/png"),
        ],
        &b"\xff\0"[..],
    );
    road.publish(&said).await;
    let arrived = road.next().await;
    arrived.says(&said);
    let mut names: Vec<_> = arrived.kyma.headers().keys().map(|name| name.as_str()).collect();
    names.retain(|name| !["host", "content-length", "user-agent", "accept"].contains(name));
    names.sort_unstable();
    let expected = [
        "content-type",
        "kyma-attribute-rank",
        "kyma-attribute-subject",
        "kyma-event-id",
        "kyma-event-type",
        "kyma-source-id",
        "kyma-subscription",
        "x-request-id",
    ];
    assert_eq!(names, expected, "no time and no version: no header of either");
    assert_eq!(arrived.kyma.headers()["kyma-event-type"], "com.shop%20order/%C3%BC");
    assert_eq!(arrived.kyma.body(), &b"\xff\0"[..]);
}

#[tokio::test]
async fn a_source_of_three_parts_is_a_path() {
    let mut road = road(json!({ "source": {
        "source_environment": "stage", "source_namespace": "com.github",
        "source_type": "commerce",
    }}))
    .await;
    let source = json!({
        "source-environment": "stage", "source-namespace": "com.github",
        "source-type": "commerce",
    });
    let mut body = event(&json!({ "source": source }));
    body.as_object_mut().unwrap().remove("source-id");
    published(&road.bus.post("/v1/events", body.to_string()).await);
    let mut expected = said(&[("source", "/stage/com.github/commerce")]);
    road.brings(&expected).await;
    // And back: the path is the three parts.
    expected.attributes.insert("id".into(), "back".into());
    road.publish(&expected).await;
    let arrived = road.next().await;
    arrived.says(&expected);
    for (name, part) in [
        ("kyma-source-environment", "stage"),
        ("kyma-source-namespace", "com.github"),
        ("kyma-source-type", "commerce"),
        ("kyma-event-type-version", "v1"),
    ] {
        assert_eq!(arrived.kyma.headers()[name], part);
    }
    assert!(!arrived.kyma.headers().contains_key("kyma-source-id"));
}

#[tokio::test]
async fn the_version_of_the_type_decides_who_gets_it() {
    let mut road = road(json!({ "source_id": "shop" })).await;
    let mut orders = said(&[]);
    for (id, version, status) in [("one", "v1", "published"), ("two", "v2", "ignored")] {
        orders.attributes.insert("id".into(), id.into());
        orders.attributes.insert("eventtypeversion".into(), version.into());
        let headers = orders.headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = road.post("/publish", &headers, "{\"a\":1}").await;
        assert_eq!((answer.status, told(&answer, "status")), (204, status), "{answer:?}");
    }
    let none = document("three", &json!({ "source": "shop", "type": "order.created" }));
    let none = road.post("/publish", &[("content-type", STRUCTURED)], none.to_string()).await;
    assert_eq!(told(&none, "status"), "ignored", "{none:?}");
    let arrived = road.next().await;
    assert_eq!(Said::in_binary(&arrived.binary).attributes["id"], "one");
}

#[tokio::test]
async fn an_expired_event_is_dropped_and_counted() {
    let mut road = Road::start().await;
    let page = road.bus.metrics().await;
    let series = "eventbus_dropped_events_total{reason=\"expired\"}";
    assert_eq!(value(&page, series), Some("0"), "{page}");
    road.publish(&Said::new("past", &[("expirytime", "2018-04-05T17:31:00Z")], "")).await;
    let expired = document("long past", &json!({ "expirytime": "1960-01-01T00:00:00+02:00" }));
    road.publish_document(&expired).await;
    // The last is what many write for "never".
    for time in ["2999-01-01T00:00:00.123456789012+01:00", "9999-12-31T23:59:59.9999999Z"] {
        let ahead = Said::new(time, &[("expirytime", time)], "");
        road.publish(&ahead).await;
        road.brings(&ahead).await;
    }
    // Two events that three Subscriptions asked for.
    let page = road.bus.metrics().await;
    assert_eq!(value(&page, series), Some("6"), "{page}");
}
