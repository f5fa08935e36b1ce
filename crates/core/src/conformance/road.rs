//! The road of an event: stored, leased, settled.

use super::world::*;
use super::{Harness, Limits};
use crate::broker::Receipt;
use crate::delivery::Verdict;
use crate::testing::event;

/// An event comes to the cursor that asks for it, as it was published, once, and to no other.
pub async fn an_event_is_stored_leased_and_settled_once(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = broker.open(spec(harness, "orders", "order.created")).await.expect("opened");
    let others = broker.open(spec(harness, "others", "order.deleted")).await.expect("opened");
    let receipts = append(&broker, vec![event("order.created", "one")]).await;
    assert!(matches!(receipts.receipts[..], [Receipt::Stored(_)]), "{receipts:?}");
    let leases = lease(harness, &orders, 10).await;
    assert_eq!(leases.len(), 1);
    assert_eq!(receipts.receipts, [Receipt::Stored(leases[0].position())]);
    assert_eq!(**leases[0].event(), event("order.created", "one"));
    assert_eq!(leases[0].attempts(), 0);
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
    assert!(is_silent(harness, &others).await);
}

/// A lease that is dropped gives its event back, and no attempt is counted.
pub async fn a_dropped_lease_comes_back(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = broker.open(spec(harness, "orders", "a")).await.expect("opened");
    publish(&broker, "a", &["x"]).await;
    drop(lease(harness, &orders, 1).await);
    let leases = lease(harness, &orders, 1).await;
    assert_eq!((payloads(&leases), leases[0].attempts()), (vec!["x".to_owned()], 0));
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}
