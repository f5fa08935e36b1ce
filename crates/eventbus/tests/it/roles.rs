//! The bus as several processes over one NATS server and one API: two of each role.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, over_each_api_server};
use crate::nats_server::{NatsServer, Options};
use crate::program::within;
use crate::served::Bus;
use crate::subscriber::Subscriber;

/// The processes of a bus. Where there is no cluster the first sub-validator serves the API of all.
struct Roles {
    server: NatsServer,
    validators: [Bus; 2],
    publishers: [Bus; 2],
    pushers: [Bus; 2],
}

impl Roles {
    async fn start(cluster: Option<&Cluster>) -> Option<Self> {
        let server = NatsServer::start(Options::default()).await?;
        let url = server.url();
        let nats = ["--broker", "nats", "--nats-url", &url, "--role"];
        let first = Bus::over(cluster, &[&nats[..], &["sub-validator"]].concat()).await;
        let kubeconfig = first.kubeconfig();
        let api = ["--kubeconfig", kubeconfig.to_str().unwrap()];
        let one = async |role| Bus::start_with(&[&nats[..], &[role], &api].concat()).await;
        Some(Self {
            validators: [first, one("sub-validator").await],
            publishers: [one("publish").await, one("publish").await],
            pushers: [one("push").await, one("push").await],
            server,
        })
    }
}

/// Waits until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn numbers(bodies: &[String]) -> BTreeSet<u64> {
    bodies.iter().map(|body| body.parse().unwrap()).collect()
}

over_each_api_server! { any_process_may_be_killed_and_nothing_is_lost }

async fn any_process_may_be_killed_and_nothing_is_lost(cluster: Option<&Cluster>) {
    let Some(mut roles) = Roles::start(cluster).await else { return };
    let subscriber = Subscriber::start().await;
    roles.validators[0].activate().await;
    roles.validators[0].subscribe("orders", "order.created", &subscriber.url()).await;
    let mut published = 0;
    let publish = async |bus: &Bus, published: &mut u64| {
        for _ in 0..10 {
            assert_eq!(bus.publish("order.created", &json!(*published)).await, "published");
            *published += 1;
        }
    };
    publish(&roles.publishers[0], &mut published).await;
    publish(&roles.publishers[1], &mut published).await;
    subscriber.wait_for(20).await;
    roles.pushers[0].kill().await;
    publish(&roles.publishers[1], &mut published).await;
    roles.publishers[1].kill().await;
    publish(&roles.publishers[0], &mut published).await;
    roles.validators[1].kill().await;
    // Whichever of the two led, one of them does.
    roles.validators[0].subscribe("shipped", "order.shipped", &subscriber.url()).await;
    assert_eq!(roles.publishers[0].publish("order.shipped", &json!(published)).await, "published");
    published += 1;
    // Without its validators, and where one served it without the API, what is known goes on.
    roles.validators[0].kill().await;
    publish(&roles.publishers[0], &mut published).await;
    let wanted: BTreeSet<u64> = (0..published).collect();
    until(|| numbers(&subscriber.payloads()) == wanted).await;
    for bus in [&mut roles.publishers[0], &mut roles.pushers[1]] {
        assert_eq!(bus.stop().await, 0);
    }
    drop(roles.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_is_told_of_and_waited_for() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let url = server.url();
    server.kill();
    // It starts without the server, and is not ready.
    let flags = ["--broker", "nats", "--nats-url", &url];
    let mut bus = Bus::start_with(&flags).await;
    let status = async |bus: &Bus, path: &str| bus.ask(get(&bus.publish, path)).await.status;
    assert_eq!((status(&bus, "/readyz").await, status(&bus, "/healthz").await), (503, 200));
    server.run().await;
    while status(&bus, "/readyz").await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    assert_eq!(bus.publish("order.created", &json!(1)).await, "published");
    subscriber.wait_for(1).await;
    server.kill();
    let event = crate::served::event("order.created", &json!(2)).to_string();
    let refused = bus.post("/v1/events", event.clone()).await;
    let told: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((refused.status, &told["type"]), (503, &json!("service_unavailable")));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!((status(&bus, "/readyz").await, status(&bus, "/healthz").await), (503, 200));
    server.run().await;
    while bus.post("/v1/events", event.clone()).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    subscriber.wait_for(2).await;
    assert_eq!(bus.stop().await, 0);
}

fn get(base: &str, path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    http::Request::get(format!("{base}{path}")).body(Default::default()).unwrap()
}
