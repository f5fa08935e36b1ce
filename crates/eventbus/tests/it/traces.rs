//! Traces of the running program, and those of a mesh that it is a part of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::collector::{Collector, Told};
use crate::envoy::{Envoy, Mesh, Way};
use crate::metrics::value;
use crate::program::within;
use crate::resources::subscription;
use crate::served::{Bus, event};
use crate::subscriber::Subscriber;

fn named<'t>(told: &'t [Told], name: &str) -> Vec<&'t Told> {
    told.iter().filter(|told| told.name == name).collect()
}

fn one<'t>(told: &'t [Told], name: &str) -> &'t Told {
    let [one] = named(told, name)[..] else { panic!("one {name} in {told:#?}") };
    one
}

#[tokio::test]
async fn a_trace_is_exported_as_otlp_and_at_the_latest_at_the_end() {
    let collector = Collector::start().await;
    let flags = ["--trace-export", "otlp", "--trace-url", &collector.url, "--trace-ratio", "1"];
    let flags = [&flags[..], &["--trace-service-name", "shop-bus"]].concat();
    let mut bus = Bus::start_with(&flags).await;
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    assert_eq!(bus.publish("order.created", &json!(1)).await, "published");
    let got = subscriber.wait_for(1).await;
    assert_eq!(bus.stop().await, 0);
    let told = collector.spans();
    let (publish, append) = (one(&told, "send-to-internal-broker"), one(&told, "append"));
    let attempt = one(&told, "deliver-to-endpoint");
    assert!(told.iter().all(|told| told.service == "shop-bus"), "{told:#?}");
    assert!(told.iter().all(|told| told.trace_id == publish.trace_id), "{told:#?}");
    assert_eq!(publish.parent_id, None);
    assert_eq!(
        (&append.parent_id, &attempt.parent_id),
        (&Some(publish.id.clone()), &append.parent_id)
    );
    assert!(append.began_us >= publish.began_us && append.took_us <= publish.took_us, "{told:#?}");
    assert_eq!(
        (attempt.tags["sub-name"].as_str(), attempt.tags["sub-env"].as_str()),
        ("orders", "stage")
    );
    let headers = got[0].headers();
    assert_eq!(headers["x-b3-spanid"], attempt.id);
    assert_eq!(headers["traceparent"], format!("00-{}-{}-01", attempt.trace_id, attempt.id));
}

#[tokio::test]
async fn a_dead_collector_costs_nothing_but_its_spans() {
    let collector = Collector::start().await;
    let url = collector.url.clone();
    drop(collector);
    let flags = ["--trace-export", "zipkin", "--trace-url", &url, "--trace-ratio", "1"];
    let mut bus = Bus::start_with(&flags).await;
    let subscriber = Subscriber::start().await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    for number in 0..20 {
        assert_eq!(bus.publish("order.created", &json!(number)).await, "published");
    }
    subscriber.wait_for(20).await;
    within(async {
        while value(&bus.metrics().await, "eventbus_dropped_spans_total") != Some("60") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let (code, notes) = bus.stop_told().await;
    assert_eq!(code, 0);
    assert_eq!(notes.matches("the collector does not take all spans").count(), 1, "{notes}");
}

/// Publisher, sidecar of publish, the bus, its sidecar, mutual TLS, sidecar of the service, and the
/// service.
struct Meshed {
    collector: Collector,
    service: Subscriber,
    orders: Envoy,
    sidecar: Envoy,
    bus: Bus,
    /// Where the sidecar of publish takes events.
    url: String,
}

impl Meshed {
    /// A service in a mesh, which refuses the first delivery; `None` where there is no Envoy.
    async fn start() -> Option<Self> {
        let (collector, mesh) = (Collector::start().await, Mesh::new());
        let asked = AtomicUsize::new(0);
        let service = Subscriber::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => 503,
            _ => 200,
        })
        .await;
        let way = |name, direction, to: &str| {
            let to = to.trim_start_matches("http://").trim_end_matches('/').to_owned();
            Way { name, direction, to, tls_in: None, tls_out: None }
        };
        let mut inbound = way("orders-in", "INBOUND", &service.url());
        inbound.tls_in = Some(mesh.identity("orders"));
        let orders = Envoy::start("orders-sidecar", &collector.url, &[inbound]).await?;
        let flags = ["--trace-export", "zipkin", "--trace-url", &collector.url];
        let bus = Bus::start_with(&flags).await;
        let front = way("publish-in", "INBOUND", &bus.publish);
        let mut outbound = way("push-out", "OUTBOUND", &orders.address("orders-in"));
        outbound.tls_out = Some(mesh.identity("eventbus"));
        let sidecar = Envoy::start("bus-sidecar", &collector.url, &[front, outbound]).await?;
        bus.activate().await;
        let endpoint = format!("http://{}/", sidecar.address("push-out"));
        let mut orders_of = subscription("orders", "order.created", &endpoint);
        // An attempt more than those that are wanted would be a span more.
        orders_of["spec"]["push_request_timeout_ms"] = 60_000.into();
        bus.create(&orders_of).await;
        bus.wait_for("orders", "events-activated", "True").await;
        let url = format!("http://{}/v1/events", sidecar.address("publish-in"));
        Some(Self { collector, service, orders, sidecar, bus, url })
    }

    /// Publishes through the sidecar, with these headers.
    async fn publish(&self, headers: &[(&str, &str)]) {
        let mut request = Request::post(&self.url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let order = event("order.created", &json!(1)).to_string();
        let answer = self.bus.ask(request.body(Full::new(order.into())).unwrap()).await;
        assert_eq!(answer.status, 200, "{answer:?} {}", self.sidecar.log());
    }
}

/// The span of a sidecar below another. The operation that the bus's sidecar names is that of the
/// service's sidecar too.
fn of_sidecar<'t>(told: &'t [Told], service: &str, parent: &Told) -> &'t Told {
    let is_it = |told: &&Told| told.parent_id.as_ref() == Some(&parent.id);
    let found = named(told, "push-out").into_iter().find(is_it).unwrap();
    assert_eq!(found.service, service);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_through_a_mesh() {
    let Some(meshed) = Meshed::start().await else { return };
    meshed.publish(&[]).await;
    let got = meshed.service.wait_for(2).await;
    let told = meshed.collector.wait(|told| told.len() >= 9).await;
    assert_eq!(told.len(), 9, "{told:#?}");
    let root = one(&told, "publish-in");
    let publish = one(&told, "send-to-internal-broker");
    assert_eq!((&root.parent_id, root.service.as_str()), (&None, "bus-sidecar"));
    assert!(told.iter().all(|told| told.trace_id == root.trace_id), "{told:#?}");
    assert_eq!(publish.parent_id, Some(root.id.clone()));
    assert_eq!(one(&told, "append").parent_id, Some(publish.id.clone()));
    let attempts = named(&told, "deliver-to-endpoint");
    for (number, got) in got.iter().enumerate() {
        let is_it = |told: &&&Told| told.tags["attempt"] == (number + 1).to_string();
        let attempt = attempts.iter().find(is_it).unwrap();
        assert_eq!(attempt.parent_id, Some(publish.id.clone()));
        let out = of_sidecar(&told, "bus-sidecar", attempt);
        let inside = of_sidecar(&told, "orders-sidecar", out);
        let header = |name: &str| got.headers()[name].to_str().unwrap();
        assert_eq!(header("x-b3-traceid"), root.trace_id);
        assert_eq!(header("x-b3-spanid"), inside.id);
        assert_eq!(header("x-b3-parentspanid"), out.id);
        assert_eq!(header("x-b3-sampled"), "1");
        assert_eq!(header("x-envoy-expected-rq-timeout-ms"), "9000");
        assert_eq!(header("x-request-id").len(), 36);
        assert!(header("x-forwarded-client-cert").contains("CN=eventbus"));
        assert_eq!(header("kyma-event-type"), "order.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publishers_own_trace_leads_through_a_mesh_too() {
    let Some(meshed) = Meshed::start().await else { return };
    let trace_id = "463ac35c9f6413ad48485a3953bb6124";
    let ids = [("x-b3-traceid", trace_id), ("x-b3-spanid", "a2fb4a1d1a96d312")];
    // It is to be recorded whatever it costs.
    meshed.publish(&[&ids[..], &[("x-b3-flags", "1")]].concat()).await;
    let got = meshed.service.wait_for(2).await;
    for got in got {
        let header = |name: &str| got.headers()[name].to_str().unwrap();
        assert_eq!((header("x-b3-traceid"), header("x-b3-flags")), (trace_id, "1"));
    }
    let told = meshed.collector.wait(|told| told.len() >= 9).await;
    // It is not to be recorded: nobody does.
    meshed.publish(&[&ids[..], &[("x-b3-sampled", "0")]].concat()).await;
    let got = meshed.service.wait_for(3).await;
    assert_eq!(got[2].headers()["x-b3-traceid"], trace_id);
    assert_eq!(got[2].headers()["x-b3-sampled"], "0");
    meshed.publish(&ids).await;
    // The service takes it at the first attempt this time.
    let more = meshed.collector.wait(|more| more.len() >= told.len() + 6).await;
    assert_eq!(more.len(), told.len() + 6, "{more:#?}");
    for (name, count) in [("publish-in", 2), ("send-to-internal-broker", 2), ("append", 2)] {
        assert_eq!(named(&more, name).len(), count, "{name}: {more:#?}");
    }
    assert!(more.iter().all(|span| span.trace_id == trace_id), "{more:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_mesh_reaches_its_services() {
    let Some(meshed) = Meshed::start().await else { return };
    let mut stranger = TcpStream::connect(meshed.orders.address("orders-in")).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stranger.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1"), "{answer:?}");
    meshed.publish(&[]).await;
    assert_eq!(meshed.service.wait_for(1).await.len(), 1);
}
