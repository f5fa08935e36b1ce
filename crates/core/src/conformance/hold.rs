//! What is leased: as much as was asked for, by nobody else, for as long as it takes.

use std::collections::BTreeSet;

use super::world::*;
use super::{Harness, Limits};
use crate::delivery::Verdict;

/// A lease gives no more than its limit, and what is leased is not leased again.
pub async fn no_more_is_leased_than_asked_for(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish_many(&broker, "a", 30, 0).await;
    let (mut held, mut seen) = (Vec::new(), BTreeSet::new());
    while held.len() < 30 {
        let limit = 1 + held.len() % 4;
        for lease in lease(harness, &orders, limit).await {
            assert!(seen.insert(lease.position()), "{lease:?} is leased already");
            held.push(lease);
        }
    }
    assert!(is_silent(harness, &orders).await);
    until(harness, "all are leased", || orders.stats().leased_events == 30).await;
    settle(&orders, held, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// A lease holds for as long as its process lives, and others go on beside it.
pub async fn a_lease_holds_however_long_it_takes(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["slow", "slower"]).await;
    let held = lease_all(harness, &orders, 2).await;
    harness.pass(harness.traits().lease_time * 3 / 2).await;
    publish(&broker, "a", &["fast"]).await;
    takes(harness, &orders, &["fast"]).await;
    settle(&orders, held, Verdict::Ack).await;
    harness.pass(harness.traits().lease_time * 3 / 2).await;
    assert!(is_silent(harness, &orders).await);
}
