//! When the status writer writes, by a clock that stands still until all has happened.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::Subscription;
use eventbus_core::delivery::Outcome;
use eventbus_core::manifest::SubscriptionStatus;
use eventbus_core::reconcile::{DeliveryHealth, reconcile};
use eventbus_core::testing::ManualClock;
use eventbus_resources::StatusWriter;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::notices::world;

/// What was written: when, of whom, and the reason of `ready`.
type Written = Arc<Mutex<Vec<(Duration, String, String)>>>;

/// A writer over an API that takes every status at once.
fn start(tasks: &mut JoinSet<()>) -> (Arc<StatusWriter>, Written) {
    let written = Written::default();
    let (seen, began) = (written.clone(), Instant::now());
    let service = tower::service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let path = request.uri().path().to_owned();
            let is_status = *request.method() == Method::PATCH && path.ends_with("/status");
            let body = request.into_body().collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            if is_status {
                let name = path.split('/').rev().nth(1).unwrap().to_owned();
                let reason = body["status"]["conditions"][1]["reason"].as_str().unwrap().to_owned();
                seen.lock().unwrap().push((began.elapsed(), name, reason));
            }
            let answer = r#"{"apiVersion":"v1","kind":"X","metadata":{"name":"x"}}"#;
            Ok::<_, Infallible>(Response::new(Body::from(answer.as_bytes().to_vec())))
        }
    });
    let clock = Arc::new(ManualClock::at(1_541_196_521_000));
    let writer = StatusWriter::new(kube::Client::new(service, "default"), clock);
    let running = writer.clone();
    tasks.spawn(async move { running.run().await });
    (writer, written)
}

fn subscription(name: &str, version: u64, status: SubscriptionStatus) -> Arc<Subscription> {
    let mut subscription = eventbus_core::testing::subscription(name);
    subscription.identity.resource_version = version;
    Arc::new(Subscription { status, ..subscription })
}

fn status(delivery: DeliveryHealth) -> SubscriptionStatus {
    let new = subscription("", 1, SubscriptionStatus::default());
    reconcile(&new, world(true, delivery), 1_541_196_521_000)
}

const DELIVERING: DeliveryHealth = DeliveryHealth::Delivering;
const FAILING: DeliveryHealth = DeliveryHealth::Failing(Outcome::Timeout);

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_flaps_causes_a_write_a_second_and_the_latest_is_written() {
    let mut tasks = JoinSet::new();
    let (writer, written) = start(&mut tasks);
    let mut seen = subscription("flaps", 1, status(DELIVERING));
    let step = Duration::from_millis(125);
    let began = Instant::now();
    for turn in 0..80 {
        let wanted = status(if turn % 2 == 0 { FAILING } else { DELIVERING });
        // As the sub-validator does it: what is seen is what was written last.
        if seen.status == wanted {
            writer.settled(&seen.identity.uid);
        } else {
            writer.want(&seen, wanted);
        }
        sleep(step).await;
        let written = written.lock().unwrap();
        let is_failing = written.last().is_some_and(|(_, _, reason)| reason == "EndpointFailing");
        let now = status(if is_failing { FAILING } else { DELIVERING });
        seen = subscription("flaps", 1 + written.len() as u64, now);
    }
    let times: Vec<_> = written.lock().unwrap().iter().map(|(at, ..)| *at).collect();
    assert!(times[0] < step, "the first at once: {times:?}");
    assert!(times.len() > 5 && times.len() <= 11, "{times:?}");
    let apart = |pair: &[Duration]| pair[1] - pair[0] >= Duration::from_secs(1);
    assert!(times.windows(2).all(apart), "{times:?}");
    let last = if seen.status == status(FAILING) { DELIVERING } else { FAILING };
    writer.want(&seen, status(last));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(written.lock().unwrap().len(), times.len() + 1, "nobody had to ask again");
    assert!(began.elapsed() < Duration::from_secs(13));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_are_activated_at_once_while_others_flap() {
    let mut tasks = JoinSet::new();
    let (writer, written) = start(&mut tasks);
    for name in ["a", "b"] {
        writer.want(&subscription(name, 1, status(DELIVERING)), status(FAILING));
    }
    sleep(Duration::from_millis(1)).await;
    for name in ["a", "b"] {
        writer.want(&subscription(name, 2, status(FAILING)), status(DELIVERING));
    }
    for number in 0..10_000 {
        let new = subscription(&number.to_string(), 1, SubscriptionStatus::default());
        writer.want(&new, status(DELIVERING));
    }
    sleep(Duration::from_millis(500)).await;
    let active = written.lock().unwrap().clone();
    assert_eq!(active.len(), 10_002);
    assert_eq!(active.iter().map(|(_, name, _)| name).collect::<HashSet<_>>().len(), 10_002);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(written.lock().unwrap().len(), 10_004);
}
