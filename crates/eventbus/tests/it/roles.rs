//! The bus as several processes over one NATS server and one API: two of each role.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cluster::{Cluster, over_each_api_server};
use crate::nats_server::{NatsServer, Options};
use crate::program::run;
use crate::program::within;
use crate::resources::subscription;
use crate::served::Bus;
use crate::server::{Server, answer};
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

/// After this time without a word a process is dropped, with some to spare.
const SILENCE: Duration = Duration::from_secs(14);

/// A bus whose sub-validator pushes nothing, and a subscriber that answers as it is told.
struct Apart {
    front: Bus,
    url: String,
    kubeconfig: String,
    subscriber: Subscriber,
    status: Arc<AtomicU16>,
    server: NatsServer,
}

impl Apart {
    /// The Subscription `orders` is there, and nobody pushes yet.
    async fn start() -> Option<Self> {
        let server = NatsServer::start(Options::default()).await?;
        let url = server.url();
        let role = ["--role", "publish,sub-validator"];
        let nats = ["--broker", "nats", "--nats-url", &url];
        let front = Bus::start_with(&[&nats[..], &role].concat()).await;
        let status = Arc::new(AtomicU16::new(500));
        let answer = status.clone();
        let subscriber = Subscriber::answering(move |_| answer.load(Ordering::SeqCst)).await;
        front.activate().await;
        front.subscribe("orders", "order.created", &subscriber.url()).await;
        let kubeconfig = front.data_dir().join("kubeconfig").to_str().unwrap().to_owned();
        Some(Self { front, url, kubeconfig, subscriber, status, server })
    }

    async fn push(&self) -> Bus {
        let Self { url, kubeconfig, .. } = self;
        let nats = ["--broker", "nats", "--nats-url", url, "--role", "push"];
        Bus::start_with(&[&nats[..], &["--kubeconfig", kubeconfig]].concat()).await
    }

    async fn publish(&self, events: u64) {
        for event in 0..events {
            let published = self.front.publish("order.created", &json!(event)).await;
            assert_eq!(published, "published");
        }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    async fn is_failing(&self) {
        let ready = self.front.wait_for("orders", "ready", "False").await;
        assert_eq!(ready["reason"], "EndpointFailing", "{ready}");
        let text = ready["message"].as_str().unwrap();
        assert!(text.contains("answers 500"), "{text}");
    }

    async fn is_delivering(&self) {
        let ready = self.front.wait_for("orders", "ready", "True").await;
        assert_eq!(ready["reason"], "Delivering", "{ready}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_in_another_process_is_told() {
    let Some(apart) = Apart::start().await else { return };
    let (mut one, mut other) = (apart.push().await, apart.push().await);
    // So many that at least one of the two sees three failures in a row.
    apart.publish(10).await;
    apart.is_failing().await;
    // Only who hears of both tells how many fail.
    let states = "\neventbus_subscriptions{state=\"failing\"} 1\n";
    apart.front.metrics_with(states).await;
    let page = Bus::get(&format!("{}/metrics", one.api)).await.unwrap();
    assert!(page.contains("\neventbus_lag_events ") && !page.contains("subscriptions{"), "{page}");
    apart.front.until_told("orders", "EndpointFailing").await;
    apart.answers(200);
    apart.is_delivering().await;
    // One that said farewell is not waited for.
    apart.answers(500);
    apart.publish(10).await;
    apart.is_failing().await;
    assert_eq!(one.stop().await, 0);
    apart.answers(200);
    apart.is_delivering().await;
    assert_eq!(other.stop().await, 0);
    drop(apart.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_push_process_has_max_inflight_for_itself() {
    let Some(apart) = Apart::start().await else { return };
    let (gate, under_way) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (closed, counted) = (gate.clone(), under_way.clone());
    let slow = Server::start(move |_| {
        let (closed, counted) = (closed.clone(), counted.clone());
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let _passed = closed.acquire().await;
            counted.fetch_sub(1, Ordering::SeqCst);
            answer(200, "")
        }
    })
    .await;
    let mut slots = subscription("slots", "order.shipped", &slow.url("/"));
    slots["spec"]["max_inflight"] = 3.into();
    slots["spec"]["push_request_timeout_ms"] = 60_000.into();
    apart.front.create(&slots).await;
    let pushers = (apart.push().await, apart.push().await);
    for event in 0..20 {
        apart.front.publish("order.shipped", &json!(event)).await;
    }
    until(|| under_way.load(Ordering::SeqCst) == 6).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(under_way.load(Ordering::SeqCst), 6, "two processes with three slots each");
    gate.close();
    until(|| under_way.load(Ordering::SeqCst) == 0).await;
    drop((pushers, apart.server));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_said_that_was_killed_holds_until_another_delivers() {
    let Some(apart) = Apart::start().await else { return };
    let mut one = apart.push().await;
    apart.publish(3).await;
    apart.is_failing().await;
    one.kill().await;
    // While nobody pushes nothing is known, and that mends nothing.
    tokio::time::sleep(SILENCE).await;
    apart.is_failing().await;
    apart.answers(200);
    let got = apart.subscriber.payloads().len();
    let other = apart.push().await;
    until(|| numbers(&apart.subscriber.payloads()[got..]).len() == 3).await;
    apart.is_delivering().await;
    drop((other, apart.server));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_default_durability_that_the_server_cannot_promise_is_told_at_the_start() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let (url, dir) = (server.url(), tempfile::tempdir().unwrap());
    let dir = dir.path().to_str().unwrap();
    let flags = ["serve", "--broker", "nats", "--nats-url", &url, "--data-dir", dir];
    let ports = ["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    let ended = run(&[&flags[..], &ports, &["--durability", "synced"]].concat(), "").await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("can promise accepted, written"), "{ended:?}");
}

fn get(base: &str, path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    http::Request::get(format!("{base}{path}")).body(Default::default()).unwrap()
}
