//! Deliveries a second beside those of a bare client doing the same requests; and what an idle
//! subscription costs.
//!
//! `cargo run --release -p eventbus-push --example deliveries [-- EVENTS [IN_FLIGHT [ROUNDS]]]`
//!
//! Both send the same POSTs of 1 KiB to one subscriber in this process, in turns: push from a
//! broker in memory, and hyper-util's pooled client in as many loops as push has requests in
//! flight. The ratio of the two is the figure; the rest depends on the machine.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a measurement that fails, fails")]

#[path = "../tests/it/memory.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod memory;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eventbus_core::broker::{CursorSpec, Start};
use eventbus_core::manifest::{
    Condition, ConditionStatus, ConditionType, DeliveryFormat, SubscriptionStatus,
};
use eventbus_core::subscription::Identity;
use eventbus_core::testing::{self, SeededEntropy};
use eventbus_core::wire::lines::Lines;
use eventbus_core::wire::{delivery, stored};
use eventbus_core::{Broker, Catalog, Clock, Event, Interest, Source, Subscription};
use eventbus_push::{Parts, Push};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::memory::Memory;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD_BYTES: usize = 1024;
const CORES: usize = 2;

struct MachineClock(Instant);

impl Clock for MachineClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[expect(clippy::print_stdout, reason = "the figures")]
fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse().expect("a number"));
    let events: usize = words.next().unwrap_or(200_000);
    let in_flight: usize = words.next().unwrap_or(64);
    let rounds: usize = words.next().unwrap_or(5);

    println!("{} bytes an idle subscription", runtime("idle").block_on(idle(10_000)));
    let served = Arc::new(AtomicUsize::new(0));
    let subscriber = runtime("subscriber");
    let port = subscriber.block_on(serve(served.clone()));
    let runtime = runtime("client");
    println!("{events} events of {PAYLOAD_BYTES} bytes, {in_flight} in flight, {CORES} cores");
    let (mut by_time, mut by_processor) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let bare = Cost::of(events, || runtime.block_on(bare(port, events, in_flight)));
        let push = Cost::of(events, || runtime.block_on(push(port, events, in_flight)));
        by_time.push(bare.time_us / push.time_us);
        by_processor.push(bare.processor_us / push.processor_us);
        println!("bare client {bare}   push {push}");
    }
    let (by_time, by_processor) = (median(by_time), median(by_processor));
    println!("push / bare client: {by_time:.3} by time, {by_processor:.3} by processor time");
    assert_eq!(served.load(Ordering::SeqCst), 2 * rounds * events, "each event once");
}

/// What an event cost, subscriber included. On a busy machine processor time is the steadier
/// figure.
struct Cost {
    time_us: f64,
    processor_us: f64,
}

impl Cost {
    #[expect(clippy::disallowed_methods, reason = "this is a measurement")]
    fn of(events: usize, run: impl FnOnce()) -> Self {
        let (began, processor) = (Instant::now(), processor_time());
        run();
        let per_event = |spent: Duration| spent.as_secs_f64() * 1e6 / events as f64;
        let processor_us = per_event(processor_time() - processor);
        Self { time_us: per_event(began.elapsed()), processor_us }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { time_us, processor_us } = self;
        write!(f, "{:6.0}/s ({processor_us:5.1} us of processor an event)", 1e6 / time_us)
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Processor time of this process so far; Linux counts it in hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn runtime(name: &str) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(CORES).thread_name(name).enable_all();
    builder.build().expect("a runtime")
}

/// Starts a subscriber that reads each body and answers 204; tells its port.
async fn serve(served: Arc<AtomicUsize>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            let served = served.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let served = served.clone();
                async move {
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    assert_eq!(body.len(), PAYLOAD_BYTES);
                    served.fetch_add(1, Ordering::Relaxed);
                    let answer = Response::builder().status(204).body(Full::<Bytes>::default());
                    Ok::<_, Infallible>(answer.expect("an answer"))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async { drop(connection.await) });
        }
    });
    port
}

/// The yardstick: loops over a pooled client.
async fn bare(port: u16, events: usize, in_flight: usize) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let event = event(0);
    let mut lines = Lines::default();
    let (trace, format) = (&event.trace, DeliveryFormat::Kyma);
    let form = delivery::Form { trace, format, subscription_name: None, request_id: 1 };
    delivery::request(&event, &form, &mut lines);
    let headers = eventbus_core::testing::headers(&lines);
    let url: http::Uri = url(port).parse().expect("a URL");
    let left = Arc::new(AtomicUsize::new(events));
    let mut loops = JoinSet::new();
    for _ in 0..in_flight {
        let (client, headers, url, left) =
            (client.clone(), headers.clone(), url.clone(), left.clone());
        let payload = event.payload.clone();
        loops.spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let mut request = Request::new(Full::new(payload.clone()));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = url.clone();
                *request.headers_mut() = headers.clone();
                let answer = client.request(request).await.expect("an answer");
                assert_eq!(answer.status(), 204);
                answer.into_body().collect().await.expect("a body");
            }
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended.expect("no panic");
    }
}

/// Memory that each of `count` idle subscriptions costs push: the broker's cursors are there
/// before.
async fn idle(count: usize) -> usize {
    #[expect(clippy::disallowed_methods, reason = "the clock begins")]
    let clock = Arc::new(MachineClock(Instant::now()));
    let broker = Memory::new(clock.clone());
    let subscriptions = (0..count).map(|uid| {
        let mut subscription = subscription(9, 10);
        subscription.identity.uid = format!("0f1c2d3e-4b5a-6978-8796-{uid:012}").into();
        Arc::new(subscription)
    });
    let subscriptions: Vec<_> = subscriptions.collect();
    for subscription in &subscriptions {
        let spec = CursorSpec {
            id: subscription.cursor_id(),
            interest: subscription.interest.clone(),
            start: Start::AtMs(0),
            waiting_max: 1,
        };
        broker.open(spec).await.expect("a cursor");
    }
    let catalog = Catalog::new(subscriptions, HashSet::new());
    let before = resident_bytes();
    let (_push, _catalog) = start(catalog, broker.clone(), clock);
    while broker.leases() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (resident_bytes() - before) / count
}

/// Memory of this process, as Linux counts it.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4096
}

fn start(
    catalog: Catalog,
    broker: Arc<Memory>,
    clock: Arc<MachineClock>,
) -> (Push, watch::Sender<Arc<Catalog>>) {
    let (catalog, catalog_seen) = watch::channel(Arc::new(catalog));
    let push = Push::start(Parts {
        broker,
        catalog: catalog_seen,
        health: Arc::default(),
        clock,
        entropy: Arc::new(SeededEntropy::new(1)),
        connections: 4096,
        told_one_by_one: 1_000,
        trusted: Vec::new(),
        tracer: None,
        failed: CancellationToken::new(),
    });
    (push, catalog)
}

async fn push(port: u16, events: usize, in_flight: usize) {
    #[expect(clippy::disallowed_methods, reason = "the clock begins")]
    let clock = Arc::new(MachineClock(Instant::now()));
    let broker = Memory::new(clock.clone());
    let subscription = Arc::new(subscription(port, in_flight));
    let catalog = Catalog::new([subscription], HashSet::new());
    let (push, _catalog) = start(catalog, broker.clone(), clock);
    let cursor = loop {
        match broker.cursor("uid") {
            Some(cursor) => break cursor,
            None => tokio::task::yield_now().await,
        }
    };
    cursor.place().keeps_history = false;
    let ready: Vec<Event> = (0..1_024).map(event).collect();
    let mut published = 0;
    while published < events || cursor.place().lag() > 0 {
        // Never more than a few thousand in memory, as from a log.
        let missing = 4_096usize.saturating_sub(cursor.place().lag());
        for _ in 0..missing.min(events - published) {
            broker.publish(ready[published % ready.len()].clone());
            published += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(push.telemetry().counts().attempts[0], ("success", events as u64));
    push.drain().await;
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/orders")
}

fn interest() -> Interest {
    Interest {
        source: Source::from_id("shop".into()),
        event_type: "order.created".into(),
        event_type_version: "v1".into(),
    }
}

/// An event as a log gives it out: all its text is part of one buffer.
fn event(number: usize) -> Event {
    let Interest { source, event_type, event_type_version } = interest();
    let event = Event {
        source,
        event_type,
        event_type_version,
        id_given: true,
        id: format!("31109198-4d69-4ae0-972d-{number:012}").into(),
        time: "2012-11-01T22:08:41+00:00".into(),
        ..testing::event("", &[b'x'; PAYLOAD_BYTES][..])
    };
    let mut bytes = Vec::new();
    stored::encode_head(&event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    stored::decode(&Bytes::from(bytes)).expect("an event")
}

fn subscription(port: u16, in_flight: usize) -> Subscription {
    let is_activated = Condition {
        kind: ConditionType::EventsActivated,
        status: ConditionStatus::True,
        last_transition_time: String::new(),
        reason: String::new(),
        message: String::new(),
    };
    Subscription {
        identity: Identity {
            uid: "uid".into(),
            group: "eventing.kyma.cx",
            namespace: "shop".into(),
            name: "orders".into(),
            generation: 1,
            resource_version: 1,
            created_ms: 0,
        },
        interest: interest(),
        endpoint: url(port).into(),
        max_inflight: in_flight as u32,
        timeout: Duration::from_secs(10),
        names_itself: false,
        format: DeliveryFormat::default(),
        status: SubscriptionStatus { conditions: vec![is_activated], observed_generation: None },
    }
}
