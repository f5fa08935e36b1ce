//! What `/metrics` tells of the publish port and of its broker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eventbus_core::Durability;
use eventbus_core::broker::{AppendError, BrokerHealth};
use eventbus_server::Admin;
use eventbus_server::admin::BrokerGauges;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};

use crate::world::{ORDER, Remembering, World};

/// The page that a scrape gets.
async fn page(admin: &Admin) -> String {
    let answer = admin.answer(&Request::get("/metrics").body(()).unwrap()).await.unwrap();
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
