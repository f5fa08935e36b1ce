//! What the end of a process leaves.

use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{AppendError, Batch, CursorError, Position};
use crate::delivery::Verdict;
use crate::durability::Durability;
use crate::testing::event;

/// Events, places, retries and attempts are the same after a stop.
pub async fn a_stop_keeps_everything(harness: &dyn Harness) {
    an_end_keeps_everything(harness, End::Stop).await;
}

/// Events, places, retries and attempts are the same after a kill, and what was leased comes again.
pub async fn a_kill_keeps_everything(harness: &dyn Harness) {
    an_end_keeps_everything(harness, End::Kill).await;
}

async fn an_end_keeps_everything(harness: &dyn Harness, end: End) {
    let mut broker = harness.start(Limits::default()).await;
    let mut orders = open(harness, &broker, "orders", "a").await;
    let mut last = Position(0);
    for round in 0..2 {
        let positions = publish(&broker, "a", &["acked", "skipped", "waits", "leased"]).await;
        assert!(positions[0] > last, "position {} is used twice", positions[0]);
        last = positions[3];
        let mut leases = lease_all(harness, &orders, 4).await;
        let expected = ["acked", "skipped", "waits", "leased"];
        assert_eq!(payloads(&leases), expected, "round {round}");
        let leased = leases.pop();
        let due_ms = harness.now_ms() + 1_000;
        settle(&orders, leases.split_off(2), Verdict::Retry { due_ms }).await;
        settle(&orders, leases.split_off(1), Verdict::Skip).await;
        settle(&orders, leases, Verdict::Ack).await;
        // Once more, so that there is something to count.
        pass_until(harness, due_ms).await;
        let waits = lease(harness, &orders, 1).await;
        assert_eq!((payloads(&waits), waits[0].attempts()), (vec!["waits".to_owned()], 1));
        let due_ms = harness.now_ms() + 2_000;
        settle(&orders, waits, Verdict::Retry { due_ms }).await;
        publish(&broker, "a", &["fresh"]).await;

        broker = restart(harness, broker, end, Limits::default()).await;
        orders = open(harness, &broker, "orders", "a").await;
        drop(leased);
        harness.pass(harness.traits().lease_time).await;
        let mut rest = lease_all(harness, &orders, 2).await;
        if rest.iter().any(|lease| payload(lease) == "waits") {
            assert!(harness.now_ms() >= due_ms, "a retry came before its time");
        } else {
            pass_until(harness, due_ms).await;
        }
        while rest.len() < 3 {
            rest.extend(lease(harness, &orders, 3 - rest.len()).await);
        }
        rest.sort_by_key(|lease| lease.position());
        assert_eq!(payloads(&rest), ["waits", "leased", "fresh"], "round {round}");
        let attempts: Vec<_> = rest.iter().map(|lease| lease.attempts()).collect();
        assert_eq!(attempts, [2, 0, 0], "round {round}");
        settle(&orders, rest, Verdict::Ack).await;
        assert!(is_silent(harness, &orders).await);
    }
}

/// What was acknowledged at any level that survives a process is there after a kill at once after.
pub async fn what_was_acknowledged_survives_a_kill(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    open(harness, &broker, "orders", "a").await;
    let levels = broker.capabilities().durabilities;
    let mut expected = Vec::new();
    for level in levels.iter().filter(|level| **level >= Durability::Written) {
        for atomic in [false, true] {
            let payloads: Vec<_> = (0..10).map(|n| format!("{level} {atomic} {n}")).collect();
            let events = payloads.iter().map(|payload| event("a", payload.clone())).collect();
            broker.append(Batch { events, atomic }, *level).await.expect("it is stored");
            broker = restart(harness, broker, End::Kill, Limits::default()).await;
            expected.extend(payloads);
        }
    }
    let orders = open(harness, &broker, "orders", "a").await;
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    takes(harness, &orders, &expected).await;
}

/// A batch that must stand together is there whole or not at all, whenever its process ends.
pub async fn an_atomic_batch_is_whole_or_not_there(harness: &dyn Harness) {
    const EVENTS: usize = 20;
    let mut broker = harness.start(Limits::default()).await;
    open(harness, &broker, "orders", "a").await;
    let level = broker.capabilities().default_durability;
    for round in 0..6 {
        let events = (0..EVENTS).map(|n| event("a", format!("{round} {n:300}"))).collect();
        let appending = broker.append(Batch { events, atomic: true }, level);
        let appended = within(harness, Duration::from_millis(round), appending).await;
        broker = restart(harness, broker, End::Kill, Limits::default()).await;
        let orders = open(harness, &broker, "orders", "a").await;
        let mut came = 0;
        if appended.is_some() {
            let leases = lease_all(harness, &orders, EVENTS).await;
            came += leases.len();
            settle(&orders, leases, Verdict::Ack).await;
        }
        while let Some(leases) = lease_within(harness, SILENCE, &orders, EVENTS).await {
            came += leases.len();
            assert!(leases.iter().all(|lease| payload(lease).starts_with(&format!("{round} "))));
            settle(&orders, leases, Verdict::Ack).await;
        }
        assert!(came == EVENTS || came == 0 && appended.is_none(), "{came} of {EVENTS} are there");
    }
}

/// Batches that must stand together do so beside a hundred others.
pub async fn many_atomic_batches_are_stored_at_once(harness: &dyn Harness) {
    const BATCHES: usize = 100;
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let level = broker.capabilities().default_durability;
    let batches = (0..BATCHES).map(|batch| {
        let events = (0..3).map(|n| event("a", format!("{batch} {n}"))).collect();
        broker.append(Batch { events, atomic: true }, level)
    });
    for stored in futures::future::join_all(batches).await {
        assert_eq!(stored.expect("it is stored").receipts.len(), 3);
    }
    let leases = lease_all(harness, &orders, 3 * BATCHES).await;
    let payloads: std::collections::HashSet<_> = leases.iter().map(payload).collect();
    assert_eq!(payloads.len(), 3 * BATCHES);
}

/// A broker that is closed says so to everybody.
pub async fn a_closed_broker_says_so(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let waiting = within(harness, PATIENCE, orders.lease(at_most(1)));
    let closing = async {
        harness.sleep(SILENCE).await;
        broker.close().await.expect("it stops cleanly");
    };
    let (told, ()) = futures::join!(waiting, closing);
    assert_eq!(told.expect("an answer").map(drop), Err(CursorError::Closed));
    let level = broker.capabilities().default_durability;
    let refused = broker.append(Batch::of_one(event("a", "x")), level).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    let refused = orders.lease(at_most(1)).await.map(drop);
    assert_eq!(refused, Err(CursorError::Closed));
}
