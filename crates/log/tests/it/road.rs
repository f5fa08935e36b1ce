//! The road of an event through the log, and what a restart keeps.

use std::time::Duration;

use eventbus_core::broker::{AppendError, CursorError, CursorId, Position, Receipt};
use eventbus_core::delivery::Verdict;
use eventbus_core::{Batch, Broker, Durability};

use crate::support::*;

#[tokio::test]
async fn an_event_is_stored_leased_and_settled_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let orders = cursor(&log, "orders", "order.created").await;
    let others = cursor(&log, "others", "order.deleted").await;
    for durability in [Durability::Synced, Durability::Written] {
        let receipts =
            log.append(Batch::of_one(event("order.created", "one")), durability).await.unwrap();
        assert!(matches!(receipts.receipts[..], [Receipt::Stored(_)]));
        let leases = lease(&orders, 10).await;
        assert_eq!(payloads(&leases), ["one"]);
        assert_eq!(leases[0].event().as_ref(), &event("order.created", "one"));
        orders.settle(acks(leases)).await.unwrap();
        assert_eq!(orders.stats().lag_events, 0);
    }
    assert_eq!(others.stats().lag_events, 0);
    let accepted = log.append(Batch::of_one(event("order.deleted", "x")), Durability::Accepted);
    assert_eq!(accepted.await.unwrap().receipts, [Receipt::Accepted]);
    assert_eq!(payloads(&lease(&others, 1).await), ["x"]);
    let refused = log.append(Batch::of_one(event("a", "x")), Durability::Replicated).await;
    assert_eq!(refused, Err(AppendError::Durability(Durability::Replicated)));
    log.close().await.unwrap();
    let closed = log.append(Batch::of_one(event("a", "x")), Durability::Synced).await;
    assert!(matches!(closed, Err(AppendError::Unavailable(_))));
    assert!(matches!(
        orders.lease(std::num::NonZeroUsize::MIN).await.map(drop),
        Err(CursorError::Closed)
    ));
}

#[tokio::test]
async fn a_restart_keeps_events_and_places() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let log = open(dir.path(), &clock);
    let orders = cursor(&log, "orders", "a").await;
    let events: Vec<_> = (0..5).map(|n| event("a", format!("{n}"))).collect();
    let batch = Batch { events, atomic: true };
    let receipts = log.append(batch, Durability::Synced).await.unwrap();
    let positions: Vec<_> = (1..=5).map(|n| Receipt::Stored(Position(n))).collect();
    assert_eq!(receipts.receipts, positions);
    let mut leases = lease(&orders, 3).await;
    let retry = Verdict::Retry { due_ms: START_MS + 10_000 };
    let last = leases.pop().unwrap();
    let turn = vec![settled(leases.remove(0), retry), settled(leases.remove(0), Verdict::Ack)];
    orders.settle(turn).await.unwrap();
    drop(last);
    log.close().await.unwrap();
    drop((log, orders));

    let log = open(dir.path(), &clock);
    assert_eq!(log.cursors().await.unwrap(), [CursorId("orders".into())]);
    let orders = cursor(&log, "orders", "a").await;
    assert_eq!(orders.stats().lag_events, 4);
    assert_eq!(orders.stats().waiting_events, 1);
    let leases = lease(&orders, 9).await;
    assert_eq!(payloads(&leases), ["2"]);
    orders.settle(acks(leases)).await.unwrap();
    let leases = lease(&orders, 9).await;
    assert_eq!(payloads(&leases), ["3", "4"]);
    orders.settle(acks(leases)).await.unwrap();
    clock.advance(Duration::from_secs(10));
    let leases = lease(&orders, 9).await;
    assert_eq!((payloads(&leases), leases[0].attempts()), (vec!["0".to_owned()], 1));
    orders.settle(acks(leases)).await.unwrap();
    let more = log.append(Batch::of_one(event("a", "5")), Durability::Synced).await.unwrap();
    assert_eq!(more.receipts, [Receipt::Stored(Position(6))]);
    assert_eq!(payloads(&lease(&orders, 9).await), ["5"]);
}

#[tokio::test]
async fn a_dropped_lease_comes_back_and_a_forgotten_cursor_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let orders = cursor(&log, "orders", "a").await;
    log.append(Batch::of_one(event("a", "x")), Durability::Written).await.unwrap();
    drop(lease(&orders, 1).await);
    let leases = lease(&orders, 1).await;
    assert_eq!(leases[0].attempts(), 0);
    log.forget(CursorId("orders".into())).await.unwrap();
    orders.settle(acks(leases)).await.unwrap();
    let refused = orders.lease(std::num::NonZeroUsize::MIN).await;
    assert_eq!(refused.map(drop), Err(CursorError::Forgotten));
    assert!(log.cursors().await.unwrap().is_empty());
    drop(log);
    assert!(open(dir.path(), &clock()).cursors().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lease_that_is_given_up_leases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let orders = cursor(&log, "orders", "a").await;
    let waiting = tokio::time::timeout(Duration::from_millis(20), lease(&orders, 1)).await;
    assert!(waiting.is_err(), "there is nothing yet");
    log.append(Batch::of_one(event("a", "x")), Durability::Written).await.unwrap();
    assert_eq!(payloads(&lease(&orders, 1).await), ["x"]);
}
