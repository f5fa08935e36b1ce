//! The road of one event through the running program: publish, store, push.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::cluster::{Cluster, over_each_api_server};
use crate::resources::{activation, subscription};
use crate::served::{Bus, event};
use crate::subscriber::Subscriber;

/// How often something rare is tried over the bus's own API server, and over others, of which only
/// the difference is of interest.
const ROUNDS: (usize, usize) = (1000, 50);

/// How long nothing may be written, with retries under way.
const REST: Duration = Duration::from_secs(5);

over_each_api_server! {
    an_event_arrives_byte_for_byte_with_its_metadata,
    create_then_publish_is_never_ignored,
    what_nobody_asks_for_is_ignored_and_an_inactive_subscription_asks,
    every_subscription_gets_its_own_copy_and_namespaces_are_apart,
    a_failing_event_is_tried_again_and_holds_up_nobody,
    events_and_positions_survive_a_kill,
    a_change_applies_in_place_and_a_deletion_forgets,
    a_clean_stop_loses_nothing_and_repeats_nothing,
    the_front_publishes_under_the_applications_source,
    at_rest_nothing_is_written,
}

async fn an_event_arrives_byte_for_byte_with_its_metadata(cluster: Option<&Cluster>) {
    let (bus, subscriber) = (Bus::over(cluster, &[]).await, Subscriber::start().await);
    let source = json!({
        "source_environment": "stage", "source_namespace": "com.github", "source_type": "commerce",
    });
    let mut manifest = subscription("orders", "order.created", &subscriber.url());
    let spec = manifest["spec"].as_object_mut().unwrap();
    spec.remove("source_id");
    spec.insert("source".into(), source);
    spec.insert("include_subscription_name_header".into(), true.into());
    bus.create(&manifest).await;
    let activation = json!({
        "apiVersion": "remoteenvironment.kyma.cx/v1alpha1", "kind": "EventActivation",
        "metadata": { "name": "commerce", "namespace": "stage" },
        "spec": { "source": {
            "environment": "stage", "namespace": "com.github", "type": "commerce",
        } },
    });
    bus.create(&activation).await;
    bus.wait_for("orders", "ready", "True").await;
    let data = "{ \"b\": 1.0,\t\"a\": 12345678901234567890, \"b\": \"\\u003c\" }";
    let body = format!(
        r#"{{"source":{{"source-namespace":"com.github","source-type":"commerce",
        "source-environment":"stage"}},"event-type":"order.created","event-type-version":"v1",
        "event-id":"31109198-4D69-4ae0-972d-76117f3748c8","event-time":"2012-11-01T22:08:41+00:00",
        "data":{data}}}"#
    );
    let request = Request::post(format!("{}/v1/events", bus.publish))
        .header("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7")
        .header("x-b3-sampled", "1")
        .header("traceparent", "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = bus.ask(request).await;
    assert_eq!(answer.headers["eventbus-status"], "published", "{answer:?}");
    let got = &subscriber.wait_for(1).await[0];
    assert_eq!(got.body(), data);
    assert_eq!(got.method(), "POST");
    for (name, value) in [
        ("content-type", "application/json"),
        ("kyma-event-id", "31109198-4D69-4ae0-972d-76117f3748c8"),
        ("kyma-event-time", "2012-11-01T22:08:41+00:00"),
        ("kyma-event-type", "order.created"),
        ("kyma-event-type-version", "v1"),
        ("kyma-source-environment", "stage"),
        ("kyma-source-namespace", "com.github"),
        ("kyma-source-type", "commerce"),
        ("kyma-subscription", "orders"),
        ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
        ("x-b3-sampled", "1"),
        ("traceparent", "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01"),
    ] {
        assert_eq!(got.headers()[name], value, "{name}");
    }
    assert!(got.headers().contains_key("x-request-id"));
    assert!(!got.headers().contains_key("accept-encoding"));
}

async fn create_then_publish_is_never_ignored(cluster: Option<&Cluster>) {
    let (bus, subscriber) = (Bus::over(cluster, &[]).await, Subscriber::start().await);
    bus.activate().await;
    let rounds = if cluster.is_none() { ROUNDS.0 } else { ROUNDS.1 };
    for round in 0..rounds {
        let (name, event_type) = (format!("s{round}"), format!("type.n{round}"));
        bus.create(&subscription(&name, &event_type, &subscriber.url())).await;
        assert_eq!(bus.publish(&event_type, &json!(round)).await, "published", "round {round}");
    }
    let mut got: Vec<u32> = subscriber
        .wait_for(rounds)
        .await
        .iter()
        .map(|request| serde_json::from_slice(request.body()).unwrap())
        .collect();
    got.sort_unstable();
    assert_eq!(got, (0..rounds as u32).collect::<Vec<_>>());
}

async fn what_nobody_asks_for_is_ignored_and_an_inactive_subscription_asks(
    cluster: Option<&Cluster>,
) {
    let (bus, subscriber) = (Bus::over(cluster, &[]).await, Subscriber::start().await);
    assert_eq!(bus.publish("order.created", &json!(1)).await, "ignored");
    bus.create(&subscription("orders", "order.created", &subscriber.url())).await;
    assert_eq!(bus.publish("order.created", &json!(2)).await, "published");
    let inactive = bus.wait_for("orders", "events-activated", "False").await;
    assert_eq!(inactive["reason"], "NoEventActivation");
    assert!(subscriber.payloads().is_empty());
    bus.activate().await;
    subscriber.wait_for(1).await;
    assert_eq!(subscriber.payloads(), ["2"]);
    bus.until_told("orders", "Delivering").await;
}

async fn every_subscription_gets_its_own_copy_and_namespaces_are_apart(cluster: Option<&Cluster>) {
    let (bus, subscriber) = (Bus::over(cluster, &[]).await, Subscriber::start().await);
    bus.activate().await;
    bus.subscribe("one", "order.created", &subscriber.url()).await;
    bus.subscribe("two", "order.created", &subscriber.url()).await;
    let mut elsewhere = subscription("one", "order.created", &subscriber.url());
    elsewhere["metadata"]["namespace"] = "elsewhere".into();
    bus.create(&elsewhere).await;
    assert_eq!(bus.publish("order.created", &json!("x")).await, "published");
    assert_eq!(subscriber.wait_for(2).await.len(), 2);
    // The activation is in another namespace.
    bus.publish("order.created", &json!("y")).await;
    subscriber.wait_for(4).await;
    let mut payloads = subscriber.payloads();
    payloads.sort();
    assert_eq!(payloads, ["\"x\"", "\"x\"", "\"y\"", "\"y\""]);
}

async fn a_failing_event_is_tried_again_and_holds_up_nobody(cluster: Option<&Cluster>) {
    let failures = AtomicU32::new(2);
    let subscriber = Subscriber::answering(move |request| {
        let fails = request.body() == "\"bad\""
            && failures
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        if fails { 500 } else { 204 }
    })
    .await;
    let bus = Bus::over(cluster, &[]).await;
    bus.activate().await;
    let mut manifest = subscription("orders", "order.created", &subscriber.url());
    manifest["spec"]["max_inflight"] = 1.into();
    bus.create(&manifest).await;
    bus.wait_for("orders", "ready", "True").await;
    bus.publish("order.created", &json!("bad")).await;
    bus.publish("order.created", &json!("good")).await;
    subscriber.wait_for(4).await;
    assert_eq!(subscriber.payloads(), ["\"bad\"", "\"good\"", "\"bad\"", "\"bad\""]);
}

async fn events_and_positions_survive_a_kill(cluster: Option<&Cluster>) {
    let mut bus = Bus::over(cluster, &[]).await;
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    bus.publish("order.created", &json!(1)).await;
    subscriber.wait_for(1).await;
    // Inactive, so that what follows waits for the restart.
    bus.delete(&activation()).await;
    bus.wait_for("orders", "events-activated", "False").await;
    for n in 2..=20 {
        assert_eq!(bus.publish("order.created", &json!(n)).await, "published");
    }
    bus.kill().await;
    bus.start_again(&[]).await;
    bus.activate().await;
    subscriber.wait_for(20).await;
    let mut numbers: Vec<u32> =
        subscriber.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

async fn a_change_applies_in_place_and_a_deletion_forgets(cluster: Option<&Cluster>) {
    let (bus, old, new) = (
        Bus::over(cluster, &[]).await,
        Subscriber::answering(|_| 503).await,
        Subscriber::start().await,
    );
    bus.activate().await;
    bus.subscribe("orders", "order.created", &old.url()).await;
    bus.publish("order.created", &json!("waits")).await;
    old.wait_for(1).await;
    let failing = bus.wait_for("orders", "ready", "False").await;
    assert_eq!(failing["reason"], "EndpointFailing");
    bus.change("orders", json!({ "endpoint": new.url() })).await;
    new.wait_for(1).await;
    bus.wait_for("orders", "ready", "True").await;
    bus.delete(&subscription("orders", "order.created", "")).await;
    // Until the bus has seen the deletion it may still deliver.
    while bus.publish("order.created", &json!("gone")).await == "published" {}
    // A new Subscription may get events up to two seconds older than itself: let those be older.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = new.payloads();
    assert_eq!(before[0], "\"waits\"");
    bus.subscribe("orders", "order.created", &new.url()).await;
    bus.publish("order.created", &json!("fresh")).await;
    new.wait_for(before.len() + 1).await;
    assert_eq!(new.payloads()[before.len()..], ["\"fresh\""]);
}

async fn a_clean_stop_loses_nothing_and_repeats_nothing(cluster: Option<&Cluster>) {
    let mut bus = Bus::over(cluster, &[]).await;
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    for round in 0..3 {
        for n in 0..50 {
            bus.publish("order.created", &json!(round * 50 + n)).await;
        }
        assert_eq!(bus.stop().await, 0);
        bus.start_again(&[]).await;
    }
    subscriber.wait_for(150).await;
    let mut payloads = subscriber.payloads();
    payloads.sort();
    payloads.dedup();
    assert_eq!((payloads.len(), subscriber.payloads().len()), (150, 150));
}

async fn the_front_publishes_under_the_applications_source(cluster: Option<&Cluster>) {
    let (bus, subscriber) = (Bus::over(cluster, &[]).await, Subscriber::start().await);
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    let mut body: Value = event("order.created", &json!({ "a": 1 }));
    body["source-id"] = "somebody-else".into();
    let answer = bus.post("/shop/v1/events", body.to_string()).await;
    assert_eq!(answer.headers["eventbus-status"], "published");
    let got = &subscriber.wait_for(1).await[0];
    assert_eq!(got.headers()["kyma-source-id"], "shop");
    assert_eq!(got.body(), "{\"a\":1}");
}

async fn at_rest_nothing_is_written(cluster: Option<&Cluster>) {
    let bus = Bus::over(cluster, &[]).await;
    bus.activate().await;
    // One that delivers, and one that keeps failing.
    let subscriber = Subscriber::start().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    bus.subscribe("nowhere", "order.shipped", "http://127.0.0.1:1/").await;
    bus.publish("order.shipped", &json!(1)).await;
    bus.wait_for("orders", "ready", "True").await;
    let failing = bus.wait_for("nowhere", "ready", "False").await;
    assert_eq!(failing["reason"], "EndpointFailing");
    // The last that there is to tell.
    bus.until_told("nowhere", "EndpointFailing").await;
    let before = bus.versions().await;
    tokio::time::sleep(REST).await;
    assert_eq!(bus.versions().await, before);
}
