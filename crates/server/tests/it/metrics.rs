//! What `/metrics` tells of the publish port and of its broker.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::broker::{AppendError, BrokerHealth};
use eventbus_core::delivery::Outcome;
use eventbus_core::reconcile::{DeliveryHealth, Health};
use eventbus_core::testing::subscription;
use eventbus_core::{Catalog, Durability, Source};
use eventbus_resources::HealthBoard;
use eventbus_server::Admin;
use eventbus_server::admin::{BrokerGauges, SubscriptionStates};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::watch;

use crate::world::{ORDER, Remembering, World};

/// The page that a scrape gets.
async fn page(admin: &Admin) -> String {
    let answer = admin.answer(&scrape()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The samples of a page that are not 0, in its order; but not how long anything took.
fn counted(page: &str) -> Vec<&str> {
    let took = |line: &&str| !line.contains("_seconds_bucket") && !line.contains("_seconds_sum");
    let counted = page.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
    counted.filter(took).collect()
}

#[tokio::test]
async fn events_and_answers_are_counted() {
    let (world, admin) = (World::new(), Admin::default());
    admin.metrics.export(world.publish.telemetry.clone());
    assert_eq!(counted(&page(&admin).await), [""; 0]);
    world.subscribe("shop", "order.created");
    let ask = async |method, path| {
        let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
        world.ask(request).await.status
    };
    assert_eq!(world.post("/v1/events", ORDER).await.status, 200);
    assert_eq!(world.post("/v1/events", ORDER.replace("created", "read")).await.status, 200);
    assert_eq!(world.post("/shop/v1/events", "nonsense").await.status, 400);
    assert_eq!(ask(Method::GET, "/shop/v1/events").await, 405);
    // Neither of these is a publish.
    for path in ["/shop/v1/events/nothing", "/nothing"] {
        assert_eq!(world.post(path, ORDER).await.status, 404);
    }
    assert_eq!(ask(Method::OPTIONS, "/v1/events").await, 200);
    assert_eq!(ask(Method::GET, "/healthz").await, 200);
    world.broker.repeats.store(true, Ordering::SeqCst);
    assert_eq!(world.post("/v1/events", ORDER).await.status, 200);
    let full = AppendError::Full { used_bytes: 9, max_bytes: 8 };
    *world.broker.failure.lock().unwrap() = Some(full);
    assert_eq!(world.post("/v1/events", ORDER).await.status, 507);
    assert_eq!(
        counted(&page(&admin).await),
        [
            "eventbus_published_events_total 1",
            "eventbus_published_bytes_total 11",
            "eventbus_ignored_events_total 1",
            "eventbus_duplicate_events_total 1",
            "eventbus_publish_requests_total{status=\"200\"} 3",
            "eventbus_publish_requests_total{status=\"400\"} 1",
            "eventbus_publish_requests_total{status=\"405\"} 1",
            "eventbus_publish_requests_total{status=\"507\"} 1",
            "eventbus_publish_duration_seconds_count 6",
        ]
    );
}

#[tokio::test]
async fn what_is_refused_in_a_batch_is_counted_by_its_own_status() {
    let (world, admin) = (World::new(), Admin::default());
    admin.metrics.export(world.publish.telemetry.clone());
    world.subscribe("shop", "order.created");
    let batch = format!("[{ORDER},{{}},{}]", ORDER.replace("created", "-"));
    assert_eq!(world.post("/v1/events/batch", batch).await.status, 200);
    let page = page(&admin).await;
    for line in [
        "eventbus_published_events_total 1",
        "eventbus_batch_rejected_events_total{status=\"400\"} 2",
        "eventbus_publish_requests_total{status=\"200\"} 1",
    ] {
        assert!(counted(&page).contains(&line), "{page}");
    }
}

#[tokio::test]
async fn what_a_publisher_began_who_goes_away_is_finished_and_counted() {
    let (world, admin) = (World::new(), Admin::default());
    admin.metrics.export(world.publish.telemetry.clone());
    world.subscribe("shop", "order.created");
    world.broker.hangs.store(true, Ordering::SeqCst);
    let mut post = Box::pin(world.post("/v1/events", ORDER));
    assert!(futures::poll!(&mut post).is_pending());
    drop(post);
    // It waits at the broker, now in a task of its own.
    tokio::task::yield_now().await;
    assert!(world.broker.events().is_empty());
    world.broker.freed.notify_waiters();
    world.publish.unfinished.close();
    world.publish.unfinished.wait().await;
    assert_eq!(world.broker.events().len(), 1);
    let page = page(&admin).await;
    let counted = counted(&page);
    assert!(counted.contains(&"eventbus_published_events_total 1"), "{page}");
    assert!(counted.contains(&"eventbus_publish_requests_total{status=\"200\"} 1"), "{page}");
}

#[tokio::test]
async fn the_broker_is_asked_at_each_scrape() {
    let (broker, admin) = (Arc::<Remembering>::default(), Admin::default());
    admin.metrics.export(BrokerGauges::new(broker.clone(), None));
    let promised = "promised=\"accepted,synced\"} 1";
    let level = format!("eventbus_durability_info{{default=\"synced\",{promised}");
    for (health, wanted) in [
        (BrokerHealth::Usable, vec!["eventbus_broker_up 1", &level]),
        (BrokerHealth::Full, vec!["eventbus_broker_up 1", "eventbus_storage_full 1", &level]),
        (BrokerHealth::Unusable("the disk failed".to_owned()), vec![]),
    ] {
        broker.stats.lock().unwrap().health = health;
        assert_eq!(counted(&page(&admin).await), wanted);
    }
    let mut stats = broker.stats.lock().unwrap().clone();
    (stats.used_bytes, stats.free_bytes) = (7, u64::MAX);
    *broker.stats.lock().unwrap() = stats;
    let most = format!("eventbus_log_free_bytes {}", u64::MAX);
    assert_eq!(counted(&page(&admin).await), ["eventbus_log_bytes 7", &most]);
}

#[tokio::test]
async fn the_level_in_force_is_the_one_that_was_set() {
    let (broker, admin) = (Arc::<Remembering>::default(), Admin::default());
    admin.metrics.export(BrokerGauges::new(broker, Some(Durability::Accepted)));
    let page = page(&admin).await;
    assert!(page.contains("info{default=\"accepted\",promised=\"accepted,synced\"} 1"), "{page}");
}

/// A part that takes its time.
#[derive(Debug)]
struct Slow {
    begun: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Collector for Slow {
    fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
        self.begun.send(()).map_err(|_| fmt::Error)?;
        self.go_on.lock().unwrap().recv().map_err(|_| fmt::Error)
    }
}

fn scrape() -> Request<()> {
    Request::get("/metrics").body(()).unwrap()
}

#[tokio::test]
async fn pages_that_nobody_takes_do_not_pile_up() {
    let admin = Admin::default();
    let mut waiting = Vec::new();
    for wanted in [200, 200, 200, 200, 200, 200, 200, 200, 429] {
        let answer = admin.answer(&scrape()).await.unwrap();
        assert_eq!(answer.status(), wanted, "after {}", waiting.len());
        waiting.push(answer);
    }
    waiting.swap_remove(0);
    assert_eq!(admin.answer(&scrape()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_page_is_read_and_nothing_else() {
    let admin = Admin::default();
    for (method, status) in [(Method::HEAD, 200), (Method::POST, 405), (Method::DELETE, 405)] {
        let request = Request::builder().method(method).uri("/metrics").body(()).unwrap();
        assert_eq!(admin.answer(&request).await.unwrap().status(), status);
    }
}

/// On one thread, which would stand still.
#[tokio::test]
async fn a_page_that_takes_its_time_holds_nobody_up() {
    let (world, admin) = (World::new(), Admin::default());
    world.subscribe("shop", "order.created");
    let (begun, has_begun) = sync_channel(1);
    let (go, go_on) = sync_channel(1);
    admin.metrics.export(Slow { begun, go_on: Mutex::new(go_on) });
    let scraped = tokio::spawn({
        let admin = admin.clone();
        async move { page(&admin).await }
    });
    while has_begun.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Events are taken meanwhile, and parts added.
    assert_eq!(world.post("/v1/events", ORDER).await.status, 200);
    admin.metrics.export(world.publish.telemetry.clone());
    go.send(()).unwrap();
    assert_eq!(counted(&scraped.await.unwrap()), [""; 0], "the page was begun before that");
    go.send(()).unwrap();
    assert!(page(&admin).await.contains("eventbus_published_events_total 1\n"));
}

#[tokio::test]
async fn ten_thousand_subscriptions_are_counted_by_state() {
    let subscriptions = (0..10_000).map(|number| {
        let mut subscription = subscription(&format!("uid-{number}"));
        if number % 10 == 0 {
            subscription.interest.source = Source::from_id("nowhere".into());
        }
        Arc::new(subscription)
    });
    let activations = [("stage".into(), Source::from_id("shop".into()))].into();
    let catalog = Catalog::new(subscriptions, activations).with_broken(["broken".into()]);
    let (_declared, catalog) = watch::channel(Arc::new(catalog));
    let health = Arc::<HealthBoard>::default();
    let failing = Health { delivery: DeliveryHealth::Failing(Outcome::Timeout), backlog: None };
    for number in [1, 2, 3, 10] {
        health.report(&format!("uid-{number}").into(), failing);
    }
    let admin = Admin::default();
    admin.metrics.export(SubscriptionStates { catalog, health });
    let wanted = [("active", 8_997), ("failing", 3), ("inactive", 1_000), ("broken", 1)]
        .map(|(state, count)| format!("eventbus_subscriptions{{state=\"{state}\"}} {count}"));
    assert_eq!(counted(&page(&admin).await), wanted);
}

#[tokio::test]
async fn open_metrics_is_told_to_who_asks_for_it() {
    let (world, admin) = (World::new(), Admin::default());
    admin.metrics.export(world.publish.telemetry.clone());
    let request = Request::get("/metrics").header("accept", "application/openmetrics-text");
    let answer = admin.answer(&request.body(()).unwrap()).await.unwrap();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.headers()["content-type"], content_type);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let page = String::from_utf8(body.to_vec()).unwrap();
    assert!(page.contains("# TYPE eventbus_published_events counter\n"), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
}
