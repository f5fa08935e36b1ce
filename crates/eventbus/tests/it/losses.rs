//! What the status of a Subscription tells of what it loses, with the whole program.

use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};

use crate::cluster::{Cluster, over_each_api_server};
use crate::program::within;
use crate::resources::subscription;
use crate::served::Bus;
use crate::subscriber::Subscriber;

/// Segments of 1 MiB; a Subscription may hold back two of them.
const SMALL: [&str; 4] = ["--max-bytes", "8388608", "--max-event-bytes", "200000"];

/// Waits until `ready` of `stage/orders` is of `reason` and says what matches; returns what the
/// first group of it matched.
async fn said(bus: &Bus, reason: &str, matching: &str) -> String {
    let matching = Regex::new(matching).unwrap();
    let told = |ready: &Value| {
        let found = matching.captures(ready["message"].as_str().unwrap_or_default());
        found.filter(|_| ready["reason"] == reason).map(|found| found[1].to_owned())
    };
    bus.until("orders", "ready", told).await
}

over_each_api_server! { losses_are_warned_of_counted_and_not_forgotten }

async fn losses_are_warned_of_counted_and_not_forgotten(cluster: Option<&Cluster>) {
    let mut bus = Bus::over(cluster, &SMALL).await;
    let subscriber = Subscriber::start().await;
    bus.create(&subscription("orders", "order.created", &subscriber.url())).await;
    let large = json!("x".repeat(100_000));
    for _ in 0..12 {
        bus.publish("order.created", &large).await;
    }
    let percent = said(&bus, "NotActivated", r" of 2097152 bytes \((\d+) %\), and at 100 %").await;
    assert_eq!(percent, "57");

    for _ in 0..28 {
        bus.publish("order.created", &large).await;
    }
    let lost = r"; (\d+) events were lost to retention";
    said(&bus, "NotActivated", lost).await;
    bus.activate().await;
    let told = async {
        loop {
            let lost: usize = said(&bus, "BacklogTruncated", lost).await.parse().unwrap();
            if lost + subscriber.payloads().len() == 40 {
                return lost;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let count = within(told).await;

    assert_eq!(bus.stop().await, 0);
    bus.start_again(&SMALL).await;
    assert_eq!(said(&bus, "Delivering", lost).await, count.to_string());
}
